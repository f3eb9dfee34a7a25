"""How counts are worded, so that one message is not "1 messages"."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """Return `number` with `noun`, which is given in the singular.

    >>> counted(1, "reply"), counted(1_200, "reply"), counted(0, "message")
    ('1 reply', '1,200 replies', '0 messages')
    """
    if number == 1:
        return f"1 {noun}"
    return f"{number:,} {noun.removesuffix('y')}ies" if noun.endswith("y") else f"{number:,} {noun}s"
