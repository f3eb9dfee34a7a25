"""One decoder layer in 4 bits with LoRA: how long the card is busy with its forward and backward pass, by kernels.

The layer has the default base's shape and random weights; no base is needed. Each variant is named by what differs from
peft's layers and the library's (WORDS), `peft` is without any. Its outputs and gradients are
compared with those of `peft`. Each prints a line of JSON; the kernels follow as a table.

Run     python3 tests/benchmarks/benchmark_layer_gpu.py
        python3 tests/benchmarks/benchmark_layer_gpu.py --variants peft,lora_norms,lora_norms_keep --tokens 512
Needs   tests/benchmarks/requirements.txt; liger-kernel for `liger`. About 20 seconds on a card. Without a card it runs on
        the processor with a tiny shape, which is good for testing it.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from benchmark_training_gpu import BASE_NAME, ROW_TOKENS, SEED, fused, lora_config, write_random_base
from known_bases import known_bases
from packed_attention import SEGMENT_ATTENTION, register_segment_attention
from peft import get_peft_model
from qlora_model import enable_gradient_checkpointing, load_quantized_base
from transformers import AutoConfig, PreTrainedConfig, set_seed

from common.compute_device import Device, choose_training_device

VARIANTS = (
    "peft",
    "lora",
    "norms",
    "liger",
    "lora_norms",
    "lora_liger",
    "lora_liger_norms",
    "keep",
    "lora_liger_keep",
)
WORDS = {
    "lora": "fused LoRA",
    "norms": "norms by torch's own kernel, also instead of Liger's",
    "liger": "norms, rotary embeddings and SwiGLU by Liger kernels",
    "keep": "activations kept",
}
SEGMENT_TOKENS = 128
WARM_UPS, TIMED, PROFILED = 3, 10, 4
TOP_KERNELS = 25
TINY = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 2, "num_key_value_heads": 1}


class LayerBenchmark:
    """One decoder layer, and a row of random activations for it."""

    def __init__(self, config: PreTrainedConfig, device: Device, num_tokens: int) -> None:
        register_segment_attention()
        self.device = device
        with tempfile.TemporaryDirectory() as folder:
            write_random_base(config, Path(folder))
            self.base: Any = load_quantized_base(Path(folder), device, SEGMENT_ATTENTION)
        generator = torch.Generator().manual_seed(SEED)
        shape = (1, num_tokens, config.hidden_size)
        self.x = torch.randn(shape, generator=generator).to(device.name, device.dtype).requires_grad_()
        self.of_output = torch.randn(shape, generator=generator).to(device.name, device.dtype)
        borders = [*range(0, num_tokens, SEGMENT_TOKENS), num_tokens]
        positions = torch.arange(num_tokens, device=device.name)[None] % SEGMENT_TOKENS
        with torch.no_grad():
            rotary = self.base.get_decoder().rotary_emb(self.x, positions)
        self.arguments = {
            "position_embeddings": rotary,
            "position_ids": positions,
            "cu_seq_lens_q": torch.tensor(borders, dtype=torch.int32, device=device.name),
            "max_length_q": min(SEGMENT_TOKENS, num_tokens),
        }
        self.expected: list[torch.Tensor] = []

    def measure(self, variant: str, show_kernels: bool = False) -> dict[str, Any]:
        """Return milliseconds of a forward and backward pass, and how far outputs and gradients are from peft's."""
        words = set(variant.split("_")) - {"peft"}
        set_seed(SEED)
        self.base.requires_grad_(False)
        self.base.activation_checkpointing_disable()
        model = get_peft_model(self.base, lora_config(False, 0.0)).train()
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.02)
        if "keep" not in words:
            enable_gradient_checkpointing(model)
        try:
            with fused(model, words):
                return {"variant": variant} | self._measure(model, show_kernels)
        finally:
            model.unload()

    def _measure(self, model: Any, show_kernels: bool) -> dict[str, Any]:
        results = [result.detach().clone() for result in self._step(model)]
        self.expected = self.expected or results
        measured: dict[str, Any] = {
            "differences": [
                round(((ours - theirs).float().norm() / theirs.float().norm()).item(), 6)
                for ours, theirs in zip(results, self.expected, strict=True)
            ],
            "ms_by_the_clock": round(self._clock(model), 2),
        }
        if self.device.kind == "cuda":
            measured |= self._profile(model, show_kernels)
        return measured

    def _step(self, model: Any) -> list[torch.Tensor]:
        """Return the output, and the gradients of the input and of the adapter's A and B, each as one vector."""
        model.zero_grad()
        self.x.grad = None
        layer = model.get_base_model().get_decoder().layers[0]
        is_half = self.device.dtype != torch.float32
        with torch.autocast(self.device.kind, self.device.dtype, enabled=is_half):
            output = layer(self.x, **self.arguments)
        output.backward(self.of_output)
        assert self.x.grad is not None
        adapter = [(name, parameter.grad) for name, parameter in model.named_parameters() if parameter.requires_grad]
        return [output, self.x.grad] + [
            torch.cat([gradient.flatten() for name, gradient in adapter if kind in name])
            for kind in ("lora_A", "lora_B")
        ]

    def _clock(self, model: Any) -> float:
        for _ in range(WARM_UPS):
            self._step(model)
        self._wait()
        started_at = time.perf_counter()
        for _ in range(TIMED):
            self._step(model)
        self._wait()
        return (time.perf_counter() - started_at) * 1000 / TIMED

    def _wait(self) -> None:
        if self.device.kind == "cuda":
            torch.cuda.synchronize()

    def _profile(self, model: Any, show_kernels: bool) -> dict[str, Any]:
        """Return how long the card itself was busy with a pass, and what the memory rose to."""
        from torch.profiler import ProfilerActivity, profile

        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        self._step(model)
        peak = torch.cuda.max_memory_allocated() - before
        with profile(activities=[ProfilerActivity.CUDA]) as profiler:
            for _ in range(PROFILED):
                self._step(model)
            self._wait()
        kernels = sorted(profiler.key_averages(), key=lambda kernel: -kernel.self_device_time_total)
        total = sum(kernel.self_device_time_total for kernel in kernels)
        if show_kernels:
            for kernel in kernels[:TOP_KERNELS]:
                print(
                    f"  {kernel.self_device_time_total / PROFILED / 1000:8.3f} ms  {kernel.count / PROFILED:6.1f} x  "
                    f"{kernel.key[:110]}"
                )
        return {
            "ms_busy": round(total / PROFILED / 1000, 3),
            "launches": round(sum(kernel.count for kernel in kernels) / PROFILED),
            "peak_mib": round(peak / 2**20),
        }


def main() -> None:
    """Print a line of JSON for each variant; one that fails says why, and the next one runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--variants", default=",".join(VARIANTS), help="default: %(default)s; words: " + ", ".join(WORDS)
    )
    parser.add_argument("--tokens", type=int, default=ROW_TOKENS, metavar="N", help="default: %(default)s")
    parser.add_argument("--kernels", default="peft,lora_liger", help="variants whose kernels are shown")
    options = parser.parse_args()
    known = next(known for known in known_bases() if known.name == BASE_NAME)
    config = AutoConfig.for_model(**{**known.config, "num_hidden_layers": 1, "vocab_size": 512})
    if not torch.cuda.is_available():
        print("benchmark_layer_gpu: no CUDA card here, a tiny shape on the processor", file=sys.stderr)
        config.update(TINY)
    benchmark = LayerBenchmark(config, choose_training_device(), options.tokens)
    for variant in options.variants.split(","):
        try:
            measured = benchmark.measure(variant, variant in options.kernels.split(","))
        except Exception as error:  # noqa: BLE001 - the library of one variant may be missing
            measured = {"variant": variant, "error": f"{type(error).__name__}: {error}"[:1_000]}
        print(json.dumps(measured), flush=True)


if __name__ == "__main__":
    main()
