"""A run before its model is loaded: device, tokenizer, held-out conversations, packed rows, and the facts for a resume.

Finding the data and the base is left to the script.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import random
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from accelerate import PartialState
from checkpoints import (
    FORMER_FACTS,
    find_newest_complete,
    library_versions,
    list_checkpoints,
    list_differences,
    read_run_facts,
    read_versions,
    sha256_of,
    step_of,
)
from datasets import Dataset
from held_out_sets import HeldOut, hold_out, overlapping_lines
from lost_characters import warn_of_lost_characters
from model_shape import POSITION_KEYS
from packing import Chunk, PackedRows, Schedule, cut_into_chunks, plan_schedule
from processes import say, use_threads, warn, world_size
from qlora_model import read_model_config
from recipes import (
    CORRECTION_WEIGHT,
    FUSED_OPTIMIZER,
    UNTOLD_SHARE,
    Recipe,
    choose_context,
    choose_epochs,
    choose_step_tokens,
    shorten_to_context,
    split_step,
)
from transformers import AutoTokenizer, PreTrainedConfig

from common.base_model_files import TOKENIZER_FILES, BaseModel, base_fingerprint
from common.chat_format import (
    EXCHANGE,
    PERSON_TEMPLATE,
    EncodedConversation,
    asks_for_date,
    check_prompts,
    encode_conversation,
    find_end_of_turn_id,
    fix_template,
)
from common.compute_device import Device, choose_training_device
from common.conversation_data import Conversation, TrainingData
from common.conversation_header import NO_CONTEXT, headers_by_line
from common.model_folder import CHECKPOINTS_NAME
from common.outside_files import loading
from common.script import ScriptError, counted, shown_path
from common.template_rendering import ChatFormatError

# Facts that `--learning-rate auto` sets before the first step; a resumed run takes them from its checkpoint.
FOUND_FACTS = ("learning_rate", "learning_rate_trials")


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


@dataclass(frozen=True)
class Run:
    """What is known before the model is loaded."""

    options: argparse.Namespace
    recipe: Recipe
    data: TrainingData
    base: BaseModel
    tokenizer: Any
    held_out: HeldOut
    material: Material
    device: Device
    facts: dict[str, Any]  # what decides the result of the training
    corrections: TrainingData | None = None  # replies that the user put right in the chat

    @property
    def optimizer(self) -> str:
        """The optimizer, as the library calls it; until the memory is known, the faster one."""
        return str(self.facts.get("optimizer", FUSED_OPTIMIZER))

    @property
    def held_out_conversations(self) -> list[tuple[str, list[dict[str, str]]]]:
        """The header and the messages of each conversation of the validation set."""
        lines = set(self.held_out.validation)
        headers = headers_by_line(self.data.conversations, self.material.context)
        return [
            (headers[talk.line_number], talk.messages) for talk in self.data.conversations if talk.line_number in lines
        ]


def prepare_run(
    options: argparse.Namespace, data: TrainingData, base: BaseModel, corrections: TrainingData | None = None
) -> Run:
    """Choose the device and the held-out conversations; encode and pack the others, and the `corrections`."""
    use_threads(options.threads)
    device = choose_training_device(options.device)
    assert base.folder is not None
    day = choose_template_day(options)
    tokenizer = load_tokenizer(base.folder, base.name, day)
    config = read_model_config(base.folder)
    refuse_tokens_without_rows(tokenizer, config, base.name)
    warn_of_lost_characters(tokenizer, data.conversations, base.name)
    text = config.get_text_config()
    num_positions = next((getattr(text, key) for key in POSITION_KEYS if getattr(text, key, None)), None)
    recipe = shorten_to_context(options.recipe, num_positions)
    held_out = choose_held_out(data)
    corrected = [] if corrections is None else corrections.conversations
    material = prepare_material(tokenizer, data.conversations, held_out, recipe, world_size(), options.seed, corrected)
    if recipe.context not in (None, material.context):
        missing = 'names ("with", or "chat")' if material.context == NO_CONTEXT else 'times ("started_at")'
        warn(
            f"the data has no {missing}, so --context {recipe.context} became {material.context}; "
            "preprocess_start.sh writes both"
        )
    facts = dataclasses.asdict(recipe)
    del facts["finds_learning_rate"]  # the rate that is found decides the result
    facts |= {
        "base_fingerprint": base_fingerprint(base.folder),
        "data_sha256": data.sha256,
        "corrections_sha256": None if corrections is None else corrections.sha256,
        "correction_weight": None if corrections is None else CORRECTION_WEIGHT,
        "template_sha256": _sha256(tokenizer.chat_template),
        "template_day": day.isoformat() if asks_for_date(tokenizer.chat_template) else None,
        "tokenizer_sha256": _sha256("".join(map(sha256_of, _tokenizer_files(base.folder)))),
        "seed": options.seed,
        "context": material.context,
        "untold_share": 0 if material.context == NO_CONTEXT else UNTOLD_SHARE,
        "epochs": len(material.schedule.epoch_ends),
        "step_tokens": [material.row_tokens, material.schedule.rows_per_step],
        "processes": world_size(),
        "device": f"{device.kind} {device.dtype}",
    }
    return Run(options, recipe, data, base, tokenizer, held_out, material, device, facts, corrections)


def with_found_rate(run: Run, found: Mapping[str, Any]) -> Run:
    """Return `run` with the learning rate of `found`, which has the `FOUND_FACTS`."""
    recipe = dataclasses.replace(run.recipe, learning_rate=found["learning_rate"])
    return dataclasses.replace(run, recipe=recipe, facts=run.facts | {name: found[name] for name in FOUND_FACTS})


def with_optimizer(run: Run, optimizer: str) -> Run:
    """Return `run` with this optimizer among its facts."""
    return dataclasses.replace(run, facts=run.facts | {"optimizer": optimizer})


def _tokenizer_files(folder: Path) -> list[Path]:
    return [folder / name for group in TOKENIZER_FILES for name in group if (folder / name).is_file()]


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def find_checkpoint(run: Run) -> Path | None:
    """Return the newest complete checkpoint of this very run, or None if there is none yet."""
    # The first process sets broken ones aside before the others look.
    with PartialState(cpu=run.device.kind == "cpu").main_process_first():
        checkpoint, problems = find_newest_complete(run.options.model_dir / CHECKPOINTS_NAME)
    for problem in problems:
        warn(f"a checkpoint was set aside: {problem}")
    if checkpoint is None:
        say("There is no complete checkpoint yet: starting from step 1")
        return None
    saved = read_run_facts(checkpoint)
    # Chosen in the run itself, and then taken from its checkpoint.
    chosen = ("optimizer", *(FOUND_FACTS if run.recipe.finds_learning_rate else ()))
    found = {name: saved[name] for name in chosen if name in saved}
    differences = list_differences(FORMER_FACTS | saved, FORMER_FACTS | run.facts | found)
    if differences:
        raise ScriptError(
            f"{shown_path(checkpoint)}: belongs to another run; give the same data, base and settings, or pass --overwrite"
            + "".join(f"\n  {difference}" for difference in differences)
        )
    for difference in list_differences(read_versions(checkpoint), library_versions()):
        warn(f"the last digits may differ with other versions: {difference}")
    say(f"Resuming after step {step_of(checkpoint):,}")
    return checkpoint


def choose_template_day(options: argparse.Namespace) -> date:
    """Return the day that a template which asks for the date gets: of the training that is resumed, else today."""
    if options.resume:
        for checkpoint in reversed(list_checkpoints(options.model_dir / CHECKPOINTS_NAME)):
            with suppress(OSError, ValueError):  # damaged, or of a template that does not ask
                return date.fromisoformat(str(read_run_facts(checkpoint).get("template_day")))
    return date.today()


def load_tokenizer(folder: Any, name: str, day: date) -> Any:
    """Load the tokenizer of the base in `folder`; without a chat template it gets the published one.

    A template that asks for the date gets `day`.
    """
    if _tokenizer_files(folder) == [folder / "tokenizer.model"] and find_spec("sentencepiece") is None:
        raise ScriptError(
            f"{name}: has its tokenizer only as tokenizer.model, which needs two packages more (pip install sentencepiece "
            "protobuf); install them, or choose a base with a tokenizer.json"
        )
    with loading(name, "its tokenizer", "choose another base model, or download it again"):
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        if not tokenizer.is_fast:
            raise ScriptError(f"{name}: has only a slow tokenizer, which gives no offsets; choose another base model")
        if isinstance(tokenizer.chat_template, dict):  # others are for tools and for quoting documents
            tokenizer.chat_template = tokenizer.chat_template.get("default")
        if tokenizer.chat_template is None:
            tokenizer.chat_template = PERSON_TEMPLATE
            if tokenizer.eos_token is None:
                raise ScriptError(
                    f"{name}: its tokenizer has no end-of-sequence token, so a reply would never stop; "
                    "choose another base model"
                )
        try:
            fix_template(tokenizer, day)
            find_end_of_turn_id(tokenizer)
            check_prompts(tokenizer)
        except ChatFormatError as error:
            raise ScriptError(f"{name}: {error}") from None
    return tokenizer


def refuse_tokens_without_rows(tokenizer: Any, config: PreTrainedConfig, name: str) -> None:
    """Raise ScriptError if text can become a token for which the base has no embedding row.

    A special token that the chat template does not write may lie behind the rows (the image token of Gemma 3 1B).
    """
    num_rows = config.get_text_config().vocab_size
    unused = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    unused -= set(encode_conversation(tokenizer, EXCHANGE).input_ids)
    num_without = sum(number >= num_rows and number not in unused for number in tokenizer.get_vocab().values())
    if num_without:
        raise ScriptError(
            f"{name}: its tokenizer has {num_without:,} tokens more than the model has rows ({num_rows:,}), so the two do "
            "not belong together; download the base model again, or choose another one"
        )


def choose_held_out(data: TrainingData) -> HeldOut:
    """Choose the held-out conversations; warn if they are none, or too easy."""
    held_out = hold_out(data.conversations)
    if not held_out.validation:
        warn("too few conversations to hold some out: no measurement and no early stopping")
        return held_out
    overlap = overlapping_lines(data.conversations, held_out)
    if overlap:
        warn(
            f"in training, too, word for word: {counted(len(overlap), 'held-out conversation')}; their loss will be too low"
        )
    return held_out


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
