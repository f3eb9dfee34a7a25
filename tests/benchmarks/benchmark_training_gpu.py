"""The default base's shape with random weights on a CUDA card: peak memory against the estimate, tokens per second, TRL.

The weights are written to disk first (15 GB) and loaded as any base, so that what is measured is the product's own way.
Run by `benchmark_training.py --gpu`; without a CUDA card it says so.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

import torch
from benchmark_training import SEED, lora_config, make_conversations, our_trainer, trl_trainer
from head_loss import compute_loss_in_blocks
from known_bases import known_bases
from memory_estimate import GIB, Load, build_empty_model, estimate_memory
from packed_attention import SEGMENT_ATTENTION, register_segment_attention
from packing import plan_schedule
from peft import get_peft_model
from qlora_model import add_lora, enable_gradient_checkpointing, load_quantized_base
from safetensors.torch import save_file
from transformers import PreTrainedConfig, set_seed

from common.compute_device import Device, choose_training_device

BASE_NAME = "yam-peleg/Hebrew-Mistral-7B"
NUM_CONVERSATIONS = 256  # about 16 rows of 2,048 tokens
ROW_TOKENS = 2_048


def write_random_base(config: PreTrainedConfig, folder: Path) -> None:
    """Write a base of this shape with random bf16 weights, one file for each layer."""
    config.save_pretrained(folder)
    (folder / "tokenizer.json").write_text("{}", encoding="utf-8")
    set_seed(SEED)
    shapes: dict[str, dict[str, torch.Size]] = {}
    for name, tensor in build_empty_model(config, torch.bfloat16).state_dict().items():
        layer = next((part for part in name.split(".") if part.isdigit()), "rest")
        shapes.setdefault(f"model-{layer}.safetensors", {})[name] = tensor.shape
    for file_name, tensors in shapes.items():
        weights = {
            name: torch.ones(shape, dtype=torch.bfloat16)
            if len(shape) == 1
            else torch.randn(shape, dtype=torch.bfloat16) * 0.02
            for name, shape in tensors.items()
        }
        save_file(weights, folder / file_name, metadata={"format": "pt"})
    weight_map = {name: file_name for file_name, tensors in shapes.items() for name in tensors}
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")


def measure_ours(folder: Path, device: Device, conversations: list[dict], row_tokens: int) -> dict[str, float]:
    """Train one epoch our way; return tokens a second and, on a card, the peak of its memory in bytes."""
    register_segment_attention()
    set_seed(SEED)
    base = load_quantized_base(folder, device, SEGMENT_ATTENTION)
    compute_loss_in_blocks(base)
    model = add_lora(base, rank=32, alpha=64, dropout=0.0)
    enable_gradient_checkpointing(model)
    return _measure(our_trainer, model, conversations, row_tokens, device)


def measure_trl(folder: Path, device: Device, conversations: list[dict], row_tokens: int) -> dict[str, float]:
    """Train one epoch with TRL, packing, on the seven projections (it refuses the head)."""
    set_seed(SEED)
    model = load_quantized_base(folder, device, "sdpa")
    model.activation_checkpointing_enable({"use_reentrant": False})
    return _measure(trl_trainer, get_peft_model(model, lora_config(False, 0.0)), conversations, row_tokens, device)


def _measure(make_trainer, model, conversations, row_tokens, device) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as output_dir:
        trainer = make_trainer(model, conversations, output_dir, row_tokens)
        if device.kind == "cuda":
            torch.cuda.reset_peak_memory_stats()
        started_at = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - started_at
    num_tokens = sum(len(row["input_ids"]) for row in conversations)
    peak_bytes = torch.cuda.max_memory_allocated() if device.kind == "cuda" else 0
    return {"tokens_per_second": num_tokens / seconds, "peak_bytes": peak_bytes}


def most_supervised_share(conversations: list[dict], row_tokens: int) -> float:
    """Return the supervised share of the packed row that has most."""
    lengths = [len(row["input_ids"]) for row in conversations]
    rows = plan_schedule(lengths, 1, row_tokens, 1, SEED).rows
    return max(sum(sum(conversations[number]["is_supervised"]) for number in row) for row in rows) / row_tokens


def measure_on_gpu() -> None:
    """Print the table for the default base's shape."""
    if not torch.cuda.is_available():
        sys.exit("benchmark_training: no CUDA card here; this part was not measured")
    config = next(known.config for known in known_bases() if known.name == BASE_NAME)
    device = choose_training_device()
    conversations = make_conversations(config.vocab_size, NUM_CONVERSATIONS, SEED)
    share = most_supervised_share(conversations, ROW_TOKENS)
    estimate = estimate_memory(config, device, Load(row_tokens=ROW_TOKENS, supervised_share=share))[1]
    estimated_bytes = estimate.total - estimate.libraries  # the card's own count leaves its context out
    with tempfile.TemporaryDirectory() as folder:
        write_random_base(config, Path(folder))
        ours = measure_ours(Path(folder), device, conversations, ROW_TOKENS)
        trl = measure_trl(Path(folder), device, conversations, ROW_TOKENS)
    print(f"{torch.cuda.get_device_name()}, {device.dtype}, rows of {ROW_TOKENS:,} tokens\n")
    print("| | real tokens / s | peak memory, GiB |\n|---|---|---|")
    print(f"| ours (head, too) | {ours['tokens_per_second']:,.0f} | {ours['peak_bytes'] / GIB:.2f} |")
    print(f"| TRL (seven projections) | {trl['tokens_per_second']:,.0f} | {trl['peak_bytes'] / GIB:.2f} |")
    error = estimated_bytes / ours["peak_bytes"] - 1
    print(f"\nEstimated for ours: {estimated_bytes / GIB:.2f} GiB ({100 * error:+.1f} %; promised: within 10 %)")
