"""Norms in one kernel compute what the library's norms compute; what is no plain norm stays the library's."""

import pytest
import torch
from base_families import FAMILIES, make_config
from transformers import AutoModelForCausalLM

from common.fused_layers import fuse_norms

INPUT_IDS = torch.arange(5, 69)[None]
# The norms of two blocks and the last one; Gemma 2 and 3 multiply by one more than the weight, Phi 2 and GPT-NeoX have
# layer norms. Gemma 4 has sixteen with a weight.
NUM_NORMS = {"qwen3": 9, "gemma2": 0, "gemma3": 0, "gemma4": 16, "phi2": 0, "gpt_neox": 0}


def make_model(family, dtype=torch.float32):
    """A base whose norms have weights as after training; its other parameters, not the norms', take gradients."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(make_config(family)).to(dtype)
    for name, parameter in model.named_parameters():
        if "norm" in name:
            parameter.data += 0.2 * torch.randn_like(parameter)
            parameter.requires_grad_(False)
    return model


def step(model):
    """The logits and all gradients, as two vectors."""
    logits = model(input_ids=INPUT_IDS, use_cache=False).logits.float()
    torch.nn.functional.cross_entropy(logits[0, :-1], INPUT_IDS[0, 1:]).backward()
    gradients = [parameter.grad.flatten() for parameter in model.parameters() if parameter.requires_grad]
    return logits.detach().flatten(), torch.cat(gradients).float()


@pytest.mark.parametrize("family", FAMILIES)
def test_outputs_and_gradients_are_those_of_the_library(family):
    model, fused = make_model(family), make_model(family)
    assert fuse_norms(fused) == NUM_NORMS.get(family, 5)
    for ours, theirs in zip(step(fused), step(model), strict=True):
        assert (ours - theirs).norm() <= 1e-5 * theirs.norm()


def test_half_precision_stays_half_precision_under_autocast():
    """As on a card: where activations become fp32, they take twice the time and memory."""
    exact, rounded, fused = make_model("mistral"), *(make_model("mistral", torch.bfloat16) for _ in range(2))
    fuse_norms(fused)
    norm = fused.model.layers[0].input_layernorm
    with torch.autocast("cpu", torch.bfloat16):
        assert norm(torch.randn(1, 4, 96).bfloat16()).dtype == torch.bfloat16
        assert norm(torch.randn(1, 4, 96)).dtype == torch.float32  # the library's way
        results = [step(model) for model in (rounded, fused)]
    for kind, expected in enumerate(step(exact)):
        theirs, ours = ((result[kind] - expected).norm() for result in results)
        assert ours < 1.2 * theirs
