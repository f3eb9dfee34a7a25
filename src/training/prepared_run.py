"""All that is known of a run before the model is loaded: device, tokenizer, what is held out, the packed rows, its facts.

It leaves finding the data and the base to the script.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import PartialState
from checkpoints import (
    FORMER_FACTS,
    find_newest_complete,
    library_versions,
    list_differences,
    read_run_facts,
    read_versions,
    sha256_of,
    step_of,
)
from datasets import Dataset
from held_out_sets import HeldOut, hold_out, overlapping_lines
from packing import Chunk, PackedRows, Schedule, cut_into_chunks, plan_schedule
from processes import say, use_threads, warn, world_size
from qlora_model import read_model_config
from recipes import Recipe, choose_step_tokens, split_step
from transformers import AutoTokenizer, PreTrainedConfig

from common.base_model_files import TOKENIZER_FILES, BaseModel, base_fingerprint
from common.chat_format import (
    PERSON_TEMPLATE,
    ChatFormatError,
    EncodedConversation,
    encode_conversation,
    find_end_of_turn_id,
)
from common.compute_device import Device, choose_training_device
from common.conversation_data import Conversation, TrainingData
from common.model_folder import CHECKPOINTS_NAME
from common.script import ScriptError, shown_path


@dataclass(frozen=True)
class Material:
    """Everything a run reads. `chunks` and `held_out` live in memory only: no copy of the chat is left in a cache."""

    chunks: Dataset
    lengths: list[int]
    num_supervised_tokens: int  # in one epoch
    schedule: Schedule
    row_tokens: int
    num_cut: int  # exchanges longer than a row
    held_out: PackedRows | None

    @property
    def num_tokens(self) -> int:
        """Tokens of one epoch, none of them padding."""
        return sum(self.lengths)

    @property
    def fill(self) -> float:
        """How full the rows are, as a share."""
        row_tokens = [sum(self.lengths[chunk] for chunk in row) for row in self.schedule.rows]
        # A chunk longer than a row is a row of its own.
        return sum(row_tokens) / sum(max(tokens, self.row_tokens) for tokens in row_tokens)


@dataclass(frozen=True)
class Run:
    """All that is known before the model is loaded."""

    options: argparse.Namespace
    recipe: Recipe
    data: TrainingData
    base: BaseModel
    tokenizer: Any
    held_out: HeldOut
    material: Material
    device: Device
    facts: dict[str, Any]  # everything that decides what the training computes

    @property
    def held_out_conversations(self) -> list[list[dict[str, str]]]:
        """The messages of the validation set."""
        lines = set(self.held_out.validation)
        return [talk.messages for talk in self.data.conversations if talk.line_number in lines]


def prepare_run(options: argparse.Namespace, data: TrainingData, base: BaseModel) -> Run:
    """Choose device and held-out conversations, encode and pack the rest."""
    use_threads(options.threads)
    device = choose_training_device(options.device)
    assert base.folder is not None
    tokenizer = load_tokenizer(base.folder, base.name)
    recipe = shorten_to_context(options.recipe, read_model_config(base.folder))
    held_out = choose_held_out(data)
    material = prepare_material(tokenizer, data.conversations, held_out, recipe, world_size(), options.seed)
    facts = dataclasses.asdict(recipe) | {
        "base_fingerprint": base_fingerprint(base.folder),
        "data_sha256": data.sha256,
        "template_sha256": _sha256(tokenizer.chat_template),
        "tokenizer_sha256": _sha256("".join(map(sha256_of, _tokenizer_files(base.folder)))),
        "seed": options.seed,
        "step_tokens": [material.row_tokens, material.schedule.rows_per_step],
        "processes": world_size(),
        "device": f"{device.kind} {device.dtype}",
    }
    return Run(options, recipe, data, base, tokenizer, held_out, material, device, facts)


def _tokenizer_files(folder: Path) -> list[Path]:
    return [folder / name for group in TOKENIZER_FILES for name in group if (folder / name).is_file()]


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def find_checkpoint(run: Run) -> Path | None:
    """Return the newest complete checkpoint of this very run; None when it stopped before the first."""
    # One after the other: the first process sets broken ones aside, then all find the same.
    with PartialState(cpu=run.device.kind == "cpu").main_process_first():
        checkpoint, problems = find_newest_complete(run.options.model_dir / CHECKPOINTS_NAME)
    for problem in problems:
        warn(f"a checkpoint was set aside, {problem}")
    if checkpoint is None:
        say("No complete checkpoint yet: starting from the beginning")
        return None
    differences = list_differences(FORMER_FACTS | read_run_facts(checkpoint), FORMER_FACTS | run.facts)
    if differences:
        raise ScriptError(
            f"{shown_path(checkpoint)}: is of another run; give the same data, base and settings, or pass --overwrite"
            + "".join(f"\n  {difference}" for difference in differences)
        )
    for difference in list_differences(read_versions(checkpoint), library_versions()):
        warn(f"other versions may compute other last digits: {difference}")
    say(f"Going on after step {step_of(checkpoint):,}")
    return checkpoint


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


def shorten_to_context(recipe: Recipe, config: PreTrainedConfig) -> Recipe:
    """Return `recipe` with rows no longer than the positions that the base knows, and say so."""
    num_positions = getattr(config, "max_position_embeddings", recipe.max_length)
    if num_positions >= recipe.max_length:
        return recipe
    say(f"  rows of {num_positions:,} tokens: this base knows no more positions")
    return dataclasses.replace(recipe, max_length=num_positions)


def choose_held_out(data: TrainingData) -> HeldOut:
    """Choose the conversations that are kept from training; warn where they tell little."""
    held_out = hold_out(data.conversations)
    if not held_out.validation:
        warn("too few conversations to keep some from training: nothing can be measured, nor stopped early")
        return held_out
    overlap = overlapping_lines(data.conversations, held_out)
    if overlap:
        warn(f"{len(overlap):,} held-out conversations also occur word for word in training: they will look too easy")
    return held_out


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
    training: list[Chunk] = []
    validation: list[Chunk] = []
    for conversation in conversations:
        if conversation.line_number in validation_lines:
            validation += encoder.encode_held_out(conversation)
        elif conversation.line_number not in report_lines:
            training += encoder.encode_training(conversation)
    if not training:
        raise ScriptError(f"no reply begins within {recipe.max_length:,} tokens; pass a higher --max-length")
    lengths = [len(chunk.input_ids) for chunk in training]
    row_tokens, rows_per_step = split_step(choose_step_tokens(recipe, sum(lengths)), recipe.max_length, num_processes)
    return Material(
        chunks=_as_dataset(training),
        lengths=lengths,
        num_supervised_tokens=sum(sum(chunk.is_supervised) for chunk in training),
        schedule=plan_schedule(lengths, recipe.epochs, row_tokens, rows_per_step, seed),
        row_tokens=row_tokens,
        num_cut=encoder.num_cut,
        held_out=_pack_held_out(validation, recipe.max_length) if validation else None,
    )


class _Encoder:
    def __init__(self, tokenizer: Any, recipe: Recipe) -> None:
        self._tokenizer = tokenizer
        self._recipe = recipe
        self.num_cut = 0

    def encode_held_out(self, conversation: Conversation) -> list[Chunk]:
        """Cut to length, the replies of the person supervised."""
        return cut_into_chunks(self._encode_person, conversation.messages, self._recipe.max_length)

    def encode_training(self, conversation: Conversation) -> list[Chunk]:
        """Cut to length, supervised as the recipe wants it."""
        encode = self._encode_person if self._recipe.train_on == "person" else self._encode_everyone
        return cut_into_chunks(encode, conversation.messages, self._recipe.max_length, self._count_cut)

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


def _as_dataset(chunks: list[Chunk]) -> Dataset:
    return Dataset.from_list([dataclasses.asdict(chunk) for chunk in chunks])


def _pack_held_out(chunks: list[Chunk], max_length: int) -> PackedRows:
    rows = plan_schedule([len(chunk.input_ids) for chunk in chunks], 1, max_length, 1, seed=0).rows
    return PackedRows(_as_dataset(chunks), rows)
