"""Conversations -> pieces that fit -> rows without padding, planned for the whole run; and the batches a model is fed.

A conversation that is too long is cut between exchanges (what was said and the reply to it); each piece but the first
opens with the end of the one before, as context on which no loss is taken. No reply is ever lost.

A pack is one row of several pieces laid end to end; position ids and segment borders keep them apart. Logits and loss
are taken at supervised positions only. Every epoch packs anew; the same seed gives the same plan, so that a run that
was interrupted goes on where it stopped.
It leaves the template to `chat_format`, attention between the borders to `packed_attention`.
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

PIECES_PER_WINDOW = 512  # best fit looks at so many shuffled pieces at a time: packs mix old and new conversations
HISTORY_SHARE = 0.25  # of the limit: enough to know what the talk is about, little enough to waste no quarter more

Encode = Callable[[list[dict[str, str]]], EncodedConversation]


@dataclass(frozen=True)
class Piece:
    """Token ids that are read together. The lists are equally long."""

    input_ids: list[int]
    is_supervised: list[bool]
    num_reply_chars: int  # characters of the replies in it: losses are told per character


def cut_into_pieces(
    encode: Encode, messages: list[dict[str, str]], max_length: int, is_cut_turn: Callable[[], None] = lambda: None
) -> list[Piece]:
    """Encode a conversation and cut it into pieces of at most `max_length` tokens.

    Every supervised token is supervised in exactly one piece. `is_cut_turn` is called when an exchange is so long
    that it had to be cut inside.
    """
    whole = encode(messages)
    if len(whole.input_ids) <= max_length:
        return [_as_piece(whole, messages)]
    borders = [0, *(whole.turn_ends[number] for number in _last_turns(messages))]
    exchange_tokens = [end - start for start, end in zip(borders, borders[1:], strict=False)]
    first_messages = [0, *(number + 1 for number in _last_turns(messages))]
    pieces: list[Piece] = []
    new = 0
    while new < len(exchange_tokens):
        first, end = _choose_window(exchange_tokens, new, max_length)
        window = messages[first_messages[first] : first_messages[end]]
        encoded = encode(window)
        num_old = first_messages[new] - first_messages[first]
        start = encoded.turn_ends[num_old - 1] if num_old else 0
        piece = _as_piece(encoded, window[num_old:])
        piece = replace(piece, is_supervised=[False] * start + piece.is_supervised[start:])
        if len(piece.input_ids) > max_length:
            is_cut_turn()
        pieces.extend(_cut_inside(piece, max_length))
        new = end
    return pieces


def _last_turns(messages: Sequence[dict[str, str]]) -> list[int]:
    """Return the numbers of the messages that end an exchange: the replies."""
    return [number for number, message in enumerate(messages) if message["role"] == "assistant"]


def _as_piece(encoded: EncodedConversation, messages: Sequence[dict[str, str]]) -> Piece:
    num_chars = sum(len(message["content"]) for message in messages if message["role"] == "assistant")
    return Piece(encoded.input_ids, encoded.is_supervised, num_chars)


def _choose_window(exchange_tokens: list[int], new: int, max_length: int) -> tuple[int, int]:
    """Return the first exchange (of the history) and the end of a window whose first new exchange is `new`."""
    first = new
    while first > 0 and sum(exchange_tokens[first - 1 : new]) <= HISTORY_SHARE * max_length:
        first -= 1
    while first < new and sum(exchange_tokens[first : new + 1]) > max_length:
        first += 1
    end = new + 1
    while end < len(exchange_tokens) and sum(exchange_tokens[first : end + 1]) <= max_length:
        end += 1
    return first, end


def _cut_inside(piece: Piece, max_length: int) -> list[Piece]:
    """Cut a piece that holds one overlong exchange: each part sees as much of what went before as fits."""
    pieces: list[Piece] = []
    supervised = [place for place, is_supervised in enumerate(piece.is_supervised) if is_supervised]
    length = len(piece.input_ids)
    if length <= max_length:
        return [piece]
    done = 0
    while supervised and supervised[-1] >= done:
        next_place = next(place for place in supervised if place >= done)
        end = min(length, next_place + int((1 - HISTORY_SHARE) * max_length))
        start = max(0, end - max_length)
        # The first token (where there is one, the mark that opens a text) stays first.
        ids = piece.input_ids[:1] + piece.input_ids[start + 1 : end]
        mask = [False] + [piece.is_supervised[place] and place >= done for place in range(start + 1, end)]
        pieces.append(Piece(ids, mask, 0))
        done = end
    pieces[-1] = replace(pieces[-1], num_reply_chars=piece.num_reply_chars)
    return pieces


@dataclass(frozen=True)
class Schedule:
    """Every pack of the run in the order of training, as numbers of pieces."""

    packs: list[list[int]]
    packs_per_step: int
    epoch_ends: list[int]  # after which step each epoch is over

    @property
    def num_steps(self) -> int:
        """How many times the weights change."""
        return self.epoch_ends[-1]

    def epoch_at(self, step: int) -> float:
        """Return how many epochs are done after `step`, with the fraction of the one going on."""
        epoch = bisect.bisect_right(self.epoch_ends, step)
        if epoch == len(self.epoch_ends):
            return float(epoch)
        start = self.epoch_ends[epoch - 1] if epoch else 0
        return epoch + (step - start) / (self.epoch_ends[epoch] - start)

    def pieces_of_step(self, step: int) -> list[int]:
        """Return the numbers of the pieces that step number `step` (counted from 1) trains on."""
        packs = self.packs[(step - 1) * self.packs_per_step : step * self.packs_per_step]
        return [number for pack in packs for number in pack]


def plan_schedule(
    lengths: Sequence[int], num_epochs: int, pack_tokens: int, packs_per_step: int, seed: int
) -> Schedule:
    """Pack pieces of these `lengths` into rows of at most `pack_tokens`, anew in each epoch.

    A piece longer than that gets a row of its own. Each epoch has a whole number of steps.
    """
    packs: list[list[int]] = []
    epoch_ends: list[int] = []
    for epoch in range(num_epochs):
        # From the text of both numbers: seed 1 in epoch 2 shares nothing with seed 2 in epoch 1.
        order_rng = random.Random(f"{seed} {epoch}")
        order = list(range(len(lengths)))
        order_rng.shuffle(order)
        epoch_packs: list[list[int]] = []
        for start in range(0, len(order), PIECES_PER_WINDOW):
            epoch_packs += _pack_best_fit(order[start : start + PIECES_PER_WINDOW], lengths, pack_tokens)
        order_rng.shuffle(epoch_packs)
        packs += fill_last_step(epoch_packs, packs_per_step)
        epoch_ends.append(len(packs) // packs_per_step)
    return Schedule(packs, packs_per_step, epoch_ends)


def _pack_best_fit(numbers: Sequence[int], lengths: Sequence[int], pack_tokens: int) -> list[list[int]]:
    """Best fit decreasing: the longest first, each into the fullest pack that still has room."""
    packs: list[list[int]] = []
    rooms: list[tuple[int, int]] = []  # (tokens free, number of the pack), sorted
    for number in sorted(numbers, key=lambda number: -lengths[number]):
        place = bisect.bisect_left(rooms, (lengths[number], -1))
        if place < len(rooms):
            room, pack_number = rooms.pop(place)
        else:
            room, pack_number = max(pack_tokens, lengths[number]), len(packs)
            packs.append([])
        packs[pack_number].append(number)
        bisect.insort(rooms, (room - lengths[number], pack_number))
    return packs


def fill_last_step(packs: list[list[int]], packs_per_step: int) -> list[list[int]]:
    """Return `packs` with some halved until they fill whole steps: no process waits for another's row."""
    packs = list(packs)
    while len(packs) % packs_per_step:
        largest = max(range(len(packs)), key=lambda place: len(packs[place]))
        pack = packs[largest]
        if len(pack) == 1:
            packs.append(pack)  # fewer pieces than rows to a step: one is read twice
            continue
        packs[largest] = pack[: len(pack) // 2]
        packs.append(pack[len(pack) // 2 :])
    return packs


class ScheduledPieces(Dataset[list[dict[str, Any]]]):
    """The packs of a schedule, each as the list of its pieces. `pieces` is anything with rows by number."""

    def __init__(self, pieces: Any, packs: Sequence[Sequence[int]]) -> None:
        """Look at `pieces` through `packs`; nothing is copied."""
        self.pieces = pieces
        self.packs = packs

    def __len__(self) -> int:
        """Return the number of packs."""
        return len(self.packs)

    def __getitem__(self, number: int) -> list[dict[str, Any]]:
        """Return the pieces of one pack."""
        return [self.pieces[piece] for piece in self.packs[number]]


def collate_pack(batch: Sequence[Sequence[dict[str, Any]]]) -> dict[str, Any]:
    """Lay the pieces of one pack end to end: what the model's `forward` takes.

    `input_ids`, `position_ids`, `logits_to_keep`: [1, T]; `labels`, `shift_labels`: one id for each position kept,
    already shifted, because the model computes logits at those positions only. `cu_seq_lens_q` are the borders.
    """
    (pieces,) = batch  # one pack is a batch
    input_ids: list[int] = []
    position_ids: list[int] = []
    predicts: list[bool] = []
    targets: list[int] = []
    borders = [0]
    for piece in pieces:
        ids, is_supervised = piece["input_ids"], piece["is_supervised"]
        input_ids += ids
        position_ids += range(len(ids))
        # The position before a supervised token predicts it; the last of a piece predicts nothing.
        predicts += [*is_supervised[1:], False]
        targets += [token_id for token_id, wanted in zip(ids[1:], is_supervised[1:], strict=True) if wanted]
        borders.append(len(input_ids))
    labels = torch.tensor(targets)
    return {
        "input_ids": torch.tensor([input_ids]),
        "position_ids": torch.tensor([position_ids]),
        "logits_to_keep": torch.tensor([predicts]),
        "labels": labels,
        "shift_labels": labels,
        # A cache would make the library forget that positions restart, and the pieces would see each other.
        "use_cache": False,
        "cu_seq_lens_q": torch.tensor(borders, dtype=torch.int32),
        "max_length_q": max(end - start for start, end in zip(borders, borders[1:], strict=False)),
    }
