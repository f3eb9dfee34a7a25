"""Who wrote in the exports, and who of them is imitated: named on the command line, or asked for at the terminal.

A sender is a name as the export writes it; its readable name is how people see and type it.
"""

from __future__ import annotations

import difflib
import re
import shlex
import sys
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from old_emoji import replace_old_emoji

from common.script import ScriptError, counted, printable, shown_command, shown_path

WHITESPACE_RE = re.compile(r"\s+")
JOINERS = "\u200c\u200d"  # ZERO WIDTH NON-JOINER and JOINER: parts of words and of emoji
HYPHENS = {0x2010: "-", 0x2011: "-"}  # HYPHEN, NON-BREAKING HYPHEN: WhatsApp writes phone numbers with them

# The whole name is a phone number, so the sender is no contact of the exporting phone: +972 50-765-4321, (415) 555-0123
PHONE_NAME_RE = re.compile(r"[+(]{0,2}\d(?:[ ().\-]{0,3}\d){6,14}")

NUM_SHOWN_PARTICIPANTS = 20
OWNER_OF_WEB = "You"  # in the exports of WhatsApp Web


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


def phone_digits(name: str) -> str | None:
    """Return the digits of a readable name that is a phone number, as of a sender who is no contact, else None.

    >>> phone_digits("+972 50-765-4321"), phone_digits("Rut 2")
    ('972507654321', None)
    """
    if PHONE_NAME_RE.fullmatch(name) is None:
        return None
    return "".join(str(int(character)) for character in name if character.isdecimal())


def number_unsaved(exports: Exports) -> dict[str, str]:
    """Return the placeholder of each sender whose name is a phone number: `[PHONE 1]` for the first that wrote.

    The exports count in the order of their first messages. One number in two spellings has one placeholder.
    """
    numbers: dict[str, int] = {}  # by digits
    placeholders = {}
    for participants in sorted(exports.values(), key=lambda people: min(person.first for person in people.values())):
        for sender in participants:
            digits = phone_digits(readable_name(sender))
            if digits is not None:
                placeholders[sender] = f"[PHONE {numbers.setdefault(digits, len(numbers) + 1)}]"
    return placeholders


def hide_private_names(
    senders: Iterable[str], placeholders: Mapping[str, str], redact: Callable[[str], str]
) -> dict[str, str]:
    """Return the name of each sender as it is written: the placeholder of an unsaved number, else redacted.

    Different names that redaction makes equal are numbered too, in the order of `senders`.

    >>> hide_private_names(["Rut", "a@b.co", "c@d.co"], {}, lambda name: "[EMAIL]" if "@" in name else name)
    {'Rut': 'Rut', 'a@b.co': '[EMAIL 1]', 'c@d.co': '[EMAIL 2]'}
    """
    readable = {sender: readable_name(sender) for sender in senders}
    hidden = {name: redact(name) for sender, name in readable.items() if sender not in placeholders}
    holders: dict[str, list[str]] = {}
    for name, shown in hidden.items():
        holders.setdefault(shown, []).append(name)
    for shown, names in holders.items():
        if len(names) > 1:
            hidden |= {name: shown.replace("]", f" {number}]", 1) for number, name in enumerate(names, start=1)}
    return {sender: placeholders.get(sender) or hidden[name] for sender, name in readable.items()}


def find_senders(name: str, senders: Collection[str], placeholders: Mapping[str, str] | None = None) -> list[str]:
    """Return the senders whose readable name is `name`; if there are none, those that differ only in letter case.

    A phone number is found in any spelling, and by its placeholder in `placeholders`.

    >>> find_senders("rut", ["Rut", "Dan"]), find_senders("Ru", ["Rut", "Dan"])
    (['Rut'], [])
    """
    wanted = readable_name(name)
    readable = {sender: readable_name(sender) for sender in senders}
    digits = phone_digits(wanted)
    if digits is not None:
        found = [sender for sender, shown in readable.items() if phone_digits(shown) == digits]
    else:
        found = [sender for sender, shown in readable.items() if shown == wanted]
    if not found and placeholders:
        found = [sender for sender in senders if placeholders.get(sender) == wanted.upper()]
    return found or [sender for sender, shown in readable.items() if shown.casefold() == wanted.casefold()]


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
    placeholders = number_unsaved(exports)
    if not names:
        names = [_ask_whom_to_imitate(exports, placeholders)]
    imitated = {sender for name in names for sender in find_people(exports, name, placeholders)}
    if all(participants.keys() <= imitated for participants in exports.values()):
        raise ScriptError(
            f"{shown_exports(exports)}: only the imitated person writes here, and a conversation needs two people; give another chat"
        )
    for path, participants in exports.items():
        numbers = {
            _listed_name(sender, placeholders): participant.num_messages
            for sender, participant in participants.items()
            if sender in imitated
        }
        if numbers:
            matched = ", ".join(f"{printable(name)} ({counted(number, 'message')})" for name, number in numbers.items())
            print(f"Imitating {matched} of {shown_path(path)}")
        else:
            hint = f"; WhatsApp Web calls its owner {OWNER_OF_WEB}: add --imitate {OWNER_OF_WEB}"
            is_of_web = OWNER_OF_WEB in map(readable_name, participants)
            print(
                f"warning: {shown_path(path)}: the imitated person does not write here{hint if is_of_web else ''}",
                file=sys.stderr,
            )
    print("Imitating anyone but yourself needs their consent.")
    return imitated


def find_people(exports: Exports, name: str, placeholders: Mapping[str, str]) -> set[str]:
    """Return every sender called `name` in any of the exports; raise ScriptError for no one or several people."""
    found: set[str] = set()
    for path, participants in exports.items():
        senders = find_senders(name, participants, placeholders)
        if len({placeholders.get(sender, readable_name(sender)) for sender in senders}) > 1:
            raise ScriptError(
                f'{shown_path(path)}: "{printable(name)}" matches several people; write one of these names exactly'
                + "".join(f"\n  {printable(readable_name(sender))}" for sender in senders)
            )
        found.update(senders)
    if not found:
        nearest = find_nearest_name(name, [sender for participants in exports.values() for sender in participants])
        cure = f'did you mean "{printable(nearest)}"?' if nearest else "name one of the participants"
        raise ScriptError(
            f'{shown_exports(exports)}: nobody is called "{printable(name)}"; {cure}{listed_participants(exports, placeholders)}'
        )
    return found


def _ask_whom_to_imitate(exports: Exports, placeholders: Mapping[str, str]) -> str:
    """Ask at the terminal until a number or a name of the list is typed; without a terminal raise ScriptError."""
    names = list(_count_by_name(exports, placeholders))
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        script = Path(__file__).resolve().with_name("load_whatsapp.py")
        command = f"{shown_command(script)} {shlex.join([*sys.argv[1:], '--imitate', names[0]])}"
        raise ScriptError(
            f"{shown_exports(exports)}: --imitate NAME is missing; name one of the participants"
            f"{listed_participants(exports, placeholders)}\n  as in: {printable(command)}"
        )
    listed = listed_participants(exports, placeholders, is_numbered=True)
    print(f"Whom should the chatbot imitate?{listed}", file=sys.stderr)
    while True:
        print("Number or name: ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        if not line:
            raise ScriptError(f"{shown_exports(exports)}: nobody was chosen to imitate; run again and choose")
        answer = line.strip()
        if answer.isdecimal() and 1 <= int(answer) <= len(names):
            return names[int(answer) - 1]
        try:
            find_people(exports, answer, placeholders)
        except ScriptError as error:
            print(str(error).partition("\n")[0], file=sys.stderr)
        else:
            return answer


def _count_by_name(exports: Exports, placeholders: Mapping[str, str]) -> dict[str, int]:
    """Return the number of messages of each participant in all exports, by placeholder or readable name, most first."""
    counts: dict[str, int] = {}
    for participants in exports.values():
        for sender, participant in participants.items():
            name = placeholders.get(sender) or readable_name(sender)
            counts[name] = counts.get(name, 0) + participant.num_messages
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


def _listed_name(sender: str, placeholders: Mapping[str, str]) -> str:
    """Return the name with which a sender is chosen, before an unsaved number its placeholder."""
    name = readable_name(sender)
    return f"{placeholders[sender]} {name}" if sender in placeholders else name


def listed_participants(exports: Exports, placeholders: Mapping[str, str], is_numbered: bool = False) -> str:
    """Return an indented line for each of the most active participants."""
    counts = _count_by_name(exports, placeholders)
    numbers = {shown: readable_name(sender) for sender, shown in placeholders.items()}
    lines = []
    for number, (name, num_messages) in enumerate(list(counts.items())[:NUM_SHOWN_PARTICIPANTS], start=1):
        label = f"{number:>2}  " if is_numbered else ""
        shown = f"{name} {numbers[name]}" if name in numbers else name
        lines.append(f"\n  {label}{num_messages:>7,} messages  {printable(shown)}")
    if len(counts) > NUM_SHOWN_PARTICIPANTS:
        lines.append(f"\n  and {len(counts) - NUM_SHOWN_PARTICIPANTS:,} more")
    return "".join(lines)


def shown_exports(exports: Collection[Path]) -> str:
    """Name the exports in an error message: the first by its path, the others by their number."""
    first = shown_path(next(iter(exports)))
    return first if len(exports) == 1 else f"{first} and {len(exports) - 1} more"
