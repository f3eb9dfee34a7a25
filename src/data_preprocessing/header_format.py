"""The line that begins a message -> when it was sent; the one header format of an export, found from its first lines.

A phone writes its export in the format of its own language, region and clock: hundreds of them. They share a grammar
(`DATE, TIME - `, `[DATE, TIME] `, `DATE, TIME: `, and the time may come first), which `read_header` knows; `find_format`
then settles on the one shape of this file and the order of its day and month. Senders and texts are left to
`whatsapp_export`.
"""

from __future__ import annotations

import datetime
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from export_source import ExportError

NUM_VOTING_HEADERS = 2000  # headers that settle the file's shape
MIN_PROOFS = 3  # dates that must exclude an order: one could stand in a message that someone pasted

# U+061C Arabic letter mark, U+200E/F direction marks, U+202A-E embeddings, U+2066-9 isolates, U+FEFF byte order mark.
MARKS = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff"
# U+00A0 no-break, U+2000-A (U+2009 thin), U+202F narrow no-break, U+3000 ideographic.
SPACES = " \u00a0\u2000-\u200a\u202f\u3000"

# Marks of the 12-hour clock after `_plain_word`: no dots, spaces, quotes, case. Source: CLDR, languages of WhatsApp.
AM_WORDS = frozenset(
    "am ص قظ صباحا 오전 上午 午前 凌晨 清晨 早上 öö pg πμ sa לפנהצ de пробед преддиобед probj probiadu прoб проб дп fm vm "
    "dop dopoldne pd paradite ap рм पूर्वाह्न मपू ก่อนเที่ยง priešpiet rno prijepodne".split()
)
PM_WORDS = frozenset(
    "pm م بظ مساء 오후 下午 午後 中午 晚上 ös ptg μμ ch אחהצ אחרהצ du слоб пп em nm odp popoldne md mbasdite ip अपराह्न मउ "
    "หลังเที่ยง popiet poslijepodne".split()
)
# Words that may stand before or after the time and mean nothing for it.
CLOCK_WORDS = frozenset("à às as a at klo kl um ore alle alas v в о ob u kell г ч h uhr hrs ora в".split())

# Month names, first letters that tell them apart, in the languages of old Android exports.
MONTHS = {
    name: number
    for number, names in enumerate(
        (
            "jan january januar janvier janv gennaio gen ene enero janeiro jaurari янв января ינו ינואר oca ocak",
            "feb february februar février févr fév febbraio febrero fevereiro fev фев февраля פבר פברואר şub şubat",
            "mar march märz mär mrz mars marzo março maart mrt мар марта מרץ מרס mart",
            "apr april avril avr aprile abr abril апр апреля אפר אפריל nis nisan",
            "may mai mayo maggio mag maio mei май мая מאי mayıs",
            "jun june juni juin giugno giu junio junho июн июня יונ יוני haz haziran",
            "jul july juli juillet juil luglio lug julio julho июл июля יול יולי tem temmuz",
            "aug august août aou agosto ago augustus авг августа אוג אוגוסט ağu ağustos",
            "sep sept september septembre settembre set septiembre setembro сен сент сентября ספט ספטמבר eyl eylül",
            "oct october oktober okt octobre ottobre ott octubre out outubro окт октября אוק אוקטובר eki ekim",
            "nov november novembre noviembre novembro ноя нояб ноября נוב נובמבר kas kasım",
            "dec december dezember dez décembre déc dicembre dic diciembre dezembro дек декабря דצמ דצמבר ara aralık",
        ),
        1,
    )
    for name in names.split()
}

_GAP = f"[{MARKS}{SPACES}]*"

# 30/09/2022   30.9.2022   2022. 9. 30.   30.09.2022 г.   30<U+200F>/9<U+200F>/2565 BE
_NUMBERS = rf"""
    (?P<first>\d{{1,4}}) {_GAP} (?P<separator>[./\-\u2010\u2011]) {_GAP}
    (?P<second>\d{{1,2}}) {_GAP} (?P=separator) {_GAP}
    (?P<third>\d{{1,4}}) (?:\.(?!\d))? (?:{_GAP} (?:г\.?|BE|พ\.ศ\.))?
"""
# 30/09   (without a year: not datable)
_NUMBERS_WITHOUT_YEAR = r"(?P<first>\d{1,2})(?P<separator>[./\-])(?P<second>\d{1,2})\.?"
# 30 Sep 2013   30. September 2013   30 de set. de 2013   30 Sep
_DAY_AND_NAME = rf"""
    (?P<day>\d{{1,2}})\.? {_GAP} (?:de{_GAP})? (?P<month>[^\W\d_]{{2,12}}) [.׳']? (?:{_GAP} (?:de{_GAP})? (?P<year>\d{{4}}))?
"""
# Sep 30, 2013   Sep 30
_NAME_AND_DAY = rf"(?P<month>[^\W\d_]{{2,12}})\.? {_GAP} (?P<day>\d{{1,2}}) (?:,? {_GAP} (?P<year>\d{{4}}))?"
# 18:15   6:15:42 PM (its marker is matched apart)   18.15   18 h 15 min 42 s
_CLOCK = rf"""
    (?P<hour>\d{{1,2}}) (?P<colon>[:.]|{_GAP}h{_GAP}) (?P<minute>\d{{2}})
    (?: (?:[:.]|{_GAP}min{_GAP}) (?P<second_of_minute>\d{{2}}) (?:{_GAP}s)? )? (?!\d)
"""
# A word before or after the time: PM   p. m.   오후   klo   ч.
_WORD = r"[^\d\n\[\]:]{0,16}?"
# ` - `   `] `   `] - `   `: `
_END = rf"{_GAP} (?P<end> \] (?:{_GAP}[-\u2013\u2014](?=[{SPACES}]))? | [-\u2013\u2014] | :) (?:[{SPACES}]|\Z)"

_DATES = (_NUMBERS, _DAY_AND_NAME, _NAME_AND_DAY, _NUMBERS_WITHOUT_YEAR)
_HEADER_RES = tuple(
    re.compile(pattern, re.VERBOSE)
    for date in _DATES
    for pattern in (
        # [30/09/2022, 6:15:42 PM] Rut: hi
        rf"(?P<lead>[{MARKS}]*) (?P<bracket>\[)? [{MARKS}]* (?P<date>{date}) (?P<before>{_WORD})"
        rf"(?P<clock>{_CLOCK}) (?P<after>{_WORD}) {_END}",
        # 18:15 30/09/2022 - Rut: hi
        rf"(?P<lead>[{MARKS}]*) (?P<bracket>\[)? [{MARKS}]* (?P<before>) (?P<clock>{_CLOCK}) (?P<after>{_WORD})"
        rf"(?P<date>{date}) {_END}",
    )
)


class HeaderShape(NamedTuple):
    """What all headers of one file have in common."""

    has_bracket: bool
    is_time_first: bool
    date_kind: str  # separator of the numbers, or "name" of a month
    year_place: str  # "first", "last", "short" (two digits, place unknown) or "none"
    has_comma: bool
    colon: str
    has_seconds: bool
    marker: str  # where the mark of a 12-hour clock stands: "", "before", "after"
    end: str


class Header(NamedTuple):
    """The header of one line: its shape, and the pieces that a format turns into a time."""

    shape: HeaderShape
    date_text: str
    clock_text: str  # with its 12-hour marker
    length: int  # where the rest of the line begins
    has_year: bool
    match: re.Match[str]


def read_header(line: str) -> Header | None:
    """Return the message header at the start of `line`, of any format, or None."""
    start = line[:120]
    for number, pattern in enumerate(_HEADER_RES):
        match = pattern.match(start)
        if match and bool(match["bracket"]) == match["end"].startswith("]"):
            header = _describe(match, is_time_first=bool(number % 2))
            if header is not None:
                return header
    return None


def _describe(match: re.Match[str], is_time_first: bool) -> Header | None:
    groups = match.groupdict()
    has_year = True
    if "month" in groups:
        if _plain_word(groups["month"]) not in MONTHS:
            return None
        date_kind, year_place, has_year = "name", "last", groups["year"] is not None
    elif "third" in groups:
        date_kind = "-" if groups["separator"] in "-\u2010\u2011" else groups["separator"]
        year_place = "first" if len(groups["first"]) > 2 else "last" if len(groups["third"]) > 2 else "short"
        if {len(groups["first"]), len(groups["third"])} & {3} or len(groups["first"]) + len(groups["third"]) > 6:
            return None
    else:
        date_kind, year_place, has_year = groups["separator"], "none", False
    before, after = _plain_word(groups["before"]), _plain_word(groups["after"])
    marker = "before" if before and before not in CLOCK_WORDS else "after" if after and after not in CLOCK_WORDS else ""
    shape = HeaderShape(
        has_bracket=bool(groups["bracket"]),
        is_time_first=is_time_first,
        date_kind=date_kind,
        year_place=year_place,
        has_comma=any(comma in groups["after" if is_time_first else "before"] for comma in ",\u060c"),
        colon=groups["colon"].strip(),
        has_seconds=groups["second_of_minute"] is not None,
        marker=marker,
        end="-" if groups["end"] in "-\u2013\u2014" else groups["end"][:1],
    )
    first, last = ("before", "clock") if marker == "before" else ("clock", "after" if marker == "after" else "clock")
    clock_text = match.string[match.start(first) : match.end(last)]
    return Header(shape, groups["date"], clock_text, match.end(), has_year, match)


def _plain_word(text: str) -> str:
    """Return a word without case, dots, commas, spaces, quotes and marks.

    >>> _plain_word(" P.\\u00a0M.")
    'pm'
    """
    text = unicodedata.normalize("NFKC", text).casefold().replace("i\u0307", "i")
    return "".join(c for c in unicodedata.normalize("NFC", text) if unicodedata.category(c)[0] in "LM")


@dataclass(frozen=True)
class HeaderFormat:
    """The format of one export: how to find its headers, quickly, and what their dates and times mean."""

    shape: HeaderShape
    header_re: re.Pattern[str]
    date_order: str  # "day/month/year" ...
    is_order_proven: bool
    description: str

    def to_date(self, text: str) -> datetime.date | None:
        """Return the day that `text` names, None when there is none such."""
        fields = _date_fields(text)
        return fields and _to_date(fields, self.date_order)

    def to_time(self, text: str) -> datetime.time | None:
        """Return the time of day that `text` names, None when there is none such."""
        hour, minute, *second = (int(number) for number in re.findall(r"\d+", text))
        if self.shape.marker:
            word = _plain_word(re.sub(r"\d+", "", text)) if self.shape.colon != "h" else _plain_word(text)
            is_pm = word in PM_WORDS
            if hour > 12 or not (is_pm or word in AM_WORDS):
                return None
            hour = hour % 12 + 12 * is_pm
        if hour > 23 or minute > 59 or (second and second[0] > 59):
            return None
        return datetime.time(hour, minute, *second)


ORDERS = {
    "day/month/year": (2, 1, 0),
    "month/day/year": (2, 0, 1),
    "year/month/day": (0, 1, 2),
    "year/day/month": (0, 2, 1),
}


def _date_fields(text: str) -> tuple[int, int, int] | None:
    """Return the three numbers of a date as they stand; a named month makes it day, month, year."""
    numbers = [int(number) for number in re.findall(r"\d+", text)]
    if len(numbers) == 2:
        month = next(
            (MONTHS[word] for word in map(_plain_word, re.findall(r"[^\W\d_]+", text)) if word in MONTHS), None
        )
        return (numbers[0], month, numbers[1]) if month else None
    return (numbers[0], numbers[1], numbers[2]) if len(numbers) == 3 else None


def _to_date(fields: tuple[int, int, int], order: str) -> datetime.date | None:
    year, month, day = (fields[place] for place in ORDERS[order])
    if year < 100:
        year += 2000
    elif year > 2400:
        year -= 543  # the Buddhist calendar of Thai phones
    try:
        return datetime.date(year, month, day)
    except ValueError:
        return None


class _OrderCount:
    """How well one order of day, month and year fits the dates of a file."""

    def __init__(self, order: str) -> None:
        self.order = order
        self.num_impossible = 0
        self.num_implausible = 0
        self.num_backward = 0
        self.earliest: datetime.date | None = None
        self.latest: datetime.date | None = None
        self._previous: datetime.date | None = None

    def add(self, fields: tuple[int, int, int]) -> None:
        day = _to_date(fields, self.order)
        if day is None:
            self.num_impossible += 1
            return
        if not 2009 <= day.year <= datetime.date.today().year + 1:  # WhatsApp began in 2009
            self.num_implausible += 1
        if self._previous is not None and day < self._previous:
            self.num_backward += 1
        self._previous = day
        self.earliest = min(self.earliest or day, day)
        self.latest = max(self.latest or day, day)

    @property
    def score(self) -> tuple[int, int, int, int]:
        span = (self.latest - self.earliest).days if self.latest and self.earliest else 0
        return self.num_impossible, self.num_implausible, self.num_backward, span


def find_format(lines: Iterable[str], day_first: bool | None = None) -> HeaderFormat:
    """Return the header format of an export from its lines, read only as far as needed.

    Raise ExportError when there is no header, when its dates have no year, or when its 12-hour marker is unknown.
    """
    lines = iter(lines)
    headers: list[Header] = []
    for line in lines:
        header = read_header(line)
        if header is not None:
            headers.append(header)
            if len(headers) == NUM_VOTING_HEADERS:
                break
    if not headers:
        raise ExportError(
            "no WhatsApp messages found: no line begins like `30/09/2022, 18:15 - ` or `[9/30/22, 6:15:42 PM] `; "
            "export the chat again in WhatsApp (chat > More > Export chat)"
        )
    shape = _choose_shape(headers)
    voters = [header for header in headers if header.shape == shape]
    if not all(header.has_year for header in voters):
        raise ExportError(
            "its dates have no year, so they cannot be dated; export the chat again with a newer version of WhatsApp"
        )
    _check_markers(shape, voters)
    header_re = _lean_re(voters)
    order, is_proven = _find_order(shape, voters, lines, header_re, day_first)
    description = _describe_format(shape, voters[0])
    return HeaderFormat(shape, header_re, order, is_proven, description)


def _choose_shape(headers: list[Header]) -> HeaderShape:
    """Return the shape of the file; headers of other shapes stand in messages that someone pasted."""
    counts = Counter(header.shape for header in headers)
    if headers[0].shape == headers[-1].shape:  # it encloses the others
        return headers[0].shape
    return counts.most_common(1)[0][0]


def _check_markers(shape: HeaderShape, headers: list[Header]) -> None:
    if not shape.marker:
        return
    for word in {header.match[shape.marker] for header in headers}:
        if _plain_word(word) not in AM_WORDS | PM_WORDS:
            raise ExportError(
                f"the word {word.strip()!r} beside its 12-hour times is not known, so morning and evening cannot be told "
                "apart; export the chat again with the phone set to a 24-hour clock, or to English"
            )


def _lean_re(headers: list[Header]) -> re.Pattern[str]:
    """Return a regular expression for just this file's headers, with the groups date, time, as they are written."""
    forms = Counter(_form(header) for header in headers)
    return re.compile(forms.most_common(1)[0][0])


def _form(header: Header) -> str:
    """Return one header as a pattern: its own characters, with every number open."""
    match = header.match
    text = match.string
    first_place, second_place = sorted((match.span("date"), _clock_span(header)))
    names = ("date", "time") if not header.shape.is_time_first else ("time", "date")
    return (
        "\u200e?"
        + re.escape(text[match.end("lead") : first_place[0]])
        + f"(?P<{names[0]}>{_open_numbers(text[slice(*first_place)], header)})"
        + re.escape(text[first_place[1] : second_place[0]])
        + f"(?P<{names[1]}>{_open_numbers(text[slice(*second_place)], header)})"
        + re.escape(text[second_place[1] : match.end()])
    )


def _clock_span(header: Header) -> tuple[int, int]:
    match, marker = header.match, header.shape.marker
    return (
        match.start("before" if marker == "before" else "clock"),
        match.end("after" if marker == "after" else "clock"),
    )


def _open_numbers(text: str, header: Header) -> str:
    pattern = re.escape(text)
    marker = header.match[header.shape.marker] if header.shape.marker else ""
    if marker:
        pattern = pattern.replace(re.escape(marker), r"[^\d\-\[\]:]{1,16}")
    elif header.shape.date_kind == "name":
        pattern = re.sub(r"[^\W\d_]{2,}", r"[^\\W\\d_]{2,12}", pattern)
    digit = "[0-9]" if text.isascii() else r"\d"
    return re.sub(
        r"(?<![{,])\d+(?![},])", lambda match: f"{digit}{{4}}" if len(match[0]) == 4 else f"{digit}{{1,2}}", pattern
    )


def _find_order(
    shape: HeaderShape, voters: list[Header], lines: Iterable[str], header_re: re.Pattern[str], day_first: bool | None
) -> tuple[str, bool]:
    """Return the order of day, month and year, and whether no other could be true."""
    orders = {
        "first": ("year/month/day", "year/day/month"),
        "last": ("day/month/year", "month/day/year"),
        "short": ("day/month/year", "month/day/year", "year/month/day"),
    }[shape.year_place]
    if shape.date_kind == "name":
        return "day/month/year", True
    counts = [_OrderCount(order) for order in orders]

    def has_proof() -> bool:
        failures = sorted(count.num_impossible for count in counts)
        return failures[0] == 0 and failures[1] >= MIN_PROOFS

    previous = ""
    for text in _date_texts(voters, lines, header_re):
        if text == previous:
            continue
        previous = text
        fields = _date_fields(text)
        if fields is None:
            continue
        for count in counts:
            count.add(fields)
        if has_proof():
            break
    if day_first is not None and shape.year_place != "first":
        wanted = "day/month/year" if day_first else "month/day/year"
        chosen = next(count for count in counts if count.order == wanted)
        best = min(count.num_impossible for count in counts)
        if chosen.num_impossible > best:
            raise ExportError(f"its dates cannot be {wanted}; leave the order of day and month to be found")
        return wanted, True
    prior = _likely_order(shape, voters)
    counts.sort(key=lambda count: (*count.score, count.order != prior, orders.index(count.order)))
    is_proven = all(count.num_impossible > counts[0].num_impossible for count in counts[1:])
    return counts[0].order, is_proven or counts[0].order == "year/month/day" and shape.year_place == "first"


def _date_texts(voters: list[Header], lines: Iterable[str], header_re: re.Pattern[str]) -> Iterable[str]:
    for header in voters:
        yield header.date_text
    find_header: Callable[[str], re.Match[str] | None] = header_re.match
    for line in lines:
        match = find_header(line)
        if match:
            yield match["date"]


def _likely_order(shape: HeaderShape, voters: list[Header]) -> str:
    """Return the order that such a header has in most countries, for a file whose dates do not tell."""
    if shape.year_place == "first" or shape.marker == "before" and shape.date_kind == ".":
        return "year/month/day"  # Korea: 22. 9. 30. 오후 6:15
    is_padded = any(re.search(r"(?<!\d)0\d", header.date_text[:5]) for header in voters)
    has_us_marker = shape.marker == "after" and any(
        header.match["after"].strip(SPACES) in ("AM", "PM") for header in voters
    )
    return "month/day/year" if has_us_marker and shape.date_kind == "/" and not is_padded else "day/month/year"


def _describe_format(shape: HeaderShape, header: Header) -> str:
    """Return the format in a few words, with no word of the chat in it."""
    phone = "iOS" if shape.has_bracket else "old iOS" if shape.end == ":" else "Android"
    clock = "12-hour clock" if shape.marker else "24-hour clock"
    seconds = "with seconds" if shape.has_seconds else "without seconds"
    date = "month names" if shape.date_kind == "name" else f"dates with {shape.date_kind!r}"
    return f"{phone}, {'time first, ' if shape.is_time_first else ''}{date}, {clock} {seconds}"
