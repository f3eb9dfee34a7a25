"""The first reading of an export: who wrote how much and when, unknown placeholders, samples of phone numbers.

Cleaning, redacting and writing happen in a second reading, so that no messages are kept in memory between the two.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice, pairwise
from pathlib import Path

from export_file import ExportError
from export_source import ExportSource
from message_filters import (
    filter_text,
    is_unknown_placeholder,
    remove_invisible,
)
from old_emoji import PRIVATE_USE_RE, num_unknown
from packed_messages import PackedMessages
from participants import Participant, readable_name
from text_facts import TextCounts, TextFacts, mark_at_end
from whatsapp_export import Export, Message, parse_export
from whatsapp_texts import ASSISTANTS

from common.script import ScriptError, shown_path

# How WhatsApp names an export in English, Hebrew and six more languages; what follows is the chat's name. In any other
# language the whole name of the file is taken for the chat's.
TITLE_RE = re.compile(
    r"^(?:WhatsApp[ -]Chat(?: with| mit| -)|WhatsApp-chat met|צ['׳’]אט WhatsApp עם|Chat de WhatsApp con|"
    r"Conversa do WhatsApp com|Discussion WhatsApp avec|Чат WhatsApp с)\s+",
    re.IGNORECASE,
)
NAMELESS = "_chat"  # how every iOS export is called inside its zip
NUM_SHAPE_LINES = 3

NUM_SHAPE_CHARS = 60

# Other programs write the newest message first. In an export of WhatsApp, few messages are earlier than the one before:
# they were sent without a network.
MIN_STEPS_BACK = 3
REPEATED_HOUR = timedelta(hours=1)  # by winter time; a longer step back may be the start of a second export

# Texts with such numbers tell the country of the chat's phone numbers; those of the first messages are enough.
NUMBER_LIKE_RE = re.compile(r"\d[\d ().\u2011-]{6,}\d")
NUM_SAMPLED_MESSAGES = 10_000


@dataclass(frozen=True)
class ExportFile:
    """One export, and the flags that say how to read it."""

    path: Path
    day_first: bool | None = None
    encoding: str | None = None
    chat: str | None = None  # which one of several in a zip

    @property
    def title(self) -> str:
        """The chat's name, from the name of the file.

        >>> ExportFile(Path("WhatsApp Chat with Rut.zip")).title, ExportFile(Path("Rut/_chat.txt")).title
        ('Rut', 'Rut')
        """
        name = Path(self.chat).stem if self.chat is not None else self.path.stem
        if name == NAMELESS:
            name = self.path.stem if self.path.stem != NAMELESS else self.path.absolute().parent.name
        return readable_name(TITLE_RE.sub("", readable_name(name))) or readable_name(name)

    def open(self) -> Export:
        """Start reading; raise ScriptError, with the shapes of its first lines, when it is no export."""
        try:
            return parse_export(self.path, self.day_first, self.encoding, self.chat)
        except ExportError as error:
            shapes = "".join(f"\n  {shape}" for shape in self._first_line_shapes())
            if shapes:
                shapes = "\n  its first lines, letters shown as x and digits as 0:" + shapes
            raise ScriptError(f"{shown_path(self.path)}: {error}{shapes}") from error

    def read(self, messages: Iterable[Message]) -> Iterator[Message]:
        """Yield the messages of this file; an ExportError becomes a ScriptError."""
        try:
            yield from messages
        except ExportError as error:
            raise ScriptError(f"{shown_path(self.path)}: {error}") from error

    def _first_line_shapes(self) -> list[str]:
        try:
            lines = ExportSource(self.path, self.encoding, self.chat).lines()
            return [line_shape(line) for line in islice(filter(str.strip, lines), NUM_SHAPE_LINES)]
        except ExportError:  # the caller reports an error already
            return []


def line_shape(line: str) -> str:
    """Return the shape of a line, without its words.

    >>> line_shape("30.9.2022 at 18:15 | רות: hi")
    '00.0.0000 xx 00:00 | xxx: xx'
    """
    characters = (
        "0" if character.isdigit() else "x" if character.isalpha() or not character.isprintable() else character
        for character in line[:NUM_SHAPE_CHARS]
    )
    return "".join(characters) + ("..." if len(line) > NUM_SHAPE_CHARS else "")


@dataclass
class ExportSurvey:
    """What the first reading of an export found."""

    file: ExportFile
    export: Export
    num_messages: int = 0
    participants: dict[str, Participant] = field(default_factory=dict)
    assistants: dict[str, Participant] = field(default_factory=dict)  # no people; in a chat of other people
    text_counts: TextCounts = field(default_factory=TextCounts)
    number_samples: list[str] = field(default_factory=list)  # texts that may contain phone numbers
    packed: PackedMessages | None = None  # the messages, where they are kept for another reading
    is_newest_first: bool = False
    may_repeat: bool = False  # the time steps back, as where somebody joined two exports of one chat
    latest_before_step: datetime = datetime.min  # of the places where it does
    earliest_after_step: datetime = datetime.max

    def read(self) -> Iterator[Message]:
        """Yield the messages once more, the oldest first."""
        messages = iter(self.packed) if self.packed is not None else self.file.read(self.export.again())
        return reversed(list(messages)) if self.is_newest_first else messages

    @property
    def first(self) -> datetime:
        """When the earliest message of a person was sent."""
        return min(self.earliest_after_step, *(participant.first for participant in self.participants.values()))

    @property
    def last(self) -> datetime:
        """When the latest message of a person was sent."""
        return max(self.latest_before_step, *(participant.last for participant in self.participants.values()))


def survey_export(file: ExportFile, messages: Iterable[Message], export: Export) -> ExportSurvey:
    """Read the `messages` of `export` once; raise ScriptError when all are notices."""
    survey = ExportSurvey(file, export)
    participants, samples = survey.participants, survey.number_samples
    counts = survey.text_counts
    num_notices = num_looked_at = num_lost = num_steps_back = 0
    previous = datetime.min
    for sent_at, sender, text in messages:
        if sender is None:
            num_notices += 1
            continue
        if sent_at < previous:
            num_steps_back += 1
            survey.may_repeat |= previous - sent_at > REPEATED_HOUR
            survey.latest_before_step = max(survey.latest_before_step, previous)
            survey.earliest_after_step = min(survey.earliest_after_step, sent_at)
        previous = sent_at
        participant = participants.get(sender)
        if participant is None:
            participant = participants[sender] = Participant(sent_at, sent_at)
        participant.num_messages += 1
        participant.last = sent_at
        if ">" in text:
            if text[:1] == "<" and is_unknown_placeholder(text) and filter_text(text, sender)[0] is not None:
                counts.placeholder_senders.setdefault(remove_invisible(text).strip(), Counter())[sender] += 1
            elif mark := mark_at_end(remove_invisible(text).strip()):
                counts.marks[mark.casefold()] += 1
        if not text.isprintable() and PRIVATE_USE_RE.search(text) is not None:  # none of them is printable
            num_lost += num_unknown(text)
        if num_looked_at < NUM_SAMPLED_MESSAGES:
            num_looked_at += 1
            if NUMBER_LIKE_RE.search(text):
                samples.append(text)
    if num_lost:
        export.warnings.append(f"{num_lost:,} characters for private use stand for no known emoji and were left out")
    survey.num_messages = num_notices + sum(participant.num_messages for participant in participants.values())
    if num_steps_back >= MIN_STEPS_BACK and _is_newest_first(survey, num_steps_back):
        survey.is_newest_first = True
        export.warnings.append("its newest messages stand first; it was read from its end")
        for participant in participants.values():
            participant.first, participant.last = participant.last, participant.first
    if not participants:
        raise ScriptError(
            f"{shown_path(file.path)}: holds only WhatsApp's own notices, nobody wrote; export another chat"
        )
    people = {readable_name(sender) for sender in participants} - ASSISTANTS
    if len(people) > 1:
        for sender in [sender for sender in participants if readable_name(sender) in ASSISTANTS]:
            survey.assistants[sender] = participants.pop(sender)
    return survey


def _is_newest_first(survey: ExportSurvey, num_steps_back: int) -> bool:
    """Tell whether an export stands the other way round; one joined from parts, the latest first, has more steps forward."""
    if any(participant.last > participant.first for participant in survey.participants.values()):
        return False
    times = (message.sent_at for message in survey.read())
    return sum(one < other for one, other in pairwise(times)) < num_steps_back


def find_text_facts(surveys: list[ExportSurvey]) -> TextFacts:
    """Return what recurs in the texts of all exports, and who is no person."""
    counts = TextCounts()
    for survey in surveys:
        counts.add(survey.text_counts)
    assistants = frozenset(sender for survey in surveys for sender in survey.assistants)
    return TextFacts(counts.find_placeholders(), counts.find_edited_marks(), assistants)
