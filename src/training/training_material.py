"""What a run learns from: the conversations encoded, cut and packed into rows.

Which of them are held out is left to `held_out_sets`, how a conversation becomes ids to `chat_format`.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from datasets import Dataset
from held_out_sets import HeldOut
from packing import Chunk, PackedRows, Schedule, cut_into_chunks, plan_schedule
from recipes import (
    CORRECTION_WEIGHT,
    UNTOLD_SHARE,
    Recipe,
    choose_context,
    choose_epochs,
    choose_step_tokens,
    split_step,
)

from common.chat_format import EncodedConversation, encode_conversation
from common.conversation_data import Conversation
from common.conversation_header import headers_by_line
from common.script import ScriptError


@dataclass(frozen=True)
class Material:
    """The rows of a run. `chunks` and `held_out` stay in memory, so that no cache keeps a copy of the chat."""

    chunks: Dataset
    lengths: list[int]
    num_supervised_tokens: int  # in one epoch
    schedule: Schedule
    row_tokens: int
    num_cut: int  # exchanges that were cut inside
    context: str  # what the header before each conversation tells
    held_out: PackedRows | None

    @property
    def num_tokens(self) -> int:
        """Tokens of one epoch."""
        return sum(self.lengths)

    @property
    def fill(self) -> float:
        """How full the rows are, from 0 to 1."""
        row_tokens = [sum(self.lengths[chunk] for chunk in row) for row in self.schedule.rows]
        # A chunk longer than `row_tokens` is a row of its own.
        return sum(row_tokens) / sum(max(tokens, self.row_tokens) for tokens in row_tokens)


def prepare_material(
    tokenizer: Any,
    conversations: Iterable[Conversation],
    held_out: HeldOut,
    recipe: Recipe,
    num_processes: int,
    seed: int,
    corrections: Iterable[Conversation] = (),
) -> Material:
    """Encode, cut and pack the conversations; the result is the same in every process.

    The last reply of each of the `corrections` is learnt as often as CORRECTION_WEIGHT replies; none is held out.
    """
    conversations, corrections = list(conversations), list(corrections)
    context = choose_context(recipe, conversations)
    headers = headers_by_line(conversations, context)
    correction_headers = headers_by_line(corrections, context)
    validation_lines = set(held_out.validation)
    report_lines = set(held_out.spread) | set(held_out.latest)
    encoder = _Encoder(tokenizer, recipe)
    untold = random.Random(seed)
    training: list[Chunk] = []
    validation: list[Chunk] = []
    num_replies = 0
    for conversation in conversations:
        num_replies += conversation.num_replies
        if conversation.line_number in validation_lines:
            validation += encoder.encode_held_out(conversation, headers[conversation.line_number])
        elif conversation.line_number not in report_lines:
            header = headers[conversation.line_number] if untold.random() >= UNTOLD_SHARE else ""
            training += encoder.encode_training(conversation, header)
    for correction in corrections:
        training += (
            encoder.encode_correction(correction, correction_headers[correction.line_number]) * CORRECTION_WEIGHT
        )
    lengths = [len(chunk.input_ids) for chunk in training]
    num_epochs = choose_epochs(recipe, num_replies)
    step_tokens = choose_step_tokens(recipe, sum(lengths), num_epochs)
    row_tokens, rows_per_step = split_step(step_tokens, recipe.max_length, num_processes)
    return Material(
        chunks=_as_dataset(training),
        lengths=lengths,
        num_supervised_tokens=sum(sum(chunk.is_supervised) for chunk in training),
        schedule=plan_schedule(lengths, num_epochs, row_tokens, rows_per_step, seed),
        row_tokens=row_tokens,
        num_cut=encoder.num_cut,
        context=context,
        held_out=_pack_held_out(validation, recipe.max_length) if validation else None,
    )


class _Encoder:
    def __init__(self, tokenizer: Any, recipe: Recipe) -> None:
        self._tokenizer = tokenizer
        self._recipe = recipe
        self.num_cut = 0

    def encode_held_out(self, conversation: Conversation, header: str) -> list[Chunk]:
        """Return the chunks, each after the header, with the replies of the imitated person supervised."""
        encode = partial(self._encode_person, header=header)
        return cut_into_chunks(encode, conversation.messages, self._recipe.max_length)

    def encode_training(self, conversation: Conversation, header: str) -> list[Chunk]:
        """Return the chunks, each after the header, with the tokens supervised that the recipe says."""
        encode = partial(
            self._encode_person if self._recipe.train_on == "person" else self._encode_everyone, header=header
        )
        return cut_into_chunks(encode, conversation.messages, self._recipe.max_length, self._count_cut)

    def encode_correction(self, correction: Conversation, header: str) -> list[Chunk]:
        """Return the chunks, each after the header, with the last reply alone supervised: the others are the model's own.

        What does not fit is left out as in the chat: the oldest messages, up to one of the user.
        """
        messages = correction.messages
        while len(self._encode_person(messages, header).input_ids) > self._recipe.max_length:
            starts = [number for number, message in enumerate(messages) if number and message["role"] == "user"]
            if not starts:
                break
            messages = messages[starts[0] :]
        encode = partial(self._encode_last_reply, header=header)
        return cut_into_chunks(encode, messages, self._recipe.max_length, self._count_cut)

    def _count_cut(self) -> None:
        self.num_cut += 1

    def _encode_person(self, messages: list[dict[str, str]], header: str) -> EncodedConversation:
        encoded = encode_conversation(self._tokenizer, messages, header=header)
        for message, end in zip(messages, encoded.turn_ends, strict=True):
            # With any template: a reply whose end is not supervised never stops.
            if message["role"] == "assistant" and not encoded.is_supervised[end - 1]:
                raise ScriptError(
                    "the chat template leaves the end of a reply out of the loss; choose another base model"
                )
        return encoded

    def _encode_last_reply(self, messages: list[dict[str, str]], header: str) -> EncodedConversation:
        encoded = self._encode_person(messages, header)
        start = encoded.turn_ends[-2] if len(messages) > 1 else 0
        is_supervised = [place >= start and wanted for place, wanted in enumerate(encoded.is_supervised)]
        return dataclasses.replace(encoded, is_supervised=is_supervised)

    def _encode_everyone(self, messages: list[dict[str, str]], header: str) -> EncodedConversation:
        encoded = self._encode_person(messages, header)
        num_given = max(1, encoded.num_header_ids)  # the first token and the header: nobody wrote them
        is_supervised = [number >= num_given for number in range(len(encoded.input_ids))]
        return dataclasses.replace(encoded, is_supervised=is_supervised)


def _as_dataset(chunks: list[Chunk]) -> Dataset:
    return Dataset.from_list([dataclasses.asdict(chunk) for chunk in chunks])


def _pack_held_out(chunks: list[Chunk], max_length: int) -> PackedRows:
    rows = plan_schedule([len(chunk.input_ids) for chunk in chunks], 1, max_length, 1, seed=0).rows
    return PackedRows(_as_dataset(chunks), rows)
