"""Fused LoRA layers compute what peft's layers compute: outputs, gradients, and what a training makes of them."""

import contextlib
import dataclasses

import pytest
import torch
from adapter_trainer import make_training_arguments
from base_families import FAMILIES, load_with_lora, write_base
from bitsandbytes.nn import Linear4bit
from fused_lora import fuse_lora
from head_loss import compute_loss_in_blocks
from packed_attention import choose_attention, register_segment_attention
from packing import PackedRows, collate_row, plan_schedule
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from qlora_model import add_lora, enable_gradient_checkpointing, load_quantized_base
from recipes import FUSED_OPTIMIZER, Recipe
from small_runs import CPU
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM, Trainer, set_seed

register_segment_attention()

INPUT_IDS = torch.arange(5, 69)[None]
NUM_LAYERS = 2
# The layers of one block that are fused; those of the other families have the names of Llama.
FUSED_LAYERS = {"gemma4": 9, "phi3": 4, "phi2": 6, "gpt_neox": 4}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def base_dirs(tmp_path_factory):
    """A function that returns the folder of a tiny base of a family."""
    folders = {}

    def folder_of(family):
        if family not in folders:
            folders[family] = write_base(family, tmp_path_factory.mktemp(family))
        return folders[family]

    return folder_of


def load_model(folder, is_quantized=True, checkpointing=False):
    """The base with LoRA, as in a training."""
    model = load_with_lora(folder, dataclasses.replace(CPU, is_quantized=is_quantized))
    if checkpointing:
        enable_gradient_checkpointing(model)
    return model.train()


def step(model, dtype=None):
    """The logits and all gradients of one training step, as two vectors."""
    model.zero_grad()
    with torch.autocast("cpu", dtype) if dtype else contextlib.nullcontext():
        logits = model(input_ids=INPUT_IDS, use_cache=False).logits.float()
    torch.nn.functional.cross_entropy(logits[0, :-1], INPUT_IDS[0, 1:]).backward()
    gradients = [parameter.grad.flatten() for parameter in model.parameters() if parameter.requires_grad]
    return logits.detach().flatten(), torch.cat(gradients)


def difference(left, right):
    """The length of the difference of two vectors, as a share of theirs."""
    return ((left - right).norm() / right.norm()).item()


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("is_quantized", [False, True])
def test_outputs_and_gradients_are_those_of_peft(base_dirs, family, is_quantized, checkpointing):
    expected = step(load_model(base_dirs(family), is_quantized, checkpointing))
    model = load_model(base_dirs(family), is_quantized, checkpointing)
    assert fuse_lora(model) == NUM_LAYERS * FUSED_LAYERS.get(family, 7)
    for ours, theirs in zip(step(model), expected, strict=True):
        assert difference(ours, theirs) < 1e-5


@pytest.mark.parametrize("is_quantized", [False, True])
def test_half_precision_is_rounded_no_more_than_by_peft(base_dirs, is_quantized):
    exact = step(load_model(base_dirs("mistral"), is_quantized))
    theirs = step(load_model(base_dirs("mistral"), is_quantized), torch.bfloat16)
    model = load_model(base_dirs("mistral"), is_quantized)
    fuse_lora(model)
    ours = step(model, torch.bfloat16)
    for kind in range(2):
        assert 0 < difference(ours[kind], exact[kind]) < max(0.01, 1.2 * difference(theirs[kind], exact[kind]))


def test_a_bf16_base_with_fp32_adapters_trains_as_on_a_card(base_dirs):
    """On a card the base's values are bf16 and autocast is on, in the packing check it is off."""
    models = [load_model(base_dirs("qwen2.5")) for _ in range(2)]
    for model in models:
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if "lora_" not in name and tensor.is_floating_point():
                tensor.data = tensor.data.bfloat16()
        for module in model.modules():
            if isinstance(module, Linear4bit):
                module.compute_dtype = torch.bfloat16
    fuse_lora(models[1])
    for dtype in (torch.bfloat16, None):
        theirs, ours = (step(model, dtype) for model in models)
        assert difference(ours[0], theirs[0]) < 0.02
        assert difference(ours[1], theirs[1]) < 0.05
        layer = models[1].get_base_model().model.layers[0].mlp.up_proj
        assert layer.lora_A["default"].weight.grad.dtype == torch.float32


def test_without_the_adapter_the_layers_are_the_bases(base_dirs, family):
    model, fused = (load_model(base_dirs(family)) for _ in range(2))
    fuse_lora(fused)
    for grad_mode in (torch.no_grad, torch.enable_grad):
        with grad_mode(), model.disable_adapter(), fused.disable_adapter():
            assert torch.equal(model(input_ids=INPUT_IDS).logits, fused(input_ids=INPUT_IDS).logits)


def test_a_merged_adapter_is_not_added_again(base_dirs):
    model = load_model(base_dirs("mistral"), is_quantized=False)
    fuse_lora(model)
    before = model(input_ids=INPUT_IDS).logits
    model.merge_adapter()
    assert torch.allclose(model(input_ids=INPUT_IDS).logits, before, atol=1e-5)


@pytest.mark.parametrize("num_tokens", [1, 64, 200])
def test_evaluation_is_that_of_peft(base_dirs, num_tokens):
    model, fused = (load_model(base_dirs("mistral")).eval() for _ in range(2))
    fuse_lora(fused)
    input_ids = torch.arange(num_tokens)[None] % 90 + 5
    with torch.no_grad():
        expected, logits = (each(input_ids=input_ids, use_cache=False).logits for each in (model, fused))
    assert torch.allclose(logits, expected, atol=1e-5)


def test_layers_that_are_more_than_plain_lora_stay_as_they_are(base_dirs):
    for extra in ({"lora_dropout": 0.1}, {"use_dora": True}, {"lora_bias": True}):
        base = AutoModelForCausalLM.from_pretrained(base_dirs("phi2"))  # its layers have biases, which lora_bias needs
        model = get_peft_model(base, LoraConfig(r=4, target_modules=["q_proj", "fc1"], **extra))
        assert fuse_lora(model) == 0
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base_dirs("phi2")), LoraConfig(r=4, target_modules=["q_proj"])
    )
    assert fuse_lora(model) == NUM_LAYERS


class _Products(TorchDispatchMode):
    """Counts the big products: those whose every side is at least 48, the width of k and v."""

    count = unpacked = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.name()
        if name == "aten::addmm_" and min(*args[1].shape, *args[2].shape) >= 48:
            self.count += 1
        self.unpacked += name.startswith("bitsandbytes::dequantize_4bit")
        return function(*args, **(kwargs or {}))


def test_checkpointing_leaves_out_what_the_backward_pass_does_not_need(base_dirs):
    model = load_model(base_dirs("mistral"), checkpointing=True)
    fuse_lora(model)
    with _Products() as products:
        step(model)
    # Seven each forward and backward, six computed again.
    assert products.count == products.unpacked == 20 * NUM_LAYERS


def test_a_gradient_is_added_to_that_of_the_row_before(base_dirs):
    model = load_model(base_dirs("mistral"))
    fuse_lora(model)
    _, once = step(model)
    for _ in range(2):
        logits = model(input_ids=INPUT_IDS, use_cache=False).logits
        torch.nn.functional.cross_entropy(logits[0, :-1], INPUT_IDS[0, 1:]).backward()
    added = torch.cat([parameter.grad.flatten() for parameter in model.parameters() if parameter.requires_grad])
    assert difference(added, 3 * once) < 1e-5


def test_packing_check_passes_and_a_training_loses_what_peft_loses(base_dirs, tmp_path):
    chunks = [
        {"input_ids": [(7 * first + 3 * n) % 90 + 5 for n in range(40)], "is_supervised": [n > 9 for n in range(40)]}
        for first in range(12)
    ]
    schedule = plan_schedule([40] * 12, 1, 128, 1, seed=0)
    losses, saved = [], []
    for is_fused in (False, True):
        set_seed(0)
        base = load_quantized_base(base_dirs("mistral"), CPU)
        model = add_lora(base, rank=4, alpha=8, dropout=0.0)
        enable_gradient_checkpointing(model)
        compute_loss_in_blocks(base)
        if is_fused:
            fuse_lora(model)
        assert choose_attention(model, chunks[:2]) is None
        arguments = make_training_arguments(
            Recipe(learning_rate=1e-2),
            CPU,
            schedule,
            tmp_path / str(is_fused),
            False,
            False,
            seed=0,
            optimizer=FUSED_OPTIMIZER,
        )
        arguments.save_strategy = "no"
        trainer = Trainer(
            model=model, args=arguments, train_dataset=PackedRows(chunks, schedule.rows), data_collator=collate_row
        )
        trainer.train()
        losses.append([row["loss"] for row in trainer.state.log_history if "loss" in row])
        saved.append(get_peft_model_state_dict(model))
    assert losses[0][-1] < losses[0][0]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    assert {name: tensor.shape for name, tensor in saved[0].items()} == {
        name: tensor.shape for name, tensor in saved[1].items()
    }
