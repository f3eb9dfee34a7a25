"""Bytes -> text: detects the encoding of an export, and decodes without the bytes that are not valid, which it counts."""

from __future__ import annotations

import codecs
import re

from export_file import ExportError

SNIFFED_FOR_ZEROS_BYTES = 4096

# A file that was cut inside its last character ends with at most three invalid bytes.
MAX_CUT_BYTES = 3

BYTE_ORDER_MARKS = {  # the longest first: that of UTF-32 LE begins like that of UTF-16 LE
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
    codecs.BOM_UTF8: "utf-8-sig",
}

# An invalid byte is decoded to the lone surrogate U+DC00 + byte, which never occurs in correct text.
BAD_BYTES = "bad-bytes-to-surrogates"
BAD_CHARACTER_RE = re.compile("[\udc00-\udcff]")


def _to_surrogates(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "".join(chr(0xDC00 + byte) for byte in error.object[error.start : error.end]), error.end


codecs.register_error(BAD_BYTES, _to_surrogates)


def guess_encoding(sample: bytes) -> str:
    """Return the encoding of a file that begins with `sample`: by its mark, by the zero bytes of UTF-16, else UTF-8.

    Raises ExportError for an 8-bit code page: only the user can know which one it is.
    """
    for mark, encoding in BYTE_ORDER_MARKS.items():
        if sample.startswith(mark):
            return encoding
    # In UTF-16 every digit and punctuation mark has one zero byte: always the first of two, or always the second.
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
    """Return the encoding called `name`; raise ExportError when no text encoding has this name."""
    try:
        "".encode(name)  # refuses hex, rot13 and the like
        is_utf_8 = codecs.lookup(name).name == "utf-8"
    except (LookupError, ValueError, TypeError) as error:
        raise ExportError(f"there is no encoding called {name!r}; try utf-8, utf-16 or cp1255") from error
    return "utf-8-sig" if is_utf_8 else name


class TextDecoder:
    """Decodes a stream block by block and leaves out invalid bytes."""

    def __init__(self, encoding: str) -> None:
        """Take an `encoding` as returned by `guess_encoding` or `checked_encoding`."""
        self.num_bad_bytes = 0
        self._encoding = encoding
        self._decoder = codecs.getincrementaldecoder(encoding)("strict")

    def decode(self, block: bytes, is_last: bool) -> tuple[str, list[int]]:
        """Return the text of `block` and, for each invalid byte, the number of line feeds before it in that text."""
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
