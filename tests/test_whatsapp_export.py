"""One made-up chat in every header format phones write leads to one expected result."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src" / "data_preprocessing"))

from whatsapp_export import ExportError, parse_export


def test_reads_senders_texts_and_notices(tmp_path):
    path = tmp_path / "chat.txt"
    path.write_text("30/09/2022, 18:15 - Rut added Dan\n30/09/2022, 18:15 - Rut: hi: you\n\nmore\n", encoding="utf-8")
    at = datetime(2022, 9, 30, 18, 15)
    assert list(parse_export(path)) == [(at, None, "Rut added Dan"), (at, "Rut", "hi: you\n\nmore")]


def test_refuses_text_without_a_header(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("milk\neggs\n", encoding="utf-8")
    with pytest.raises(ExportError, match="no WhatsApp messages found"):
        list(parse_export(path))
