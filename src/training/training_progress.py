"""What a run shows while it goes on and leaves behind: one live line, `training_log.jsonl`, `loss_curve.png`.

Times come from a clock that never jumps. The log lies in the model's folder and holds numbers only.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from common.script import replacing

BAR_WIDTH = 10  # then what matters fits in 80 columns
SECONDS_BETWEEN_LINES = 30.0  # where the output is no terminal, a line now and then instead of a live one
SMOOTHING = 0.9  # of the loss shown: single steps jump


class LiveLine:
    """One line that is rewritten in place at a terminal, or printed now and then elsewhere."""

    def __init__(self, is_shown: bool) -> None:
        """Show nothing at all unless `is_shown` (several processes share one terminal)."""
        self._is_shown = is_shown
        self._is_terminal = sys.stdout.isatty()
        self._last_print: float | None = None

    def show(self, text: str, is_last: bool = False) -> None:
        """Show `text` in place of the last."""
        if not self._is_shown:
            return
        if self._is_terminal:
            columns = shutil.get_terminal_size().columns - 1  # a line that wraps could not be rewritten
            print(f"\r\x1b[K{text[:columns]}", end="\n" if is_last else "", flush=True)
            return
        now = time.monotonic()
        if is_last or self._last_print is None or now - self._last_print >= SECONDS_BETWEEN_LINES:
            print(text, flush=True)
            self._last_print = now

    def clear(self) -> None:
        """Make room for other output."""
        if self._is_shown and self._is_terminal:
            print("\r\x1b[K", end="", flush=True)


class ProgressMeter:
    """Steps, tokens and seconds of this run -> the text of the live line."""

    def __init__(self, num_steps: int, first_step: int) -> None:
        """Start the clock; `first_step` steps were done by an earlier run."""
        self._num_steps = num_steps
        self._first_step = first_step
        self._start = self._step_start = time.monotonic()
        self._smooth_loss: float | None = None
        self._num_tokens = 0
        self._seconds_in_steps = 0.0
        self.step_seconds = 0.0  # of the last step alone, without evaluation and saving

    def begin_step(self) -> None:
        """Start timing one step."""
        self._step_start = time.monotonic()

    def advance(self, step: int, epoch: float, loss: float, num_tokens: int) -> str:
        """Count the step that ends now and return the line to show."""
        now = time.monotonic()
        self.step_seconds = now - self._step_start
        self._seconds_in_steps += self.step_seconds
        self._num_tokens += num_tokens
        previous = loss if self._smooth_loss is None else self._smooth_loss
        self._smooth_loss = SMOOTHING * previous + (1 - SMOOTHING) * loss
        seconds_left = (now - self._start) / (step - self._first_step) * (self._num_steps - step)
        filled = BAR_WIDTH * step // self._num_steps
        return (
            f"[{'#' * filled}{'.' * (BAR_WIDTH - filled)}] step {step:,}/{self._num_steps:,}  epoch {epoch:.2f}  "
            f"{shown_seconds(seconds_left)} left  loss {self._smooth_loss:.3f}  "
            f"{self._num_tokens / self._seconds_in_steps:,.0f} tokens/s  peak {shown_bytes(peak_memory_bytes())}"
        )


def peak_memory_bytes() -> int:
    """Return the most memory used so far: of the GPU when there is one, else of this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def shown_seconds(seconds: float) -> str:
    """Return a duration as a clock shows it.

    >>> shown_seconds(3725)
    '1:02:05'
    >>> shown_seconds(65)
    '1:05'
    """
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def shown_bytes(number: float) -> str:
    """Return a size in the unit that suits it.

    >>> shown_bytes(7_200_000_000)
    '6.7 GiB'
    """
    return f"{number / 2**30:.1f} GiB" if number >= 2**30 else f"{number / 2**20:.1f} MiB"


class TrainingLog:
    """`training_log.jsonl`: a row for each step and each evaluation, in order, each step once."""

    def __init__(self, path: Path, first_step: int) -> None:
        """Continue the log after `first_step`: rows of steps that will be trained again are dropped."""
        self.path = path
        self.rows = [row for row in _read_rows(path) if row["step"] <= first_step] if first_step else []
        with replacing(path) as file:
            file.writelines(json.dumps(row) + "\n" for row in self.rows)

    def add(self, row: dict[str, Any]) -> None:
        """Append one row."""
        self.rows.append(row)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())


def _read_rows(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                rows.append(json.loads(line))
            except ValueError:  # the last line, cut by a kill
                break
    return rows


def draw_loss_curve(path: Path, rows: Sequence[dict[str, Any]], best_step: int | None) -> None:
    """Draw the loss of training and of the held-out replies over the steps, the best step marked."""
    import matplotlib

    matplotlib.use("Agg")  # no window system needed
    from matplotlib import pyplot

    training = [(row["step"], row["loss"]) for row in rows if "loss" in row]
    held_out = [(row["step"], row["held_out_loss"]) for row in rows if "held_out_loss" in row]
    figure, axes = pyplot.subplots(figsize=(8, 4.5), dpi=120)
    axes.plot(*zip(*training, strict=True), color="0.75", linewidth=0.8, label="training, each step")
    smooth = _smoothed([loss for _, loss in training])
    axes.plot([step for step, _ in training], smooth, color="tab:blue", label="training, smoothed")
    if held_out:
        axes.plot(*zip(*held_out, strict=True), "o-", color="tab:orange", label="held-out replies")
    if best_step is not None:
        axes.axvline(best_step, color="tab:green", linestyle="--", label=f"best: step {best_step:,}")
    axes.set_xlabel("step")
    axes.set_ylabel("loss (nats a token)")
    axes.legend()
    figure.tight_layout()
    with replacing(path, "wb") as file:
        figure.savefig(file, format="png", metadata={"Software": None})
    pyplot.close(figure)


def _smoothed(losses: Sequence[float]) -> list[float]:
    smooth: list[float] = []
    for loss in losses:
        smooth.append(SMOOTHING * smooth[-1] + (1 - SMOOTHING) * loss if smooth else loss)
    return smooth
