"""Openers: the owner's first messages in the conversations that the owner begins. They answer nothing: scored apart.

They are left out of all other numbers and of the verdict. Generating the models' openers is left to `model_replies`, the
distances to `style_measuring`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from turns import Messages

from writing_style.held_out_replies import Exchange, HeldOutData, take_evenly, without_known_replies
from writing_style.member_names import without_names
from writing_style.style_measuring import measure_habits
from writing_style.style_verdict import is_enough
from writing_style.writing_habits import Reply

MAX_OPENERS = 100  # of a set: their lengths, bursts, endings and words; each takes the time of a reply
NUM_DRAWS = 100  # a quarter of the report's: the ends of the intervals vary by about 2 % of their width


def list_openers(data: HeldOutData, set_name: str) -> list[Exchange]:
    """Return at most MAX_OPENERS of a held-out set, each as an exchange without a context."""
    conversations: Mapping[int, Messages] = data.sets[set_name]
    found = [
        Exchange(line, 0, [], messages[0]["content"], data.headers.get(line, ""))
        for line, messages in sorted(conversations.items())
        if messages[0]["role"] == "assistant"
    ]
    return take_evenly(without_known_replies(found, data.training_replies("assistant")), MAX_OPENERS)


def has_enough(openers: Sequence[Exchange]) -> bool:
    """Return whether these openers are enough to measure."""
    return is_enough(len(openers), len({opener.conversation for opener in openers}))


def measure_openers(
    openers: Sequence[Exchange], texts: Mapping[str, Sequence[str]], data: HeldOutData, seed: int
) -> dict[str, Any]:
    """Return the number of openers and a row for each habit, as for the replies.

    `texts` has the openers of "owner", "tuned" and "base", in the order of `openers`; there is no row when it is empty.
    """
    writers = {
        name: [
            Reply(opener.conversation, without_names(text, data.members))
            for opener, text in zip(openers, rows, strict=True)
        ]
        for name, rows in texts.items()
    }
    habits = measure_habits(writers, seed, NUM_DRAWS)[0] if writers else []
    return {"num_openers": len(openers), "habits": habits}
