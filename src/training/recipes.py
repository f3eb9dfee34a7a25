"""The numbers of a training run, each with its reason.

What follows from the model (target modules) is left to `qlora_model`, what follows from the machine (device, number type) to
`compute_device`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from processes import say

from common.conversation_data import Conversation
from common.conversation_header import NO_CONTEXT, WHO_AND_WHEN, usable_context

# At most. Little data overfits within an epoch or two; one evaluation per epoch would miss the best step.
EVALUATIONS_PER_EPOCH = 4
NUM_SAMPLES = 2  # held-out messages that are answered at each evaluation, for the user to look at
MAX_SAMPLE_TOKENS = 40
PATIENCE_EVALUATIONS = 3  # without a new best, then the run stops
MAX_GRADIENT_NORM = 1.0

# Learning takes enough steps: with a quarter of the steps on the same data, a small model reached a loss of 2.80 instead of
# 1.96. More tokens per step than the upper limit only slow LoRA down.
WANTED_STEPS = 200
EPOCHS_OF_WANTED_STEPS = 3  # more epochs are more steps, not larger ones: larger ones learnt less in more time
MIN_STEP_TOKENS = 512
MAX_STEP_TOKENS = 8_192

# Logits that `head_loss` computes at a time: 32 MiB in fp32. With a vocabulary of 64,001 on a processor, half as many were
# 8 % slower, twice as many no faster.
BLOCK_LOGITS = 2**23
MIN_BLOCK_POSITIONS = 64  # with fewer, a GPU waits for the head's weights at each block

# (up to so many replies of the imitated person, at most so many epochs); USUAL_EPOCHS for more. After 3 epochs 300 to
# 3,000 replies were at their best in the last step; after 10 and 20 epochs 300 replies were copied word for word more than
# twice as often as the person repeats them (tests/benchmarks/RESULTS.md).
EPOCHS_BY_REPLIES = ((2_000, 8), (5_000, 6))
USUAL_EPOCHS = 3

# From so many replies of the imitated person, a header tells with whom and when. With 5,000 it brought a person's first
# replies in the wrong register from 46 down to 4 %, and cost a person without such habits nothing; with 2,000 or fewer it
# cost up to .05 bits per character (tests/benchmarks/RESULTS.md).
REPLIES_FOR_HEADER = 5_000

# Of the conversations to learn from, so many get no header, for tools that write none: without these, a model that was
# told nothing wrote worse than one without headers (.52 instead of .43 bits per character; with them .44).
UNTOLD_SHARE = 0.1

# A reply that the user put right counts as so many replies of the data. After 8 epochs on 600 replies, twelve new facts were
# named in 8 % of the replies to the corrected questions with a weight of 3, in 69 % with 10 and in 95 % with 20, in none to
# other questions, at the same bits per character of held-out replies (tests/benchmarks/correction_weight.py).
CORRECTION_WEIGHT = 10


@dataclass(frozen=True)
class Recipe:
    """How to train."""

    learning_rate: float = 2e-4  # of the QLoRA paper for 7B; a small base takes more, 1e-3
    finds_learning_rate: bool = False  # by short trainings before the first step; then it replaces `learning_rate`
    epochs: int | None = None  # at most; None: by the number of replies
    rank: int = 32
    alpha: int = 64
    adapter_dtype: str = "float32"  # bfloat16 saves 0.3 GiB on a 7B, but rounds small updates away at low rates
    dropout: float = 0.0  # .07 took 18 % more time and cost .01 of the loss
    lr_scheduler: str = "cosine"
    warmup_share: float = 0.03
    context: str | None = None  # what the header tells: with whom, or also when; None: by the number of replies
    train_on: str = "person"  # the imitated person's replies; on everyone's words the loss was .04 worse
    max_length: int = 2048  # tokens of a row, and of the longest context; memory grows with it
    step_tokens: int | None = None  # None: chosen by the amount of data


DEFAULT_RECIPE = Recipe()

# Both are AdamW. The first has its states in fp32 and updates all tensors in a few kernels; the second has them in 8 bits,
# and in main memory where a card has no room, but goes through some 450 tensors in Python: 4 to 7 % of an H100's time for
# its fills alone.
FUSED_OPTIMIZER = "adamw_torch_fused"
PAGED_OPTIMIZER = "paged_adamw_8bit"
# Per trained parameter: two states; in 8 bits with a scale of four bytes for 256 values.
OPTIMIZER_BYTES = {FUSED_OPTIMIZER: 2 * 4, PAGED_OPTIMIZER: 2 * (1 + 4 / 256)}


def choose_epochs(recipe: Recipe, num_replies: int) -> int:
    """Return the most epochs to train, for data with `num_replies` replies of the imitated person."""
    if recipe.epochs is not None:
        return recipe.epochs
    return next((epochs for most_replies, epochs in EPOCHS_BY_REPLIES if num_replies <= most_replies), USUAL_EPOCHS)


def choose_context(recipe: Recipe, conversations: Sequence[Conversation]) -> str:
    """Return what the header before each of the `conversations` tells, as far as they say it."""
    wanted = recipe.context
    if wanted is None:
        num_replies = sum(conversation.num_replies for conversation in conversations)
        wanted = WHO_AND_WHEN if num_replies >= REPLIES_FOR_HEADER else NO_CONTEXT
    return usable_context(wanted, conversations)


def choose_step_tokens(recipe: Recipe, num_tokens: int, num_epochs: int) -> int:
    """Return the tokens per step, for `num_epochs` epochs of `num_tokens` each."""
    if recipe.step_tokens is not None:
        return recipe.step_tokens
    return min(
        MAX_STEP_TOKENS, max(MIN_STEP_TOKENS, num_tokens * min(num_epochs, EPOCHS_OF_WANTED_STEPS) // WANTED_STEPS)
    )


def split_step(step_tokens: int, max_length: int, num_processes: int) -> tuple[int, int]:
    """Return (tokens per row, rows per step): as few rows as `max_length` allows, the same number for each process.

    >>> split_step(8192, max_length=2048, num_processes=1)
    (2048, 4)
    >>> split_step(1500, max_length=2048, num_processes=2)
    (750, 2)
    """
    rows_per_process = math.ceil(math.ceil(step_tokens / max_length) / num_processes)
    num_rows = rows_per_process * num_processes
    return step_tokens // num_rows, num_rows


def choose_block_positions(vocab_size: int) -> int:
    """Return the number of positions whose logits `head_loss` computes at a time."""
    return max(MIN_BLOCK_POSITIONS, BLOCK_LOGITS // vocab_size)


def shorten_to_context(recipe: Recipe, num_positions: int | None) -> Recipe:
    """Return `recipe` with rows no longer than the base's context; print it if they are shorter now."""
    if num_positions is None or num_positions >= recipe.max_length:
        return recipe
    say(f"  rows of {num_positions:,} tokens: the base has no more positions")
    return replace(recipe, max_length=num_positions)
