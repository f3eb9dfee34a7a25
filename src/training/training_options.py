"""The command line of stage 2: its flags and defaults, what follows from them, and the commands to run next."""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from processes import local_world_size, world_size
from recipes import (
    CORRECTION_WEIGHT,
    DEFAULT_RECIPE,
    EPOCHS_BY_REPLIES,
    REPLIES_FOR_HEADER,
    USUAL_EPOCHS,
    Recipe,
)

from common.command_line import make_parser, number_above_0, share, typed_path, whole_number
from common.conversation_data import CORRECTIONS_PATH
from common.conversation_header import CONTEXTS
from common.script import PROJECT_ROOT, printable, shown_path, shown_python

MIN_ROW_TOKENS = 64  # the least that hold a message and its reply
AUTO = "auto"  # as a learning rate
MAX_SEED = 2**32 - 1  # numpy takes no other

EXAMPLES = """examples:
  python3 src/training/fine_tuning_model.py
  python3 src/training/fine_tuning_model.py --check
      show what the run needs and how long it takes; loads and downloads nothing
  python3 src/training/fine_tuning_model.py --base-model-id models/my-base --learning-rate 1e-3
  python3 src/training/fine_tuning_model.py --resume
      continue after Ctrl-C, a crash or a power cut, from the last complete checkpoint
  python3 src/training/fine_tuning_model.py --max-length 1024
      use less memory
  torchrun --nproc-per-node 2 src/training/fine_tuning_model.py
      two GPUs
"""


def parse_options(
    description: str, block: dict[str, str], seed: int, arguments: Sequence[str] | None
) -> argparse.Namespace:
    """Parse the command line; `block` has the values of the fill-in block.

    The result has the flags and: `typed`, the names of the block that were given as flags; `start_dir`, from which
    `base_model_id` counts if it is a path; `data_path`; `model_dir`; `recipe`, with its flags applied.
    """
    parser = make_parser(description, EXAMPLES)
    files = parser.add_argument_group("the fill-in block (typed paths count from the current folder)")
    for flag, metavar, text in (
        ("--base-model-id", "ID", "a hub id (owner/name) or a folder"),
        ("--path-to-data", "FILE", "the JSONL of stage 1"),
        ("--saved-model-path", "DIR", "the folder to write"),
    ):
        default = block[_name_of(flag)].replace("%", "%%")
        files.add_argument(flag, metavar=metavar, help=f"{text} (default: {default})")

    run = parser.add_argument_group("the run")
    run.add_argument(
        "--check", action="store_true", help="show memory, time and steps of the run, then exit; loads nothing"
    )
    what_is_there = run.add_mutually_exclusive_group()
    what_is_there.add_argument("--resume", action="store_true", help="continue from the newest complete checkpoint")
    what_is_there.add_argument(
        "--overwrite", action="store_true", help="train again; an existing model is moved aside, not deleted"
    )
    run.add_argument(
        "--device",
        choices=["auto", "cpu"],
        default="auto",
        help="cpu: train on the processor without asking (default: auto)",
    )
    run.add_argument("--threads", type=whole_number(1), metavar="N", help="processor threads (default: one per core)")
    run.add_argument(
        "--seed",
        type=whole_number(0, MAX_SEED),
        default=seed,
        metavar="N",
        help="the same seed, data and machine give the same adapter (%(default)s)",
    )
    run.add_argument("--skip-bad-lines", action="store_true", help="leave out and count broken lines of the data")

    run.add_argument(
        "--activation-checkpointing", choices=["auto", "on", "off"], default="auto",
        help="gradient checkpointing: less memory, more time; auto: where memory is short (default: auto)",
    )  # fmt: skip

    training = parser.add_argument_group("the training")
    for flag, kind, text in (
        ("--rank", whole_number(1), "of LoRA"),
        ("--alpha", whole_number(1), "of LoRA: its output is scaled by alpha / rank"),
        ("--dropout", share, "of LoRA"),
        (
            "--max-length",
            whole_number(MIN_ROW_TOKENS),
            "tokens of a row, and of the longest context; fewer need less memory",
        ),
    ):
        value = f"{getattr(DEFAULT_RECIPE, _name_of(flag)):g}"
        training.add_argument(flag, type=kind, metavar="N", default=argparse.SUPPRESS, help=f"{text} ({value})")
    training.add_argument(
        "--learning-rate",
        type=_rate_or_auto,
        metavar="N",
        default=argparse.SUPPRESS,
        help="a base of a few million parameters needs more, 1e-3; auto: the best of three short trainings, which read up to a "
        f"tenth of the tokens of the run ({DEFAULT_RECIPE.learning_rate:g})",
    )
    training.add_argument(
        "--epochs",
        type=whole_number(1),
        metavar="N",
        default=argparse.SUPPRESS,
        help="at most; training stops early when held-out replies get no better (default: by the number of replies, "
        f"{EPOCHS_BY_REPLIES[0][1]} to {USUAL_EPOCHS})",
    )
    training.add_argument(
        "--batch-tokens",
        type=whole_number(MIN_ROW_TOKENS),
        metavar="N",
        default=argparse.SUPPRESS,
        help="tokens per step (default: by the amount of data)",
    )
    training.add_argument(
        "--train-on", choices=["person", "everyone"], default=argparse.SUPPRESS,
        help="whose messages to learn: the imitated person's or all (person)",
    )  # fmt: skip
    training.add_argument(
        "--context", choices=CONTEXTS, default=argparse.SUPPRESS, metavar="WHAT",
        help=f"{', '.join(CONTEXTS[:-1])} or {CONTEXTS[-1]}: a line before each conversation tells the model with whom it is, or also on "
        f"which day of the week and part of the day it began; the chat then writes the same line (default: {CONTEXTS[-1]} from {REPLIES_FOR_HEADER:,} replies on)",
    )  # fmt: skip
    training.add_argument(
        "--adapter-dtype", choices=["float32", "bfloat16"], default=argparse.SUPPRESS,
        help="number type of the adapter: bfloat16 needs less memory and learns slightly less (float32)",
    )  # fmt: skip
    training.add_argument(
        "--corrections",
        nargs="?",
        type=typed_path,
        const=PROJECT_ROOT / CORRECTIONS_PATH,
        metavar="FILE",
        help="also learn the replies put right with /better in the chat, each as often as "
        f"{CORRECTION_WEIGHT} replies (without FILE: {CORRECTIONS_PATH})",
    )
    options = parser.parse_args(arguments)
    options.recipe = _apply_flags(options)
    _fill_in_block(options, block)
    return options


def _rate_or_auto(text: str) -> float | str:
    return AUTO if text == AUTO else number_above_0(text)


def _name_of(flag: str) -> str:
    return flag.lstrip("-").replace("-", "_")


def _apply_flags(options: argparse.Namespace) -> Recipe:
    given = vars(options) | {"step_tokens": getattr(options, "batch_tokens", None)}
    names = {field.name for field in dataclasses.fields(Recipe)}
    flags = {name: value for name, value in given.items() if name in names and value is not None}
    if flags.get("learning_rate") == AUTO:
        flags |= {"learning_rate": DEFAULT_RECIPE.learning_rate, "finds_learning_rate": True}
    return dataclasses.replace(DEFAULT_RECIPE, **flags)


def _fill_in_block(options: argparse.Namespace, block: dict[str, str]) -> None:
    options.typed = {name for name in block if getattr(options, name) is not None}
    vars(options).update({name: value for name, value in block.items() if name not in options.typed})

    def start_of(name: str) -> Path:
        return Path.cwd() if name in options.typed else PROJECT_ROOT

    options.start_dir = start_of("base_model_id")
    options.data_path = start_of("path_to_data") / typed_path(options.path_to_data)
    options.model_dir = start_of("saved_model_path") / typed_path(options.saved_model_path)


def how_to_resume() -> str:
    """Return the sentence with the command that resumes this run."""
    if world_size() > local_world_size():
        return "To resume, start all processes as before, with --resume"
    flags = [flag for flag in sys.argv[1:] if flag not in ("--overwrite", "--resume")]
    return f"To resume:\n  {own_command(*flags, '--resume')}"


def own_command(*flags: str) -> str:
    """Return the command of this script with these flags, and as many processes on this machine as now."""
    several = ["-m", "torch.distributed.run", "--nproc-per-node", str(local_world_size())]
    launcher = several if world_size() > 1 else []
    return printable(shlex.join([shown_python(), *launcher, sys.argv[0], *flags]))


def next_command(options: argparse.Namespace) -> str:
    """Return the command of stage 3 for this model."""
    flags = ["--saved-model-path", options.saved_model_path] if "saved_model_path" in options.typed else []
    return printable(shlex.join([shown_python(), shown_path(PROJECT_ROOT / "src/chat/chat_bot.py"), *flags]))
