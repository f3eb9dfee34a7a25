"""The loss at the supervised positions, a block of them at a time: their logits never exist all at once.

A row of 2,048 tokens with 1,000 to learn, in a vocabulary of 64,001, has 64 million logits, and training holds several
tensors of that size at its peak. A block's gradients are taken while its logits are there, so nothing is computed twice.
It leaves which positions those are to `packing`, and proving the loss right to `packing_check`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.modeling_utils import slice_logits_to_keep

# 16 MiB in fp32. With 64,001 words twice as many took a quarter more memory in all on a processor, for a twentieth of the time.
BLOCK_LOGITS = 2**22
MIN_BLOCK_POSITIONS = 64  # with fewer, a GPU would wait for the head's weights at each block

# What some families do with the logits after the head, or add to the loss; on these the model's own loss is left as it is.
AFTER_THE_HEAD = (
    "final_logit_softcapping",
    "lm_head_multiplier",
    "logit_scale",
    "logits_scaling",
    "output_router_logits",
)


def has_plain_head(config: PreTrainedConfig) -> bool:
    """Tell whether this kind of model takes the loss of what comes out of its head, and of nothing else."""
    return not any(getattr(config, name, None) for name in AFTER_THE_HEAD)


def compute_loss_in_blocks(model: PreTrainedModel) -> None:
    """Let `model` answer the batches of `collate_pack` with their loss alone, computed block by block.

    Any other call (a reply, a batch without `shift_labels`) takes the model's own way. A model that does more after its
    head keeps its own way altogether.
    """
    if not has_plain_head(model.config):
        return
    own_forward = model.forward
    block_positions = choose_block_positions(model.config.get_text_config().vocab_size)

    @functools.wraps(own_forward)
    def forward(
        *args: Any,
        shift_labels: torch.Tensor | None = None,
        num_items_in_batch: int | torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        if shift_labels is None:
            return own_forward(*args, num_items_in_batch=num_items_in_batch, **kwargs)
        del kwargs["labels"]  # the same once more, for the library
        logits_to_keep = kwargs.pop("logits_to_keep")
        hidden = model.get_decoder()(*args, **kwargs).last_hidden_state
        supervised = slice_logits_to_keep(hidden, logits_to_keep).reshape(-1, hidden.shape[-1])
        loss = sum_loss(model.get_output_embeddings(), supervised, shift_labels, block_positions)
        return CausalLMOutputWithPast(
            loss=loss / (len(shift_labels) if num_items_in_batch is None else num_items_in_batch)
        )

    # Of this one object, as the libraries of fused losses do it.
    model.forward = forward


def choose_block_positions(vocab_size: int) -> int:
    """Return at how many positions the logits are computed at one time."""
    return max(MIN_BLOCK_POSITIONS, BLOCK_LOGITS // vocab_size)


def sum_loss(head: torch.nn.Module, hidden: torch.Tensor, targets: torch.Tensor, block_positions: int) -> torch.Tensor:
    """Return the summed cross entropy of `head(hidden)`: `hidden` [N, size], `targets` [N]; a number in fp32."""
    if torch.is_grad_enabled():
        parameters = [parameter for parameter in head.parameters() if parameter.requires_grad]
        loss: torch.Tensor = _HeadLoss.apply(head, targets, block_positions, hidden, *parameters)
        return loss
    losses = [
        cross_entropy(head(block).float(), block_targets, reduction="sum")
        for block, block_targets in _blocks(hidden, targets, block_positions)
    ]
    return torch.stack(losses).sum()


def _blocks(
    hidden: torch.Tensor, targets: torch.Tensor, block_positions: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    return zip(hidden.split(block_positions), targets.split(block_positions), strict=True)


def _loss_and_gradient(logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the summed cross entropy and its gradient for `logits` [N, V]; in fp32 it takes their place in memory.

    If a head needed its own logits for its gradient, autograd would notice the change and raise RuntimeError.
    """
    gradient = logits.float()
    targets = targets[:, None]
    gradient -= gradient.amax(-1, keepdim=True)
    of_targets = gradient.gather(1, targets)
    gradient.exp_()
    totals = gradient.sum(-1, keepdim=True)
    gradient /= totals  # the probabilities; the loss pulls that of the target towards one
    gradient.scatter_add_(1, targets, torch.full_like(totals, -1))
    return (totals.log() - of_targets).sum(), gradient.to(logits.dtype)


class _HeadLoss(torch.autograd.Function):
    """The summed loss; its gradients for `hidden` and the head's trained `parameters` are ready before they are asked for."""

    @staticmethod
    def forward(
        ctx: Any,
        head: torch.nn.Module,
        targets: torch.Tensor,
        block_positions: int,
        hidden: torch.Tensor,
        *parameters: torch.Tensor,
    ) -> torch.Tensor:
        losses = []
        hidden_gradients = []
        parameter_gradients = [torch.zeros_like(parameter) for parameter in parameters]
        for block, block_targets in _blocks(hidden.detach(), targets, block_positions):
            with torch.enable_grad():
                logits = head(block.requires_grad_())
            loss, of_logits = _loss_and_gradient(logits.detach(), block_targets)
            of_hidden, *of_parameters = torch.autograd.grad(logits, [block, *parameters], of_logits)
            losses.append(loss)
            hidden_gradients.append(of_hidden)
            for total, gradient in zip(parameter_gradients, of_parameters, strict=True):
                total += gradient
            del logits, of_logits  # before the next block makes its own
        ctx.save_for_backward(torch.cat(hidden_gradients), *parameter_gradients)
        return torch.stack(losses).sum()

    @staticmethod
    def backward(ctx: Any, scale: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return (None, None, None, *(scale * gradient for gradient in ctx.saved_tensors))
