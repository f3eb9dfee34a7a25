"""The one character filter of the chat: for what the model writes, what is typed, and what is read from a file.

Text may come from anywhere (a pasted escape sequence, a byte token the model puts together), and on a terminal some
characters act: they clear the screen, set the clipboard, reverse what is read. It leaves meaning, markup and special
tokens to others.
"""

from __future__ import annotations

# What goes: it acts on a terminal or turns the direction of what stands around it. What stays although it is
# invisible: line break, tab, the joiner and variation selector inside emoji, the plain direction marks (LRM, RLM).
REMOVED_RANGES = (
    (0x00, 0x08),  # control characters before the tab
    (0x0B, 0x1F),  # the other control characters, the escape character and the carriage return among them
    (0x7F, 0x9F),  # delete and the second set of controls (U+009B starts an escape sequence)
    (0x2028, 0x2029),  # line and paragraph separator: a line break that would forge a line
    (0x202A, 0x202E),  # direction embeddings and overrides
    (0x2066, 0x2069),  # direction isolates: the bubbles put their own around a message
    (0xFEFF, 0xFEFF),  # byte order mark
    (0xD800, 0xDFFF),  # halves of surrogate pairs: no valid UTF-8 can hold them
)

_DELETIONS = dict.fromkeys(code for first, last in REMOVED_RANGES for code in range(first, last + 1))


def remove_unsafe_characters(text: str) -> str:
    """Return `text` without characters that could act on a terminal or on the text around them.

    Each character is judged by itself, so a text may be cleaned in pieces as it streams.

    >>> remove_unsafe_characters("a\\x1b[2Jb\\u202ec")
    'a[2Jbc'
    """
    return text.translate(_DELETIONS)
