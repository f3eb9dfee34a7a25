"""Personal identifiers in a message -> typed placeholders such as [PHONE]."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable


def guess_phone_region(samples: Iterable[str]) -> str | None:
    """Return the country (such as "IL") most phone numbers in `samples` belong to, None when there are none."""
    return None


class Redactor:
    """Hides personal identifiers and counts them by kind."""

    def __init__(self, phone_region: str | None = None, hidden_words: Iterable[str] = ()) -> None:
        """Prepare for the phone numbers of `phone_region` ("IL", "US", ...) and the user's own `hidden_words`."""
        self.phone_region = phone_region
        self.hidden_words = list(hidden_words)
        self.counts: Counter[str] = Counter()  # by kind: PHONE, EMAIL, ...

    def redact(self, text: str) -> str:
        """Return `text` with every identifier replaced by its placeholder."""
        redacted, count = re.subn(r"\d{5,}", "[NUMBER]", text)
        self.counts["NUMBER"] += count
        return redacted
