"""Before the training: does the real model compute for packed rows what it computes for separate ones?

Some models or versions let packed conversations see each other in silence (a key-value cache is enough), which no loss
curve shows. Two short pieces tell: alone, in a pack, and in a pack whose other piece was changed. The loss that training
takes of them has to be the mean of what their tokens give one by one.
It leaves what to do about a difference to the script.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from packing import collate_pack
from segment_attention import SEGMENT_ATTENTION
from torch.nn.functional import cross_entropy

PLAIN_ATTENTION = "eager"  # slow, but what every model defines itself by
CHECKED_TOKENS = 96  # of each piece: contamination shows at once in the second one's first tokens

# The largest mean difference of the loss a token. Measured for packs that leak: 1.5e-2 and more; for sound ones 3e-7
# in fp32. In half precision the kernels round differently by length.
TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}
# The pack with the other piece changed has the same shape: rounding is the same, whatever the precision.
LEAK_TOLERANCE = 1e-4


def choose_attention(model: Any, pieces: Sequence[dict[str, Any]]) -> str | None:
    """Let `model` attend in the fastest way that packs soundly; return what is wrong with the last one if none does."""
    fault = None
    for attention in (SEGMENT_ATTENTION, "sdpa", PLAIN_ATTENTION):
        try:
            model.get_base_model().set_attn_implementation(attention)
            fault = find_packing_fault(model, pieces)
        except ValueError as error:  # this attention cannot do what this model needs, a soft cap for example
            fault = str(error)
        if fault is None:
            break
    return fault


def find_packing_fault(model: Any, pieces: Sequence[dict[str, Any]]) -> str | None:
    """Return what is wrong with packed rows on this model as it attends now, or None.

    Of `pieces`, the first and the last are taken.
    """
    first, second = (
        {**piece, "is_supervised": [True] * len(piece["input_ids"])}
        for piece in (_shorten(pieces[0]), _shorten(pieces[-1]))
    )
    changed = {**first, "input_ids": list(reversed(first["input_ids"]))}
    packed = _token_losses(model, [first, second])
    leaked = _token_losses(model, [changed, second])
    base = model.get_base_model()
    packed_attention = base.config._attn_implementation
    base.set_attn_implementation(PLAIN_ATTENTION)
    try:
        alone = torch.cat([_token_losses(model, [piece], is_plain=True) for piece in (first, second)])
    finally:
        base.set_attn_implementation(packed_attention)
    num_second = len(second["input_ids"]) - 1
    leak = (packed[-num_second:] - leaked[-num_second:]).abs().mean().item()
    difference = (packed - alone).abs().mean().item()
    if not leak <= LEAK_TOLERANCE:
        return f"conversations packed in one row see each other (loss changes by {leak:.1e})"
    if not difference <= TOLERANCES[base.dtype]:
        return f"packed and separate rows give different losses (by {difference:.1e} a token)"
    with torch.enable_grad():  # as in training: without gradients it is computed in another way
        training_loss = model(**_on_device(model, collate_pack([[first, second]]))).loss.item()
    difference = abs(training_loss - packed.mean().item())
    if not difference <= TOLERANCES[base.dtype]:
        return f"the loss to train on is not the mean of the tokens' losses (by {difference:.1e} a token)"
    return None


def _shorten(piece: dict[str, Any]) -> dict[str, Any]:
    return {name: value[:CHECKED_TOKENS] for name, value in piece.items() if isinstance(value, list)}


def _token_losses(model: Any, pieces: Sequence[dict[str, Any]], is_plain: bool = False) -> torch.Tensor:
    """Return the loss of each token but the first of each piece; `is_plain` computes one piece without our keywords."""
    batch = collate_pack([pieces])
    labels = batch.pop("labels").to(model.device)
    del batch["shift_labels"]
    if is_plain:
        batch = {"input_ids": batch["input_ids"], "use_cache": False}
    was_training = model.training
    model.eval()
    with torch.no_grad():
        logits = model(**_on_device(model, batch)).logits
    model.train(was_training)
    if is_plain:
        logits = logits[:, :-1]
    return cross_entropy(logits.reshape(len(labels), -1).float(), labels, reduction="none")


def _on_device(model: Any, batch: dict[str, Any]) -> dict[str, Any]:
    return {name: value.to(model.device) if torch.is_tensor(value) else value for name, value in batch.items()}
