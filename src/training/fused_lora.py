"""LoRA layers that read and write their activations less often than peft's do.

For a layer with the frozen weight W, peft computes W x, copies it, computes B A x, scales it, adds the two, and in the
backward pass adds up the gradients of x in the same manner: each is a pass over all activations of the layer, and on a GPU
such passes take as long as a third of the products. Here each product adds its result to that of the one before
(`addmm`), so that no other pass is left. Layers with the same input (q, k, v; gate, up) share their products with the
matrices A and one gradient of the input.

A layer that is more than a product and plain LoRA keeps peft's forward, and so do calls that this does not pay for.
The layers, the adapter's parameters and what is saved stay peft's.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn.modules import Linear4bit
from peft import PeftModel
from peft.tuners.lora import LoraLayer

from common.fused_layers import SAME_INPUT

# Without gradients and with fewer rows, bitsandbytes multiplies without unpacking the 4-bit weights first.
MIN_ROWS_WITHOUT_GRADIENTS = 128


def fuse_lora(model: PeftModel) -> int:
    """Replace the forward pass of the plain LoRA layers in the decoder of `model`; return how many."""
    base: Any = model.get_base_model()
    fused: set[Any] = {base.get_output_embeddings()}  # the loss multiplies by the head itself
    for module in list(base.modules()):
        for names in SAME_INPUT:
            layers = [getattr(module, name, None) for name in names]
            if all(layer is not None and is_plain(layer) for layer in layers) and are_alike(layers):
                _replace_forward(layers)
                fused.update(layers)
    for layer in list(base.modules()):
        if layer not in fused and isinstance(layer, LoraLayer) and is_plain(layer):
            _replace_forward([layer])
            fused.add(layer)
    return len(fused) - 1


def is_plain(layer: Any) -> bool:
    """Return whether `layer` is one matrix product (in 4 bits or not) with one adapter of plain LoRA without dropout."""
    if not isinstance(layer, LoraLayer) or type(layer.base_layer) not in (torch.nn.Linear, Linear4bit):
        return False
    if len(layer.active_adapters) != 1 or layer.active_adapters[0] not in layer.lora_A:
        return False
    name = layer.active_adapters[0]
    parts = (layer.lora_A[name], layer.lora_B[name])
    has_extras = name in layer.lora_variant or layer.lora_bias.get(name) or getattr(layer, "fan_in_fan_out", False)
    is_product = all(type(part) is torch.nn.Linear and part.bias is None for part in parts)
    return is_product and not has_extras and isinstance(layer.lora_dropout[name], torch.nn.Identity)


def are_alike(layers: Sequence[Any]) -> bool:
    """Return whether these plain layers can share the products with their one input."""
    return len({(type(layer.base_layer), *_values(layer)) for layer in layers}) == 1


def _values(layer: Any) -> tuple[Any, ...]:
    (name,) = layer.active_adapters
    into = layer.lora_A[name].weight
    return name, layer.scaling[name], into.shape, into.dtype, getattr(layer.base_layer, "compute_dtype", None)


def _replace_forward(layers: Sequence[Any]) -> None:
    """Make these layers, which have the same input, compute their products together. On these objects only."""
    siblings = _Siblings(layers)
    for number, layer in enumerate(layers):
        layer.forward = functools.partial(siblings.forward, number, layer.forward)


class _Siblings:
    """Layers that are called with the same input: the first call computes the outputs of all."""

    def __init__(self, layers: Sequence[Any]) -> None:
        self._layers = layers
        (self._adapter,) = layers[0].active_adapters
        self._input: torch.Tensor | None = None
        self._outputs: dict[int, torch.Tensor] = {}  # of the last call, as far as they were not yet asked for

    def forward(self, number: int, own_forward: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """Return the output of layer `number`."""
        if args or kwargs or not self._can_multiply(x):
            return own_forward(x, *args, **kwargs)
        if x is not self._input or number not in self._outputs:
            self._input, self._outputs = x, dict(enumerate(multiply(self._layers, self._adapter, x)))
        output = self._outputs.pop(number)
        if not self._outputs:
            self._input = None
        return output

    def _can_multiply(self, x: torch.Tensor) -> bool:
        if not torch.is_grad_enabled() and x.numel() < MIN_ROWS_WITHOUT_GRADIENTS * x.shape[-1]:
            return False
        return not any(
            layer.disable_adapters or layer.merged or layer.active_adapters != [self._adapter] for layer in self._layers
        )


@dataclass(frozen=True)
class _Call:
    """What one call of the products works with; all tensors are without gradients."""

    bases: list[Any]
    scaling: float
    rows: torch.Tensor  # x [T, in]
    low_rank: torch.Tensor  # scaling x A^T [T, n r]
    into: torch.Tensor  # the A of all layers [n r, in]
    out_of: list[torch.Tensor]  # the B of each [out, r]
    keeper: Any  # the node that keeps the tensors for the backward pass


def multiply(layers: Sequence[Any], adapter: str, x: torch.Tensor) -> Any:
    """Return what each of `layers` gives for `x` with `adapter`, as a tuple; the layers must be plain and alike."""
    into = [layer.lora_A[adapter].weight for layer in layers]
    out_of = [layer.lora_B[adapter].weight for layer in layers]
    bases = [layer.base_layer for layer in layers]
    scaling = layers[0].scaling[adapter]
    with torch.no_grad():
        dtype = _product_dtype(bases[0], x)
        rows = x.reshape(-1, x.shape[-1]).to(dtype)
        stacked = torch.cat(into).to(dtype) if len(into) > 1 else into[0].to(dtype)
        low_rank = _product(rows, stacked.T, scaling)
        narrow = [matrix.to(dtype) for matrix in out_of]
    kept = _Keeper.apply(x, into[0], rows, low_rank, stacked, *narrow)
    call = _Call(bases, scaling, rows, low_rank, stacked, narrow, kept.grad_fn)
    return _Products.apply(call, kept, x, *into, *out_of)


class _Keeper(torch.autograd.Function):
    """Keeps the tensors of the backward pass of the products, which reads them here.

    As a node before them: when gradient checkpointing computes a block again, it stops as soon as everything is kept. The
    products of the last layer of a block, a quarter of all, are then not computed again.
    """

    @staticmethod
    def forward(ctx: Any, _x: torch.Tensor, _into: torch.Tensor, *tensors: torch.Tensor) -> torch.Tensor:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors)
        ctx.num_inputs = len(tensors) + 2
        return tensors[0].new_empty(0)

    @staticmethod
    def backward(ctx: Any, *_gradient: Any) -> tuple[None, ...]:
        nothing: tuple[None, ...] = (None,) * ctx.num_inputs
        return nothing


class _Products(torch.autograd.Function):
    """The outputs of layers with one input: the sum of two products each."""

    @staticmethod
    def forward(
        ctx: Any, call: _Call, _kept: torch.Tensor, x: torch.Tensor, *factors: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.keeper, ctx.bases, ctx.scaling = call.keeper, call.bases, call.scaling
        ctx.x_shape, ctx.x_dtype, ctx.factor_dtype = x.shape, x.dtype, factors[0].dtype
        outputs = []
        for number, (base, out_of) in enumerate(zip(call.bases, call.out_of, strict=True)):
            width, rank = out_of.shape
            output = call.rows.new_empty(*x.shape[:-1], width)
            if base.bias is not None:
                output.copy_(base.bias)
            low_rank = call.low_rank[:, number * rank : (number + 1) * rank]
            output.view(-1, width).addmm_(low_rank, out_of.T, beta=int(base.bias is not None))
            output.view(-1, width).addmm_(call.rows, _unpack(base, call.rows.dtype).T)
            outputs.append(output.to(x.dtype) if type(base) is Linear4bit else output)
        return tuple(outputs)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor | None) -> tuple[Any, ...]:
        num_layers = len(gradients)
        rows, low_rank, into, *out_of = ctx.keeper.saved_tensors
        dtype, rank = rows.dtype, out_of[0].shape[1]
        columns = [slice(number * rank, (number + 1) * rank) for number in range(num_layers)]
        of_outputs = [None if of is None else of.reshape(len(rows), -1).to(dtype) for of in gradients]
        of_low_rank = low_rank.new_empty(low_rank.shape)
        of_factors: list[torch.Tensor | None] = [None] * (2 * num_layers)
        for number, of_output in enumerate(of_outputs):
            if of_output is None:
                of_low_rank[:, columns[number]] = 0
                continue
            of_low_rank[:, columns[number]].addmm_(of_output, out_of[number], beta=0, alpha=ctx.scaling)
            of_factors[num_layers + number] = _product(of_output.T, low_rank[:, columns[number]]).to(ctx.factor_dtype)
        of_into = _product(of_low_rank.T, rows).to(ctx.factor_dtype)
        of_factors[:num_layers] = of_into.split(rank)
        of_rows = None
        if ctx.needs_input_grad[2]:
            of_rows = _product(of_low_rank, into)
            for number, of_output in enumerate(of_outputs):
                if of_output is not None:
                    of_rows.addmm_(of_output, _unpack(ctx.bases[number], dtype))
            of_rows = of_rows.view(ctx.x_shape).to(ctx.x_dtype)
        return (None, None, of_rows, *of_factors)


def _product_dtype(base: Any, x: torch.Tensor) -> torch.dtype:
    """Return the number type in which this layer multiplies, with and without autocast."""
    if type(base) is Linear4bit:
        compute_dtype: torch.dtype | None = base.compute_dtype
        return x.dtype if compute_dtype is None else compute_dtype
    is_autocast = torch.is_autocast_enabled(x.device.type)
    return torch.get_autocast_dtype(x.device.type) if is_autocast else x.dtype


def _unpack(base: Any, dtype: torch.dtype) -> torch.Tensor:
    """Return the weight of `base` as a matrix [out, in] of this number type."""
    weight: Any = base.weight
    matrix = dequantize_4bit(weight.data, weight.quant_state) if type(base) is Linear4bit else weight.data
    return matrix.to(dtype)


def _product(left: torch.Tensor, right: torch.Tensor, scaling: float = 1.0) -> torch.Tensor:
    # In place: autocast, which may be on, leaves these as they are.
    return left.new_empty(left.shape[0], right.shape[1]).addmm_(left, right, beta=0, alpha=scaling)
