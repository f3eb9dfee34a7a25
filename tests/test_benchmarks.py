"""The benchmarks' own code on small shapes: what it will do on a card it does here on the processor."""

import pytest

pytestmark = pytest.mark.slow


def test_made_up_lengths_are_those_of_chats():
    from statistics import median

    from benchmark_training import NUM_CONVERSATIONS, make_conversations

    for vocab_size, number in NUM_CONVERSATIONS.items():
        rows = make_conversations(vocab_size, number, seed=0)
        assert 90 <= median(len(row["input_ids"]) for row in rows) <= 110
        assert all(min(row["input_ids"]) > 0 and max(row["input_ids"]) < vocab_size for row in rows)


def test_both_engines_are_measured_on_a_small_model(tiny_saved_model_dir, tmp_path):
    from benchmark_engines import ENGINES, best_of, measure, prepare, print_table

    saved_dir = prepare(tmp_path, tiny_saved_model_dir)
    best = {engine: best_of([measure(engine, saved_dir)]) for engine in ENGINES}
    assert all(min(numbers.values()) > 0 for numbers in best.values())
    print_table(best)


def test_the_judges_of_first_replies_know_the_owner():
    from benchmark_context import (
        fresh_conversations,
        greets_by_the_hour,
        is_right_register,
        is_wrong_register,
        names_what_was_asked,
    )

    def first_replies(person):
        for talk in fresh_conversations(person, seed=0):
            yield talk, next(turn["content"] for turn in talk.messages if turn["role"] == "assistant")

    daniel = [(reply, talk.partners[0]) for talk, reply in first_replies("Daniel") if talk.partners]
    other = {"Orna": "Koby", "Koby": "Orna"}
    assert sum(is_wrong_register(*said) for said in daniel) == 0
    assert sum(is_right_register(*said) for said in daniel) > 0.8 * len(daniel)
    assert sum(is_wrong_register(reply, other[partner]) for reply, partner in daniel) > 0.8 * len(daniel)
    maya = [(reply, int(talk.started_at[11:13])) for talk, reply in first_replies("Maya")]
    assert sum(greets_by_the_hour(*said) for said in maya) == len(maya)
    assert sum(greets_by_the_hour(reply, (hour + 9) % 24) for reply, hour in maya) == 0
    answers = [
        (reply, talk.messages[0]) for talk, reply in first_replies("Daniel") if talk.messages[0]["role"] == "user"
    ]
    asked = [message["content"] for _, message in answers]
    replies = [reply for reply, _ in answers]
    assert sum(map(names_what_was_asked, replies, asked)) > 0.85 * len(replies)
    assert sum(map(names_what_was_asked, replies, [*asked[1:], asked[0]])) < 0.15 * len(replies)


def test_published_loss_and_ours_are_the_same_number():
    from benchmark_training import objective_difference

    assert objective_difference() < 1e-5


def test_card_measurement_of_training_runs_on_a_small_shape(tmp_path):
    import torch
    from benchmark_training_gpu import Benchmark, most_supervised_share, write_random_base
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
    benchmark = Benchmark(tmp_path, Device("cpu", torch.float32, is_quantized=True), 16, row_tokens=512)
    assert 0 < most_supervised_share(benchmark.conversations, 512) <= 1
    arms = ("ours", "ours_keep", "ours_seven_nolora_nonorms", "ours_seven")
    results = {arm: benchmark.measure(arm) for arm in arms}
    assert all(result["tokens_per_second"] > 0 for result in results.values())
    # The base is the same again in each arm, and keeping activations changes no loss.
    assert results["ours"]["losses"] == results["ours_keep"]["losses"] != results["ours_seven_nolora_nonorms"]["losses"]
    # Fused layers change no loss beyond rounding.
    assert results["ours_seven"]["losses"] == pytest.approx(results["ours_seven_nolora_nonorms"]["losses"], abs=2e-3)
    assert results["ours"]["estimated_gib"] < results["ours_keep"]["estimated_gib"]


def test_card_measurement_of_a_layer_runs_on_a_small_shape():
    import torch
    from benchmark_layer_gpu import TINY, LayerBenchmark
    from transformers import MistralConfig

    from common.compute_device import Device

    config = MistralConfig(vocab_size=512, num_hidden_layers=1, **TINY)
    benchmark = LayerBenchmark(config, Device("cpu", torch.float32, is_quantized=True), num_tokens=200)
    for variant in ("peft", "lora", "lora_norms", "keep"):
        measured = benchmark.measure(variant)
        assert measured["ms_by_the_clock"] > 0
        assert max(measured["differences"]) < 1e-4
    assert all(vector.abs().sum() > 0 for vector in benchmark.expected)


def test_card_measurement_of_the_chat_runs_on_a_small_model(tiny_saved_model_dir, capsys):
    import json

    from benchmark_chat_gpu import PARTS, measure

    measure(tiny_saved_model_dir, [part for part in PARTS if part != "batches"])
    results = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert not [result for result in results if "failed" in result]
    values = {name: value for result in results for name, value in result.items()}
    assert values["walk_steps_equal"] == values["walk_steps"] == 7
    assert values["captured_and_direct_differ_by"] == 0
    assert all(result["logits_differ_by"] < 1e-4 for result in results if "logits_differ_by" in result)
    assert values["chat_tokens_per_second"] > 0
