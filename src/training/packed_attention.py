"""Attention inside the segments of a packed row, and the check before training that a model's packed rows are sound.

The attention is exact and needs no T x T mask, which makes long rows slow. It is registered through the library's
AttentionInterface; no model is patched. On a GPU in half precision it is one call of torch's variable-length kernel,
elsewhere a loop over the segments (1.5 to 1.8 times as fast as a mask at 1,024 to 2,048 tokens on a CPU).

In some models, packed conversations silently see each other (a key-value cache is enough), and no loss curve shows it. The
check compares two short chunks alone, in one row, and in one row after the first chunk was changed. It also compares the
loss of training with the mean of the tokens' losses. Where no kind of attention keeps the segments apart (recurrent layers,
convolutions, ALiBi, positions that the model counts itself), each segment is read alone: slower, with the same result.
Segment borders come from `packing.collate_row`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from packing import collate_row, on_device
from processes import say
from torch.nn.functional import cross_entropy, scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.modeling_outputs import CausalLMOutputWithPast

from common.script import reason_of

SEGMENT_ATTENTION = "segments"
# What some families add to plain attention; neither kernel here supports it.
UNKNOWN_EXTRAS = ("softcap", "s_aux", "position_bias")

# What a model of the library raises that lacks what is asked of it.
NOT_COMPUTED = (ValueError, TypeError, AttributeError, LookupError, NotImplementedError)

PLAIN_ATTENTION = "eager"  # slow, but the reference of every model
CHECKED_TOKENS = 96  # per chunk: a leak shows in the first tokens of the second one

# The largest mean difference of the loss per token. Measured in fp32: 1.5e-2 and more for rows that leak, 3e-7 for sound
# ones. In half precision, rounding depends on the length, and grows with the logits: a base that predicts badly has a higher
# loss from larger logits (17 nats and a difference of 5.3e-2 with random weights).
TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}
USUAL_LOSS = 4.0  # nats per token of text, at most
# The changed row has the same shape, so rounding is the same in every precision.
LEAK_TOLERANCE = 1e-4


def register_segment_attention() -> None:
    """Make `attn_implementation="segments"` known to transformers."""
    AttentionInterface.register(SEGMENT_ATTENTION, attend_within_segments)
    AttentionMaskInterface.register(SEGMENT_ATTENTION, lambda *_args, **_kwargs: None)  # the borders replace the mask


def attend_within_segments(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    cu_seq_lens_q: torch.Tensor | None = None,
    max_length_q: int = 0,
    **extras: Any,
) -> tuple[torch.Tensor, None]:
    """Attend causally inside each segment. `query`: [1, heads, T, size]; returns [1, T, heads, size].

    `sliding_window` counts inside a segment. Raises ValueError for what it does not support.
    """
    if cu_seq_lens_q is None or attention_mask is not None or query.shape[0] != 1:
        raise ValueError("segment attention needs one packed row with its borders")
    if dropout or any(extras.get(name) is not None for name in UNKNOWN_EXTRAS):
        raise ValueError("segment attention cannot do what this model adds to attention")
    if has_varlen_kernel(query.device, query.dtype, query.shape[-1]):
        return _attend_in_one_call(query, key, value, scaling, sliding_window, cu_seq_lens_q, max_length_q), None
    borders = cu_seq_lens_q.tolist()
    outputs = [
        _attend_in_segment(
            query[:, :, start:end], key[:, :, start:end], value[:, :, start:end], scaling, sliding_window
        )
        for start, end in zip(borders, borders[1:], strict=False)
    ]
    return torch.cat(outputs, dim=2).transpose(1, 2).contiguous(), None


def _attend_in_segment(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float | None, sliding_window: int | None
) -> torch.Tensor:
    length = query.shape[2]
    window_mask = None
    if sliding_window is not None and length > sliding_window:
        window_mask = _window_mask(length, sliding_window, query.device)
    return scaled_dot_product_attention(
        query, key, value, attn_mask=window_mask, is_causal=window_mask is None, scale=scaling, enable_gqa=True
    )


def _window_mask(length: int, sliding_window: int, device: torch.device) -> torch.Tensor:
    distance = torch.arange(length, device=device)[:, None] - torch.arange(length, device=device)[None, :]
    return (distance >= 0) & (distance < sliding_window)


def has_varlen_kernel(device: torch.device, dtype: torch.dtype, head_size: int) -> bool:
    """Return whether the segments of a row are attended to in one call."""
    # The kernel is flash attention: Ampere and newer, half precision, heads of at most 256.
    return (
        device.type == "cuda"
        and dtype in (torch.bfloat16, torch.float16)
        and head_size <= 256
        and torch.cuda.get_device_capability(device) >= (8, 0)
    )


def _attend_in_one_call(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scaling: float | None,
    sliding_window: int | None,
    cu_seq_lens: torch.Tensor,
    longest: int,
) -> torch.Tensor:
    from torch.nn.attention.varlen import varlen_attn

    output = varlen_attn(
        query[0].transpose(0, 1),  # [T, heads, size]
        key[0].transpose(0, 1),
        value[0].transpose(0, 1),
        cu_seq_lens,
        cu_seq_lens,
        longest,
        longest,
        scale=scaling,
        window_size=(sliding_window - 1 if sliding_window else -1, 0),  # to the left; 0 to the right is causal
        enable_gqa=True,
    )
    assert isinstance(output, torch.Tensor)
    return output.unsqueeze(0)


def choose_attention(model: Any, chunks: Sequence[dict[str, Any]]) -> str | None:
    """Set the fastest way of reading packed rows that is sound; if there is none, return the fault of the last one tried."""
    fault = _try_attentions(model, chunks, (SEGMENT_ATTENTION, "sdpa", PLAIN_ATTENTION))
    if fault is None:
        return None
    read_segments_alone(model.get_base_model())
    fault = _try_attentions(model, chunks, ("sdpa", PLAIN_ATTENTION))
    if fault is None:
        say(
            "  The conversations of a row are read one after another: this kind of base would mix them. It takes longer."
        )
    return fault


def _try_attentions(model: Any, chunks: Sequence[dict[str, Any]], attentions: Sequence[str]) -> str | None:
    fault = None
    for attention in attentions:
        try:
            model.get_base_model().set_attn_implementation(attention)
            fault = find_packing_fault(model, chunks)
        except NOT_COMPUTED as error:  # not supported for this model, a soft cap for example
            fault = f"it cannot be computed ({reason_of(error)})"
        if fault is None:
            break
    return fault


def read_segments_alone(model: Any) -> None:
    """Let `model` read the segments of a packed row one after another, each as a row of its own.

    Loss and logits are those of the packed row.
    """
    own_forward = model.forward

    @functools.wraps(own_forward)
    def forward(*args: Any, cu_seq_lens_q: torch.Tensor | None = None, **kwargs: Any) -> Any:
        if cu_seq_lens_q is None:
            return own_forward(*args, **kwargs)
        row, positions, labels = kwargs["input_ids"], kwargs["logits_to_keep"], kwargs.get("labels")
        borders, number = cu_seq_lens_q.tolist(), kwargs.get("num_items_in_batch")
        losses, logits = [], []
        for start, end in zip(borders, borders[1:], strict=False):
            is_inside = (start <= positions) & (positions < end)
            segment = {"input_ids": row[:, start:end], "logits_to_keep": positions[is_inside] - start}
            if labels is None:
                logits.append(own_forward(**segment, use_cache=False).logits)
            elif is_inside.any():
                targets = {"labels": labels[is_inside], "shift_labels": labels[is_inside]}
                number = len(labels) if number is None else number
                losses.append(own_forward(**segment, **targets, num_items_in_batch=number, use_cache=False).loss)
        if labels is None:
            return CausalLMOutputWithPast(logits=torch.cat(logits, dim=1))
        return CausalLMOutputWithPast(loss=torch.stack(losses).sum())

    # On this object only: the class stays the library's.
    model.forward = forward


@contextmanager
def plain_attention(model: Any) -> Iterator[None]:
    """Use the library's own attention inside the block: there are no packed rows."""
    base = model.get_base_model()
    before = base.config._attn_implementation
    base.set_attn_implementation(PLAIN_ATTENTION)
    try:
        yield
    finally:
        base.set_attn_implementation(before)


def find_packing_fault(model: Any, chunks: Sequence[dict[str, Any]]) -> str | None:
    """Return what is wrong with packed rows under the model's present attention, or None.

    Compares the first and the last of `chunks`.
    """
    first, second = (
        {**chunk, "is_supervised": [True] * len(chunk["input_ids"])}
        for chunk in (_shorten(chunks[0]), _shorten(chunks[-1]))
    )
    num_kept = len(first["input_ids"]) // 2
    changed = {**first, "input_ids": first["input_ids"][:num_kept] + first["input_ids"][: num_kept - 1 : -1]}
    packed = _token_losses(model, [first, second])
    leaked = _token_losses(model, [changed, second])
    with plain_attention(model):
        alone = torch.cat([_token_losses(model, [chunk], is_plain=True) for chunk in (first, second)])
    num_second = len(second["input_ids"]) - 1
    leak = (packed[-num_second:] - leaked[-num_second:]).abs().mean().item()
    foresight = (packed[: num_kept - 1] - leaked[: num_kept - 1]).abs().sum().item()
    difference = (packed - alone).abs().mean().item()
    if not leak <= LEAK_TOLERANCE:
        return f"conversations packed in one row see each other (loss changes by {leak:.1e})"
    if not foresight <= LEAK_TOLERANCE * num_kept:
        return f"a token depends on those after it (loss changes by {foresight:.1e}), so no text can be continued"
    tolerance = TOLERANCES[model.get_base_model().dtype] * max(1.0, alone.mean().item() / USUAL_LOSS)
    if not difference <= tolerance:
        return f"packed and separate rows give different losses (by {difference:.1e} per token)"
    with torch.enable_grad():  # as in training: without gradients, other code computes it
        training_loss = model(**on_device(collate_row([[first, second]]), model.device)).loss.item()
    difference = abs(training_loss - packed.mean().item())
    if not difference <= tolerance:
        return f"the training loss is not the mean of the tokens' losses (by {difference:.1e} per token)"
    return None


def _shorten(chunk: dict[str, Any]) -> dict[str, Any]:
    return {name: value[:CHECKED_TOKENS] for name, value in chunk.items() if isinstance(value, list)}


def _token_losses(model: Any, chunks: Sequence[dict[str, Any]], is_plain: bool = False) -> torch.Tensor:
    """Return the loss of each token except the first of each chunk; `is_plain` leaves our keywords out (one chunk only)."""
    batch = collate_row([chunks])
    labels = batch.pop("labels").to(model.device)
    del batch["shift_labels"]
    if is_plain:
        batch = {"input_ids": batch["input_ids"], "use_cache": False}
    was_training = model.training
    model.eval()
    with torch.no_grad():
        logits = model(**on_device(batch, model.device)).logits
    model.train(was_training)
    if is_plain:
        logits = logits[:, :-1]
    return cross_entropy(logits.reshape(len(labels), -1).float(), labels, reduction="none")
