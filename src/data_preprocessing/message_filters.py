"""A message -> the words a person wrote, or the reason why it is left out.

WhatsApp's own texts are recognised as a whole body, never inside a sentence: by their form, and with the facts of the whole
export (`text_facts`) also in languages that no table has. Links are removed from sentences, a caption is kept without its
attachment. Private data stays in: `redaction` hides it. Reasons that depend on other messages are left to `conversations`.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import NamedTuple

from media_marks import MARKED_REASONS, change_typed_marks, make_mark
from old_emoji import PRIVATE_USE, replace_old_emoji
from program_code import is_code
from text_facts import NO_FACTS, TextFacts, has_marked_end, is_bracketed, is_edited_mark, mark_at_end
from whatsapp_texts import (
    FORWARDED_MARKS,
    LEFT_TO_RIGHT_MARK,
    Attachment,
    is_poll,
    is_shared_location,
    placeholder_above,
    placeholder_reason,
    split_attachment,
    strip_edited_mark,
)

DROP_REASONS = {
    "notice": "a notice of WhatsApp about the chat or the group",
    "system_text": "another text that WhatsApp wrote",
    "media": "an image, voice memo, sticker or document without a caption",
    "contact": "a contact card",
    "deleted": "a message that was deleted",
    "call": "a call, taken or missed",
    "location": "a shared location",
    "poll": "a poll with its options",
    "link": "nothing but links",
    "code": "program code, a log or a stack trace",
    "empty": "no visible character",
    "unknown_placeholder": "a text in <...> that recurs",
    "assistant": "an answer of WhatsApp's own assistant",
}

BEFORE_THE_MARK = " \n\ufeff\u200f"

# ESC or its one-character form, then a colour, a title, a link, ...: a terminal would act on it.
ESCAPE_SEQUENCE_RE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]{0,64}[ -/]{0,8}[@-~]?"
    r"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c]{0,4096}(?:\x07|\x1b\\|\x9c)?"
)
# Controls, direction marks and overrides, lone surrogates, the byte order mark, the replacement character U+FFFD.
# Joiners and variation selectors stay.
INVISIBLE = (
    r"\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\uffff\ud800-\udfff"
    + PRIVATE_USE
)
INVISIBLE_RE = re.compile(f"[{INVISIBLE}]")
LINE_ENDS = r"\r\x0b\x0c\x85\u2028\u2029"
LINE_END_RE = re.compile(rf"\r\n|[{LINE_ENDS}]")
UNCLEAN_RE = re.compile(f"[{INVISIBLE}{LINE_ENDS}]")
# Links, attachments, polls and one-line code have one of these characters. A text without them is only compared with
# WhatsApp's own texts: that is most messages, and saves most of the filter's time.
MARKUP_RE = re.compile(rf"[(){{}}\[\];=<>|\"$_\-&.:•{INVISIBLE}{LINE_ENDS}]")
NOTHING_VISIBLE = " \t\n\xa0\xad\u034f\u115f\u1160\u180e\u200c\u200d\u3164\ufe0e\ufe0f"


class KeptMessage(NamedTuple):
    """A message whose text is clean: without media, links and notices."""

    sent_at: datetime
    sender: str
    text: str


def filter_text(
    text: str, sender: str | None, facts: TextFacts = NO_FACTS, keeps_media: bool = False
) -> tuple[str | None, str | None]:
    """Return the words of a message and None, or None and the reason (a key of DROP_REASONS) why it is left out.

    With `keeps_media`, a mark stands for media, a contact or a location, on a line of its own before a caption. `text` is
    as the parser returns it, with direction marks: iPhones begin WhatsApp's own texts with U+200E. `facts` tell what the
    whole export tells; without them the text is judged by its form alone.

    >>> filter_text("look https://example.com/a at this", "Rut")
    ('look at this', None)
    >>> filter_text("<Media omitted>", "Rut")
    (None, 'media')
    """
    if sender is None:
        return None, "notice"
    if sender in facts.assistants:
        return None, "assistant"
    if MARKUP_RE.search(text) is None:
        body = text.strip()
        if not body.strip(NOTHING_VISIBLE):
            return None, "empty"
        reason = placeholder_reason(body)
        if reason is None and "\n" in body:
            attachment = placeholder_above(body)
            if attachment is not None:
                return _with_caption(attachment, keeps_media)
            if is_code(body):
                reason = "code"
        return (body, None) if reason is None else _without_words(reason, body, keeps_media)
    body = remove_invisible(text).strip()
    if not body.strip(NOTHING_VISIBLE):
        return None, "empty"
    if body[-1] == ">":
        if facts.placeholders and body in facts.placeholders:
            return None, "unknown_placeholder"
        mark = mark_at_end(body)
        if mark and (is_edited_mark(mark) or mark.casefold() in facts.edited_marks or has_marked_end(text)):
            body = body.removesuffix(mark).rstrip()
        else:
            body = strip_edited_mark(body)
        if not body:
            return None, "empty"
    if body[0] == "[" and body.startswith(FORWARDED_MARKS):
        body = body.partition("] ")[2]
    is_marked = text.lstrip(BEFORE_THE_MARK).startswith(LEFT_TO_RIGHT_MARK)

    reason = placeholder_reason(body)
    if reason is None and "\n" in body and is_poll(body):
        reason = "poll"
    if reason is None and "://" in body and is_shared_location(body):
        reason = "location"
    if reason is not None:
        return _without_words(reason, body, keeps_media)
    attachment = None
    if is_marked or "<" in body or "(" in body or "•" in body or LEFT_TO_RIGHT_MARK in text:
        attachment = split_attachment(text, body, is_marked)
    elif "\n" in body:
        attachment = placeholder_above(body)
    if attachment is None:
        if is_marked:
            return None, "system_text"
        words, reason = _without_links(body)
        return (change_typed_marks(words) if keeps_media and words is not None else words), reason
    return _with_caption(attachment, keeps_media)


def _with_caption(attachment: Attachment, keeps_media: bool) -> tuple[str | None, str | None]:
    """Return the words of a message with an attachment."""
    if not attachment.caption:
        return _without_words(attachment.reason, attachment.sign, keeps_media)
    words, reason = _without_links(attachment.caption)
    if not keeps_media:
        return words, reason
    mark = make_mark(attachment.reason, attachment.sign)
    return (mark if words is None else f"{mark}\n{change_typed_marks(words)}"), None


def _without_words(reason: str, sign: str, keeps_media: bool) -> tuple[str | None, str | None]:
    return (make_mark(reason, sign), None) if keeps_media and reason in MARKED_REASONS else (None, reason)


def _without_links(body: str) -> tuple[str | None, str | None]:
    """Return what a person wrote in `body`, or None and the reason why nothing is left."""
    if "." in body or "://" in body:
        body = remove_links(body)
        if not body:
            return None, "link"
    if is_code(body):
        return None, "code"
    return body, None


def clean_text(text: str, sender: str | None, facts: TextFacts = NO_FACTS) -> str | None:
    """Return what a person wrote in this message, None when it is left out."""
    return filter_text(text, sender, facts)[0]


def drop_reason(text: str, sender: str | None, facts: TextFacts = NO_FACTS) -> str | None:
    """Return why this message is left out (a key of DROP_REASONS), None when it is kept."""
    return filter_text(text, sender, facts)[1]


def is_unknown_placeholder(text: str) -> bool:
    """Tell whether the whole body has the form `<...>`; when several senders repeat it, no person wrote it.

    >>> is_unknown_placeholder("<Media mellőzve>"), is_unknown_placeholder("I <3 you"), is_unknown_placeholder("<3>")
    (True, False, False)
    """
    return is_bracketed(remove_invisible(text).strip())


def remove_invisible(text: str) -> str:
    """Remove control characters, terminal escapes and direction marks; every end of line becomes `\\n`.

    Emoji in code points for private use become the emoji they stand for, others of these code points are removed.
    Zero-width joiners and variation selectors stay, so emoji and words keep their bytes.
    """
    if UNCLEAN_RE.search(text) is None:  # 10 % of the time of the rest
        return text
    text = ESCAPE_SEQUENCE_RE.sub("", replace_old_emoji(text))
    return LINE_END_RE.sub("\n", INVISIBLE_RE.sub("", text))


# A link with the spaces around it and the punctuation at its end. Bounded, so that long runs take linear time.
LINK_RE = re.compile(
    r"""
    [ \t]{0,4}
    (?:
        (?:[a-z][a-z0-9+.-]{1,15}://|(?<![a-z0-9])www\.)[^\s<>"]+        # https://example.com/a?b=c
      | (?<![a-z0-9_@.-])(?:[a-z0-9-]{1,63}\.){1,4}[a-z]{2,10}      # example.com/page, bit.ly/3xYz, youtu.be/x?t=1
        (?:(?<=\.com)|(?<=\.net)|(?<=\.org)|(?<=\.info)|(?<=\.edu)|(?<=\.gov)|(?<=\.[a-z]{2}))/[^\s<>"]+
    )
    [ \t]{0,4}
    """,
    re.VERBOSE | re.IGNORECASE,
)
# A line that is only a domain. Inside a sentence, "booking.com" is the name of a shop.
BARE_DOMAIN_RE = re.compile(
    r"(?:[a-z0-9-]{1,63}\.){1,4}(?:com|net|org|info|edu|gov|io|dev|app|(?:co|org|ac|gov)\.[a-z]{2})/?", re.IGNORECASE
)
SENTENCE_END = ".,!?;:)]}'\"*_~…"
LEFTOVERS = " \t()[]<>{}'\"*_~-–—:;,.|•"  # what may remain of a line that was only a link
EMPTY_BRACKETS_RE = re.compile(r" ?(?:\(\s?\)|\[\s?\]|\"\s?\")")


def remove_links(body: str) -> str:
    """Remove links from `body`: inside a sentence one space stays, a line that was only a link goes.

    >>> remove_links("so https://example.com/a, and\\nwww.example.com\\nbye")
    'so, and\\nbye'
    """
    lines: list[str] = []
    for line in body.split("\n"):
        kept = line
        if BARE_DOMAIN_RE.fullmatch(line):
            kept = ""
        elif "/" in line or "www." in line.lower():
            kept = LINK_RE.sub(_gap, line)
        if kept == line:
            lines.append(line)
            continue
        kept = EMPTY_BRACKETS_RE.sub("", kept).strip()
        if kept.strip(LEFTOVERS):
            lines.append(kept)
        elif lines and not lines[-1]:
            lines.pop()  # one of the empty lines before and after the link is enough
    return "\n".join(lines).strip()


def _gap(match: re.Match[str]) -> str:
    link = match[0].strip()
    return link[len(link.rstrip(SENTENCE_END)) :] + " "
