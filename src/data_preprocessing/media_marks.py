"""What a person sent instead of words, as one word in square brackets: `[voice]`, `[photo]`; for `--keep-media-marks`.

The name of an attached file tells its kind, else the words of the placeholder (data: media_words.json); Android's exports
without the files name none. A mark is a whole message, or the line before a caption. Recognising placeholders and
attachments is left to `whatsapp_texts`, what becomes of them to `message_filters`.
"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path

KINDS = ("voice", "photo", "video", "sticker", "gif", "document", "contact", "location")
ANY_KIND = "media"
MARKED_REASONS = frozenset({"media", "contact", "location"})  # of message_filters.DROP_REASONS
TYPED_MARK_RE = re.compile(rf"^\[({'|'.join((*KINDS, ANY_KIND))})\]$", re.MULTILINE)

# PTT-20220930-WA0003.opus, 00000042-AUDIO-2022-09-30-18-15-42.opus: WhatsApp names its files by what they are.
NAMED_KINDS = {
    "PTT": "voice", "AUD": "voice", "AUDIO": "voice", "IMG": "photo", "PHOTO": "photo", "VID": "video", "VIDEO": "video",
    "STK": "sticker", "STICKER": "sticker", "GIF": "gif", "DOC": "document",
}  # fmt: skip
NAMED_KIND_RE = re.compile(r"(?:^|-)([A-Z]{3,7})-(?=\d)")
KINDS_BY_EXTENSION = {
    extension: kind
    for kind, extensions in {
        "voice": "opus ogg oga m4a aac amr mp3 wav",
        "photo": "jpg jpeg png heic heif",
        "video": "mp4 mov 3gp mkv avi webm",
        "sticker": "webp was",
        "gif": "gif",
    }.items()
    for extension in extensions.split()
}
FILE_RE = re.compile(r"[^\n]{1,255}\.(?P<extension>\w{1,5})")


@cache
def _words() -> dict[str, list[str]]:
    words = json.loads(Path(__file__).with_name("media_words.json").read_text(encoding="utf-8"))
    return {kind: [word.casefold() for word in found] for kind, found in words.items() if kind != "about"}


def make_mark(reason: str, sign: str) -> str:
    """Return the mark of a message that stands for no words; `reason` is one of MARKED_REASONS.

    `sign` is the name of the attached file, or the placeholder.

    >>> make_mark("media", "PTT-20220930-WA0003.opus"), make_mark("media", "<Media omitted>")
    ('[voice]', '[media]')
    """
    return f"[{reason if reason != ANY_KIND else _kind_of(sign)}]"


def _kind_of(sign: str) -> str:
    file = FILE_RE.fullmatch(sign)
    if file is not None:
        kind = KINDS_BY_EXTENSION.get(file["extension"].casefold(), "document")
        named = [NAMED_KINDS[name] for name in NAMED_KIND_RE.findall(sign) if name in NAMED_KINDS]
        return named[0] if named and kind != "document" else kind
    lowered = sign.casefold()
    return next((kind for kind, words in _words().items() if any(word in lowered for word in words)), ANY_KIND)


def change_typed_marks(text: str) -> str:
    r"""Return `text` with round brackets around a mark that a person typed as a line, so that a mark is always an act.

    >>> change_typed_marks("[voice]\nwhat is [voice]?")
    '(voice)\nwhat is [voice]?'
    """
    return TYPED_MARK_RE.sub(r"(\1)", text)
