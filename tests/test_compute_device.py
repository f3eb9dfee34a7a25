"""Which device and which numbers a machine gets."""

import json
from dataclasses import replace

import pytest
import torch

from common.compute_device import (
    Device,
    Machine,
    choose_chat_device,
    is_slow,
    look_at_machine,
    make_quantization_config,
)
from common.script import ScriptError

LAPTOP = Machine(has_cuda=False, has_cuda_bf16=False, has_mps=False, has_processor_bf16=False, memory_bytes=16e9)
NEW_GPU = replace(LAPTOP, has_cuda=True, has_cuda_bf16=True)


@pytest.fixture
def base_dir(tmp_path):
    """A base of 3 billion parameters in 16 bits; its weights are a hole in the file system."""
    (tmp_path / "config.json").write_text(json.dumps({"dtype": "bfloat16"}), encoding="utf-8")
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.truncate(6_000_000_000)
    return tmp_path


@pytest.mark.parametrize(
    ("machine", "plan"),
    [
        (LAPTOP, Device("cpu", torch.float32, False)),
        (replace(LAPTOP, memory_bytes=12e9), Device("cpu", torch.bfloat16, False)),
        (replace(LAPTOP, has_processor_bf16=True), Device("cpu", torch.bfloat16, False)),
        (replace(LAPTOP, has_mps=True), Device("mps", torch.float16, False)),
        (NEW_GPU, Device("cuda", torch.bfloat16, True)),
        (replace(NEW_GPU, has_cuda_bf16=False), Device("cuda", torch.float16, True)),
    ],
)
def test_each_machine_gets_what_suits_it(base_dir, machine, plan):
    assert choose_chat_device("auto", "auto", base_dir, machine) == plan


def test_what_is_asked_for_is_given(base_dir):
    assert choose_chat_device("cpu", "float16", base_dir, NEW_GPU) == Device("cpu", torch.float16, False)
    assert choose_chat_device("cuda", "bfloat16", base_dir, NEW_GPU) == Device("cuda", torch.bfloat16, False)


@pytest.mark.parametrize(("device", "dtype"), [("cuda", "auto"), ("mps", "auto"), ("cpu", "nf4")])
def test_what_is_not_there_is_refused_with_the_cure(base_dir, device, dtype):
    with pytest.raises(ScriptError, match="leave"):
        choose_chat_device(device, dtype, base_dir, LAPTOP)


def test_only_a_quantized_plan_needs_a_quantization(base_dir):
    assert make_quantization_config(Device("cpu", torch.float32, False)) is None
    config = make_quantization_config(Device("cuda", torch.bfloat16, True))
    assert (config.bnb_4bit_quant_type, config.bnb_4bit_compute_dtype) == ("nf4", torch.bfloat16)


def test_a_second_copy_of_the_weights_does_not_count(base_dir):
    """Some bases lie on the hub twice, the other time as the consolidated file of their maker's own program."""
    with (base_dir / "consolidated.safetensors").open("wb") as file:
        file.truncate(6_000_000_000)
    assert choose_chat_device("auto", "auto", base_dir, LAPTOP).dtype == torch.float32


def test_a_large_base_on_a_processor_is_called_slow(base_dir):
    assert is_slow(Device("cpu", torch.float32, False), base_dir)
    assert not is_slow(Device("cuda", torch.bfloat16, True), base_dir)


def test_this_machine_can_be_looked_at():
    assert look_at_machine().memory_bytes > 1e8
