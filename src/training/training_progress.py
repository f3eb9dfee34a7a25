"""What a run shows and leaves behind: a progress bar, `training_log.jsonl`, `loss_curve.png`.

Durations come from a monotonic clock. The log lies in the model's folder and holds numbers only.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from common.private_files import replacing

SECONDS_BETWEEN_LINES = 30.0  # of a log: where the output is no terminal
SMOOTHING = 0.9  # of the loss shown: single steps are noisy


class ProgressBar:
    """The progress bar of a run, and the clock of its steps."""

    def __init__(self, num_steps: int, first_step: int, is_shown: bool) -> None:
        """Show the bar if `is_shown` (one process of several); `first_step` steps were done by an earlier run."""
        is_terminal = sys.stdout.isatty()
        self._bar = tqdm(
            total=num_steps,
            initial=first_step,
            disable=not is_shown,
            file=sys.stdout if is_terminal else _Lines(),
            mininterval=0.1 if is_terminal else SECONDS_BETWEEN_LINES,
            miniters=1,
            smoothing=0,  # estimate the time left from all steps: those with an evaluation take longer
            dynamic_ncols=True,
            ascii=".#",
            bar_format="[{bar:10}] step {n_fmt}/{total_fmt}, {remaining} left{postfix}",
        )
        # The library's clock may be set: after a jump, the bar would show days, or nothing.
        self._bar._time = time.monotonic  # noqa: SLF001 - it has no other way
        self._bar.start_t = self._bar.last_print_t = time.monotonic()
        self._step_start = time.monotonic()
        self._smooth_loss: float | None = None
        self._num_tokens = 0
        self._seconds_in_steps = 0.0
        self.step_seconds = 0.0  # of the last step alone, without evaluation and saving

    def begin_step(self) -> None:
        """Start timing one step."""
        self._step_start = time.monotonic()

    def advance(self, epoch: float, loss: float, num_tokens: int) -> None:
        """Count the step that ends now, and show it."""
        self.step_seconds = time.monotonic() - self._step_start
        self._seconds_in_steps += self.step_seconds
        self._num_tokens += num_tokens
        previous = loss if self._smooth_loss is None else self._smooth_loss
        self._smooth_loss = SMOOTHING * previous + (1 - SMOOTHING) * loss
        self._bar.set_postfix_str(
            f"epoch {epoch:.2f}, loss {self._smooth_loss:.3f}, "
            f"{self._num_tokens / self._seconds_in_steps:,.0f} tokens/s, peak {shown_bytes(peak_memory_bytes())}",
            refresh=False,
        )
        self._bar.update()

    def clear(self) -> None:
        """Clear the bar's line for other output."""
        self._bar.clear()

    def close(self) -> None:
        """Show the last state and end the line."""
        self._bar.close()


class _Lines:
    """Standard output that is not a terminal: each state of the bar becomes a line."""

    def write(self, text: str) -> None:
        line = text.strip()
        if line:
            print(line, flush=True)

    def flush(self) -> None:
        sys.stdout.flush()


def peak_memory_bytes() -> int:
    """Return the peak memory so far: of the GPU since the base was loaded if it is there, else of this process."""
    of_gpu = torch.cuda.max_memory_allocated()  # 0 in a training on the processor, also beside a GPU
    if of_gpu:
        return of_gpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def begin_peak_of_training() -> int | None:
    """Return the peak of the GPU's memory while loading, which then counts no more; None where nothing is on a GPU."""
    peak = torch.cuda.max_memory_allocated()
    if not peak:
        return None
    torch.cuda.empty_cache()  # what loading reserved and no longer needs
    torch.cuda.reset_peak_memory_stats()
    return peak


def shown_bytes(number: float) -> str:
    """Return a size in a suitable unit.

    >>> shown_bytes(7_200_000_000)
    '6.7 GiB'
    """
    return f"{number / 2**30:.1f} GiB" if number >= 2**30 else f"{number / 2**20:.1f} MiB"


class TrainingLog:
    """`training_log.jsonl`: one row per step and per evaluation, in order, no step twice."""

    def __init__(self, path: Path, first_step: int) -> None:
        """Continue the log after `first_step`; rows of later steps are dropped, because they are trained again."""
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
    """Draw the training loss and the loss of the held-out replies over the steps; mark the best step."""
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
    axes.set_ylabel("loss (nats per token)")
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
