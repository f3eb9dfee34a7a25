"""Which device and which numbers a machine gets."""

import json
from dataclasses import replace

import pytest
import torch
from small_runs import CPU

from common import compute_device
from common.compute_device import (
    Device,
    Machine,
    choose_chat_device,
    choose_training_device,
    is_slow,
    look_at_machine,
    make_quantization_config,
    unused_gpu_notice,
)
from common.script import ScriptError

LAPTOP = Machine(has_cuda=False, has_cuda_bf16=False, has_mps=False, has_processor_bf16=False, memory_bytes=16e9)
NEW_GPU = replace(LAPTOP, has_cuda=True, has_cuda_bf16=True)


@pytest.fixture
def large_base_dir(tmp_path):
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
def test_each_machine_gets_what_suits_it(large_base_dir, machine, plan):
    assert choose_chat_device("auto", "auto", large_base_dir, machine) == plan


def test_what_is_asked_for_is_given(large_base_dir):
    assert choose_chat_device("cpu", "float16", large_base_dir, NEW_GPU) == Device("cpu", torch.float16, False)
    assert choose_chat_device("cuda", "bfloat16", large_base_dir, NEW_GPU) == Device("cuda", torch.bfloat16, False)


@pytest.mark.parametrize(("device", "dtype"), [("cuda", "auto"), ("mps", "auto"), ("cpu", "nf4")])
def test_what_is_not_there_is_refused_with_the_cure(large_base_dir, device, dtype):
    with pytest.raises(ScriptError, match="leave"):
        choose_chat_device(device, dtype, large_base_dir, LAPTOP)


def test_a_processor_with_avx512_bf16_chats_in_4_bits_when_asked_to(large_base_dir):
    device = choose_chat_device("cpu", "nf4", large_base_dir, replace(LAPTOP, has_processor_bf16=True))
    assert device == CPU


def test_only_a_quantized_plan_needs_a_quantization():
    assert make_quantization_config(Device("cpu", torch.float32, False)) is None
    config = make_quantization_config(Device("cuda", torch.bfloat16, True))
    assert (config.bnb_4bit_quant_type, config.bnb_4bit_compute_dtype) == ("nf4", torch.bfloat16)


def test_a_second_copy_of_the_weights_does_not_count(large_base_dir):
    """Some bases lie on the hub twice, the other time as the consolidated file of their maker's own program."""
    with (large_base_dir / "consolidated.safetensors").open("wb") as file:
        file.truncate(6_000_000_000)
    assert choose_chat_device("auto", "auto", large_base_dir, LAPTOP).dtype == torch.float32


def test_a_large_base_on_a_processor_is_called_slow(large_base_dir):
    assert is_slow(Device("cpu", torch.float32, False), large_base_dir)
    assert not is_slow(Device("cuda", torch.bfloat16, True), large_base_dir)


def test_this_machine_can_be_looked_at():
    assert look_at_machine().memory_bytes > 1e8


@pytest.fixture
def on_machine(monkeypatch):
    """A function after which torch reports a machine of this kind: CUDA without or with real bf16, macOS of a version."""

    def set_up(has_cuda=False, has_cuda_bf16=False, macos=None):
        mps = torch.backends.mps
        monkeypatch.setattr(torch.cuda, "is_available", lambda: has_cuda)
        # An older card says yes as long as emulation counts.
        monkeypatch.setattr(
            torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or has_cuda_bf16
        )
        monkeypatch.setattr(mps, "is_available", lambda: macos is not None)
        monkeypatch.setattr(mps, "is_macos_or_newer", lambda *wanted: wanted <= macos)
        monkeypatch.delenv("LOCAL_RANK", raising=False)

    return set_up


NEW_CARD = {"has_cuda": True, "has_cuda_bf16": True}
TURING = {"has_cuda": True}  # T4, RTX 20: bf16 by emulation only


@pytest.mark.parametrize(
    ("machine", "wanted", "device"),
    [
        (NEW_CARD, "auto", Device("cuda:0", torch.bfloat16, is_quantized=True)),
        (TURING, "auto", Device("cuda:0", torch.float16, is_quantized=True)),
        ({"macos": (14, 4)}, "auto", Device("mps", torch.bfloat16, is_quantized=False)),
        ({"macos": (13, 6)}, "auto", Device("mps", torch.float16, is_quantized=False)),
        ({}, "auto", CPU),
        (NEW_CARD, "cpu", CPU),
        ({"macos": (14, 4)}, "cpu", CPU),
    ],
)
def test_each_machine_trains_where_and_as_suits_it(on_machine, machine, wanted, device):
    on_machine(**machine)
    assert choose_training_device(wanted) == device


@pytest.mark.parametrize(("machine", "dtype"), [(NEW_CARD, torch.bfloat16), (TURING, torch.float16)])
def test_a_card_chats_in_the_numbers_it_trains_in(on_machine, large_base_dir, machine, dtype):
    on_machine(**machine)
    assert choose_training_device().dtype == dtype
    assert choose_chat_device("auto", "auto", large_base_dir, look_at_machine()).dtype == dtype


def test_each_process_of_a_machine_takes_a_gpu_of_its_own(on_machine, monkeypatch):
    on_machine(**NEW_CARD)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert choose_training_device() == Device("cuda:1", torch.bfloat16, is_quantized=True)
    assert choose_training_device().kind == "cuda"


def test_this_machines_device_computes_in_its_dtype():
    device = choose_training_device()
    ones = torch.ones(2, 2, device=device.name, dtype=device.dtype)
    assert (ones @ ones).sum().item() == 8


@pytest.mark.parametrize(
    ("has_cuda", "driver", "built_for", "notice"),
    [
        (False, "/proc/driver/nvidia/version", None, "built without CUDA"),
        (False, "/proc/driver/nvidia/version", "12.8", "built for CUDA 12.8"),
        (False, "/usr/lib/wsl/lib/libcuda.so.1", "12.8", "built for CUDA 12.8"),  # WSL2
        (False, None, None, None),
        (True, "/proc/driver/nvidia/version", None, None),
    ],
)
def test_a_gpu_that_lies_idle_is_noticed_with_the_cure(
    on_machine, monkeypatch, tmp_path, has_cuda, driver, built_for, notice
):
    on_machine(has_cuda=has_cuda)
    monkeypatch.setattr(compute_device, "Path", lambda path: tmp_path if path == driver else tmp_path / "none")
    monkeypatch.setattr(torch.version, "cuda", built_for)
    said = unused_gpu_notice()
    assert said is None if notice is None else notice in said


@pytest.mark.parametrize(
    ("built_for", "capability", "has_kernels"),
    [
        ("sm_75 sm_80 sm_86 sm_90 sm_100 sm_120", (8, 6), True),
        ("sm_75 sm_80 sm_86 sm_90 sm_100 sm_120", (8, 9), True),
        ("sm_75 sm_80 sm_86 sm_90 sm_100 sm_120", (12, 1), True),
        ("sm_75 sm_80 sm_86 sm_90 sm_100 sm_120", (6, 1), False),  # GTX 10
        ("sm_75 sm_80 sm_86 sm_90 sm_100 sm_120", (7, 0), False),  # V100
        ("sm_50 sm_60 sm_70", (6, 1), True),
        ("sm_80 sm_90a", (12, 0), False),
        ("sm_80 compute_90", (12, 0), True),
    ],
)
def test_a_card_older_or_newer_than_this_torch_is_not_used_and_named(
    on_machine, monkeypatch, tmp_path, built_for, capability, has_kernels
):
    """The published builds for CUDA 13 begin at 7.5: on a GTX 10 the first kernel raised an error of CUDA's."""
    on_machine(has_cuda=True)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "get_arch_list", built_for.split)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda number: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: "NVIDIA GeForce GTX 1080")
    monkeypatch.setattr(compute_device, "NVIDIA_DRIVER_PATHS", [str(tmp_path)])
    assert look_at_machine().has_cuda == has_kernels
    assert choose_training_device().kind == ("cuda" if has_kernels else "cpu")
    notice = "this torch has no kernels for NVIDIA GeForce GTX 1080; see the README's torch command (Systems)"
    assert unused_gpu_notice() == (None if has_kernels else notice)
