"""What a typed line means: words for the model, `exit`, or a command that begins with a slash.

It leaves carrying commands out to `chat_session`.
"""

from __future__ import annotations

from dataclasses import dataclass

# Each command with its argument and what it does, in the order in which /help lists them.
COMMANDS = {
    "help": ("", "this list"),
    "undo": ("", "take back your last message and the reply to it"),
    "regenerate": ("", "another reply to your last message"),
    "reset": ("", "begin a new conversation"),
    "swap": ("", "change seats: your messages become the imitated person's, the replies yours"),
    "set": ("NAME VALUE", "change a value of /params"),
    "params": ("", "the values replies are written with"),
    "stats": ("", "what the last reply cost"),
    "save": ("FILE", "write this conversation to FILE"),
    "load": ("FILE", "go on with a saved conversation (or another chat's .jsonl)"),
    "exit": ("", "leave, as exit or Ctrl-D do"),
}


@dataclass(frozen=True)
class Command:
    """A command and what was typed behind it; an unknown name is kept as it is."""

    name: str
    argument: str


def read_line_as_command(line: str) -> Command | str:
    """Return the command that `line` is, or the words that it says.

    >>> read_line_as_command("//etc is a folder")
    '/etc is a folder'
    >>> read_line_as_command("/set top_k 5")
    Command(name='set', argument='top_k 5')
    """
    text = line.strip()
    if text == "exit":  # as published
        return Command("exit", "")
    if text.startswith("//"):
        return text[1:]
    if not text.startswith("/"):
        return text
    name, _space, argument = text[1:].partition(" ")
    return Command(name, argument.strip())


def help_text() -> str:
    """Return what /help shows."""
    heads = {name: f"/{name} {argument}".rstrip() for name, (argument, _what) in COMMANDS.items()}
    width = max(map(len, heads.values()))
    lines = [f"{heads[name]:{width}}  {what}" for name, (_argument, what) in COMMANDS.items()]
    lines.append(f"{'//words':{width}}  words that begin with a slash")
    lines.append("Ctrl-C stops a reply, or clears the line you type.")
    return "\n".join(lines)
