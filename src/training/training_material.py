"""Checked conversations -> what the model is fed: encoded, cut to length, held out, packed for the whole run."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from conversation_pieces import Piece, cut_into_pieces
from datasets import Dataset
from held_out_sets import HeldOut
from packing import Schedule, ScheduledPieces, plan_schedule
from recipes import Recipe, choose_step_tokens, split_step
from transformers import AutoTokenizer

from common.chat_format import (
    PERSON_TEMPLATE,
    ChatFormatError,
    EncodedConversation,
    encode_conversation,
    find_end_of_turn_id,
)
from common.conversation_data import Conversation
from common.script import ScriptError


@dataclass(frozen=True)
class Material:
    """Everything a run reads. `pieces` and `held_out` live in memory only: no copy of the chat is left in a cache."""

    pieces: Dataset
    lengths: list[int]
    num_supervised_tokens: int  # in one epoch
    schedule: Schedule
    pack_tokens: int
    num_cut: int  # exchanges longer than a row
    held_out: ScheduledPieces | None

    @property
    def num_tokens(self) -> int:
        """Tokens of one epoch, none of them padding."""
        return sum(self.lengths)

    @property
    def fill(self) -> float:
        """How full the rows are, as a share."""
        row_tokens = [sum(self.lengths[piece] for piece in pack) for pack in self.schedule.packs]
        # A piece longer than a pack is a row of its own.
        return sum(row_tokens) / sum(max(tokens, self.pack_tokens) for tokens in row_tokens)


def load_tokenizer(folder: Any, name: str) -> Any:
    """Load the tokenizer of the base in `folder`; one without a chat template gets the published marking."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ScriptError(
            f"{name}: its tokenizer cannot be loaded ({str(error).splitlines()[0]}); choose another"
        ) from None
    if not tokenizer.is_fast:
        raise ScriptError(f"{name}: has only a slow tokenizer, which cannot say where a turn ends; choose another base")
    if tokenizer.chat_template is None:
        tokenizer.chat_template = PERSON_TEMPLATE
    try:
        find_end_of_turn_id(tokenizer)
    except ChatFormatError as error:
        raise ScriptError(f"{name}: {error}") from None
    return tokenizer


def prepare_material(
    tokenizer: Any,
    conversations: Iterable[Conversation],
    held_out: HeldOut,
    recipe: Recipe,
    num_processes: int,
    seed: int,
) -> Material:
    """Encode, cut and pack; the same input and seed give the same material in every process."""
    validation_lines = set(held_out.validation)
    report_lines = set(held_out.spread) | set(held_out.latest)
    encoder = _Encoder(tokenizer, recipe)
    training: list[Piece] = []
    validation: list[Piece] = []
    for conversation in conversations:
        if conversation.line_number in validation_lines:
            validation += encoder.encode_held_out(conversation)
        elif conversation.line_number not in report_lines:
            training += encoder.encode_training(conversation)
    if not training:
        raise ScriptError(f"no reply begins within {recipe.max_length:,} tokens; pass a higher --max-length")
    lengths = [len(piece.input_ids) for piece in training]
    pack_tokens, packs_per_step = split_step(choose_step_tokens(recipe, sum(lengths)), recipe.max_length, num_processes)
    return Material(
        pieces=_as_dataset(training),
        lengths=lengths,
        num_supervised_tokens=sum(sum(piece.is_supervised) for piece in training),
        schedule=plan_schedule(lengths, recipe.epochs, pack_tokens, packs_per_step, seed),
        pack_tokens=pack_tokens,
        num_cut=encoder.num_cut,
        held_out=_pack_held_out(validation, recipe.max_length) if validation else None,
    )


class _Encoder:
    def __init__(self, tokenizer: Any, recipe: Recipe) -> None:
        self._tokenizer = tokenizer
        self._recipe = recipe
        self.num_cut = 0

    def encode_held_out(self, conversation: Conversation) -> list[Piece]:
        """Cut to length, the replies of the person supervised."""
        return cut_into_pieces(self._encode_person, conversation.messages, self._recipe.max_length)

    def encode_training(self, conversation: Conversation) -> list[Piece]:
        """Cut to length, supervised as the recipe wants it."""
        encode = self._encode_person if self._recipe.train_on == "person" else self._encode_everyone
        return cut_into_pieces(encode, conversation.messages, self._recipe.max_length, self._count_cut)

    def _count_cut(self) -> None:
        self.num_cut += 1

    def _encode_person(self, messages: list[dict[str, str]]) -> EncodedConversation:
        encoded = encode_conversation(self._tokenizer, messages)
        for message, end in zip(messages, encoded.turn_ends, strict=True):
            # Whatever the template: a reply whose end is not learnt never stops.
            if message["role"] == "assistant" and not encoded.is_supervised[end - 1]:
                raise ScriptError("the chat template leaves the end of a reply out of the loss; choose another base")
        return encoded

    def _encode_everyone(self, messages: list[dict[str, str]]) -> EncodedConversation:
        encoded = self._encode_person(messages)
        return dataclasses.replace(encoded, is_supervised=[False] + [True] * (len(encoded.input_ids) - 1))


def _as_dataset(pieces: list[Piece]) -> Dataset:
    return Dataset.from_list([dataclasses.asdict(piece) for piece in pieces])


def _pack_held_out(pieces: list[Piece], max_length: int) -> ScheduledPieces:
    packs = plan_schedule([len(piece.input_ids) for piece in pieces], 1, max_length, 1, seed=0).packs
    return ScheduledPieces(_as_dataset(pieces), packs)
