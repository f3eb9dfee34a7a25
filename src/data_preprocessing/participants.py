"""Who wrote: names as people read and type them, and which sender of a chat a typed name means.

It leaves to the script how to ask, and what to do when a name is not there.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Collection

WHITESPACE_RE = re.compile(r"\s+")
JOINERS = "\u200c\u200d"  # ZERO WIDTH NON-JOINER and JOINER: parts of words and of emoji
HYPHENS = {0x2010: "-", 0x2011: "-"}  # HYPHEN, NON-BREAKING HYPHEN: WhatsApp writes phone numbers with them


def readable_name(name: str) -> str:
    r"""Return a sender's name as it is shown and typed: composed, without invisible or control characters.

    >>> readable_name("\u202a+972\xa050\u2011555\u202c"), readable_name("~\u202fRut")
    ('+972 50-555', 'Rut')
    """
    visible = "".join(
        character
        for character in WHITESPACE_RE.sub(" ", unicodedata.normalize("NFC", name).translate(HYPHENS))
        if character in JOINERS or unicodedata.category(character) not in {"Cc", "Cf", "Cs"}
    )
    return visible.strip().removeprefix("~").strip()


def find_senders(name: str, senders: Collection[str]) -> list[str]:
    """Return the senders whose readable name is `name`; only when none is, those that differ in upper and lower case.

    >>> find_senders("rut", ["Rut", "Dan"]), find_senders("Ru", ["Rut", "Dan"])
    (['Rut'], [])
    """
    wanted = readable_name(name)
    exact = [sender for sender in senders if readable_name(sender) == wanted]
    return exact or [sender for sender in senders if readable_name(sender).casefold() == wanted.casefold()]


def find_nearest_name(name: str, senders: Collection[str]) -> str | None:
    """Return the readable name most like `name`, or None when none is like it.

    >>> find_nearest_name("Root", ["Rut", "Noa"]), find_nearest_name("ruth", ["Rut Levi", "Noa"])
    (None, 'Rut Levi')
    """
    by_folded = {readable_name(sender).casefold(): readable_name(sender) for sender in senders}
    wanted = readable_name(name).casefold()
    nearest = difflib.get_close_matches(wanted, by_folded, n=1)
    if not nearest:  # "Rut" for "Rut Levi", or the first letters of it
        nearest = [folded for folded in by_folded if any(part in folded.split() for part in wanted.split())]
        nearest = nearest or [folded for folded in by_folded if folded[:3] == wanted[:3]]
    return by_folded[nearest[0]] if nearest else None
