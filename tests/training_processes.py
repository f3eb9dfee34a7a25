"""Stage 2 in a process of its own, to be watched, stopped and killed; and what it left, for comparison."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch
from forked_scripts import ForkedScript
from safetensors.torch import load_file

SCRIPT = Path(__file__).resolve().parents[1] / "src/training/fine_tuning_model.py"
LIMIT_SECONDS = 600


def start(flags, model_dir, *more, env=None, **options):
    """Start a training; one thread, because more give other roundings on a busy machine."""
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), *flags, "--saved-model-path", str(model_dir), *more],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | (env or {}), **options,
    )  # fmt: skip


def start_forked(flags, model_dir, *more):
    """Start a training in a process forked from one that holds the libraries: for all that no fresh start has to show."""
    return ForkedScript(SCRIPT, [*flags, "--saved-model-path", model_dir, *more])


def finish(process):
    """Wait for the end; return status, output and errors."""
    output, errors = process.communicate(timeout=LIMIT_SECONDS)
    return process.returncode, output, errors


def read_rows(model_dir):
    """The whole rows of the log: the last may be cut."""
    path = model_dir / "training_log.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def losses_of(model_dir):
    """Every loss of a run, of steps and of held-out replies, with its step."""
    return [(row["step"], row.get("loss", row.get("held_out_loss"))) for row in read_rows(model_dir)]


def has_same_adapter(model_dir, other_dir):
    """Tell whether two models' adapters are the same to the last bit."""
    one, other = (load_file(folder / "adapter_model.safetensors") for folder in (model_dir, other_dir))
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def wait_for_rows(process, model_dir, number):
    """Wait until the log has so many rows, or the process ends."""
    while len(read_rows(model_dir)) < number and process.poll() is None:
        time.sleep(0.02)


def train_with_kills(flags, model_dir, num_kills, seed, most_rows=3, most_seconds=1.0, start=start):
    """Kill a training (SIGKILL) at random moments so many times, resume each time, let it end; return the kills.

    A run is killed at most `most_seconds` after it came at most `most_rows` rows of its log further.
    """
    rng = random.Random(seed)
    kills_done = 0
    while not (model_dir / "training_settings.json").exists():
        is_begun = model_dir.exists() and any(model_dir.iterdir())
        process = start(flags, model_dir, *(["--resume"] if is_begun else []))
        if kills_done < num_kills:
            # A moment after the row it may be in a step, an evaluation or a save.
            wait_for_rows(process, model_dir, len(read_rows(model_dir)) + rng.randint(0, most_rows))
            time.sleep(most_seconds * rng.random())
            process.kill()
        status, _, errors = finish(process)
        kills_done += status == -signal.SIGKILL
        assert status in (0, -signal.SIGKILL), errors
    return kills_done
