"""Emoji of phones before 2012, which stand in code points for private use -> the emoji of Unicode (old_emoji.json)."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path

PRIVATE_USE = r"\ue000-\uf8ff\U000f0000-\U0010ffff"
PRIVATE_USE_RE = re.compile(f"[{PRIVATE_USE}]")


@cache
def _table() -> dict[int, str]:
    content = json.loads(Path(__file__).with_name("old_emoji.json").read_text(encoding="utf-8"))
    return {int(code, 16): emoji for kind in ("google", "softbank") for code, emoji in content[kind].items()}


def replace_old_emoji(text: str) -> str:
    """Return `text` with the emoji that are known; other code points for private use stay.

    >>> replace_old_emoji("miss you \\ue022")
    'miss you ❤️'
    """
    return text if PRIVATE_USE_RE.search(text) is None else text.translate(_table())


def num_unknown(text: str) -> int:
    """Return how many code points for private use stand for no known emoji."""
    return sum(ord(character) not in _table() for character in PRIVATE_USE_RE.findall(text))
