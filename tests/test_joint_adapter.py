"""Layers in fewer kernels: the library's outputs."""

import torch
from joint_adapter import join_adapter_products
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

ADAPTED = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head"]


def make_adapted(base_dir, targets):
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(base_dir)
    model = get_peft_model(base, LoraConfig(r=4, lora_alpha=12, target_modules=targets, task_type="CAUSAL_LM")).eval()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def logits_of(model):
    with torch.no_grad():
        return model(input_ids=torch.arange(5, 25).view(2, 10)).logits


def test_joint_products_give_the_library_s_outputs_with_and_without_the_adapter(tiny_base_dir):
    for targets in (ADAPTED, ["v_proj", "up_proj"]):
        model = make_adapted(tiny_base_dir, targets)
        expected = logits_of(model)
        with model.disable_adapter():
            base = logits_of(model)
        assert join_adapter_products(model, torch.float32) == len([t for t in targets if t != "lm_head"]) * 2 + (
            "lm_head" in targets
        )
        assert (logits_of(model) - expected).abs().max() < 1e-4 * (expected - base).abs().max()
        with model.disable_adapter():
            assert torch.equal(logits_of(model), base)
        assert torch.equal(logits_of(model), logits_of(model))


def test_each_input_is_multiplied_anew(tiny_base_dir):
    model = make_adapted(tiny_base_dir, ADAPTED)
    join_adapter_products(model, torch.float32)
    alone = logits_of(model)
    with torch.no_grad():
        model(input_ids=torch.arange(40, 60).view(1, 20))
    assert torch.equal(logits_of(model), alone)
