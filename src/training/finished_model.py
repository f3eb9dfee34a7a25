"""What is written beside a finished adapter: how replies are drawn, how it was trained, and how well that went.

It leaves writing them to `output_folder`, and what a person sees to the script.
"""

from __future__ import annotations

import dataclasses
import json
import platform
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from qlora_model import count_parameters
from training_progress import peak_memory_bytes
from training_run import Run
from transformers import TrainerState

from common.chat_format import find_end_of_turn_id
from common.compute_device import NF4
from common.model_folder import SETTINGS_FORMAT, Sampling

LIBRARIES = ("torch", "transformers", "peft", "bitsandbytes", "accelerate", "datasets")


def library_versions() -> dict[str, str]:
    """Return the versions that a result of training depends on."""
    return {"python": platform.python_version()} | {name: version(name) for name in LIBRARIES}


def make_generation_config(tokenizer: Any) -> dict[str, Any]:
    """Return how replies are drawn and where they end."""
    end_id = find_end_of_turn_id(tokenizer)
    pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else end_id
    return Sampling().to_generation_config() | {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": end_id,
        "pad_token_id": pad_id,
    }


def make_report(run: Run, model: Any, state: TrainerState, log_rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the measured numbers of a finished run; `log_rows` are those of its training log."""
    material = run.material
    evaluations = {row["step"]: row for row in log_rows if "held_out_loss" in row}
    best_step = state.best_global_step if evaluations else None
    steps = [row for row in log_rows if "loss" in row]
    step_seconds = sum(row["seconds"] for row in steps)
    count = count_parameters(model)
    report: dict[str, Any] = {
        "tokens_per_epoch": material.num_tokens,
        "supervised_tokens_per_epoch": material.num_supervised_tokens,
        "rows_filled": round(material.fill, 4),
        "steps": state.global_step,
        "epochs": round(material.schedule.epoch_at(state.global_step), 4),
        "best_step": best_step,
        "trainable_parameters": count.trainable,
        "trainable_percent": round(count.trainable_percent, 4),
        "seconds": round(sum(row["seconds"] for row in log_rows), 1),
        "seconds_in_steps": round(step_seconds, 1),
        "tokens_per_second": round(sum(row["tokens"] for row in steps) / step_seconds, 1),
        "peak_memory_bytes": peak_memory_bytes(),
        "device": run.device.name,
    }
    if best_step is not None:
        report["validation"] = {
            name: {"loss": row["held_out_loss"], "bits_per_char": row["held_out_bits_per_char"]}
            for name, row in (("base", evaluations[0]), ("tuned", evaluations[best_step]))
        }
    return report


def make_settings(run: Run, model: Any) -> dict[str, Any]:
    """Return what the chat, the report and a later reader must know of how the model was trained."""
    recipe = run.recipe
    return {
        "format": SETTINGS_FORMAT,
        "base_model_id": run.base.name if run.base.revision else str(run.base.folder),
        "base_revision": run.base.revision,
        "base_fingerprint": run.facts["base_fingerprint"],
        "path_to_data": str(run.options.data_path),
        "data_sha256": run.data.sha256,
        "max_length": recipe.max_length,
        "quantization": NF4 if run.device.is_quantized else {},
        "lora": {
            "rank": recipe.rank,
            "alpha": recipe.alpha,
            "dropout": recipe.dropout,
            "target_modules": sorted(model.peft_config["default"].target_modules),
        },
        "recipe": "default",
        "training": dataclasses.asdict(recipe),
        "seed": run.options.seed,
        "person": find_person(run.options.data_path),
        "versions": library_versions(),
        "finished_at": datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def find_person(data_path: Path) -> str | None:
    """Return the (first) name of the imitated person from stage 1's report beside the data, when there is one."""
    try:
        names = json.loads((data_path.parent / "preprocessing_report.json").read_text(encoding="utf-8"))["person"]
        return str(names[0])
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None
