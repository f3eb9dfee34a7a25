"""Bytes -> text: which encoding an export has, and decoding that leaves out, and counts, the bytes that are no text."""

from __future__ import annotations

import codecs
import re

from export_file import ExportError

SNIFFED_FOR_ZEROS_BYTES = 4096

# A file cut inside its last character ends with at most three bytes that are no text.
MAX_CUT_BYTES = 3

BYTE_ORDER_MARKS = {  # the longer first: UTF-32 LE begins like UTF-16 LE
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
    codecs.BOM_UTF8: "utf-8-sig",
}

# Bytes that are no text are decoded to U+DC00 + byte, half a surrogate pair, which no correct text holds.
BAD_BYTES = "bad-bytes-to-surrogates"
BAD_CHARACTER_RE = re.compile("[\udc00-\udcff]")


def _to_surrogates(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "".join(chr(0xDC00 + byte) for byte in error.object[error.start : error.end]), error.end


codecs.register_error(BAD_BYTES, _to_surrogates)


def guess_encoding(sample: bytes) -> str:
    """Return the encoding of a file that begins with `sample`: by its mark, by the zero bytes of UTF-16, else UTF-8.

    Raise ExportError for an 8-bit code page: which one, only the user can know.
    """
    for mark, encoding in BYTE_ORDER_MARKS.items():
        if sample.startswith(mark):
            return encoding
    # The digits and punctuation of UTF-16 headers have a zero byte each, always the first or always the second of two.
    start = sample[:SNIFFED_FOR_ZEROS_BYTES]
    num_first, num_second = start[0::2].count(0), start[1::2].count(0)
    if max(num_first, num_second) > len(start) / 20 > 10 * min(num_first, num_second):
        return "utf-16-le" if num_second > num_first else "utf-16-be"
    text = sample.decode("utf-8", BAD_BYTES)
    num_bad = len(BAD_CHARACTER_RE.findall(text))
    num_good = len(text) - len(text.encode("ascii", "ignore")) - num_bad
    if num_bad > max(MAX_CUT_BYTES, num_good):
        raise ExportError(
            "is not UTF-8; save it as UTF-8, or name its encoding (--encoding cp1255 for old Hebrew files)"
        )
    return "utf-8"


def checked_encoding(name: str) -> str:
    """Return the encoding called `name`; raise ExportError when there is none for text."""
    try:
        "".encode(name)  # refuses hex, rot13 and the like
        is_utf_8 = codecs.lookup(name).name == "utf-8"
    except (LookupError, ValueError, TypeError) as error:
        raise ExportError(f"there is no encoding called {name!r}; try utf-8, utf-16 or cp1255") from error
    return "utf-8-sig" if is_utf_8 else name


class TextDecoder:
    """Decodes a stream block by block, without the bytes that are no text."""

    def __init__(self, encoding: str) -> None:
        """Prepare for `encoding`, one that `guess_encoding` or `checked_encoding` gave."""
        self.num_bad_bytes = 0
        self._encoding = encoding
        self._decoder = codecs.getincrementaldecoder(encoding)("strict")

    def decode(self, block: bytes, is_last: bool) -> tuple[str, list[int]]:
        """Return the text of `block` and, for every byte left out, how many line feeds precede it in the text."""
        state = self._decoder.getstate()
        try:
            return self._decoder.decode(block, is_last), []
        except UnicodeError:
            self._decoder.setstate(state)
        self._decoder.errors = BAD_BYTES
        try:
            text = self._decoder.decode(block, is_last)
        except UnicodeError as error:
            raise ExportError(f"cannot be read as {self._encoding}; name its encoding, such as utf-8") from error
        finally:
            self._decoder.errors = "strict"
        places = [text.count("\n", 0, bad.start()) for bad in BAD_CHARACTER_RE.finditer(text)]
        self.num_bad_bytes += len(places)
        return BAD_CHARACTER_RE.sub("", text), places
