"""Which conversations are kept from training: three sets of whole conversations, the same for the same data.

Measuring on them is left to `held_out_evaluation` and the style report.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from common.conversation_data import Conversation

# Whole conversations: neighbouring turns share their words.
MIN_CONVERSATIONS_TO_HOLD_OUT = 10  # with fewer, all are needed for training
LATEST_SHARE = 0.05  # the last in time: the closest to future chats
VALIDATION_SHARE = 0.05  # for early stopping; small, because it is read several times per epoch
SPREAD_SHARE = 0.10  # for the report
MAX_SPREAD_SHARE = 0.20  # of a short chat: the report needs enough replies
WANTED_SPREAD_REPLIES = 300  # with fewer, the rates of emoji and laughter are too noisy
MAX_BLOCKS = 100  # of consecutive conversations, spread evenly: single ones would lie between training conversations


@dataclass(frozen=True)
class HeldOut:
    """Line numbers (counted from 0) of the conversations that are kept from training."""

    validation: list[int]
    spread: list[int]
    latest: list[int]

    @property
    def lines(self) -> set[int]:
        """The line numbers of all three sets."""
        return {*self.validation, *self.spread, *self.latest}

    def __len__(self) -> int:
        """Return how many conversations are held out."""
        return len(self.validation) + len(self.spread) + len(self.latest)


def hold_out(conversations: Sequence[Conversation]) -> HeldOut:
    """Choose the three sets to hold out: the last in time, and blocks spread over the rest of the period.

    The same conversations always give the same sets.
    """
    if len(conversations) < MIN_CONVERSATIONS_TO_HOLD_OUT:
        return HeldOut([], [], [])
    in_time = sorted(conversations, key=lambda conversation: conversation.started_at)  # stable: else as in the file
    num_latest = max(1, round(LATEST_SHARE * len(in_time)))
    earlier, latest = in_time[:-num_latest], in_time[-num_latest:]
    num_replies = sum(conversation.num_replies for conversation in in_time)
    spread_share = min(MAX_SPREAD_SHARE, max(SPREAD_SHARE, WANTED_SPREAD_REPLIES / num_replies))
    block_length = max(1, len(earlier) // MAX_BLOCKS)
    blocks = [earlier[start : start + block_length] for start in range(0, len(earlier), block_length)]
    spread, others = _take_evenly(blocks, spread_share * len(in_time) / len(earlier))
    validation, _ = _take_evenly(others, VALIDATION_SHARE * len(in_time) / max(1, sum(map(len, others))))
    return HeldOut(
        *(
            sorted(conversation.line_number for conversation in group)
            for group in (_flatten(validation), _flatten(spread), latest)
        )
    )


def overlapping_lines(conversations: Sequence[Conversation], held_out: HeldOut) -> list[int]:
    """Return the line numbers of held-out conversations that also occur word for word in training."""
    held_out_lines = held_out.lines
    words = {conversation.line_number: json.dumps(conversation.messages) for conversation in conversations}
    trained = {text for line_number, text in words.items() if line_number not in held_out_lines}
    return [line_number for line_number in sorted(held_out_lines) if words[line_number] in trained]


def _take_evenly(
    blocks: list[list[Conversation]], share: float
) -> tuple[list[list[Conversation]], list[list[Conversation]]]:
    """Split `blocks` into evenly spaced ones (about `share` of all, at least one) and the others."""
    num_taken = max(1, round(share * len(blocks)))
    places = {int((number + 0.5) * len(blocks) / num_taken) for number in range(num_taken)}
    taken = [block for place, block in enumerate(blocks) if place in places]
    return taken, [block for place, block in enumerate(blocks) if place not in places]


def _flatten(blocks: list[list[Conversation]]) -> list[Conversation]:
    return [conversation for block in blocks for conversation in block]
