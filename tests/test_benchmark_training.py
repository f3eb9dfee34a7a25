"""The benchmark's own code on a small shape: what it will do on a card it does here on the processor."""

import pytest

pytestmark = pytest.mark.slow


def test_made_up_lengths_are_those_of_chats():
    from statistics import median

    from benchmark_training import NUM_CONVERSATIONS, make_conversations

    for vocab_size, number in NUM_CONVERSATIONS.items():
        rows = make_conversations(vocab_size, number, seed=0)
        assert 90 <= median(len(row["input_ids"]) for row in rows) <= 110
        assert all(min(row["input_ids"]) > 0 and max(row["input_ids"]) < vocab_size for row in rows)


def test_published_loss_and_ours_are_the_same_number():
    from benchmark_training import objective_difference

    assert objective_difference() < 1e-5


def test_card_measurement_runs_on_a_small_shape(tmp_path):
    import torch
    from benchmark_training import make_conversations
    from benchmark_training_gpu import measure_ours, most_supervised_share, write_random_base
    from transformers import MistralConfig

    from common.base_model_files import check_base_folder
    from common.compute_device import Device

    config = MistralConfig(
        vocab_size=512,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
    )
    write_random_base(config, tmp_path)
    check_base_folder(tmp_path)
    conversations = make_conversations(512, 16, seed=0)
    assert 0 < most_supervised_share(conversations, 512) <= 1
    measured = measure_ours(tmp_path, Device("cpu", torch.float32, is_quantized=True), conversations, 512)
    assert measured["tokens_per_second"] > 0
