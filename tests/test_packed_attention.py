"""Attention by segments: a packed row gives what its conversations give alone; the check before training finds leaks."""

import json

import pytest
import torch
from base_families import UNPACKABLE, make_config
from fine_tuning_model import load_model
from head_loss import compute_loss_in_blocks
from packed_attention import (
    SEGMENT_ATTENTION,
    attend_within_segments,
    choose_attention,
    find_packing_fault,
    register_segment_attention,
)
from packing import collate_row
from peft import LoraConfig, get_peft_model
from prepared_run import prepare_run
from qlora_model import add_lora
from torch.nn.functional import cosine_similarity, cross_entropy, scaled_dot_product_attention
from training_options import parse_options
from transformers import AutoModelForCausalLM, BertConfig, Gemma2Config, GPT2Config, MistralConfig

from common.base_model_files import find_base
from common.conversation_data import read_training_data
from common.script import ScriptError

register_segment_attention()


def make_model(attention, sliding_window=None):
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=99, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, sliding_window=sliding_window, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa", dtype=torch.float32)
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "lm_head"], task_type="CAUSAL_LM"))
    model.set_attn_implementation(attention)
    return adapted.eval()


def make_chunks(*lengths):
    torch.manual_seed(1)
    return [
        {
            "input_ids": [1, *torch.randint(3, 99, (length - 1,)).tolist()],
            "is_supervised": [False] + [n % 3 != 0 for n in range(1, length)],
        }
        for length in lengths
    ]


def summed_loss_and_gradient(model, rows):
    model.zero_grad()
    loss = sum(model(**collate_row([row]), num_items_in_batch=1).loss for row in rows)
    loss.backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    return loss.item(), torch.cat([gradient.flatten() for gradient in gradients])


@pytest.mark.parametrize("sliding_window", [None, 16])
def test_packed_loss_and_gradient_are_those_of_separate_rows(sliding_window):
    chunks = make_chunks(40, 7, 61, 3)
    packed = summed_loss_and_gradient(make_model(SEGMENT_ATTENTION, sliding_window), [chunks])
    alone = summed_loss_and_gradient(make_model("sdpa", sliding_window), [[chunk] for chunk in chunks])
    assert packed[0] == pytest.approx(alone[0], rel=1e-5)
    torch.testing.assert_close(packed[1], alone[1], rtol=1e-4, atol=1e-5)


def test_the_check_passes_a_sound_model_of_both_kinds():
    chunks = make_chunks(40, 61)
    assert find_packing_fault(make_model(SEGMENT_ATTENTION), chunks) is None
    assert find_packing_fault(make_model("sdpa"), chunks) is None


def attend_to_everything_before(module, query, key, value, attention_mask, scaling=None, **_extras):
    """What a model does that ignores the borders."""
    output = scaled_dot_product_attention(query, key, value, is_causal=True, scale=scaling, enable_gqa=True)
    return output.transpose(1, 2).contiguous(), None


def attend_too_strongly(module, query, key, value, attention_mask, scaling=None, **extras):
    """What a model does whose own attention has something that ours lacks."""
    return attend_within_segments(module, query, key, value, attention_mask, scaling=2 * scaling, **extras)


@pytest.mark.parametrize(
    ("attention", "fault"),
    [(attend_to_everything_before, "see each other"), (attend_too_strongly, "different losses")],
)
def test_the_check_finds_a_model_that_leaks_or_computes_otherwise(attention, fault):
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(attention.__name__, attention)
    AttentionMaskInterface.register(attention.__name__, lambda *_args, **_kwargs: None)
    assert fault in find_packing_fault(make_model(attention.__name__), make_chunks(40, 61))


def test_a_model_that_ours_cannot_serve_attends_in_its_own_way():
    """Gemma 2 caps its attention scores."""
    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=99, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, head_dim=8,
        num_key_value_heads=2, attn_logit_softcapping=5.0, sliding_window=16, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM")).eval()
    assert choose_attention(adapted, make_chunks(40, 61)) is None
    assert model.config._attn_implementation == "eager"


def test_a_sound_model_attends_by_segments():
    model = make_model("eager")
    assert choose_attention(model, make_chunks(40, 61)) is None
    assert model.get_base_model().config._attn_implementation == SEGMENT_ATTENTION


def test_the_check_takes_a_single_short_chunk():
    (chunk,) = make_chunks(3)
    assert find_packing_fault(make_model(SEGMENT_ATTENTION), [chunk]) is None


def test_what_it_cannot_do_is_refused():
    states = torch.zeros(1, 2, 4, 8)
    borders = torch.tensor([0, 4], dtype=torch.int32)
    with pytest.raises(ValueError, match="borders"):
        attend_within_segments(None, states, states, states, None)
    with pytest.raises(ValueError, match="adds to attention"):
        attend_within_segments(None, states, states, states, None, cu_seq_lens_q=borders, softcap=30.0)


def make_base(family):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(make_config(family), dtype=torch.float32)


@pytest.mark.parametrize("family", UNPACKABLE)
def test_where_no_attention_keeps_segments_apart_each_is_read_alone(family):
    base = make_base(family)
    compute_loss_in_blocks(base)
    model = add_lora(base, rank=4, alpha=8, dropout=0.0)
    plain = add_lora(make_base(family), rank=4, alpha=8, dropout=0.0)
    for adapted in (model, plain):
        torch.manual_seed(1)
        for _, parameter in sorted(adapted.named_parameters()):
            if parameter.requires_grad:
                parameter.data = 0.1 * torch.randn(parameter.shape)
    chunks = make_chunks(40, 7, 61)
    assert choose_attention(model, [chunks[0], chunks[2]]) is None
    packed = summed_loss_and_gradient(model, [chunks])

    plain.zero_grad()
    expected = torch.zeros(())
    for chunk in chunks:  # what the library alone computes
        ids = torch.tensor([chunk["input_ids"]])
        logits = plain(input_ids=ids, use_cache=False).logits[0, :-1]
        wanted = torch.tensor(chunk["is_supervised"][1:])
        expected = expected + cross_entropy(logits[wanted], ids[0, 1:][wanted], reduction="sum")
    expected.backward()
    gradient = torch.cat([parameter.grad.flatten() for parameter in plain.parameters() if parameter.grad is not None])
    assert packed[0] == pytest.approx(expected.item(), rel=1e-5)
    assert cosine_similarity(packed[1], gradient, dim=0) > 0.9999


def make_foreseeing_base(vocab_size):
    """A model that fills gaps: each of its tokens sees the whole text."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=vocab_size, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        initializer_range=0.3,
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def test_a_base_with_dropout_of_its_own_is_no_reason_to_refuse_it():
    base = AutoModelForCausalLM.from_config(GPT2Config(vocab_size=99, n_embd=32, n_layer=2, n_head=2, resid_pdrop=0.5))
    compute_loss_in_blocks(base)
    model = add_lora(base, rank=4, alpha=8, dropout=0.0)
    assert model.training
    chunks = [{"input_ids": [0, *range(5, end)], "is_supervised": [True] * (end - 4)} for end in (45, 66)]
    assert choose_attention(model, chunks) is None


def test_a_base_whose_tokens_see_what_follows_is_refused():
    base = make_foreseeing_base(vocab_size=99)
    compute_loss_in_blocks(base)
    model = add_lora(base, rank=4, alpha=8, dropout=0.0)
    chunks = [{"input_ids": [0, *range(5, end)], "is_supervised": [True] * (end - 4)} for end in (45, 66)]
    assert "a token depends on those after it" in choose_attention(model, chunks)


@pytest.fixture
def foreseeing_run(tmp_path, tiny_tokenizer, sample_conversations):
    """A run of that base, up to where the model is loaded."""
    base_dir, data_path = tmp_path / "base", tmp_path / "data.jsonl"
    make_foreseeing_base(len(tiny_tokenizer)).save_pretrained(base_dir)
    tiny_tokenizer.save_pretrained(base_dir)
    data_path.write_text("".join(json.dumps({"messages": talk}) + "\n" for talk in sample_conversations))
    block = {
        "base_model_id": str(base_dir),
        "path_to_data": str(data_path),
        "saved_model_path": str(tmp_path / "model"),
    }
    options = parse_options("", block, 0, ["--device", "cpu", "--threads", "1"])
    return prepare_run(options, read_training_data(data_path), find_base(str(base_dir), tmp_path))


def test_the_script_refuses_such_a_base_in_one_line_with_the_cure(foreseeing_run):
    with pytest.raises(ScriptError) as refusal:
        load_model(foreseeing_run, gradient_checkpointing=False)
    message = str(refusal.value)
    assert message.startswith(f"{foreseeing_run.base.name}: a token depends on those after it (loss changes by ")
    assert message.endswith("; choose another base model")
    assert "\n" not in message
