"""The memory that training and a chat need, from the base's config alone.

For the family of Llama the tensors that a training step keeps are counted here one by one, as the library's layers and our
LoRA keep them; for other families `fake_training_step` measures a step. Either way the base need not be on disk.
Time, disk and the comparison with the machine are left to `training_time`, `disk_space` and `memory_plan`.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from model_shape import Load, ModelShape, ParameterCount, Weights, read_shape
from recipes import OPTIMIZER_BYTES, choose_block_positions

from common.compute_device import Device
from common.outside_files import loading

GIB = 2**30
MIB = 2**20

# NF4 with double quantization: half a byte per weight, one byte of scale per 64 weights, four bytes per 256 scales.
NF4_BYTES = 1 / 2 + 1 / 64 + 4 / (64 * 256)
# Before the first tensor: CUDA, cuBLAS and the libraries; on a CPU, Python with torch and transformers.
CUDA_CONTEXT_BYTES = int(0.6 * GIB)
CPU_LIBRARIES_BYTES = int(0.8 * GIB)
# The CUDA allocator does not split off a rest of up to 1 MiB. Measured with activations kept at 7.5 billion parameters
# (about 400 large tensors): 0.32 GiB more than their sizes.
LARGE_TENSORS_PER_LAYER = 12
# What CUDA graphs take beside the tensors of their kernels: the matrix library's workspaces of a second stream, and the rest
# of blocks that are reserved whole. An H200 took 0.3 GiB more than the same step without graphs needs in parts.
GRAPHS_BYTES = 192 * MIB
# The attention's gradient sums up in fp32, over each segment rounded up to 128 tokens; segments have about 100.
ATTENTION_ROUNDING = 2.3


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes on the device at the peak, by purpose."""

    weights_4bit: int
    weights_other: int  # embeddings, head, norms; without quantization, all weights
    adapter: int
    optimizer: int
    activations: int  # with their gradients; in a chat, with its cache
    unpacking: int  # the largest layer, dequantized
    libraries: int

    @property
    def total(self) -> int:
        """The sum of all parts."""
        return sum(vars(self).values())


@dataclass(frozen=True)
class Kernels:
    """What the training code keeps for the backward pass where there are two ways to write it.

    The defaults are what the layers of transformers keep.
    """

    are_norms_fused: bool = False  # a norm keeps its input as it is, not as fp32
    is_swiglu_fused: bool = False  # the product of gate and up keeps its two factors, not the activated gate


def kernels_of(device: Device) -> Kernels:
    """Return what training uses on `device`."""
    is_cuda = device.kind == "cuda"
    return Kernels(are_norms_fused=is_cuda, is_swiglu_fused=is_cuda and find_spec("liger_kernel") is not None)


def shown_gib(num_bytes: int) -> str:
    """Return the size as messages show it, rounded up."""
    return f"{math.ceil(100 * num_bytes / GIB) / 100:.2f} GiB"


def count_weights(config: Mapping[str, Any]) -> Weights:
    """Count the weights of a base with this `config.json`."""
    shape = read_shape(config)
    if shape is None:
        import fake_training_step  # with the libraries of models, which the family of Llama does not need here

        return fake_training_step.count_weights(_library_config(config))
    of_layer = [width * height for width, height in shape.projections]
    return Weights(
        total=shape.num_weights,
        linear=shape.num_layers * sum(of_layer),
        largest=max(of_layer),
        multiplied=shape.num_layers * sum(of_layer),
        head=shape.vocab_size * shape.hidden_size,
        lora_per_rank=count_lora_per_rank(shape),
        head_widths=shape.hidden_size + shape.vocab_size,
    )


def estimate_memory(
    config: Mapping[str, Any], device: Device, load: Load, kernels: Kernels | None = None
) -> tuple[ParameterCount, MemoryEstimate, MemoryEstimate]:
    """Return the number of parameters, the memory of training, and the memory of a chat.

    `config`: of `config.json`; `kernels`: those of the device unless given.
    """
    kernels = kernels_of(device) if kernels is None else kernels
    weights = count_weights(config)
    num_4bit, unpacked = (weights.linear, weights.largest) if device.is_quantized else (0, 0)
    trainable = load.rank * weights.lora_per_rank
    shape = read_shape(config)
    if shape is None:
        import fake_training_step

        training_peak, chat_peak = fake_training_step.measure_memory(_library_config(config), device, load)
    else:
        training_peak = count_training_step(shape, device, load, kernels)
        chat_peak = count_chat_prompt(shape, device, load)
    shared = {
        "weights_4bit": math.ceil(num_4bit * NF4_BYTES),
        "weights_other": (weights.total - num_4bit) * device.dtype.itemsize,
        "adapter": trainable * load.adapter_dtype.itemsize,
        "libraries": CUDA_CONTEXT_BYTES if device.kind == "cuda" else CPU_LIBRARIES_BYTES,
    }
    training = MemoryEstimate(
        **shared,
        unpacking=unpacked * device.dtype.itemsize,
        optimizer=math.ceil(trainable * OPTIMIZER_BYTES[load.optimizer]),
        activations=training_peak,
    )
    chat_unpacking = weights.largest * device.dtype.itemsize if device.is_quantized else 0
    chat = MemoryEstimate(**shared, unpacking=chat_unpacking, optimizer=0, activations=chat_peak)
    return ParameterCount(trainable, weights.total + trainable), training, chat


def count_training_step(shape: ModelShape, device: Device, load: Load, kernels: Kernels) -> int:
    """Return the peak bytes of activations and gradients in one training step.

    The peak is where the backward pass begins: everything that is kept, and the gradients inside the last layer.
    """
    size, tokens = device.dtype.itemsize, load.row_tokens
    hidden, inner = shape.hidden_size, shape.intermediate_size
    kept = _bytes_kept_by_layer(shape, device, load, kernels)
    trainable = load.rank * count_lora_per_rank(shape)
    gradients = trainable * load.adapter_dtype.itemsize
    # Autocast multiplies by copies of the adapter in half precision. They live as long as the activations that need them.
    copies = trainable * size if size < load.adapter_dtype.itemsize else 0
    num_kept_layers, between = shape.num_layers, 0
    if load.gradient_checkpointing:
        num_kept_layers, between = 1, shape.num_layers * tokens * size * hidden
        copies //= shape.num_layers
    if load.accumulates:
        between += gradients
    else:  # as the layers' inputs go, the gradients come
        between = max(between, gradients)
    in_backward = size * tokens * (hidden + inner)
    last_norm = tokens * (_bytes_of_norm(hidden, device, kernels) + size * hidden)
    of_loss = _bytes_of_loss(shape, device, load)
    if load.is_captured:  # the graphs' memory is theirs alone: the loss has its own, and rows go in and out by copies
        in_backward += of_loss + 2 * size * tokens * hidden + GRAPHS_BYTES
        in_backward += round(4 * ATTENTION_ROUNDING * tokens * shape.query_size)
    total = num_kept_layers * kept + between + copies + max(in_backward, of_loss) + last_norm
    if device.kind == "cuda":
        num_tensors = LARGE_TENSORS_PER_LAYER * num_kept_layers
        total += MIB * (num_tensors + (shape.num_layers if load.gradient_checkpointing else 0))
    return total


def count_lora_per_rank(shape: ModelShape) -> int:
    """Return the adapter's parameters of rank 1: inputs and outputs of all linear layers, the head included."""
    widths = sum(width + height for width, height in shape.projections)
    return shape.num_layers * widths + shape.hidden_size + shape.vocab_size


def _bytes_kept_by_layer(shape: ModelShape, device: Device, load: Load, kernels: Kernels) -> int:
    """Return what one layer keeps of a row for its backward pass."""
    size, hidden, inner = device.dtype.itemsize, shape.hidden_size, shape.intermediate_size
    query, key_value = shape.query_size, shape.key_value_size
    per_token = 2 * (_bytes_of_norm(hidden, device, kernels) + size * hidden)  # its result is the input of LoRA
    if shape.has_head_norms:
        per_token += _bytes_of_norm(query, device, kernels) + _bytes_of_norm(key_value, device, kernels)
    # q, k, v and the result of attention, which is the input of o; the loop over segments on a processor joins the
    # results of the segments in a second tensor.
    per_token += size * (2 * query + 2 * key_value) + 4 * shape.num_heads
    if device.kind == "cpu":
        per_token += size * query
    # Gate, activated gate, up, and their product, the input of down.
    per_token += size * inner * (3 if kernels.is_swiglu_fused else 4)
    low_ranks = len(shape.projections) * load.rank * min(size, load.adapter_dtype.itemsize)
    per_token += low_ranks
    if load.dropout:  # the input of each A once more, and a mask of one byte
        per_token += sum(width for width, _ in shape.projections) * (size + 1)
    return load.row_tokens * per_token


def _bytes_of_norm(width: int, device: Device, kernels: Kernels) -> int:
    """Return what a norm keeps of each token: its input, which the library computes with in fp32, and a scale."""
    return width * (device.dtype.itemsize if kernels.are_norms_fused else 4) + 4


def _bytes_of_loss(shape: ModelShape, device: Device, load: Load) -> int:
    """Return the peak of `head_loss`: hidden states and their gradients at supervised positions, one block of logits."""
    size = device.dtype.itemsize
    num_supervised = max(1, round(load.supervised_share * load.row_tokens))
    num_logits = min(num_supervised, choose_block_positions(shape.vocab_size)) * shape.vocab_size
    of_head = load.rank * (shape.hidden_size + shape.vocab_size) * load.adapter_dtype.itemsize
    low_rank = 2 * num_supervised * load.rank * load.adapter_dtype.itemsize
    # In half precision the logits exist in fp32, too, and their gradient again in half precision.
    return 2 * num_supervised * shape.hidden_size * size + low_rank + of_head + num_logits * (4 if size == 4 else 8)


def count_chat_prompt(shape: ModelShape, device: Device, load: Load) -> int:
    """Return the peak bytes of activations and cache while a prompt as long as the context is read."""
    size, tokens = device.dtype.itemsize, load.chat_tokens
    cache = 2 * shape.num_layers * tokens * shape.key_value_size * size
    # The activated gate, and up three times while LoRA adds to it; the layer's input and its norm.
    in_layer = tokens * size * (4 * shape.intermediate_size + 2 * shape.hidden_size)
    return cache + in_layer


def _library_config(config: Mapping[str, Any]) -> Any:
    from transformers import AutoConfig

    name = str(config.get("model_type"))
    # From a file: only there the library reads its own spelling of an infinite number (the Mamba layers of Granite 4).
    with tempfile.TemporaryDirectory() as folder, loading(name, "a model of this kind", "choose another base model"):
        Path(folder, "config.json").write_text(json.dumps(config), encoding="utf-8")
        return AutoConfig.from_pretrained(folder, trust_remote_code=False)
