"""How long a training takes on this machine: counted from the base's shape, and from half a second of the same work here.

A step multiplies, unpacks 4-bit weights, reads and writes activations, and runs Python. Each is counted from the shape and
divided by what this machine reaches in it. How often a step reads its activations is calibrated (`TRAVERSALS`); evaluations
are counted, loading and downloading are not.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from memory_estimate import count_weights
from model_shape import Weights
from processes import world_size
from recipes import DEFAULT_RECIPE, EVALUATIONS_PER_EPOCH, MAX_SAMPLE_TOKENS, NUM_SAMPLES
from training_work import Work

from common.compute_device import Device
from common.config_values import count_layers

# How often forward and backward pass go over the inputs and outputs of all linear layers, besides the products. Calibrated:
# on a processor with the demo's base and with 135 million parameters (tests/benchmarks/RESULTS.md), on CUDA with what an
# H100 computed at 7.5 billion parameters (225 ms of 2,048 tokens with gradient checkpointing).
TRAVERSALS = {"cuda": (5, 14), "mps": (5, 14), "cpu": (35, 40)}
# Python's work for one layer in forward and backward pass, in calls of a tiny operation.
CALLS_PER_LAYER = {"cuda": (700, 3_600), "mps": (700, 3_600), "cpu": (350, 600)}

# And for a row outside its layers: the loss, the optimizer, the Trainer's loop.
CALLS_PER_ROW = 4_000

MEASURED_TOKENS = {"cuda": 2048, "mps": 512, "cpu": 128}
MIN_WIDTH = 256  # of the products: with less, calling them takes longer than computing them
MEASURED_SECONDS = 0.1  # for each of the three kinds of work
HELD_OUT_SHARE = 0.05  # of the tokens, read once at each evaluation
USUAL_LAYERS = 32  # where the config does not say


@dataclass(frozen=True)
class Speed:
    """What a machine reaches in each kind of work."""

    operations_per_second: float  # multiplications and additions of matrix products as large as the base's
    bytes_per_second: float  # read and written by operations on each element
    call_seconds: float  # of a tiny operation called from Python


def measure_speed(device: Device, weights: Weights) -> Speed:
    """Measure the three kinds of work on `device` with the widths of this base; takes half a second."""
    tokens = MEASURED_TOKENS[device.kind]
    width = max(MIN_WIDTH, round(weights.largest**0.5) // 64 * 64)
    left, right = (torch.ones(rows, width, device=device.name, dtype=device.dtype) for rows in (tokens, width))
    product, tiny = torch.empty_like(left), torch.ones(1, device=device.name)
    # Of one row through the widest layer, so that a processor's cache does not hold it.
    calls = 1 if device.kind == "cpu" else 10
    factor = torch.ones(max(tokens, 2**22 // width), width, device=device.name, dtype=device.dtype)
    result = torch.empty_like(factor)
    with torch.no_grad():
        return Speed(
            operations_per_second=2
            * left.numel()
            * width
            / _seconds_of(lambda: torch.mm(left, right, out=product), device),
            bytes_per_second=3
            * factor.nbytes
            / _seconds_of(lambda: torch.mul(factor, factor, out=result), device, calls),
            call_seconds=_seconds_of(lambda: tiny.mul(1.0), device, num_calls=100),
        )


def _seconds_of(call: Callable[[], Any], device: Device, num_calls: int = 1) -> float:
    """Return the seconds of one `call` in the fastest round of `num_calls`: other programs only make a round slower."""
    call()
    _wait(device)
    begun_at, fastest = time.perf_counter(), math.inf
    while fastest == math.inf or time.perf_counter() - begun_at < MEASURED_SECONDS:
        started_at, cpu_started_at = time.perf_counter(), time.process_time()
        for _ in range(num_calls):
            call()
        _wait(device)
        fastest = min(fastest, time.perf_counter() - started_at)
        if device.kind == "cpu":  # where another program has a core, the others wait for the one that is left
            fastest = min(fastest, (time.process_time() - cpu_started_at) / torch.get_num_threads())
    return max(fastest, 1e-9) / num_calls


def _wait(device: Device) -> None:
    if device.kind == "cuda":
        torch.cuda.synchronize(device.name)
    elif device.kind == "mps":
        torch.mps.synchronize()


def estimate_training_seconds(
    config: Mapping[str, Any],
    device: Device,
    work: Work,
    speed: Speed,
    gradient_checkpointing: bool = True,
    is_captured: bool = True,
) -> float:
    """Estimate how long all epochs take, with their evaluations; `config`: of `config.json`.

    `is_captured`: on CUDA, training replays the layers of a row as captured graphs, so that they do not wait for Python.
    """
    weights = count_weights(config)
    num_layers = count_layers(config) or USUAL_LAYERS
    forward_calls, backward_calls = CALLS_PER_LAYER[device.kind]
    num_forward = 2 if gradient_checkpointing else 1

    def seconds_of(tokens: float, supervised: float, rows: float, num_forward: int, has_backward: bool) -> float:
        # The weights are frozen: the backward pass multiplies as often as a forward pass.
        num_passes = num_forward + has_backward
        products = weights.multiplied * num_passes * tokens + weights.head * (1 + has_backward) * supervised
        # LoRA's weights are trained: twice as much in the backward pass. Another rank changes little.
        products += DEFAULT_RECIPE.rank * weights.lora_per_rank * (num_passes + has_backward) * tokens
        forward, backward = TRAVERSALS[device.kind]
        traversals = forward * num_forward + backward * has_backward
        moved_bytes = (weights.lora_per_rank - weights.head_widths) * device.dtype.itemsize * traversals * tokens
        if device.is_quantized:
            moved_bytes += weights.linear * (0.5 + device.dtype.itemsize) * num_passes * rows
        computing = 2 * products / speed.operations_per_second + moved_bytes / speed.bytes_per_second
        calls = num_layers * (forward_calls * num_forward + backward_calls * has_backward) * rows
        waiting = calls * speed.call_seconds
        if device.kind == "cpu":
            return computing + waiting
        if device.kind == "cuda" and is_captured and has_backward:
            return computing + CALLS_PER_ROW * rows * speed.call_seconds
        return max(computing, waiting)

    rows = max(1.0, work.epoch_tokens / (work.fill * work.row_tokens))
    epoch = seconds_of(work.epoch_tokens, work.epoch_supervised_tokens, rows, num_forward, True)
    reading = HELD_OUT_SHARE * seconds_of(work.epoch_tokens, work.epoch_supervised_tokens, rows, 1, False)
    sampled_tokens = NUM_SAMPLES * MAX_SAMPLE_TOKENS  # one after the other
    writing = seconds_of(sampled_tokens, sampled_tokens, sampled_tokens, 1, False)
    num_evaluations = EVALUATIONS_PER_EPOCH * work.num_epochs + 1 if work.has_held_out else 0
    return work.num_epochs * epoch + num_evaluations * (reading + writing)


def training_seconds(
    config: Mapping[str, Any], device: Device, work: Work, speed: Speed, gradient_checkpointing: bool = True
) -> float:
    """Estimate how long all epochs take in the processes that were started: GPUs share the rows, one processor does not."""
    # Cards before Ampere, which train in fp16, have no attention that can be captured.
    is_captured = world_size() == 1 and device.dtype != torch.float16
    seconds = estimate_training_seconds(config, device, work, speed, gradient_checkpointing, is_captured)
    return seconds / world_size() if device.kind == "cuda" else seconds


def shown_duration(seconds: float) -> str:
    """Return a duration as messages show it; no estimate is good to the second.

    >>> shown_duration(20), shown_duration(150), shown_duration(7_500), shown_duration(400_000)
    ('less than a minute', 'about 3 minutes', 'about 2.1 hours', 'about 4.6 days')
    """
    if seconds < 60:
        return "less than a minute"
    if seconds < 5_400:
        return f"about {math.ceil(seconds / 60):,} minutes"
    return f"about {seconds / 3600:,.1f} hours" if seconds < 48 * 3600 else f"about {seconds / 86_400:,.1f} days"
