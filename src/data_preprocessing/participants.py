"""Who wrote in the exports, and who of them is imitated: named on the command line, or asked for at the terminal.

A sender is a name as the export writes it; its readable name is how people see and type it.
"""

from __future__ import annotations

import difflib
import re
import shlex
import sys
import unicodedata
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from old_emoji import replace_old_emoji

from common.script import ScriptError, printable, shown_path, shown_python

WHITESPACE_RE = re.compile(r"\s+")
JOINERS = "\u200c\u200d"  # ZERO WIDTH NON-JOINER and JOINER: parts of words and of emoji
HYPHENS = {0x2010: "-", 0x2011: "-"}  # HYPHEN, NON-BREAKING HYPHEN: WhatsApp writes phone numbers with them

NUM_SHOWN_PARTICIPANTS = 20


@dataclass(slots=True)
class Participant:
    """What one sender wrote in one export, `first` and `last` in the order of the file."""

    first: datetime
    last: datetime
    num_messages: int = 0


Exports = Mapping[Path, Mapping[str, Participant]]  # the participants of each export, by sender


def readable_name(name: str) -> str:
    r"""Return a sender's name as it is shown and typed: composed, without invisible or control characters.

    >>> readable_name("\u202a+972\xa050\u2011555\u202c"), readable_name("~\u202fRut")
    ('+972 50-555', 'Rut')
    """
    visible = "".join(
        character
        for character in WHITESPACE_RE.sub(
            " ", unicodedata.normalize("NFC", replace_old_emoji(name)).translate(HYPHENS)
        )
        if character in JOINERS or unicodedata.category(character) not in {"Cc", "Cf", "Cs", "Co"}
    )
    return visible.strip().removeprefix("~").strip()


def find_senders(name: str, senders: Collection[str]) -> list[str]:
    """Return the senders whose readable name is `name`; if there are none, those that differ only in letter case.

    >>> find_senders("rut", ["Rut", "Dan"]), find_senders("Ru", ["Rut", "Dan"])
    (['Rut'], [])
    """
    wanted = readable_name(name)
    exact = [sender for sender in senders if readable_name(sender) == wanted]
    return exact or [sender for sender in senders if readable_name(sender).casefold() == wanted.casefold()]


def find_nearest_name(name: str, senders: Collection[str]) -> str | None:
    """Return the readable name that is most similar to `name`, None when none is similar.

    >>> find_nearest_name("Root", ["Rut", "Noa"]), find_nearest_name("ruth", ["Rut Levi", "Noa"])
    (None, 'Rut Levi')
    """
    by_folded = {readable_name(sender).casefold(): readable_name(sender) for sender in senders}
    wanted = readable_name(name).casefold()
    nearest = difflib.get_close_matches(wanted, by_folded, n=1)
    if not nearest:  # "Rut" for "Rut Levi", or the first letters of it
        nearest = [folded for folded in by_folded if any(part in folded.split() for part in wanted.split())]
        nearest = nearest or [folded for folded in by_folded if folded[:3] == wanted[:3]]
    return by_folded[nearest[0]] if nearest else None


# ---- Who is imitated -------------------------------------------------------------------------------------------------


def choose_imitated(exports: Exports, names: list[str] | None) -> set[str]:
    """Return every sender name of the person to imitate, from `names` or from a question at the terminal."""
    if not names:
        names = [_ask_whom_to_imitate(exports)]
    imitated = {sender for name in names for sender in _find_imitated(exports, name)}
    if all(participants.keys() <= imitated for participants in exports.values()):
        raise ScriptError(
            f"{shown_exports(exports)}: only the imitated person writes here, and a conversation needs two people; give another chat"
        )
    for path, participants in exports.items():
        numbers = {
            readable_name(sender): participant.num_messages
            for sender, participant in participants.items()
            if sender in imitated
        }
        if numbers:
            matched = ", ".join(f"{name} ({number:,} messages)" for name, number in numbers.items())
            print(f"Imitating {matched} of {shown_path(path)}")
        else:
            print(f"warning: {shown_path(path)}: the imitated person does not write here", file=sys.stderr)
    print("Imitating anyone but yourself needs their consent.")
    return imitated


def _find_imitated(exports: Exports, name: str) -> set[str]:
    """Return the senders called `name` in any of the exports; raise ScriptError for no one or several people."""
    found: set[str] = set()
    for path, participants in exports.items():
        senders = find_senders(name, participants)
        if len(set(map(readable_name, senders))) > 1:
            raise ScriptError(
                f'{shown_path(path)}: "{printable(name)}" matches several people; write one of these names exactly'
                + "".join(f"\n  {readable_name(sender)}" for sender in senders)
            )
        found.update(senders)
    if not found:
        nearest = find_nearest_name(name, _count_by_name(exports))
        cure = f'did you mean "{nearest}"?' if nearest else "name one of the participants"
        raise ScriptError(
            f'{shown_exports(exports)}: nobody is called "{printable(name)}"; {cure}{_listed_participants(exports)}'
        )
    return found


def _ask_whom_to_imitate(exports: Exports) -> str:
    """Ask at the terminal until a number or a name of the list is typed; without a terminal raise ScriptError."""
    names = list(_count_by_name(exports))
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        script = shown_path(Path(__file__).resolve().with_name("load_whatsapp.py"))
        command = shlex.join([shown_python(), script, *sys.argv[1:], "--imitate", names[0]])
        raise ScriptError(
            f"{shown_exports(exports)}: --imitate NAME is missing; name one of the participants"
            f"{_listed_participants(exports)}\n  as in: {command}"
        )
    print(f"Whom should the chatbot imitate?{_listed_participants(exports, is_numbered=True)}", file=sys.stderr)
    while True:
        print("Number or name: ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        if not line:
            raise ScriptError(f"{shown_exports(exports)}: nobody was chosen to imitate; run again and choose")
        answer = line.strip()
        if answer.isdecimal() and 1 <= int(answer) <= len(names):
            return names[int(answer) - 1]
        try:
            _find_imitated(exports, answer)
        except ScriptError as error:
            print(str(error).partition("\n")[0], file=sys.stderr)
        else:
            return answer


def _count_by_name(exports: Exports) -> dict[str, int]:
    """Return the number of messages of each participant in all exports, by readable name, most first."""
    counts: dict[str, int] = {}
    for participants in exports.values():
        for sender, participant in participants.items():
            name = readable_name(sender)
            counts[name] = counts.get(name, 0) + participant.num_messages
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


def _listed_participants(exports: Exports, is_numbered: bool = False) -> str:
    """Return an indented line for each of the most active participants."""
    counts = _count_by_name(exports)
    lines = []
    for number, (name, num_messages) in enumerate(list(counts.items())[:NUM_SHOWN_PARTICIPANTS], start=1):
        label = f"{number:>2}  " if is_numbered else ""
        lines.append(f"\n  {label}{num_messages:>7,} messages  {printable(name)}")
    if len(counts) > NUM_SHOWN_PARTICIPANTS:
        lines.append(f"\n  and {len(counts) - NUM_SHOWN_PARTICIPANTS:,} more")
    return "".join(lines)


def shown_exports(exports: Collection[Path]) -> str:
    """Name the exports in an error message: the first by its path, the others by their number."""
    first = shown_path(next(iter(exports)))
    return first if len(exports) == 1 else f"{first} and {len(exports) - 1} more"
