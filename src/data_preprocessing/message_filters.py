"""A message -> the words a person wrote, or the named reason why there are none.

What WhatsApp itself writes (data: placeholders.json) is recognised on the whole body, never inside a sentence. Links are
taken out of sentences, captions kept without their attachment, code recognised by several signals together. Private
things are left in: `redaction.py` hides them. What needs other messages is left to the script (`is_unknown_placeholder`).
"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path

DROP_REASONS = {
    "notice": "a notice of WhatsApp about the chat or the group",
    "system_text": "another text that WhatsApp wrote, not a person",
    "media": "an image, voice memo, sticker or document without a caption",
    "contact": "a contact card",
    "deleted": "a message that was deleted",
    "call": "a call, taken or missed",
    "location": "a shared location",
    "poll": "a poll with its options",
    "link": "nothing but links",
    "code": "program code, a log or a stack trace",
    "empty": "no visible character",
    "unknown_placeholder": "a text in <...> that several senders repeat",
}

LEFT_TO_RIGHT_MARK = "\u200e"  # iOS begins with it whatever WhatsApp itself wrote, and hardly anything else

# ESC or its one-character form, then a colour, a title, a link, ... : a terminal would obey it.
ESCAPE_SEQUENCE_RE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]{0,64}[ -/]{0,8}[@-~]?"
    r"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c]{0,4096}(?:\x07|\x1b\\|\x9c)?"
)
# Controls, direction marks and overrides, lone surrogates, the byte order mark. Joiners and variation selectors stay.
INVISIBLE_RE = re.compile(
    r"[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]"
)
LINE_END_RE = re.compile(r"\r\n|[\r\x0b\x0c\x85\u2028\u2029]")
NOTHING_VISIBLE = " \t\n\xa0\xad\u034f\u115f\u1160\u180e\u200c\u200d\u3164\ufe0e\ufe0f"


def filter_text(text: str, sender: str | None) -> tuple[str | None, str | None]:
    """Return the words of a message and None, or None and the reason (a key of DROP_REASONS) why it is left out.

    >>> filter_text("look https://example.com at this", "Rut")
    ('look at this', None)
    >>> filter_text("<Media omitted>", "Rut")
    (None, 'media')
    """
    if sender is None:
        return None, "notice"
    is_marked = text.lstrip(" \n\ufeff").startswith(LEFT_TO_RIGHT_MARK)
    body = text if text.isprintable() else remove_invisible(text)
    body = body.strip()
    if not body.strip(NOTHING_VISIBLE):
        return None, "system_text" if is_marked else "empty"

    if body[-1] == ">":
        body = _edited_re().sub("", body)
        if not body:
            return None, "empty"
    reason = _placeholder_reason(body)
    if reason is not None:
        return None, reason

    attachment = _split_attachment(text, body, is_marked)
    if attachment is not None:
        reason, body = attachment
        if not body:
            return None, reason
    elif is_marked:
        return None, "system_text"

    if _is_shared_location(body):
        return None, "location"
    if _is_poll(body):
        return None, "poll"
    if "." in body or "://" in body:
        body = remove_links(body)
        if not body:
            return None, "link"
    if is_code(body):
        return None, "code"
    return body, None


def clean_text(text: str, sender: str | None) -> str | None:
    """Return what a person wrote in this message, or None when it is to be left out."""
    return filter_text(text, sender)[0]


def drop_reason(text: str, sender: str | None) -> str | None:
    """Return why this message is left out (a key of DROP_REASONS), or None when it is kept."""
    return filter_text(text, sender)[1]


def is_unknown_placeholder(text: str) -> bool:
    """Return whether the whole body has the shape `<...>`: not prose when several senders repeat it.

    >>> is_unknown_placeholder("<Media mellőzve>"), is_unknown_placeholder("I <3 you"), is_unknown_placeholder("<3>")
    (True, False, False)
    """
    body = remove_invisible(text).strip()
    if not (5 <= len(body) <= 80 and body[0] == "<" and body[-1] == ">"):
        return False
    inside = body[1:-1]
    return not any(character in inside for character in "<>\n") and sum(map(str.isalpha, inside)) >= 3


def remove_invisible(text: str) -> str:
    """Remove control characters, terminal escapes and direction marks; every end of line becomes `\\n`.

    Zero-width joiners and variation selectors stay, so emoji and words remain byte-exact.
    """
    if "\x1b" in text or not text.isascii():
        text = ESCAPE_SEQUENCE_RE.sub("", text)
    return LINE_END_RE.sub("\n", INVISIBLE_RE.sub("", text))


# --- Texts of WhatsApp ------------------------------------------------------------------------------------------------

PLACEHOLDERS: dict[str, dict[str, list[str]]] = {
    kind: texts
    for kind, texts in json.loads(Path(__file__).with_name("placeholders.json").read_text(encoding="utf-8")).items()
    if kind != "about"
}
WHOLE_BODY_REASONS = ("media", "contact", "deleted", "call", "location", "system_text", "notice")
MAX_PLACEHOLDER_CHARS = 400  # the longest known, the encryption notice, has about 200
INDEX_CHARS = 4  # a template is tried only on a body that begins, or ends, with the same few characters


def _placeholder_key(text: str) -> str:
    return text.casefold().strip(" .<>。")


def _words_of(kind: str) -> set[str]:
    return {text for texts in PLACEHOLDERS[kind].values() for text in texts}


def _build_tables() -> tuple[dict[str, str], dict[str, list[tuple[str, str]]], dict[str, list[tuple[str, str]]]]:
    """Sort the whole-body texts into exact ones, and templates by how they begin or else by how they end."""
    exact: dict[str, str] = {}
    by_start: dict[str, list[tuple[str, str]]] = {}
    by_end: dict[str, list[tuple[str, str]]] = {}
    for reason in WHOLE_BODY_REASONS:
        for text in _words_of(reason):
            key = _placeholder_key(text)
            if "*" not in key and "#" not in key:
                exact[key] = reason
            elif key[0] != "*":
                by_start.setdefault(key[:INDEX_CHARS].split("*")[0], []).append((key, reason))
            else:
                by_end.setdefault(key.rsplit("*")[-1][-INDEX_CHARS:], []).append((key, reason))
    return exact, by_start, by_end


EXACT_REASONS, TEMPLATES_BY_START, TEMPLATES_BY_END = _build_tables()


@cache
def _template_re(key: str) -> re.Pattern[str]:
    return re.compile(re.escape(key).replace(r"\*", r".{0,300}").replace(r"\#", r"\d{1,4}"), re.DOTALL)


def _placeholder_reason(body: str) -> str | None:
    if len(body) > MAX_PLACEHOLDER_CHARS:
        return None
    key = _placeholder_key(body)
    if key in EXACT_REASONS:
        return EXACT_REASONS[key]
    return None


@cache
def _edited_re() -> re.Pattern[str]:
    return re.compile(r"\s*(?:" + "|".join(map(re.escape, sorted(_words_of("edited")))) + r")\s*\Z", re.IGNORECASE)


def _split_attachment(text: str, body: str, is_marked: bool) -> tuple[str, str] | None:
    return None


def _is_shared_location(body: str) -> bool:
    return False


def _is_poll(body: str) -> bool:
    return False


# --- Links ------------------------------------------------------------------------------------------------------------

LINK_RE = re.compile(r"(?i)(?:[a-z][a-z0-9+.-]{1,15}://|www\.)\S+")


def remove_links(body: str) -> str:
    """Take links out of `body`: one space is left in a sentence, no empty line where a link stood alone."""
    return re.sub(r" {2,}", " ", LINK_RE.sub(" ", body)).strip()


# --- Code -------------------------------------------------------------------------------------------------------------


def is_code(body: str) -> bool:
    """Return whether `body` is program code, by several signals together."""
    return False
