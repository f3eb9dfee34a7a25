"""How surprised a model is by replies that were really written: bits per character, with and without the adapter.

The sum over a reply's tokens and the token that ends it is divided by its characters, never by tokens, so that base
models with different tokenizers compare. It leaves which replies to score to the script.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from turns import Messages

from common.chat_format import EncodedConversation, encode_conversation
from writing_style.held_out_replies import Exchange
from writing_style.resampling import FloatArray, Interval, interval_of, resample

# One batch holds so many tokens: about 1 GiB of keys and values with the default 7B, little beside its weights.
BATCH_TOKENS = 8_192
MAX_BATCH_ROWS = 16


@dataclass(frozen=True)
class ScoredReply:
    """The bits that one reply cost the base and the tuned model."""

    conversation: int
    num_chars: int
    base_bits: float
    tuned_bits: float


def encode_fitting(
    tokenizer: Any, messages: Messages, max_tokens: int, add_generation_prompt: bool = False
) -> EncodedConversation:
    """Encode the end of `messages` that fits into `max_tokens`: whole turns are left out, the oldest first."""
    encoded = encode_conversation(tokenizer, messages, add_generation_prompt=add_generation_prompt)
    first = 0
    while len(encoded.input_ids) > max_tokens and first < len(messages) - 1:
        surplus = len(encoded.input_ids) - max_tokens
        first += next((place + 1 for place, end in enumerate(encoded.turn_ends[:-1]) if end >= surplus), 1)
        first = min(first, len(messages) - 1)
        encoded = encode_conversation(tokenizer, messages[first:], add_generation_prompt=add_generation_prompt)
    return encoded


def make_batches(lengths: Sequence[int]) -> list[list[int]]:
    """Return the rows of each batch, rows of like length together; the same lengths always give the same batches."""
    batches: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda row: (-lengths[row], row)):
        longest = lengths[batches[-1][0]] if batches else 0
        if batches and len(batches[-1]) < MAX_BATCH_ROWS and longest * (len(batches[-1]) + 1) <= BATCH_TOKENS:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches


def pad_left(rows: Sequence[Sequence[int]], padding_id: int, device: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Return `input_ids` and `attention_mask` of `rows`, padded on the left to one length."""
    longest = max(map(len, rows))
    input_ids = torch.tensor([[padding_id] * (longest - len(row)) + list(row) for row in rows], device=device)
    attention_mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=device)
    return input_ids, attention_mask


def reply_token_bits(model: Any, rows: Sequence[tuple[Sequence[int], int]]) -> Iterator[list[float]]:
    """Yield for each row `(ids, number of tokens to score at its end)` the bits of each scored token."""
    input_ids, attention_mask = pad_left([ids for ids, _ in rows], rows[0][0][0], model.device)
    num_kept = max(num_scored for _, num_scored in rows) + 1
    with torch.inference_mode():
        logits = model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=(attention_mask.cumsum(-1) - 1).clamp(min=0),
            use_cache=False,
            logits_to_keep=num_kept,
        ).logits
        for row, (ids, num_scored) in enumerate(rows):
            targets = torch.tensor(ids[len(ids) - num_scored :], device=model.device)
            log_probabilities = logits[row, -num_scored - 1 : -1].float().log_softmax(-1)
            nats = -log_probabilities.gather(-1, targets[:, None])[:, 0]
            yield (nats / math.log(2)).tolist()


def encode_exchange(tokenizer: Any, exchange: Exchange, max_tokens: int) -> tuple[list[int], int]:
    """Return the ids of context and reply, and how many at the end are the reply's own (the ending token included)."""
    messages = [*exchange.context, {"role": "assistant", "content": exchange.reply}]
    encoded = encode_fitting(tokenizer, messages, max_tokens)
    end = encoded.turn_ends[-1]
    start = encoded.turn_ends[-2] if len(encoded.turn_ends) > 1 else 0
    num_scored = sum(encoded.is_supervised[start:end])
    ids = encoded.input_ids[:end][-max_tokens:]
    return ids, min(num_scored, len(ids) - 1)


def score_replies(
    model: Any,
    tokenizer: Any,
    exchanges: Sequence[Exchange],
    max_tokens: int,
    show_progress: Callable[[int], None] = lambda num_replies: None,
) -> list[ScoredReply]:
    """Return the bits of each reply in its context, without and with the adapter of `model` (a PeftModel)."""
    rows = [encode_exchange(tokenizer, exchange, max_tokens) for exchange in exchanges]
    base_bits, tuned_bits = [0.0] * len(rows), [0.0] * len(rows)
    for batch in make_batches([len(ids) for ids, _ in rows]):
        chosen = [rows[row] for row in batch]
        for row, bits in zip(batch, reply_token_bits(model, chosen), strict=True):
            tuned_bits[row] = sum(bits)
        with model.disable_adapter():
            for row, bits in zip(batch, reply_token_bits(model, chosen), strict=True):
                base_bits[row] = sum(bits)
        show_progress(len(batch))
    return [
        ScoredReply(exchange.conversation, len(exchange.reply), base, tuned)
        for exchange, base, tuned in zip(exchanges, base_bits, tuned_bits, strict=True)
    ]


def with_shuffled_contexts(exchanges: Sequence[Exchange]) -> list[Exchange]:
    """Return each reply behind the context of a reply from another conversation (half the list away)."""
    half = len(exchanges) // 2
    return [
        Exchange(
            exchange.conversation, exchange.number, exchanges[(place + half) % len(exchanges)].context, exchange.reply
        )
        for place, exchange in enumerate(exchanges)
    ]


def measure_bits(scored: Mapping[str, Sequence[ScoredReply]], seed: int) -> dict[str, dict[str, float]]:
    """Return the bits per character of each group before and after, and what they say, each with its interval.

    Groups: "owner", "shuffled" (the same replies behind other contexts), and "other" when there is another person.
    `specificity` is the drop on the owner's replies minus the drop on the other person's: above 0 it has learnt this
    person. `relevance` is what the right context saves the tuned model.
    """
    resamples = resample((reply.conversation for replies in scored.values() for reply in replies), seed)
    per_char: dict[str, dict[str, FloatArray]] = {}
    for group, replies in scored.items():
        totals = resamples.total(
            (reply.conversation, (reply.base_bits, reply.tuned_bits, reply.num_chars)) for reply in replies
        )
        base, tuned = totals[:, 0] / totals[:, 2], totals[:, 1] / totals[:, 2]
        per_char[group] = {"base": base, "tuned": tuned, "drop": base - tuned}
    measured: dict[str, Interval] = {
        f"{group}_{name}": interval_of(values) for group, rows in per_char.items() for name, values in rows.items()
    }
    measured["relevance"] = interval_of(per_char["shuffled"]["tuned"] - per_char["owner"]["tuned"])
    if "other" in per_char:
        measured["specificity"] = interval_of(per_char["owner"]["drop"] - per_char["other"]["drop"])
    return {name: interval._asdict() for name, interval in measured.items()}
