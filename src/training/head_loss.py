"""The loss at the supervised positions, computed block by block, so that all logits never exist at once.

A row with 1,000 supervised tokens and a vocabulary of 64,001 has 64 million logits, and training holds several tensors of
that size at its peak. Here each block of logits reuses the same memory; its gradient (in fp32) replaces it there and is
multiplied on at once, so that nothing is computed twice.
The positions come from `packing`; `packed_attention` checks the loss before training.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from peft.tuners.lora import Linear as LoraLinear
from recipes import choose_block_positions
from torch.nn.functional import cross_entropy
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

# What some families do to the logits after the head, or add to the loss: these models keep their own loss.
AFTER_THE_HEAD = (
    "dim_model_base",
    "final_logit_softcapping",
    "lm_head_multiplier",
    "logit_scale",
    "logits_soft_cap",
    "logits_scaling",
    "output_router_logits",
)


def has_plain_head(config: PreTrainedConfig) -> bool:
    """Return whether this kind of model takes its loss from the head's output alone."""
    return not any(getattr(config, name, None) for name in AFTER_THE_HEAD)


def is_product(head: torch.nn.Module) -> bool:
    """Return whether `head` is one matrix product, or the sum of two with LoRA."""
    linear = head.base_layer if isinstance(head, LoraLinear) else head
    return type(linear) is torch.nn.Linear and linear.bias is None


def compute_loss_in_blocks(model: PreTrainedModel) -> None:
    """Make `model` compute the loss of a batch of `collate_row` block by block, without returning logits.

    Other calls (generation, a batch without `shift_labels`) stay as they are, and so does a model whose head is more than
    a product, or that does more after its head.
    """
    own_forward = model.forward
    block_positions = choose_block_positions(model.config.get_text_config().vocab_size)

    @functools.wraps(own_forward)
    def forward(*args: Any, num_items_in_batch: int | torch.Tensor | None = None, **kwargs: Any) -> Any:
        head = model.get_output_embeddings()
        decoder = model.get_decoder()
        # Llama 4 returns itself, head and all; ModernBERT its head alone.
        is_split = isinstance(decoder, PreTrainedModel) and decoder.get_output_embeddings() is None
        if kwargs.get("shift_labels") is None or not (has_plain_head(model.config) and is_product(head) and is_split):
            return own_forward(*args, num_items_in_batch=num_items_in_batch, **kwargs)
        del kwargs["labels"]  # a copy of shift_labels, for the library
        targets, positions = kwargs.pop("shift_labels"), kwargs.pop("logits_to_keep")
        hidden = decoder(*args, **kwargs).last_hidden_state
        supervised = hidden[0].index_select(0, positions)
        loss = sum_loss(head, supervised, targets, block_positions)
        return CausalLMOutputWithPast(loss=loss / (len(targets) if num_items_in_batch is None else num_items_in_batch))

    # On this object only, as libraries with fused losses do it.
    model.forward = forward


def sum_loss(head: torch.nn.Module, hidden: torch.Tensor, targets: torch.Tensor, block_positions: int) -> torch.Tensor:
    """Return the summed cross entropy of `head(hidden)` in fp32: `hidden` [N, size], `targets` [N].

    With gradients, `head` must be a product.
    """
    if torch.is_grad_enabled():
        loss: torch.Tensor = _ProductLoss.apply(targets, block_positions, *_factors(head, hidden))
        return loss
    blocks = zip(hidden.split(block_positions), targets.split(block_positions), strict=True)
    return torch.stack([cross_entropy(head(block).float(), wanted, reduction="sum") for block, wanted in blocks]).sum()


def _factors(head: Any, hidden: torch.Tensor) -> list[torch.Tensor]:
    """Return left and right of each product, one or (with LoRA) two: the sum of `left @ right.T` is `head(hidden)`."""
    if not isinstance(head, LoraLinear):
        return [hidden, head.weight]
    (name,) = head.active_adapters
    into_low_rank: Any = head.lora_A[name]
    low_rank = into_low_rank(head.lora_dropout[name](hidden.to(into_low_rank.weight.dtype)))
    return [hidden, head.base_layer.weight, low_rank * head.scaling[name], head.lora_B[name].weight]


class _ProductLoss(torch.autograd.Function):
    """The summed cross entropy of logits that are a sum of products; the forward pass computes its gradients, too."""

    @staticmethod
    def forward(ctx: Any, targets: torch.Tensor, block_positions: int, *factors: torch.Tensor) -> torch.Tensor:
        gradients = [torch.zeros_like(factor) if factor.requires_grad else None for factor in factors]
        # All in the number type of the head's weights, as autocast does it.
        rounded = [factor.to(factors[1].dtype) for factor in factors]
        pairs = list(zip(rounded[::2], rounded[1::2], gradients[::2], gradients[1::2], strict=True))
        room = rounded[1].new_empty(min(block_positions, len(targets)), len(rounded[1]))
        losses = []
        for start in range(0, len(targets), block_positions):
            block = slice(start, min(start + block_positions, len(targets)))
            logits = room[: block.stop - start]
            for number, (left, right, _, _) in enumerate(pairs):
                logits.addmm_(left[block], right.T, beta=min(number, 1))  # the first overwrites the last block
            loss, of_logits = _loss_and_gradient(logits, targets[block])
            losses.append(loss)
            for left, right, of_left, of_right in pairs:
                if of_left is not None:
                    of_left[block] = of_logits @ right
                if of_right is not None:
                    of_right += of_logits.T @ left[block]
        ctx.save_for_backward(*gradients)
        return torch.stack(losses).sum()

    @staticmethod
    def backward(ctx: Any, scale: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return (None, None, *(None if gradient is None else scale * gradient for gradient in ctx.saved_tensors))


def _loss_and_gradient(logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the summed cross entropy of `logits` [N, V] and its gradient, which overwrites them if they are fp32."""
    gradient = logits.float()
    targets = targets[:, None]
    gradient -= gradient.amax(-1, keepdim=True)
    of_targets = gradient.gather(1, targets)
    gradient.exp_()
    totals = gradient.sum(-1, keepdim=True)
    gradient /= totals  # the probabilities; minus one at the target, that is the gradient
    gradient.scatter_add_(1, targets, torch.full_like(totals, -1))
    return (totals.log() - of_targets).sum(), gradient.to(logits.dtype)
