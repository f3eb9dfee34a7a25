"""One epoch on a CUDA card: ours against TRL with packing, plain and with Liger kernels; memory against the estimate.

Every arm trains the same base in 4 bits on the same made-up conversations: a warm-up, then the epoch that is timed. TRL
trains the seven projections (its own loss refuses the head); `ours_seven` does the same. Each arm prints a line of JSON.
An arm of ours may end in any of the PARTS, which leave a part of the product out: `ours_keep_eager_paged`.

Run     python3 tests/benchmarks/benchmark_training_gpu.py
            (writes the default base's shape with random weights first: 15 GB in the folder for temporary files)
        python3 tests/benchmarks/benchmark_training_gpu.py --base DIR --arms ours,ours_seven,trl --profile
Needs   tests/benchmarks/requirements.txt; liger-kernel for `trl_liger`. Without a card it runs on the processor, which is
        good for testing it with a tiny base.
"""

# ruff: noqa: E402  the number of threads is read when torch loads
from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "8")  # what feeds a card; benchmark_training sets one

import torch
from benchmark_training import SEED, lora_config, make_conversations, our_trainer, trl_trainer
from captured_decoder import MIN_ROWS, capture_decoder, choose_shape, find_hindrance
from fake_training_step import build_empty_model
from fused_lora import fuse_lora
from head_loss import compute_loss_in_blocks
from known_bases import known_bases
from liger_kernels import apply_liger_kernels, has_liger
from memory_estimate import GIB, Kernels, estimate_memory
from model_shape import Load
from packed_attention import SEGMENT_ATTENTION, register_segment_attention
from packing import plan_schedule
from peft import get_peft_model
from qlora_model import add_lora, enable_gradient_checkpointing, load_quantized_base, read_model_config
from recipes import FUSED_OPTIMIZER, PAGED_OPTIMIZER
from safetensors.torch import save_file
from transformers import AutoConfig, PreTrainedConfig, set_seed

from common.compute_device import Device, choose_training_device
from common.fused_layers import fuse_norms

BASE_NAME = "yam-peleg/Hebrew-Mistral-7B"
NUM_CONVERSATIONS = 256  # about 16 rows of 2,048 tokens
NUM_PROFILED = 48  # conversations under the profiler, which slows them down
TOP_KERNELS = 14
LAUNCHES = ("cudaLaunch", "cuLaunch", "cudaGraphLaunch", "cudaMemcpy", "cudaMemset")  # calls of the host
ROW_TOKENS = 2_048
# What follows `ours` in the name of an arm, by underscores.
PARTS = {
    "seven": "no LoRA on the head",
    "keep": "activations kept",
    "eager": "no CUDA graphs",
    "paged": "the paged 8-bit optimizer",
    "nolora": "peft's LoRA layers",
    "nonorms": "the library's norms, or Liger's",
    "noliger": "the library's rotary embeddings and SwiGLU",
}
ARMS = {
    "ours": "ours, LoRA on the head too, gradient checkpointing",
    "ours_keep": "ours, LoRA on the head too, activations kept",
    "ours_seven": "ours, seven projections, gradient checkpointing",
    "ours_seven_keep": "ours, seven projections, activations kept",
    "ours_seven_eager_paged_nolora_nonorms_noliger": "ours, seven projections, none of the parts",
    "trl": "TRL, packing, seven projections, gradient checkpointing",
    "trl_liger": "the same with Liger kernels",
}

Conversations = list[dict[str, list]]


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


@contextmanager
def fused(model: Any, words: set[str]) -> Iterator[None]:
    """Replace the parts of `model` that these words name, and bring them back."""
    base = model.get_base_model()
    library = vars(sys.modules[type(base).__module__])  # Liger replaces its rotary embedding and its classes
    before = dict(library)
    try:
        if "liger" in words:
            fault = apply_liger_kernels(base)
            if fault:
                raise RuntimeError(fault)
        if "norms" in words:
            fuse_norms(base)
        if "lora" in words:
            fuse_lora(model)
        yield
    finally:
        library.update(before)
        for module in base.modules():
            if module is not base:
                vars(module).pop("forward", None)


class Benchmark:
    """The base, the conversations and the device of one measurement; the base stays loaded between arms of one kind."""

    def __init__(self, base_dir: Path, device: Device, num_conversations: int, row_tokens: int) -> None:
        register_segment_attention()
        self.base_dir, self.device, self.row_tokens = base_dir, device, row_tokens
        self.config = read_model_config(base_dir)
        self.conversations = make_conversations(self.config.vocab_size, num_conversations, SEED)
        self.warm_up = make_conversations(self.config.vocab_size, 24 + row_tokens // 60, SEED + 7)  # two rows and more
        self._loaded: tuple[str, Any] | None = None

    def measure(self, arm: str, is_profiled: bool = False) -> dict[str, Any]:
        """Train one epoch and return what was measured: tokens a second, and on a card the peak of its memory."""
        parts = parts_of(arm)
        with fused(model := self._make_model(arm), kernels_of(parts)):
            measured = self._measure(arm, model, is_profiled)
        self._loaded = (self._kind_of(arm), model.unload())
        return measured

    def _measure(self, arm: str, model: Any, is_profiled: bool) -> dict[str, Any]:
        parts, captured = parts_of(arm), None
        if parts is None:
            make_trainer = partial(trl_trainer, use_liger_kernel="liger" in arm)
        else:
            make_trainer = partial(our_trainer, optim=PAGED_OPTIMIZER if "paged" in parts else FUSED_OPTIMIZER)
            shape = None if "eager" in parts else self._choose_shape()
            captured = capture_decoder(model, shape)
        self._train(make_trainer, model, self.warm_up)
        if self.device.kind == "cuda":
            torch.cuda.reset_peak_memory_stats()
        trainer, seconds = self._train(make_trainer, model, self.conversations)
        measured = {
            "arm": arm,
            "row_tokens": self.row_tokens,
            "tokens_per_second": round(sum(len(row["input_ids"]) for row in self.conversations) / seconds, 1),
            "seconds": round(seconds, 2),
            "steps": trainer.state.global_step,
            "losses": [round(row["loss"], 3) for row in trainer.state.log_history if "loss" in row][-3:],
        }
        if self.device.kind == "cuda":
            graph_bytes = captured.recorder.num_bytes if captured else 0
            measured["peak_gib"] = round((torch.cuda.max_memory_allocated() + graph_bytes) / GIB, 3)
            measured["reserved_gib"] = round(torch.cuda.max_memory_reserved() / GIB, 3)
        if parts is not None and "seven" not in parts:
            estimated = self.estimate(parts)
            measured["estimated_gib"] = round(estimated / GIB, 3)
        if captured is not None:
            measured["capture"] = {
                "seconds": round(captured.seconds, 2),
                "rows": captured.num_replayed,
                "gib": round(graph_bytes / GIB, 3),
                "problem": captured.problem,
            }
        elif parts is not None and "eager" not in parts:
            measured["capture"] = {"problem": find_hindrance(model, shape)}
        if is_profiled and self.device.kind == "cuda":
            measured["profile"] = self._profile(make_trainer, model)
        if captured is not None:
            captured.remove()
        return measured

    def _choose_shape(self) -> Any:
        """Return the shape of the rows of both epochs; they are few, and those of a training many."""
        lengths: list[int] = []
        rows: list[list[int]] = []
        for conversations in (self.warm_up, self.conversations):
            own = [len(row["input_ids"]) for row in conversations]
            planned = plan_schedule(own, 1, self.row_tokens, 1, SEED).rows
            rows += [[len(lengths) + chunk for chunk in row] for row in planned]
            lengths += own
        return choose_shape(lengths, rows * MIN_ROWS, self.row_tokens)

    def estimate(self, parts: set[str]) -> int:
        """Return the estimated peak in bytes, as the card's own count has it: without the libraries' context."""
        load = Load(
            row_tokens=self.row_tokens,
            supervised_share=most_supervised_share(self.conversations, self.row_tokens),
            gradient_checkpointing="keep" not in parts,
            is_captured=self.device.kind == "cuda" and "eager" not in parts,
            optimizer=PAGED_OPTIMIZER if "paged" in parts else FUSED_OPTIMIZER,
        )
        words = kernels_of(parts)
        kernels = Kernels("norms" in words, "liger" in words)
        training = estimate_memory(self.config.to_dict(), self.device, load, kernels)[1]
        return training.total - training.libraries

    def forget_base(self) -> None:
        """Give the memory of the loaded base back."""
        self._loaded = None
        gc.collect()
        if self.device.kind == "cuda":
            torch.cuda.empty_cache()

    @staticmethod
    def _kind_of(arm: str) -> str:
        return "ours" if arm.startswith("ours") else arm  # Liger changes the modules of its base

    def _make_model(self, arm: str) -> Any:
        kind = self._kind_of(arm)
        if self._loaded is None or self._loaded[0] != kind:
            self.forget_base()
            set_seed(SEED)
            base = load_quantized_base(self.base_dir, self.device, SEGMENT_ATTENTION if kind == "ours" else "sdpa")
            if kind == "ours":
                compute_loss_in_blocks(base)
        else:
            base = self._loaded[1]
            base.requires_grad_(False)
        parts = parts_of(arm)
        if parts is None:
            base.activation_checkpointing_enable({"use_reentrant": False})
        elif "keep" in parts:
            base.activation_checkpointing_disable()
        set_seed(SEED)
        if parts is None or "seven" in parts:
            model = get_peft_model(base, lora_config(False, 0.0))
        else:
            model = add_lora(base, rank=32, alpha=64, dropout=0.0)
        if parts is not None and "keep" not in parts:
            enable_gradient_checkpointing(model)
        return model

    def _train(self, make_trainer: Callable, model: Any, conversations: Conversations) -> tuple[Any, float]:
        with tempfile.TemporaryDirectory() as output_dir:
            trainer = make_trainer(model, conversations, output_dir, self.row_tokens)
            self._wait()
            started_at = time.perf_counter()
            trainer.train()
            self._wait()
            return trainer, time.perf_counter() - started_at

    def _wait(self) -> None:
        if self.device.kind == "cuda":
            torch.cuda.synchronize()

    def _profile(self, make_trainer: Callable, model: Any) -> dict[str, Any]:
        """Return how long the card itself was busy, what was started, and its costliest kernels: [name, percent, number].

        A graph is started in one launch.
        """
        from torch.profiler import ProfilerActivity, profile

        with profile(activities=[ProfilerActivity.CUDA]) as profiler:
            trainer, _seconds = self._train(make_trainer, model, self.conversations[:NUM_PROFILED])
        events = profiler.key_averages()
        kernels = sorted(events, key=lambda kernel: -kernel.self_device_time_total)
        steps = trainer.state.global_step
        total = sum(kernel.self_device_time_total for kernel in kernels)
        return {
            "busy_ms": round(total / 1000),
            "steps": steps,
            "busy_ms_per_step": round(total / 1000 / steps, 1),
            "kernels_per_step": sum(kernel.count for kernel in kernels if kernel.self_device_time_total) // steps,
            "launches_per_step": sum(event.count for event in events if event.key.startswith(LAUNCHES)) // steps,
            "top": [
                [kernel.key[:70], round(100 * kernel.self_device_time_total / total, 1), kernel.count]
                for kernel in kernels[:TOP_KERNELS]
            ],
        }


def parts_of(arm: str) -> set[str] | None:
    """Return which PARTS the name of an arm of ours has; None for the others."""
    kind, *parts = arm.split("_")
    return set(parts) if kind == "ours" else None


def kernels_of(parts: set[str] | None) -> set[str]:
    """Return what `fused` is to replace in an arm with these PARTS."""
    if parts is None:
        return set()
    installed = {"lora", "norms", *(["liger"] if has_liger() else [])}
    return {word for word in installed if f"no{word}" not in parts}


def most_supervised_share(conversations: Conversations, row_tokens: int) -> float:
    """Return the supervised share of the packed row that has most."""
    lengths = [len(row["input_ids"]) for row in conversations]
    rows = plan_schedule(lengths, 1, row_tokens, 1, SEED).rows
    return max(sum(sum(conversations[number]["is_supervised"]) for number in row) for row in rows) / row_tokens


def main() -> None:
    """Print a line of JSON for each arm; an arm that fails says why, and the next one runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, metavar="DIR", help="a base on disk (default: the 7.5B shape, random)")
    parser.add_argument(
        "--arms", default=",".join(ARMS), help="default: %(default)s; of ours, also with any of " + ", ".join(PARTS)
    )
    parser.add_argument(
        "--conversations", type=int, default=NUM_CONVERSATIONS, metavar="N", help="default: %(default)s"
    )
    parser.add_argument("--row-tokens", type=int, default=ROW_TOKENS, metavar="N", help="default: %(default)s")
    parser.add_argument("--profile", action="store_true", help="how long the card itself is busy, by kernels")
    options = parser.parse_args()
    arms = options.arms.split(",")
    unknown = [arm for arm in arms if arm not in ARMS and not (parts_of(arm) or {""}) <= PARTS.keys()]
    if unknown:
        parser.error(f"no arm {unknown[0]}; there are {', '.join(ARMS)}, and ours with any of {', '.join(PARTS)}")
    with tempfile.TemporaryDirectory() as folder:
        if options.base is None:
            if not torch.cuda.is_available():
                sys.exit("benchmark_training_gpu: no CUDA card here, not measured; --base DIR runs on the processor")
            known = next(known for known in known_bases() if known.name == BASE_NAME)
            write_random_base(AutoConfig.for_model(**known.config), Path(folder))
        base_dir = options.base or Path(folder)
        benchmark = Benchmark(base_dir, choose_training_device(), options.conversations, options.row_tokens)
        for arm in arms:
            try:
                measured = benchmark.measure(arm, options.profile)
            except Exception as error:  # noqa: BLE001 - the library of one arm may be missing, or its memory full
                measured = {"arm": arm, "error": f"{type(error).__name__}: {error}"[:1_000]}
                benchmark.forget_base()
            print(json.dumps(measured), flush=True)


if __name__ == "__main__":
    main()
