"""A run before its model is loaded: device, tokenizer, held-out conversations, and the facts for a resume.

Finding the data and the base is left to the script, encoding and packing to `training_material`.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
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
from held_out_sets import HeldOut, hold_out, overlapping_lines
from lost_characters import warn_of_lost_characters
from model_shape import read_context
from processes import say, use_threads, warn, world_size
from qlora_model import read_model_config
from recipes import (
    CORRECTION_WEIGHT,
    FUSED_OPTIMIZER,
    UNTOLD_SHARE,
    Recipe,
    shorten_to_context,
)
from training_material import Material, prepare_material
from transformers import AutoTokenizer, PreTrainedConfig

from common.base_model_files import TOKENIZER_FILES, BaseModel, base_fingerprint
from common.chat_format import (
    EXCHANGE,
    PERSON_TEMPLATE,
    asks_for_date,
    check_prompts,
    encode_conversation,
    find_end_of_turn_id,
    fix_template,
)
from common.compute_device import Device, choose_training_device
from common.conversation_data import TrainingData
from common.conversation_header import NO_CONTEXT, headers_by_line
from common.model_folder import CHECKPOINTS_NAME
from common.outside_files import loading
from common.script import ScriptError, counted, shown_path
from common.template_rendering import ChatFormatError

# Facts that `--learning-rate auto` sets before the first step; a resumed run takes them from its checkpoint.
FOUND_FACTS = ("learning_rate", "learning_rate_trials")


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
    recipe = shorten_to_context(options.recipe, read_context(config.to_dict()))
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
