"""Checks of the trained folder before any model library is imported: complete, undamaged, safe, its base on this disk.

Standard library only. Loading, and the check that all weights are finite, is left to `trained_model`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from common.base_model_files import (
    HUB_ID_RE,
    PICKLE_ENDINGS,
    BaseModel,
    BaseModelError,
    base_fingerprint,
    check_base_folder,
    check_safetensors_file,
    find_base,
    refuse_foreign_code,
)
from common.conversation_header import context_from_settings, partners_from_settings
from common.model_folder import (
    ADAPTER_CONFIG_NAME,
    ADAPTER_NAME,
    GENERATION_NAME,
    SETTINGS_FORMAT,
    SETTINGS_NAME,
    Sampling,
)
from common.outside_files import NotReadableError, find_irregular, read_json
from common.script import PROJECT_ROOT, ScriptError, did_you_mean, printable, shown_path

MAX_RANK = 512  # a hostile rank would allocate tens of gigabytes; useful ranks end at 256

# The keys that this project writes into an adapter's config; every other key must be empty or off.
ADAPTER_KEYS = {
    "base_model_name_or_path", "inference_mode", "init_lora_weights", "lora_alpha", "lora_dropout", "megatron_core",
    "peft_type", "peft_version", "qalora_group_size", "r", "revision", "target_modules", "task_type", "use_rslora",
}  # fmt: skip
EMPTY_VALUES: tuple[Any, ...] = (None, False, "none", {}, [])
MAX_CONTEXT = 1_000_000_000


def _is_text_or_none(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value <= 1e6  # false for nan


# What the other keys may hold.
ADAPTER_VALUES: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("base_model_name_or_path", "megatron_core", "peft_version", "revision"), _is_text_or_none),
    **dict.fromkeys(("inference_mode", "init_lora_weights", "use_rslora"), _is_flag),
    **dict.fromkeys(("lora_alpha", "qalora_group_size"), _is_number),
    "lora_dropout": lambda value: _is_number(value) and value <= 1,
    "task_type": lambda value: value == "CAUSAL_LM",
}
MODULE_NAME_RE = re.compile(r"[A-Za-z0-9_.]{1,100}")
ADAPTER_DTYPES = ("F32", "F16", "BF16")


@dataclass(frozen=True)
class SavedModel:
    """A checked folder and the contents of its JSON files."""

    folder: Path
    settings: dict[str, Any]  # training_settings.json
    generation: dict[str, Any]  # generation_config.json
    sampling: Sampling  # the sampling values in it
    base: BaseModel  # without a folder until `find_base_of`

    @property
    def base_dir(self) -> Path:
        """The base's folder, which was found on this disk."""
        assert self.base.folder is not None
        return self.base.folder


def check_saved_model(folder: Path, base_model_id: str | None = None) -> SavedModel:
    """Check the trained model in `folder` and find its base; raise ScriptError with the cure.

    `base_model_id` is the base given on the command line, or None for the one it was trained on.
    """
    return find_base_of(check_trained_folder(folder), base_model_id)


def check_trained_folder(folder: Path) -> SavedModel:
    """Check the trained model in `folder`, its base not yet looked for; raise ScriptError with the cure."""
    try:
        settings = _read_settings(folder)
        check_adapter(folder)
        for name in (GENERATION_NAME, "tokenizer.json", "tokenizer_config.json"):
            refuse_foreign_code(_read_object(folder / name), folder / name)
        generation = _read_object(folder / GENERATION_NAME)
        sampling = _read_sampling(generation, folder / GENERATION_NAME)
    except BaseModelError as error:
        raise ScriptError(str(error)) from None
    return SavedModel(folder, settings, generation, sampling, BaseModel(settings["base_model_id"], None))


def find_base_of(saved: SavedModel, base_model_id: str | None = None) -> SavedModel:
    """Return `saved` with its base on this disk; raise ScriptError with the cure."""
    try:
        return replace(saved, base=_find_base(saved.settings, base_model_id))
    except BaseModelError as error:
        raise ScriptError(str(error)) from None


def _read_settings(folder: Path) -> dict[str, Any]:
    if not folder.exists():
        cure = f"run src/training/fine_tuning_model.py first{did_you_mean(folder)}"
        raise ScriptError(f"{shown_path(folder)}: no trained model yet; {cure}")
    if not folder.is_dir():
        raise ScriptError(f"{shown_path(folder)}: is a file, not the folder of a trained model; check the path")
    irregular = find_irregular(folder)
    if irregular is not None:
        raise _damaged(irregular)
    path = folder / SETTINGS_NAME
    if not path.is_file():
        cure = "train first, or continue with src/training/fine_tuning_model.py --resume"
        raise ScriptError(f"{shown_path(folder)}: holds no finished training (no {path.name}); {cure}")
    settings = _read_object(path)
    if settings.get("format") != SETTINGS_FORMAT:
        raise ScriptError(
            f"{shown_path(path)}: was written by another version of this project; train again with this one"
        )
    if not isinstance(settings.get("base_model_id"), str) or not isinstance(settings.get("base_fingerprint"), str):
        raise _damaged(path)
    if type(settings.get("max_length")) is not int or not 8 <= settings["max_length"] <= MAX_CONTEXT:
        raise _damaged(path)
    if not all(isinstance(settings.get(name), str | None) for name in ("person", "path_to_data")):
        raise _damaged(path)
    try:
        context_from_settings(settings)
        partners_from_settings(settings)
    except ValueError:
        raise _damaged(path) from None
    return settings


def check_adapter(folder: Path) -> None:
    """Raise ScriptError unless the adapter is one that this project writes: LoRA, undamaged, safetensors."""
    config_path = folder / ADAPTER_CONFIG_NAME
    config = _read_object(config_path)
    unusual = sorted(key for key, value in config.items() if key not in ADAPTER_KEYS and value not in EMPTY_VALUES)
    if config.get("peft_type") != "LORA" or unusual:
        what = (
            f"sets {', '.join(map(printable, unusual))}, which this project never does"
            if unusual
            else "is no LoRA adapter"
        )
        raise ScriptError(f"{shown_path(config_path)}: {what}; train again")
    for name, is_right in ADAPTER_VALUES.items():
        if name in config and not is_right(config[name]):
            raise ScriptError(f"{shown_path(config_path)}: {name} has no usable value; train again")
    rank, modules = config.get("r"), config.get("target_modules")
    if type(rank) is not int or not 1 <= rank <= MAX_RANK:
        raise ScriptError(f"{shown_path(config_path)}: rank r must be 1 to {MAX_RANK}; train again")
    if not isinstance(modules, list) or not all(isinstance(m, str) and MODULE_NAME_RE.fullmatch(m) for m in modules):
        raise ScriptError(f"{shown_path(config_path)}: target_modules must be a list of names; train again")
    weights_path = folder / ADAPTER_NAME
    if not weights_path.is_file():
        pickles = sorted(path.name for path in folder.glob("adapter_model.*") if path.suffix in PICKLE_ENDINGS)
        what = f"{printable(pickles[0])} could run code and is never opened" if pickles else f"no {weights_path.name}"
        raise ScriptError(f"{shown_path(folder)}: {what}; train again")
    try:
        header = check_safetensors_file(weights_path)
    except BaseModelError:
        raise _damaged(weights_path) from None
    if any(entry.get("dtype") not in ADAPTER_DTYPES for name, entry in header.items() if name != "__metadata__"):
        raise _damaged(weights_path)


def _read_sampling(generation: dict[str, Any], path: Path) -> Sampling:
    try:
        return Sampling.from_generation_config(generation)
    except ValueError as error:
        raise ScriptError(f"{shown_path(path)}: {error}; correct it") from None


def _find_base(settings: dict[str, Any], base_model_id: str | None) -> BaseModel:
    # As everywhere: typed paths count from the current folder, paths in a file from the project's.
    trained_on = settings["base_model_id"]
    shown = printable(trained_on)
    try:
        base = find_base(base_model_id or trained_on, Path.cwd() if base_model_id else PROJECT_ROOT)
    except BaseModelError:
        if base_model_id:
            raise
        base = BaseModel(trained_on, None)  # a folder that was moved or deleted
    if base.folder is None and base_model_id:
        raise ScriptError(
            f"{printable(base.name)}: this base model is not on this disk; omit --base-model-id, or give the folder of {shown}"
        )
    if base.folder is None:
        download = f", or get it again: hf download {shown}" if HUB_ID_RE.fullmatch(trained_on) else ""
        raise ScriptError(
            f"{shown}: the base model this was trained on is not on this disk; "
            f"give its folder with --base-model-id{download}"
        )
    check_base_folder(base.folder)
    if base_fingerprint(base.folder) != settings["base_fingerprint"]:
        raise ScriptError(
            f"{printable(base.name)}: is not the base model this was trained on ({shown}); "
            "omit --base-model-id, or train on this base"
        )
    return base


def _read_object(path: Path) -> dict[str, Any]:
    try:
        content = read_json(path)
    except FileNotFoundError:
        raise ScriptError(f"{shown_path(path)}: not found, the trained folder is incomplete; train again") from None
    except NotReadableError:
        raise _damaged(path) from None
    if not isinstance(content, dict):
        raise _damaged(path)
    return content


def _damaged(path: Path) -> ScriptError:
    return ScriptError(f"{shown_path(path)}: is damaged; train again, or restore the folder from a backup")
