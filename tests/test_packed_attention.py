"""Attention by segments: a packed row gives what its conversations give alone; the check before training finds leaks."""

import pytest
import torch
from packed_attention import (
    SEGMENT_ATTENTION,
    attend_within_segments,
    choose_attention,
    find_packing_fault,
    register_segment_attention,
)
from packing import collate_row
from peft import LoraConfig, get_peft_model
from torch.nn.functional import scaled_dot_product_attention
from transformers import AutoModelForCausalLM, Gemma2Config, MistralConfig

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
