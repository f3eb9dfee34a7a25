"""How much there is to train on: tokens, steps and epochs.

Counted with the base's tokenizer, measured on rows that are packed already, or guessed while the base is not on disk or
there is no data yet. How long it takes is left to `training_time`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from held_out_sets import hold_out
from processes import world_size
from recipes import CORRECTION_WEIGHT, Recipe, choose_context, choose_epochs, choose_step_tokens, split_step

from common.base_model_files import BaseModel
from common.conversation_data import Conversation
from common.conversation_header import headers_by_line
from common.outside_files import loading

if TYPE_CHECKING:
    from training_material import Material

# Guesses while there is no tokenizer, or no data: Hebrew has about 2.5 characters a token, English 4.
CHARS_PER_TOKEN = 3
TOKENS_PER_MARK = 5  # around each turn: whose it is, and its end
TOKENS_PER_REPLY = 27  # with what it answers; the demo's chat has 47 characters and two turns a reply
USUAL_FILL = 0.97  # of the rows
USUAL_SUPERVISED_SHARE = 0.6  # of the row that has most


@dataclass(frozen=True)
class Work:
    """How much there is to train on."""

    epoch_tokens: int
    epoch_supervised_tokens: int
    fill: float
    num_steps: int
    num_epochs: int
    row_tokens: int  # of the longest row
    supervised_share: float  # of the row that has most
    rows_per_step: int = 1
    has_held_out: bool = True  # conversations that are measured, and replied to, several times an epoch


def count_work(
    conversations: Sequence[Conversation], recipe: Recipe, base: BaseModel, corrections: Sequence[Conversation] = ()
) -> Work:
    """Count the work with the base's tokenizer, or guess it from the characters while it is not on disk.

    Differs from what a run prepares by the exact template and by contexts that are read twice: a few percent.
    """
    held_out = hold_out(conversations)
    trained = [talk for talk in conversations if talk.line_number not in held_out.lines]
    messages = [message for talk in trained for message in talk.messages]
    context = choose_context(recipe, conversations)
    headers = headers_by_line(conversations, context)
    shown_headers = [headers[talk.line_number] for talk in trained if headers[talk.line_number]]
    measure_lengths = _find_length_measure(base)
    lengths = measure_lengths([message["content"] for message in messages])
    supervised = sum(
        length + 1  # and the end of the turn
        for length, message in zip(lengths, messages, strict=True)
        if message["role"] == "assistant" or recipe.train_on == "everyone"
    )
    lengths += measure_lengths(shown_headers)  # never supervised
    for correction, header in zip(corrections, headers_by_line(corrections, context).values(), strict=True):
        own_lengths = measure_lengths([message["content"] for message in correction.messages])
        supervised += CORRECTION_WEIGHT * (own_lengths[-1] + 1)
        lengths += CORRECTION_WEIGHT * (own_lengths + measure_lengths([header] if header else []))
    num_replies = sum(talk.num_replies for talk in conversations)
    work = _plan(sum(lengths) + TOKENS_PER_MARK * len(lengths), supervised, num_replies, recipe)
    return replace(work, has_held_out=bool(held_out.validation))


def _find_length_measure(base: BaseModel) -> Callable[[list[str]], list[int]]:
    """Return the function from texts to their lengths in tokens of `base`, guessed while it is not on disk."""
    tokenizer_path = None if base.folder is None else base.folder / "tokenizer.json"
    if tokenizer_path is None or not tokenizer_path.is_file():
        return lambda texts: [len(text) // CHARS_PER_TOKEN for text in texts]
    from tokenizers import Tokenizer

    with loading(base.name, "its tokenizer", "choose another base model, or download it again"):
        tokenizer = Tokenizer.from_file(str(tokenizer_path))

    def measure_lengths(texts: list[str]) -> list[int]:
        with loading(base.name, "its tokenizer", "choose another base model, or download it again"):
            return [len(encoding.ids) for encoding in tokenizer.encode_batch(texts, add_special_tokens=False)]

    return measure_lengths


def work_of_replies(num_replies: int, recipe: Recipe) -> Work:
    """Guess the work for so many replies of the imitated person."""
    num_tokens = TOKENS_PER_REPLY * num_replies
    num_supervised = num_tokens if recipe.train_on == "everyone" else num_tokens // 2
    return _plan(num_tokens, num_supervised, num_replies, recipe)


def _plan(num_tokens: int, num_supervised: int, num_replies: int, recipe: Recipe) -> Work:
    num_epochs = choose_epochs(recipe, num_replies)
    step_tokens = choose_step_tokens(recipe, num_tokens, num_epochs)
    row_tokens, rows_per_step = split_step(step_tokens, recipe.max_length, world_size())
    return Work(
        epoch_tokens=max(1, num_tokens),
        epoch_supervised_tokens=num_supervised,
        fill=USUAL_FILL,
        num_steps=num_epochs * math.ceil(num_tokens / (USUAL_FILL * row_tokens * rows_per_step)),
        num_epochs=num_epochs,
        row_tokens=row_tokens,
        supervised_share=1.0 if recipe.train_on == "everyone" else USUAL_SUPERVISED_SHARE,
        rows_per_step=rows_per_step,
    )


def measure_work(material: Material) -> Work:
    """Return the work that `prepare_material` prepared."""
    supervised = [sum(chunk) for chunk in material.chunks["is_supervised"]]
    rows = [
        (sum(material.lengths[chunk] for chunk in row), sum(supervised[chunk] for chunk in row))
        for row in material.schedule.rows
    ]
    longest = max(tokens for tokens, _ in rows)
    return Work(
        epoch_tokens=material.num_tokens,
        epoch_supervised_tokens=material.num_supervised_tokens,
        fill=material.fill,
        num_steps=material.schedule.num_steps,
        num_epochs=len(material.schedule.epoch_ends),
        row_tokens=longest,
        supervised_share=max(num_supervised for _, num_supervised in rows) / longest,
        rows_per_step=material.schedule.rows_per_step,
        has_held_out=material.held_out is not None,
    )
