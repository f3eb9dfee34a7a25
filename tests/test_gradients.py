"""The gradients of training stay right when the model is evaluated in between, on every processor and for every family.

Where a processor has avx512_bf16, bitsandbytes repacks 4-bit layers for inference, into a layout without a backward pass.
"""

import pytest
import torch
from base_families import FAMILIES, load_with_lora, write_base
from bitsandbytes.functional import has_avx512bf16
from head_loss import compute_loss_in_blocks
from packed_attention import choose_attention, register_segment_attention
from small_runs import CPU
from torch.nn.functional import cosine_similarity, cross_entropy

register_segment_attention()

INPUT_IDS = torch.arange(5, 69)[None]


@pytest.fixture(scope="module", params=FAMILIES)
def family_base_dir(request, tmp_path_factory):
    return write_base(request.param, tmp_path_factory.mktemp(request.param))


def gradient(model):
    """All gradients of one training step, as one vector."""
    model.get_base_model().set_attn_implementation("eager")
    model.train()
    model.zero_grad()
    logits = model(input_ids=INPUT_IDS, use_cache=False).logits
    cross_entropy(logits[0, :-1].float(), INPUT_IDS[0, 1:]).backward()
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters() if parameter.requires_grad])


def test_an_evaluation_leaves_the_gradient_as_it_was(family_base_dir):
    model = load_with_lora(family_base_dir, CPU)
    before = gradient(model)
    model.eval()
    with torch.no_grad():
        model(input_ids=INPUT_IDS, use_cache=False)
    assert cosine_similarity(before, gradient(model), dim=0) > 0.999


def test_the_check_of_packing_leaves_the_gradient_as_it_was(family_base_dir):
    checked = load_with_lora(family_base_dir, CPU)
    compute_loss_in_blocks(checked.get_base_model())
    chunks = [{"input_ids": list(range(first, first + 40)), "is_supervised": [True] * 40} for first in (5, 50)]
    assert choose_attention(checked, chunks) is None
    assert cosine_similarity(gradient(load_with_lora(family_base_dir, CPU)), gradient(checked), dim=0) > 0.999


@pytest.mark.skipif(not has_avx512bf16(), reason="this processor has no avx512_bf16: bitsandbytes repacks nothing here")
def test_no_layer_is_repacked_for_inference(family_base_dir):
    model = load_with_lora(family_base_dir, CPU).eval()
    with torch.no_grad():
        model(input_ids=INPUT_IDS, use_cache=False)
    states = [module.weight.quant_state for module in model.modules() if hasattr(module, "support_avx512bf16_for_cpu")]
    assert states
    assert not any(getattr(state, "packing_format_for_cpu", False) for state in states)
