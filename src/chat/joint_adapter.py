"""The adapter in fewer kernels: a decoding step on a fast card is little else than small kernels.

Beside each 4-bit layer, the library casts the input to the adapter's float32 and back, copies, scales and adds, each in
a kernel of its own; here two products remain. Loading is left to `trained_model`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from peft.tuners.lora import LoraLayer

from common.fused_layers import SAME_INPUT


def join_adapter_products(model: torch.nn.Module, dtype: torch.dtype) -> int:
    """Let each LoRA layer of `model` compute in `dtype` with two products, the first shared by layers of the same input.

    `disable_adapter()` works as before; merging and training do not. Returns the number of layers changed.
    """
    num_joined = 0
    for parent in model.modules():
        children = {name: child for name, child in parent.named_children() if is_plain(child)}
        together = [[name for name in names if name in children] for names in SAME_INPUT]
        alone = [[name] for name in children if not any(name in names for names in together)]
        for names in filter(None, [*together, *alone]):
            layers = [children[name] for name in names]
            product = _JointProduct(layers, dtype)
            for number, layer in enumerate(layers):
                layer.forward = _make_forward(layer, product, number, dtype)
                num_joined += 1
    return num_joined


def is_plain(layer: Any) -> bool:
    """Return whether `layer` is a linear layer with one plain LoRA adapter: no bias of its own, no variant, not merged."""
    if not isinstance(layer, LoraLayer) or not isinstance(layer.get_base_layer(), torch.nn.Linear):
        return False
    names = layer.active_adapters
    return (
        len(names) == 1
        and names[0] in layer.lora_A
        and not layer.merged
        and names[0] not in layer.lora_variant
        and layer.lora_B[names[0]].bias is None
    )


class _JointProduct:
    """The input times the A matrices of several layers, computed at the first layer's call and kept until the last's."""

    def __init__(self, layers: Sequence[Any], dtype: torch.dtype) -> None:
        matrices = [layer.lora_A[layer.active_adapters[0]].weight for layer in layers]
        self._ranks = [len(matrix) for matrix in matrices]
        self._joined = torch.cat([matrix.detach() for matrix in matrices]).to(dtype)
        for matrix, part in zip(matrices, self._joined.split(self._ranks), strict=True):
            matrix.data = part  # the same memory
        self._input: torch.Tensor | None = None
        self._parts: Sequence[torch.Tensor] = ()

    def part(self, number: int, states: torch.Tensor) -> torch.Tensor:
        if states is not self._input:
            self._input = states
            product = torch.nn.functional.linear(states.to(self._joined.dtype), self._joined)
            self._parts = product.view(-1, product.shape[-1]).split(self._ranks, dim=-1)
        part = self._parts[number]
        if number == len(self._ranks) - 1:
            self._input, self._parts = None, ()  # frees what a long prompt takes
        return part


def _make_forward(
    layer: Any, product: _JointProduct, number: int, dtype: torch.dtype
) -> Callable[[torch.Tensor], torch.Tensor]:
    name = layer.active_adapters[0]
    matrix = layer.lora_B[name].weight
    scaled = (matrix.detach().float() * layer.scaling[name]).to(dtype).t()
    matrix.data = matrix.data.to(dtype)

    def forward(states: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = layer.base_layer(states)
        if layer.disable_adapters:
            return result
        flat = result.view(-1, result.shape[-1])
        return torch.addmm(flat, product.part(number, states).to(flat.dtype), scaled.to(flat.dtype)).view_as(result)

    return forward
