"""The base models of the README's table. Their shapes ship with the project, so no network is needed.

Run as a program, it prints that table: `.venv/bin/python src/training/known_bases.py`. Choosing a base for one machine is
left to `long_run` and `memory_plan`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))  # for `common`

from common.base_model_files import BaseModel, fetch_config, read_json_object
from common.command_line import make_parser
from common.conversation_data import Conversation
from common.script import run_script

BASE_MODELS_PATH = Path(__file__).with_name("base_models.json")

# Nominal sizes of cards; 5 % of each is taken by the driver and the screen.
CARD_GIB = (4, 6, 8, 10, 12, 16, 24, 32, 48, 80)
USABLE_SHARE = 0.95

LAST_LATIN = "\u024f"  # of the letters that languages of Europe write
FOREIGN_SHARE = 0.2  # of the letters in other scripts, from which on a base of English alone is not named


@dataclass(frozen=True)
class KnownBase:
    """A base model of the README's table."""

    name: str
    languages: str
    license: str
    source: str
    config: Mapping[str, Any]  # as in a config.json


def known_bases() -> list[KnownBase]:
    """Return the bases of the table, smallest first."""
    entries = json.loads(BASE_MODELS_PATH.read_text(encoding="utf-8"))["bases"]
    return [
        KnownBase(entry["id"], entry["languages"], entry["license"], entry["source"], entry["config"])
        for entry in entries
    ]


def bases_for(conversations: Iterable[Conversation]) -> list[KnownBase]:
    """Return the bases that may know the language of these conversations, smallest first.

    Where much is in other scripts than the Latin one, those of English alone are left out.
    """
    words = "".join(message["content"] for talk in conversations for message in talk.messages)
    letters = [character for character in words if character.isalpha()]
    num_foreign = sum(letter > LAST_LATIN for letter in letters)
    is_foreign = num_foreign > FOREIGN_SHARE * len(letters)
    return [known for known in known_bases() if not (is_foreign and known.languages == "English")]


def find_config(base: BaseModel) -> Mapping[str, Any]:
    """Return the `config.json` of `base`: from its folder, from the table, or from the hub.

    Raises BaseModelError.
    """
    if base.folder is not None:
        return read_json_object(base.folder / "config.json")
    for known in known_bases():
        if known.name == base.name:
            return known.config
    return fetch_config(base.name)


def smallest_card_gib(needed_bytes: int) -> int | None:
    """Return the nominal size of the smallest card that holds `needed_bytes`, or None."""
    from memory_estimate import GIB

    return next((size for size in CARD_GIB if needed_bytes <= USABLE_SHARE * size * GIB), None)


def make_base_table() -> str:
    """Return the README's table of bases as Markdown, computed by the estimate that `--check` uses.

    Training: rows of 2,048 and of 512 tokens, a third of them supervised, fp32 adapters, the optimizer for cards that are
    short of memory, no optional kernels. Chat: a context of 2,048 tokens.
    """
    import torch  # with the next three, only for the numbers: `--help` and the list of bases need no library
    from memory_estimate import Kernels, estimate_memory, shown_gib
    from model_shape import Load
    from recipes import PAGED_OPTIMIZER

    from common.compute_device import Device

    gpu = Device("cuda:0", torch.bfloat16, is_quantized=True)
    load, kernels = Load(is_captured=True, optimizer=PAGED_OPTIMIZER), Kernels(are_norms_fused=True)
    lines = [
        "| base model | languages | licence | parameters | download | training, 2,048 / 512 tokens a row | chat | card from |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for known in known_bases():
        count, training, chat = estimate_memory(known.config, gpu, load, kernels)
        short_rows = estimate_memory(known.config, gpu, replace(load, row_tokens=512), kernels)[1]
        num_parameters = count.total - count.trainable
        lines.append(
            f"| [{known.name}]({known.source}) | {known.languages} | {known.license} | {num_parameters / 1e9:.2f} B "
            f"| {2 * num_parameters / 1e9:.1f} GB | {shown_gib(training.total)} / {shown_gib(short_rows.total)} "
            f"| {shown_gib(chat.total)} | {smallest_card_gib(training.total)} GB |"
        )
    return "\n".join(lines)


def main() -> int:
    """Print the table."""
    make_parser((__doc__ or "").splitlines()[0] + " Prints that table.").parse_args()
    print(make_base_table())
    return 0


if __name__ == "__main__":
    run_script(main)
