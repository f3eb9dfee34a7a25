"""A line -> the message header it begins with, in any format that a phone writes.

The format depends on the phone's language, region and clock; there are hundreds. All share one grammar: `DATE, TIME - `,
`[DATE, TIME] ` or `DATE, TIME: `, and the time may come first. Which format a file has is left to `header_format`, what
follows the header to `whatsapp_export`.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from typing import NamedTuple

MAX_HEADER_CHARS = 100  # the longest known (Korean with direction marks) has 40

# Characters that phones write in different ways, and what `read_header` reads them as. Each becomes one character, so that
# positions in the line stay valid; direction marks become spaces.
_PLAIN = str.maketrans(
    {
        "\u061c": " ",  # Arabic letter mark
        **dict.fromkeys(
            "\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff", " "
        ),  # direction marks
        **dict.fromkeys("\t\u00a0\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u3000", " "),
        **dict.fromkeys("\u2010\u2011\u2013\u2014", "-"),  # hyphens, en dash, em dash
        "\u060c": ",",  # Arabic comma
    }
)

# The parts of a header. Every repetition is bounded, so the time per line is bounded too.
_GAP = r"[ ]{0,4}"
_NAME = r"[^\W\d_]{2,12}"
_DATE = rf"""
    (?P<date>
      # 30/09/2022   30.9.22   2022. 9. 30.   30.09.2022 г.   30 /9 /2565 BE   30/09 2022   30/2022/09
      (?P<first>\d{{1,4}}) {_GAP} (?P<separator>[./-]) {_GAP} (?P<second>\d{{1,4}})
      (?: {_GAP} (?P=separator) {_GAP} | [ ](?=\d{{4}}) )
      (?P<third>\d{{1,4}}) (?:\.(?!\d))? (?:{_GAP} (?:г\.? | BE | พ\.ศ\.))?
      # 2022年9月30日
    | (?P<year_0>\d{{2,4}}) {_GAP} (?P<east_asian>年) {_GAP} \d{{1,2}} {_GAP} 月 {_GAP} \d{{1,2}} {_GAP} 日?
      # 30 Sep 2013   30. September 2013   30 de set. de 2013   30 Sep (older phones left the current year out)
    | \d{{1,2}} \.? {_GAP} (?:de{_GAP})? (?P<month_after>{_NAME}) [.׳']? (?:{_GAP} (?:de{_GAP})? (?P<year_1>\d{{4}}))?
      # Sep 30, 2013   Sep 30
    | (?P<month_before>{_NAME}) \.? {_GAP} \d{{1,2}} (?:,? {_GAP} (?P<year_2>\d{{4}}))?
      # 30/09
    | \d{{1,2}} (?P<lone_separator>[./-]) \d{{1,2}} \.?
    )
"""
# 18:15   6:15:42   18.15   18 h 15 min 42 s   9:5:7
_CLOCK = rf"""
    (?P<clock>
      (?P<hour>\d{{1,2}}) (?P<colon>[:.] | {_GAP}h{_GAP}) (?P<minute>\d{{2}} | (?<=:)\d)
      (?: (?:[:.] | {_GAP}min{_GAP}) (?P<second_of_minute>\d{{2}} | (?<=:)\d) (?:{_GAP}s\b)? )? (?!\d)
    )
"""
# A word before or after the clock: PM   p. m.   오후   klo   ч.
_BEFORE, _AFTER = r"(?P<before>[^\d\n\[\]:]{0,16}?)", r"(?P<after>[^\d\n\[\]:]{0,16}?)"
# ` - `   `] `   `] - `   `: `   `; ` (the program WhatsApp Viewer)
_END = rf"{_GAP} (?P<end> \] (?:{_GAP}-(?=[ ]))? | - | : | ;) (?:[ ] | \Z | (?<=\])(?=\S))"
_START = rf"(?P<lead>{_GAP}) (?P<bracket>\[)? {_GAP}"

# [30/09/2022, 6:15:42 PM] Rut: hi
_DATE_FIRST_RE = re.compile(f"{_START} {_DATE} {_BEFORE} {_CLOCK} {_AFTER} {_END}", re.VERBOSE)
# 18:15 30/09/2022 - Rut: hi
_TIME_FIRST_RE = re.compile(f"{_START} (?P<before>) {_CLOCK} {_AFTER} {_DATE} {_END}", re.VERBOSE)
_CLOCK_RE = re.compile(_CLOCK, re.VERBOSE)
# :42   min 42 s   at the start of what follows a minute
_SECOND_RE = re.compile(rf"\D{{0,8}} \d{{1,2}} (?:{_GAP}s\b)?", re.VERBOSE)
NUMBER_RE = re.compile(r"\d+")
# The start of a header, which few other lines share:  9   [9   <U+200E>[9   Sep 30
_is_possible = re.compile(rf"\W{{0,6}} (?: \d | {_NAME}\W{{1,4}}\d )", re.VERBOSE).match


# The words in headers, as `plain_word` returns them. Source: Unicode CLDR 46, the languages that WhatsApp offers; single
# Latin letters (CLDR's narrow forms) are left out, because they mean different things in different languages.
AM_WORDS = frozenset(
    """
    am ap fm de dop dopoldne dopoledne eparadites förmiddag manhã öö pd paradite pg prp priekšp priekšpusdienā priešpiet
    prijepodne rno sa safiya sf to vm πμ дп проб чam чпроб пријеподне преддиоб претпл преподне таңкы тң үө
    לפנהצ לפניהצהריים בבוקר ص صباحا صباحًا ق قظ قبلازظهر صبح غم
    पूर्वाह्न मपू পূর্বাহ্ণ ਪੂਦੁ પૂર્વાહ્ન முற்பகல் పూర్వాహ్న ಪೂರ್ವಾಹ್ನ പൂർവ്വാഹ്നം පෙව ก่อนเที่ยง ກ່ອນທ່ຽງ နံနက် ጥዋት
    上午 午前 早上 清晨 凌晨 午夜 半夜 오전
    """.split()  # noqa: SIM905 (a list of quoted words would be twice as long)
)
PM_WORDS = frozenset(
    """
    pm ip em du odp odpoledne popoldne epasdites eftermiddag tarde ös md pasdite ptg pop pēcp pēcpusd pēcpusdienā popiet
    popodne poslijepodne ch yamma tk nm ym μμ пп слоб попл поподне түштөнкийинки тк үх чpm чслоб
    אחהצ אחרהצהריים בצהריים בערב م مساء مساءً ب بظ بعدازظهر شام غو
    अपराह्न मउ অপরাহ্ণ ਬਾਦੁ અપરાહ્ન பிற்பகல் అపరాహ్న ಅಪರಾಹ್ನ അപരാഹ്നം පව หลังเที่ยง ຫຼັງທ່ຽງ ညနေ ከሰዓት
    下午 午後 中午 傍晚 晚上 오후
    """.split()  # noqa: SIM905
)
HALF_DAY_WORDS = AM_WORDS | PM_WORDS

# Words of a 24-hour clock: `30.9.2022 klo 18.15`, `30/09/2022 às 18:15`, `18:15 ч.`
CLOCK_WORDS = frozenset(
    "a à as às at alas alle h hrs kell kl klo klock klokka o om ora ore u uhr um v בשעה в г о ч".split()  # noqa: SIM905
)

# After the clock, `a` is no word for "at" but the morning: 9:05 a., 6:15 p.
CLOCK_WORDS_AFTER = CLOCK_WORDS - {"a", "à"}

_MONTH_NAMES = """
    jan january januar janvier janv gennaio gen enero ene janeiro januari янв января ocak oca ינו ינואר يناير
    feb february februar février févr febbraio febrero fevereiro fev februari фев февр февраля şubat şub פבר פברואר فبراير
    mar march märz mär mars marzo março maart mrt мар марта mart מרץ מרס مارس
    apr april avril avr aprile abril abr апр апреля nisan nis אפר אפריל أبريل
    may mai maggio mag mayo maio mei мая май mayıs מאי مايو
    jun june juni juin giugno giu junio junho июн июня haziran haz יונ יוני يونيو
    jul july juli juillet juil luglio lug julio julho июл июля temmuz tem יול יולי يوليو
    aug august août agosto ago augustus авг августа ağustos ağu אוג אוגוסט أغسطس
    sep sept september septembre settembre set septiembre setembro сен сент сентября eylül eyl ספט ספטמבר سبتمبر
    oct october oktober okt octobre ottobre ott octubre outubro out окт октября ekim eki אוק אוקטובר أكتوبر
    nov november novembre noviembre novembro нояб ноя ноября kasım kas נוב נובמבר نوفمبر
    dec december dezember dez décembre déc dicembre dic diciembre dezembro дек декабря aralık ara דצמ דצמבר ديسمبر
""".strip().splitlines()
MONTHS = {
    prefix + word: number
    for number, words in enumerate(_MONTH_NAMES, 1)
    for word in words.split()
    for prefix in ("", "ב")  # Hebrew: 30 בספט׳ 2013
}


class HeaderShape(NamedTuple):
    """What all headers of one format have in common."""

    has_bracket: bool
    is_time_first: bool
    date_kind: str  # the separator of its numbers, or "name" of a month
    year_place: str  # "first", "middle", "last", "short" (two digits, place unknown) or "none"
    has_comma: bool
    colon: str
    has_seconds: bool
    word_place: str  # of a word that may tell morning from evening: "before" or "after" the clock, or ""
    end: str


class Header(NamedTuple):
    """The header of one line."""

    shape: HeaderShape
    text: str  # all that stands before the sender
    date_span: tuple[int, int]
    time_span: tuple[int, int]  # the clock and, where there is one, the word beside it
    has_year: bool
    match: re.Match[str]  # in the plain form of `text`

    @property
    def date_text(self) -> str:
        """Return the date as written."""
        return self.text[slice(*self.date_span)]

    @property
    def time_text(self) -> str:
        """Return the time as written, with the word beside it."""
        return self.text[slice(*self.time_span)]

    @property
    def short_numbers(self) -> frozenset[str]:
        """Return which of minute and second has one digit: both in 9:5:7."""
        return frozenset(name for name in ("minute", "second_of_minute") if len(self.match[name] or "00") == 1)

    @property
    def padded_numbers(self) -> frozenset[str]:
        """Return which of minute and second has a zero before it: both in 9:05:07."""
        return frozenset(name for name in ("minute", "second_of_minute") if (self.match[name] or "")[:-1] == "0")

    @property
    def word(self) -> str:
        """Return the word beside the clock as written."""
        return self.text[slice(*self.match.span(self.shape.word_place))] if self.shape.word_place else ""


def read_header(line: str) -> Header | None:
    """Return the message header at the start of `line`, of any format, or None."""
    if not _is_possible(line):
        return None
    start = line[:MAX_HEADER_CHARS].translate(_PLAIN)
    for pattern in (_DATE_FIRST_RE, _TIME_FIRST_RE):
        match = pattern.match(start)
        if match and " " not in line[: match.end("lead")] and (header := _describe(line, match)):
            return header
    return None


def _describe(line: str, match: re.Match[str]) -> Header | None:
    """Return the header that `match` found in `line`, None when its parts do not fit together."""
    groups = match.groupdict()
    if bool(groups["bracket"]) != groups["end"].startswith("]"):
        return None
    is_time_first = match.re is _TIME_FIRST_RE
    if month := groups["month_after"] or groups["month_before"]:
        if plain_word(month) not in MONTHS:
            return None
        date_kind, year_place = "name", "last"
        has_year = bool(groups["year_1"] or groups["year_2"])
    elif groups["third"]:
        num_first, num_second, num_third = (len(groups[name]) for name in ("first", "second", "third"))
        if num_second > 2:
            if num_second == 3 or max(num_first, num_third) > 2:
                return None
        elif {num_first, num_third} not in ({2}, {1, 2}, {1, 4}, {2, 4}):
            return None
        date_kind, has_year = groups["separator"], True
        year_place = (
            "first" if num_first == 4 else "last" if num_third == 4 else "middle" if num_second == 4 else "short"
        )
    elif groups["east_asian"]:
        date_kind, has_year, year_place = groups["east_asian"], True, "first"
    else:
        date_kind, has_year, year_place = groups["lone_separator"], False, "none"
    before, after = plain_word(groups["before"]), plain_word(groups["after"])
    word_place = "before" if before and before not in CLOCK_WORDS else ""
    if after and after not in CLOCK_WORDS_AFTER:
        word_place = "after"
    shape = HeaderShape(
        has_bracket=bool(groups["bracket"]),
        is_time_first=is_time_first,
        date_kind=date_kind,
        year_place=year_place,
        has_comma="," in groups["after" if is_time_first else "before"],
        colon=groups["colon"].strip(),
        has_seconds=groups["second_of_minute"] is not None,
        word_place=word_place,
        end=groups["end"][:1],
    )
    time_start, time_end = match.span("clock")
    if word_place == "before":
        time_start = match.start("before")
    elif word_place == "after":
        time_end = match.end("after")
    return Header(shape, line[: match.end()], match.span("date"), (time_start, time_end), has_year, match)


def word_beside_clock(time_text: str) -> str:
    """Return the plain word beside the clock in a time as written: `pm` for `6:15 p. m.`."""
    return plain_word(_CLOCK_RE.sub("", time_text.translate(_PLAIN), count=1))


def word_after_seconds(text: str) -> str:
    """Return the plain word in what follows the minute of a time as written: `pm` for `:42 PM`."""
    return plain_word(_SECOND_RE.sub("", text.translate(_PLAIN), count=1))


@functools.lru_cache(maxsize=1024)  # most headers of a file have the same few words
def plain_word(text: str) -> str:
    """Return the letters of `text` in lower case, without dots, commas, spaces, quotes and direction marks.

    >>> plain_word(" P.\\u00a0M.")
    'pm'
    """
    folded = unicodedata.normalize("NFKC", text).casefold().replace("i\u0307", "i")  # Turkish capital I with a dot
    return "".join(c for c in unicodedata.normalize("NFC", folded) if unicodedata.category(c)[0] in "LM")
