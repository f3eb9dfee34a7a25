"""Conversations -> chunks that fit -> packed rows, planned for the whole run; and the batches that a model reads.

A conversation that is too long is cut between exchanges (what was said and the reply to it). Each chunk but the first
opens with the end of the one before it, as context without a loss. No reply is lost.

A packed row is several chunks laid end to end, without padding; position ids and segment borders keep them apart. Logits
and loss are computed at supervised positions only. Each epoch is packed anew. The same seed gives the same plan, so an
interrupted run continues where it stopped.
It leaves the template to `chat_format`, and attention inside a row to `packed_attention`.
"""

from __future__ import annotations

import bisect
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.utils.data import Dataset

from common.chat_format import EncodedConversation

CHUNKS_PER_WINDOW = 512  # shuffled chunks that best fit looks at together, so that rows mix old and new conversations
HISTORY_SHARE = 0.25  # of the limit: enough context, at little cost

Encode = Callable[[list[dict[str, str]]], EncodedConversation]


@dataclass(frozen=True)
class Chunk:
    """Token ids that are read together. Both lists have the same length."""

    input_ids: list[int]
    is_supervised: list[bool]
    num_reply_chars: int  # of its replies: losses are reported per character


def cut_into_chunks(
    encode: Encode, messages: list[dict[str, str]], max_length: int, count_cut: Callable[[], None] = lambda: None
) -> list[Chunk]:
    """Encode a conversation and cut it into chunks of at most `max_length` tokens.

    Every supervised token is supervised in exactly one chunk. `count_cut` is called for each exchange that is longer than
    the limit and was cut inside.
    """
    whole = encode(messages)
    if len(whole.input_ids) <= max_length:
        return [_as_chunk(whole, messages)]
    borders = [0, *(whole.turn_ends[number] for number in _last_turns(messages))]
    exchange_tokens = [end - start for start, end in zip(borders, borders[1:], strict=False)]
    first_messages = [0, *(number + 1 for number in _last_turns(messages))]
    chunks: list[Chunk] = []
    new = 0
    while new < len(exchange_tokens):
        first, end = _choose_window(exchange_tokens, new, max_length)
        encoded = encode(messages[first_messages[first] : first_messages[end]])
        # What stands before every window (a header, the template's own opening) was counted for the first one only.
        while len(encoded.input_ids) > max_length and (first < new or end > new + 1):
            first, end = (first, end - 1) if end > new + 1 else (first + 1, end)
            encoded = encode(messages[first_messages[first] : first_messages[end]])
        window = messages[first_messages[first] : first_messages[end]]
        num_old = first_messages[new] - first_messages[first]
        start = encoded.turn_ends[num_old - 1] if num_old else 0
        chunk = _as_chunk(encoded, window[num_old:])
        chunk = replace(chunk, is_supervised=[False] * start + chunk.is_supervised[start:])
        if len(chunk.input_ids) > max_length:
            count_cut()
        chunks.extend(_cut_inside(chunk, max_length))
        new = end
    return chunks


def _last_turns(messages: Sequence[dict[str, str]]) -> list[int]:
    """Return the numbers of the replies: each ends an exchange."""
    return [number for number, message in enumerate(messages) if message["role"] == "assistant"]


def _as_chunk(encoded: EncodedConversation, messages: Sequence[dict[str, str]]) -> Chunk:
    num_chars = sum(len(message["content"]) for message in messages if message["role"] == "assistant")
    return Chunk(encoded.input_ids, encoded.is_supervised, num_chars)


def _choose_window(exchange_tokens: list[int], new: int, max_length: int) -> tuple[int, int]:
    """Return the first exchange (history included) and the end of the window whose first new exchange is `new`."""
    first = new
    while first > 0 and sum(exchange_tokens[first - 1 : new]) <= HISTORY_SHARE * max_length:
        first -= 1
    while first < new and sum(exchange_tokens[first : new + 1]) > max_length:
        first += 1
    end = new + 1
    while end < len(exchange_tokens) and sum(exchange_tokens[first : end + 1]) <= max_length:
        end += 1
    return first, end


def _cut_inside(chunk: Chunk, max_length: int) -> list[Chunk]:
    """Cut a chunk of one overlong exchange into parts, each with as much of the text before it as fits."""
    chunks: list[Chunk] = []
    supervised = [place for place, is_supervised in enumerate(chunk.is_supervised) if is_supervised]
    length = len(chunk.input_ids)
    if length <= max_length:
        return [chunk]
    done = 0
    while supervised and supervised[-1] >= done:
        next_place = next(place for place in supervised if place >= done)
        end = min(length, next_place + int((1 - HISTORY_SHARE) * max_length))
        start = max(0, end - max_length)
        # The first token (often a start-of-text token) stays first.
        ids = chunk.input_ids[:1] + chunk.input_ids[start + 1 : end]
        mask = [False] + [chunk.is_supervised[place] and place >= done for place in range(start + 1, end)]
        chunks.append(Chunk(ids, mask, 0))
        done = end
    chunks[-1] = replace(chunks[-1], num_reply_chars=chunk.num_reply_chars)
    return chunks


@dataclass(frozen=True)
class Schedule:
    """All rows of the run in the order of training, as numbers of chunks."""

    rows: list[list[int]]
    rows_per_step: int
    epoch_ends: list[int]  # the last step of each epoch

    @property
    def num_steps(self) -> int:
        """The number of optimizer steps."""
        return self.epoch_ends[-1]

    def epoch_at(self, step: int) -> float:
        """Return the number of epochs after `step`, with a fraction."""
        epoch = bisect.bisect_right(self.epoch_ends, step)
        if epoch == len(self.epoch_ends):
            return float(epoch)
        start = self.epoch_ends[epoch - 1] if epoch else 0
        return epoch + (step - start) / (self.epoch_ends[epoch] - start)

    def chunks_of_step(self, step: int) -> list[int]:
        """Return the numbers of the chunks that step number `step` (counted from 1) trains on."""
        rows = self.rows[(step - 1) * self.rows_per_step : step * self.rows_per_step]
        return [number for row in rows for number in row]


def plan_schedule(lengths: Sequence[int], num_epochs: int, row_tokens: int, rows_per_step: int, seed: int) -> Schedule:
    """Pack chunks of these `lengths` into rows of at most `row_tokens`, anew in each epoch.

    A chunk longer than that gets a row of its own. Each epoch has a whole number of steps.
    """
    rows: list[list[int]] = []
    epoch_ends: list[int] = []
    for epoch in range(num_epochs):
        # Seeded by the text of both numbers: seed 1 in epoch 2 and seed 2 in epoch 1 have nothing in common.
        order_rng = random.Random(f"{seed} {epoch}")
        order = list(range(len(lengths)))
        order_rng.shuffle(order)
        epoch_rows: list[list[int]] = []
        for start in range(0, len(order), CHUNKS_PER_WINDOW):
            epoch_rows += _pack_best_fit(order[start : start + CHUNKS_PER_WINDOW], lengths, row_tokens)
        order_rng.shuffle(epoch_rows)
        rows += fill_last_step(epoch_rows, rows_per_step)
        epoch_ends.append(len(rows) // rows_per_step)
    return Schedule(rows, rows_per_step, epoch_ends)


def _pack_best_fit(numbers: Sequence[int], lengths: Sequence[int], row_tokens: int) -> list[list[int]]:
    """Best fit decreasing: the longest chunks first, each into the fullest row with room for it."""
    rows: list[list[int]] = []
    rooms: list[tuple[int, int]] = []  # (tokens free, number of the row), sorted
    for number in sorted(numbers, key=lambda number: -lengths[number]):
        place = bisect.bisect_left(rooms, (lengths[number], -1))
        if place < len(rooms):
            room, row_number = rooms.pop(place)
        else:
            room, row_number = max(row_tokens, lengths[number]), len(rows)
            rows.append([])
        rows[row_number].append(number)
        bisect.insort(rooms, (room - lengths[number], row_number))
    return rows


def fill_last_step(rows: list[list[int]], rows_per_step: int) -> list[list[int]]:
    """Return `rows`, some of them halved, so that the last step is whole and no process waits for another."""
    rows = list(rows)
    while len(rows) % rows_per_step:
        largest = max(range(len(rows)), key=lambda place: len(rows[place]))
        row = rows[largest]
        if len(row) == 1:
            rows.append(row)  # fewer chunks than rows per step: one is trained on twice
            continue
        rows[largest] = row[: len(row) // 2]
        rows.append(row[len(row) // 2 :])
    return rows


class PackedRows(Dataset[list[dict[str, Any]]]):
    """The rows of a schedule, each a list of chunks; `chunks` is indexed by number."""

    def __init__(self, chunks: Any, rows: Sequence[Sequence[int]]) -> None:
        """Keep references; nothing is copied."""
        self.chunks = chunks
        self.rows = rows

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.rows)

    def __getitem__(self, number: int) -> list[dict[str, Any]]:
        """Return the chunks of one row."""
        return [self.chunks[chunk] for chunk in self.rows[number]]


def collate_row(batch: Sequence[Sequence[dict[str, Any]]]) -> dict[str, Any]:
    """Lay the chunks of one row end to end; return the arguments of the model's `forward`.

    `input_ids`, `position_ids`: [1, T]. `logits_to_keep`: the positions whose logits the model computes (a mask would make
    the host wait until a GPU has counted it). `labels`, `shift_labels`: one id for each of them, already shifted.
    `cu_seq_lens_q`: the borders of the segments.
    """
    (chunks,) = batch  # one row is a batch
    input_ids: list[int] = []
    position_ids: list[int] = []
    predicting: list[int] = []
    targets: list[int] = []
    borders = [0]
    for chunk in chunks:
        ids, is_supervised = chunk["input_ids"], chunk["is_supervised"]
        input_ids += ids
        position_ids += range(len(ids))
        # The position before a supervised token predicts it; the last of a chunk predicts nothing.
        predicting += [borders[-1] + place for place, wanted in enumerate(is_supervised[1:]) if wanted]
        targets += [token_id for token_id, wanted in zip(ids[1:], is_supervised[1:], strict=True) if wanted]
        borders.append(len(input_ids))
    labels = torch.tensor(targets)
    return {
        "input_ids": torch.tensor([input_ids]),
        "position_ids": torch.tensor([position_ids]),
        "logits_to_keep": torch.tensor(predicting, dtype=torch.long),
        "labels": labels,
        "shift_labels": labels,
        # With a cache, the library ignores that positions restart, and chunks see each other.
        "use_cache": False,
        "cu_seq_lens_q": torch.tensor(borders, dtype=torch.int32),
        "max_length_q": max(end - start for start, end in zip(borders, borders[1:], strict=False)),
    }


def on_device(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """Return `batch` with its tensors on `device`."""
    return {name: value.to(device) if isinstance(value, torch.Tensor) else value for name, value in batch.items()}
