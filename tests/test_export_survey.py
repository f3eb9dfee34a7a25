"""What a first reading tells of an export: the chat's name."""

from pathlib import Path

import pytest
from export_survey import ExportFile


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("WhatsApp Chat with Rut.txt", "Rut"),
        ("WhatsApp Chat - Rut.zip", "Rut"),
        ("WhatsApp Chat mit Rut.txt", "Rut"),
        ("WhatsApp-chat met Rut.txt", "Rut"),
        ("צ'אט WhatsApp עם רות.txt", "רות"),
        ("Chat de WhatsApp con Rut.txt", "Rut"),
        ("Conversa do WhatsApp com Rut.txt", "Rut"),
        ("Discussion WhatsApp avec Rut.txt", "Rut"),
        ("Чат WhatsApp с Rut.txt", "Rut"),
        ("Rut.zip", "Rut"),
        ("Rut ile WhatsApp Sohbeti.txt", "Rut ile WhatsApp Sohbeti"),  # a language that the pattern does not know
    ],
)
def test_the_chat_is_named_after_the_file(name, title):
    assert ExportFile(Path(name)).title == title
