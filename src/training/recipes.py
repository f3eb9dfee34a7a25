"""The numbers of a training run, each with its reason.

It leaves what can be found in the model or the machine (targets, device, dtype) to `qlora_model`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

# At most. Small personal data over-fits within an epoch or two: once per epoch would miss the turn.
EVALUATIONS_PER_EPOCH = 4
PATIENCE_EVALUATIONS = 3  # without a new best before the run stops
MAX_GRADIENT_NORM = 1.0

# The weights must change often enough to learn: the same data in 4 times fewer steps taught a small model less
# (loss 2.80 against 1.96). More tokens a step than the upper limit only slow a LoRA down.
WANTED_STEPS = 200
MIN_STEP_TOKENS = 512
MAX_STEP_TOKENS = 8_192


@dataclass(frozen=True)
class Recipe:
    """How to train. Tokens are counted without padding."""

    learning_rate: float = 2e-4  # the QLoRA authors' for 7B; a small base bears more, 1e-3
    epochs: int = 3
    rank: int = 32
    alpha: int = 64
    adapter_dtype: str = "float32"  # bfloat16 saves 0.3 GiB on a 7B, but at low rates its rounding eats small steps
    dropout: float = 0.0  # .07 cost 18 % of the time and .01 of the loss
    lr_scheduler: str = "cosine"
    warmup_share: float = 0.03
    train_on: str = "person"  # loss on the imitated person's replies; on everyone's words it was .04 worse
    max_length: int = 2048  # tokens in one row, and of the longest context; memory grows with it
    step_tokens: int | None = None  # None: from the amount of data


DEFAULT_RECIPE = Recipe()


def choose_step_tokens(recipe: Recipe, num_tokens: int) -> int:
    """Return how many tokens one step reads, for data of `num_tokens` in an epoch."""
    if recipe.step_tokens is not None:
        return recipe.step_tokens
    return min(MAX_STEP_TOKENS, max(MIN_STEP_TOKENS, num_tokens * recipe.epochs // WANTED_STEPS))


def split_step(step_tokens: int, max_length: int, num_processes: int) -> tuple[int, int]:
    """Return (tokens of a row, rows a step): as few rows as fit `max_length`, the same number for each process.

    >>> split_step(8192, max_length=2048, num_processes=1)
    (2048, 4)
    >>> split_step(1500, max_length=2048, num_processes=2)
    (750, 2)
    """
    rows_per_process = math.ceil(math.ceil(step_tokens / max_length) / num_processes)
    num_rows = rows_per_process * num_processes
    return step_tokens // num_rows, num_rows
