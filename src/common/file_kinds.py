"""The kind of a file given by mistake, by its first bytes, so that the error can name it."""

from __future__ import annotations

import re

FIRST_BYTES = {
    b"PK\x03\x04": "a zip archive",
    b"\x1f\x8b": "a gzip archive",
    b"Rar!": "a RAR archive",
    b"7z\xbc\xaf\x27\x1c": "a 7-Zip archive",
    b"BZh": "a bzip2 archive",
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"%PDF": "a PDF document",
    b"SQLite format 3\0": "a database of a phone's backup",
    b"\xd0\xcf\x11\xe0": "an Office document",
    b"{\\rtf": "an RTF document",
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
}
LONGEST_START = 256  # bytes; spaces, comments and an XML declaration may stand before the first tag of HTML

# <!DOCTYPE html>   <html lang="he">   <head>   <?xml version="1.0"?><html>
HTML_RE = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^<>]*>\s*)?(?:<!--.{0,200}?-->\s*)?<(?:!doctype\s+html|html|head|body|meta|table|div)\b",
    re.IGNORECASE | re.DOTALL,
)


def name_file_kind(start: bytes) -> str | None:
    """Return the kind of a file that begins with `start`, or None for plain text and unknown kinds.

    >>> name_file_kind(b"%PDF-1.7"), name_file_kind(b'{"messages": []}')
    ('a PDF document', None)
    """
    if HTML_RE.match(start):
        return "an HTML page"
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    return next(
        (
            kind
            for first, kind in FIRST_BYTES.items()
            if start.startswith(first) or (first == b"{\\rtf" and text.startswith(first))
        ),
        None,
    )
