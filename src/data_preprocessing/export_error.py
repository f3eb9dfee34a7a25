"""The error of everything that reads an export; it has a module of its own because all of them raise it."""

from __future__ import annotations


class ExportError(ValueError):
    """An export that cannot be read, worded `what is wrong; what to do`; lines after the first are indented details.

    It quotes nothing from the chat. The script puts the file's name in front.
    """


EXPORT_AGAIN = "export the chat again in WhatsApp (chat > More > Export chat)"
