"""Who writes in an export, from all of its messages: names that one line alone would split in the wrong place.

A line is `NAME: text`, and a name may hold a colon or a line break. Some lines have no space after the colon. An iPhone
puts a group's name before the notices of the group. The whole file tells what one line does not.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from whatsapp_texts import (
    ASSISTANTS,
    LEFT_TO_RIGHT_MARK,
    LOCATION_LABELS,
    is_encryption_notice,
    is_event,
    is_notice,
    is_quoting_notice,
)

MIN_REPEATS = 3  # of the second part of a name; fewer may be words that a person likes to begin with
MAX_PART_CHARS = 40  # of a name
MAX_NAMES = 10_000
MAX_NAME_CHARS = 100  # as many as WhatsApp gives the name of a group
MAX_SECOND_PARTS = 100  # of one first part; more are no names
MAX_LOOKED_AT_CHARS = 2_000  # of a message
NUM_KEPT_TEXTS = 30  # of each name

# Characters, mostly invisible, that may stand around a name.
NAME_MARGIN = (
    " \u00a0\u2009\u202f"  # space, no-break, thin, narrow no-break
    "\u061c\u200e\u200f"  # Arabic letter mark, left-to-right mark, right-to-left mark
    "\u202a\u202b\u202c\u202d\u202e"  # embeddings and overrides, around phone numbers
    "\u2066\u2067\u2068\u2069\ufeff"  # isolates, around names; byte order mark
)

SPACE_RE = re.compile(" ")
QUOTES = '"“”„«»「『״'
# A quote that opens, then text without a closing one. Some signs open and close; they open behind a space or a bracket, and
# not in 5" or in a Hebrew abbreviation.
OPEN_QUOTE_RE = re.compile(r"""(?:(?:^|[\s(])["”»״]|[“„«「『])[^"“”„«»「」『』״]*\Z""")
CLOSING_QUOTES = '"“”«»」』״'
OPENING_QUOTE_RE = re.compile('["“”„«»「『״]')
CLOSING_QUOTE_RE = re.compile(f"[{CLOSING_QUOTES}]")
MAX_QUOTES = 20  # of a notice, which has two or four and those in the names of groups

MAX_MEMBER_NOTICE_CHARS = 60  # of a notice about a member
MIN_SPACES_OF_SENTENCE = 4  # names of contacts that have as many and the words of a notice are rare
NO_CONTACT_RE = re.compile(r"You |[~+]")  # how the actor of a notice may be called, who is no contact


def clean_sender(text: str) -> str:
    """Return a sender's name without the `~` of an unsaved contact and the invisible characters around it.

    >>> clean_sender("~\\u202fRut")
    'Rut'
    """
    name = text.strip(NAME_MARGIN)
    return name[1:].strip(NAME_MARGIN) if name.startswith("~") else name


def is_about(name: str, text: str) -> bool:
    """Tell whether `text` begins with `name`, which may be that of an unsaved contact.

    >>> is_about("Rut", "~\\u202fRut left"), is_about("Rut", "Ruth left")
    (True, False)
    """
    return clean_sender(text).startswith(f"{name} ")


def is_whole(name: str, text: str) -> bool:
    """Tell whether a name stands between spaces in `text`, or at its end."""
    return any(
        f"{space}{name}{after}" in f"{text} " for space in (" ", "\u202f", "\u2068") for after in (" ", "\u2069")
    )


def split_sender(rest: str, has_marks: bool = False) -> tuple[str | None, str]:
    """Split what follows a header into sender and text by its form alone; the sender of a notice is None.

    `has_marks`: an iPhone wrote it, which puts a group or person and U+200E before notices.

    >>> split_sender("Rut: hi: you")
    ('Rut', 'hi: you')
    >>> split_sender('Rut changed the subject from "A: B" to "C"')
    (None, 'Rut changed the subject from "A: B" to "C"')
    """
    if has_marks:  # `Trip: Eilat: <U+200E>Dan left`: a group's name may hold a colon
        attributed_to, mark, notice = rest.partition(f": {LEFT_TO_RIGHT_MARK}")
        if mark and is_notice(clean_sender(notice), clean_sender(attributed_to)):
            return None, LEFT_TO_RIGHT_MARK + notice
    if has_marks and rest.startswith("- "):  # WhatsApp Web: `[3/13/24, 9:01:05 PM] - Dan left`
        return None, rest[2:]
    raw_sender, colon, text = rest.partition(": ")
    if not colon:
        if not rest.endswith(":"):
            return None, rest
        raw_sender = rest[:-1]
    if is_quoting_notice(raw_sender, text):
        return None, rest
    if is_encryption_notice(text):  # some iPhones write it without the mark
        return None, text
    return clean_sender(raw_sender), text


def is_doubtful(rest: str, sender: str | None, text: str, has_marks: bool) -> bool:
    """Tell whether the rest of the file may split `rest` otherwise; asked about the first message of each sender."""
    if sender is None:
        return f": {LEFT_TO_RIGHT_MARK}" not in rest and ":" in rest
    raw_sender = rest[: len(rest) - len(text)].rstrip(" ").removesuffix(":")
    if ":" in raw_sender or any(quote in raw_sender for quote in QUOTES) or is_event(raw_sender):
        return True
    if ":" in text[: MAX_PART_CHARS + 2]:
        return True
    if not has_marks:  # a notice about somebody whose name holds a colon may come before what they wrote
        return len(text) <= MAX_MEMBER_NOTICE_CHARS and is_event(text)
    if text.startswith(LEFT_TO_RIGHT_MARK):
        return not is_placeholder_of_iphone(text)
    return is_about(sender, text) or "WhatsApp" in text or is_event(text)


def is_placeholder_of_iphone(text: str) -> bool:
    """Tell whether a text that begins with U+200E stands for something that a person sent."""
    from message_filters import drop_reason

    return drop_reason(text, "") not in ("system_text", "notice", None)


class SenderNames(NamedTuple):
    """The names of one export."""

    counts: Mapping[str, int] = {}  # messages by what stands before the first `: `
    known: frozenset[str] = frozenset()  # clean names
    with_colon: Mapping[str, tuple[str, ...]] = {}  # first part: second parts
    with_line_break: Mapping[str, tuple[str, ...]] = {}  # first line: second lines
    groups: frozenset[str] = frozenset()  # the names of the group itself: it never writes
    repeated_notices: frozenset[str] = frozenset()  # what several senders "say" after their own names
    is_of_table: bool = True  # WhatsApp's own texts are in a language that the tables have

    def may_be_cached(self, raw_sender: str, sender: str) -> bool:
        """Tell whether each `raw_sender: text` is split at this colon, whatever the text."""
        return not self.groups and raw_sender not in self.with_colon and sender == clean_sender(raw_sender)

    def split(self, rest: str, has_marks: bool) -> tuple[str | None, str]:
        """Split what follows a header into sender and text; the sender of a notice is None."""
        head, colon, body = rest.partition(": ")
        sender, text = self._split_at_second_colon(head, body) if head in self.with_colon else (None, rest)
        if sender is None:
            if self._is_notice_with_colon(head, body):
                return None, rest
            tight_head, tight_colon, tight_body = rest.partition(":")
            is_tight = tight_colon and tight_body[:1] not in ("", " ") and self.counts.get(head, 0) < MIN_REPEATS
            if is_tight and clean_sender(tight_head) in self.known:
                return clean_sender(tight_head), tight_body
            if colon and self._is_quoted(head, body):
                return None, rest
            sender, text = split_sender(rest, has_marks)
        if sender is None or sender in self.groups or self._is_own_notice(sender, text, has_marks):
            return None, text
        return sender, text

    def join_line_break(self, first_line: str, more_lines: list[str]) -> tuple[str, str] | None:
        """Return the sender and the first line of the text when the name goes on in the line after its header."""
        for second in self.with_line_break.get(first_line, ()):
            if more_lines[0].startswith(f"{second}: ") or more_lines[0] == f"{second}:":
                return f"{clean_sender(first_line)}\n{clean_sender(second)}", more_lines[0][len(second) + 2 :]
        return None

    def _split_at_second_colon(self, head: str, body: str) -> tuple[str | None, str]:
        for second in self.with_colon[head]:
            if body.startswith(f"{second}: ") or body == f"{second}:":
                return clean_sender(f"{head}: {second}"), body[len(second) + 2 :]
        return None, body

    def _is_notice_with_colon(self, head: str, body: str) -> bool:
        """Tell whether the colon between `head` and `body` stands in a notice: `Dan added you to the community: Chess`.

        A name that holds a colon may stand in it: `Dan: Work left`.
        """
        if any(body.startswith(f"{second} ") for second in self.with_colon.get(head, ())):
            return is_event(body)
        if self.counts.get(head, 0) >= MIN_REPEATS or not is_event(head):
            return False
        is_sentence = head.count(" ") >= MIN_SPACES_OF_SENTENCE or head.startswith(("You ", "Your "))
        return is_sentence or _begins_with_name(head, self.known)

    def _is_quoted(self, head: str, body: str) -> bool:
        """Tell whether the colon between `head` and `body` stands in the quoted name of a group."""
        if not OPEN_QUOTE_RE.search(head) or not any(quote in body for quote in CLOSING_QUOTES):
            return False
        return self.counts.get(head, 0) < MIN_REPEATS or _begins_with_name(head, self.known)

    def _is_own_notice(self, sender: str, text: str, has_marks: bool) -> bool:
        """Tell whether it is a notice of a group that a phone put behind its actor or behind whom it is about.

        `Dan: Dan added Rut`, `Rut: Dan added Rut`.
        """
        if not (has_marks and self.groups):
            return False
        if is_about(sender, text):
            is_naming_group = not self.groups.isdisjoint(_quoted_in(text))
            return is_naming_group or self._is_event(text) or _ending(text, sender) in self.repeated_notices
        if sender not in text or not is_whole(sender, text) or not self._is_event(text):
            return False
        return NO_CONTACT_RE.match(text) is not None or _begins_with_name(clean_sender(text), self.known)

    def _is_event(self, text: str) -> bool:
        """Tell whether `text` has the words of a notice, or may have them in a language that no table has."""
        return is_event(text) or (not self.is_of_table and len(text) <= MAX_MEMBER_NOTICE_CHARS and text[-1:].isalnum())


def find_names(rests: Iterable[str], has_marks: bool) -> SenderNames:
    """Return the names of a file from what follows its headers: `NAME: text`, with the lines up to the next header."""
    counts: Counter[str] = Counter()
    tight_counts: Counter[str] = Counter()  # `NAME:text`
    second_parts: dict[str, Counter[str]] = defaultdict(Counter)
    second_lines: dict[str, Counter[str]] = defaultdict(Counter)
    whole_bodies: dict[str, list[str]] = defaultdict(list)  # without a second part
    bare_counts: Counter[str] = Counter()  # lines without a colon
    texts: dict[str, list[str]] = defaultdict(list)
    for rest in rests:
        line, _, more = rest[:MAX_LOOKED_AT_CHARS].partition("\n")
        head, colon, body = line.partition(": ")
        if not colon and line.endswith(":"):
            head, colon, body = line[:-1], ":", ""
        if colon:
            _count(counts, head, MAX_NAMES)
            if head not in counts:
                continue
            second, second_colon, words = f"{body} ".partition(": ")
            is_label = second.casefold() in LOCATION_LABELS or "://" in words[:10]
            if second_colon and 0 < len(second) <= MAX_PART_CHARS and not is_label:
                _count(second_parts[head], second, MAX_SECOND_PARTS)
            elif len(whole_bodies[head]) < MIN_REPEATS * NUM_KEPT_TEXTS:
                whole_bodies[head].append(body)
            if len(texts[head]) < NUM_KEPT_TEXTS:
                texts[head].append(body)
        elif ":" in line:
            head, _, body = line.partition(":")
            if not body.startswith("//"):
                _count(tight_counts, head, MAX_NAMES)
        else:
            _count(bare_counts, line, MAX_NAMES)
            second, second_colon, _ = f"{more.partition(chr(10))[0]} ".partition(": ")
            if line in bare_counts and second_colon and 0 < len(second) <= MAX_PART_CHARS:
                _count(second_lines[line], second, MAX_SECOND_PARTS)

    own_texts = [(head, text) for head, its_texts in texts.items() for text in its_texts]
    quoted = {
        name
        for head, text in own_texts
        if has_marks and is_about(clean_sender(head), text)
        for name in _quoted_in(text)
    }
    with_colon = {
        head: tuple(seconds)
        for head, seconds in second_parts.items()
        if not OPEN_QUOTE_RE.search(head)
        and all(count >= MIN_REPEATS or f"{head}: {second}" in quoted for second, count in seconds.items())
        and seconds.total() + _num_notices(whole_bodies[head], seconds) == counts[head]
    }
    with_colon = {head: tuple(_whole_name(second, texts[head]) for second in with_colon[head]) for head in with_colon}
    with_line_break = {
        first: tuple(seconds)
        for first, seconds in second_lines.items()
        if seconds.total() == bare_counts[first] and min(seconds.values()) >= MIN_REPEATS
    }
    known = {clean_sender(head) for head, count in counts.items() if ":" not in head or count >= MIN_REPEATS}
    for head, count in counts.items():  # `NAME:text with a colon: in it`
        name, _, body = head.partition(":")
        if name in tight_counts and body[:1] not in ("", " ") and count < MIN_REPEATS:
            tight_counts[name] += count
    known |= {
        clean_sender(head)
        for head, count in tight_counts.items()
        if count >= MIN_REPEATS and not _begins_with_name(head, known)
    }
    by_name = _texts_by_name(texts, with_colon)
    groups = _find_groups(by_name) if has_marks else frozenset()
    endings = defaultdict(set)
    for head, text in own_texts if groups else ():
        sender = clean_sender(head)
        if is_about(sender, text):
            endings[_ending(text, sender)].add(sender)
    return SenderNames(
        counts,
        frozenset(known - groups),
        with_colon,
        with_line_break,
        groups,
        frozenset(ending for ending, senders in endings.items() if len(senders) > 1),
        is_of_table=not groups or not _is_unknown_encryption_notice(next(iter(by_name.values()))[0]),
    )


def _count(counts: Counter[str], name: str, max_names: int) -> None:
    """Count a name; a new one only while there are fewer than `max_names`."""
    if name in counts or len(counts) < max_names:
        counts[name] += 1


def _whole_name(second: str, texts: Iterable[str]) -> str:
    """Return the second part of a name with further parts that stand in all `texts` behind it: `home` of "Dan: Work: home"."""
    start = f"{second}: "
    thirds = Counter(text.removeprefix(start).partition(": ")[0] for text in texts if text.startswith(start))
    third, count = thirds.most_common(1)[0] if len(thirds) == 1 else ("", 0)
    is_part = count >= MIN_REPEATS and 0 < len(third) <= MAX_PART_CHARS
    is_always = all(text.startswith(f"{start}{third}: ") for text in texts if text.startswith(start))
    return f"{second}: {third}" if is_part and is_always else second


def _num_notices(bodies: Iterable[str], second_parts: Iterable[str]) -> int:
    """Return how many of the `bodies` begin with the second part of a name: `Dan: Work left` of "Dan: Work"."""
    starts = tuple(f"{second} " for second in second_parts)
    return sum(body.startswith(starts) and is_event(body) for body in bodies)


def _ending(text: str, sender: str) -> str:
    """Return what follows the sender's name in a notice."""
    return clean_sender(text)[len(sender) + 1 :]


def _texts_by_name(texts: Mapping[str, list[str]], with_colon: Mapping[str, tuple[str, ...]]) -> dict[str, list[str]]:
    """Return the texts by whole names: those of `with_colon` have two parts."""
    by_name: dict[str, list[str]] = defaultdict(list)
    for head, its_texts in texts.items():
        for text in its_texts:
            second = next((second for second in with_colon.get(head, ()) if f"{text} ".startswith(f"{second}: ")), None)
            name, words = (head, text) if second is None else (f"{head}: {second}", text[len(second) + 2 :])
            by_name[name].append(words)
    return by_name


def _find_groups(texts: Mapping[str, list[str]]) -> frozenset[str]:
    """Return the names that are the group's: it "says" that messages are encrypted or notices alone, or is quoted in one.

    In a chat of two, the contact is the one who "says" it; then nobody but the owner is left.
    """
    own_notices = [
        text for head, its_texts in texts.items() for text in its_texts if is_about(clean_sender(head), text)
    ]
    quoted = set().union(*map(_quoted_in, own_notices))
    writers = Counter(map(clean_sender, texts))
    for assistant in ASSISTANTS:
        del writers[assistant]
    num_writers = writers.total()
    groups = set()
    for number, (head, its_texts) in enumerate(texts.items()):
        name = clean_sender(head)
        first_text = its_texts[0]
        is_encryption = any(map(is_encryption_notice, its_texts))
        # in a language that no table has: the first message of the file, which names WhatsApp
        is_encryption = is_encryption or (number == 0 and _is_unknown_encryption_notice(first_text))
        num_others = num_writers - writers[name]
        says_nothing = all(
            text.startswith(LEFT_TO_RIGHT_MARK) and not is_placeholder_of_iphone(text) for text in its_texts
        )
        only_notices = all(
            is_encryption_notice(text) or is_event(text.removeprefix(LEFT_TO_RIGHT_MARK)) for text in its_texts
        )
        if (
            (is_encryption and (num_others > 1 or (only_notices and len(its_texts) > 1)))
            or (name in quoted and num_others > 0)
            or (says_nothing and num_others > 1)
        ):
            groups.add(name)
    return frozenset(groups)


def _is_unknown_encryption_notice(first_text: str) -> bool:
    """Tell whether the first text of a group is the notice that messages are encrypted, in a language that no table has."""
    return "WhatsApp" in first_text and len(first_text) > MAX_PART_CHARS and not is_encryption_notice(first_text)


def _quoted_in(text: str) -> set[str]:
    """Return what stands in quotes in a notice; a name may hold quotes too, as Hebrew abbreviations do."""
    starts = [quote.end() for quote in OPENING_QUOTE_RE.finditer(text)][:MAX_QUOTES]
    ends = [quote.start() for quote in CLOSING_QUOTE_RE.finditer(text)][:MAX_QUOTES]
    return {text[start:end] for start in starts for end in ends if start < end}


def _begins_with_name(text: str, names: Collection[str]) -> bool:
    return any(text[: space.start()] in names for space in SPACE_RE.finditer(text, 0, MAX_NAME_CHARS + 1))
