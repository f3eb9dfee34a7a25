"""All that is known of a run before the model is loaded: the device, what is held out, the packed rows, and its facts.

It leaves finding the data and the base to the script, and the rows themselves to `training_material`.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from checkpoints import sha256_of
from held_out_sets import HeldOut, hold_out, overlapping_lines
from processes import say, warn, world_size
from recipes import Recipe

from common.base_model_files import TOKENIZER_FILES, BaseModel, base_fingerprint
from common.conversation_data import TrainingData

if TYPE_CHECKING:
    from training_material import Material
    from transformers import PreTrainedConfig

    from common.compute_device import Device


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
    """Choose device and held-out conversations, encode and pack the rest; the heavy libraries load here."""
    from qlora_model import read_model_config
    from training_material import load_tokenizer, prepare_material

    from common.compute_device import choose_training_device

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
        "step_tokens": [material.pack_tokens, material.schedule.packs_per_step],
        "processes": world_size(),
        "device": f"{device.kind} {device.dtype}",
    }
    return Run(options, recipe, data, base, tokenizer, held_out, material, device, facts)


def _tokenizer_files(folder: Path) -> list[Path]:
    return [folder / name for group in TOKENIZER_FILES for name in group if (folder / name).is_file()]


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def use_threads(wanted: int | None) -> None:
    """Compute with `wanted` threads, or one for each core: a second one on the same core only gets in the way."""
    import psutil
    import torch

    if wanted is None and "OMP_NUM_THREADS" in os.environ:
        return  # the user's choice, or torchrun's
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(wanted or min(psutil.cpu_count(logical=False) or 1, available))


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
