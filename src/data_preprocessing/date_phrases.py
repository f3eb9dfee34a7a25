"""The words with which Hebrew and English messages name a day or an hour, as patterns.

What they mean is left to `message_dates`. All patterns are for normalised text (`wording`). Other languages are read only where
they write dates in digits.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache


def _words(*lines: str) -> frozenset[str]:
    return frozenset(word for line in lines for word in line.split())


WEEKDAYS = {  # 0 is Monday, as in `date.weekday`
    name: day
    for day, names in enumerate((
        "שני ב monday mon", "שלישי ג tuesday tue tues", "רביעי ד wednesday wed", "חמישי ה thursday thu thur thurs",
        "שישי ששי ו friday fri", "שבת saturday sat", "ראשון א sunday sun",
    ))
    for name in names.split()
}  # fmt: skip
MONTHS = {
    name: number
    for number, names in enumerate((
        "ינואר january jan", "פברואר february feb", "מרץ מרס march mar", "אפריל april apr", "מאי may", "יוני june jun",
        "יולי july jul", "אוגוסט august aug", "ספטמבר september sept sep", "אוקטובר october oct", "נובמבר november nov",
        "דצמבר december dec",
    ), start=1)
    for name in names.split()
}  # fmt: skip
NUMBERS = {
    name: number
    for number, names in enumerate((
        "a an one אחת אחד", "two שתיים שתים שני שתי couple", "three שלוש שלושה", "four ארבע ארבעה", "five חמש חמישה חמשה",
        "six שש שישה ששה", "seven שבע שבעה", "eight שמונה", "nine תשע תשעה", "ten עשר עשרה", "eleven", "twelve",
    ), start=1)
    for name in names.split()
} | {"אחת עשרה": 11, "שתים עשרה": 12, "שתיים עשרה": 12}  # fmt: skip
HEBREW_MINUTES = {"חצי": 30, "רבע": 15, "עשרה": 10, "עשר דקות": 10, "עשרים": 20, "חמישה": 5, "חמש דקות": 5}
HEBREW_UNITS = {  # (days, months, hours)
    "חצי שעה": (0, 0, 0.5), "שעה": (0, 0, 1), "שעתיים": (0, 0, 2), "שעות": (0, 0, 1), "יום": (1, 0, 0), "יומיים": (2, 0, 0), "ימים": (1, 0, 0),
    "שבוע": (7, 0, 0), "שבועיים": (14, 0, 0), "שבועות": (7, 0, 0), "חודש": (0, 1, 0), "חודשיים": (0, 2, 0), "חודשים": (0, 1, 0),
}  # fmt: skip
ENGLISH_UNITS = {"hour": (0, 0, 1), "day": (1, 0, 0), "week": (7, 0, 0), "month": (0, 1, 0)}

_HEBREW_DAYS = "ראשון|שני|שלישי|רביעי|חמישי|שישי|ששי|שבת"
_ENGLISH_DAYS = "monday|tuesday|wednesday|thursday|friday|saturday|sunday"
_HEBREW_UNIT_NAMES = "|".join(sorted(HEBREW_UNITS, key=len, reverse=True)).replace(" ", r"\ ")
_SHORT_DAYS = "mon|tues?|wed|thu(?:rs?)?|fri|sat|sun"
_HEBREW_MONTHS = "|".join(name for name in MONTHS if not name.isascii())
_ENGLISH_MONTHS = "|".join(sorted((name for name in MONTHS if name.isascii()), key=len, reverse=True))
# An escaped space is one in every pattern, also in those where other spaces do not count.
_HOURS_IN_HEBREW = r"אחת\ עשרה|שתיי?ם\ עשרה|אחת|שתיים|שלוש|ארבע|חמש|שש|שבע|שמונה|תשע|עשר"
_HOURS_IN_ENGLISH = "one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve"
_COUNTS = r"\d{1,2}|שלושה?|ארבעה?|חמי?שה?|שי?שה?|שבעה?|שמונה|תשעה?|עשרה?"
_PART = r'בבוקר|בצהריי?ם|אחה"?צ|אחרי\ הצהריי?ם|אחר\ הצהריי?ם|בערב|בלילה'


def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.VERBOSE)


# The words that name a day, by kind (those of "today" and "tomorrow" are single words: DAY_WORDS); where two overlap, the one
# that begins first counts. None of the characters of INSIDE may stand before: that is checked afterwards, because a
# lookbehind in front takes two thirds of the time.
DAY_RES = {
    # מחרתיים   the day after tomorrow
    "after_tomorrow": _compiled(r"[ושכ]?ל?מחרתיי?ם(?!\w) | (?:the\ )?day\ after\ (?:tomorrow|tmrw)\b"),
    "this_evening": _compiled(r"this\ (?:evening|afternoon)\b"),
    # במוצ"ש, מוצאי שבת
    "saturday_night": _compiled(r"[ושכ]?[בלה]?-?(?:מוצ\"?ש|מוצאי\ שבת)(?!\w)"),
    # ביום שישי הבא, יום ג', בשבת, לחמישי, שלישי בערב
    "hebrew_weekday": _compiled(
        rf"""
        (?P<week_before>[וש]?[בל]שבוע\ הבא,?\ )? [וש]?
        (?: [בלמ]?-?יום\ (?P<named_day>(?:{_HEBREW_DAYS})(?!\w)|[א-ו]'|[א-ו](?=\s|$|[,.!?)]))
          | [בל]-?(?P<prefixed_day>שלישי|רביעי|חמישי|שישי|ששי)(?!\w)
          | [בלה]-?(?P<sabbath>שבת)(?!\w)
          | [בל]-?(?P<ordinal_day>ראשון|שני)(?!\w)
              (?=\s*(?:$|[,.!?)\n]|(?:ה(?:זה|קרוב|בא)|{_PART})(?!\w)|(?:ב-?|בשעה\ )\d|ב(?:{_HOURS_IN_HEBREW})(?!\w)))
          | (?P<bare_day>{_HEBREW_DAYS})[ ]
              (?=(?:ה(?:קרוב|בא)ה?|{_PART}|אצל(?:י|נו|ך|כם)?|סגור|מתאים|פנויה?|נפגשים|ניפגש|יוצאים|באים)(?!\w)|(?:ב-?|בשעה\ )\d{{1,2}}(?![\d/.])|\d{{1,2}}:\d\d)
        )
        (?:\s?(?P<which>ה(?:זו|זה|זאת|קרובה?|באה?|אחרונה?|קודמת?)|שעברה?|שחלפה?)(?!\w))?
        (?P<week_after>,?\ בשבוע\ הבא(?!\w))?
        """
    ),
    # Friday, on Fri, next Friday
    "english_weekday": _compiled(
        rf"""
        (?:(?P<week_before>next\ week,?)\ )?
        (?:(?P<which>on|by|this|next|last|past|every|each|until|till|before|for|coming|since|to|from)\ )?
        (?:the\ )?(?P<english_day>{_ENGLISH_DAYS})\b(?P<week_after>\ next\ week\b)?
      | (?P<which_short>on|by|this|next|last|until|till|before)\ (?P<short_day>{_SHORT_DAYS})\b
      | (?P<bare_short_day>{_SHORT_DAYS})\ (?=(?:\d{{1,2}}(?::\d\d)?\ ?[ap]m|morning|afternoon|evening|night|nite)\b)
      | (?P<sure_short_day>mon|tues?|thurs?|fri)\ (?=(?:works|is\ (?:good|fine|ok)|at\ \d)\b)
        """
    ),
    # בעוד שבועיים, עוד 3 ימים, שבוע מהיום
    "hebrew_later": _compiled(
        rf"""
        [וש]?(?P<how_later>ב?עוד)\ (?:(?P<hebrew_count>{_COUNTS}|כמה|מספר)\ )?
        (?P<hebrew_unit>{_HEBREW_UNIT_NAMES})(?!\w)
        (?P<about>\ ו?(?:חצי|רבע)|\ פלוס|\ בערך|\ או|-)?
      | (?P<unit_from>שבוע|שבועיים|חודש|חודשיים)\ מ(?P<from>היום|עכשיו|מחר)(?!\w)
        """
    ),
    # in two weeks, in an hour, a week from today
    "english_later": _compiled(
        rf"""
        in\ (?:(?P<few>(?:a\ |the\ next\ )?(?:few|several|some))|(?:a\ )?(?P<count>\d{{1,2}}|couple|an?|{_HOURS_IN_ENGLISH})(?:\ of)?)[ ]
        (?P<unit>hour|day|week|month)s?\b(?P<about>\ or\ so|\ and\ a\ half|\ or|-)?
      | in\ (?P<half_an_hour>half\ an\ hour)\b
      | (?P<count_from>\d{{1,2}}|an?|{_HOURS_IN_ENGLISH})\ (?P<unit_from>day|week|month)s?\ from\ (?P<from>now|today|tomorrow)
        """
    ),
    # בשבוע הבא, סופ"ש, next week, the weekend: a day that is not certain
    "vague": _compiled(
        r"""
        [וש]?[בלמ]?(?:שבוע|חודש)\ הבא(?!\w) | [וש]?[בלה]?(?:סופ"?ש|סוף\ ה?שבוע)(?!\w)
      | next\ (?:week|month)\b | (?:(?:this|the|next|on\ the|at\ the)\ )?weekend\b
        """
    ),
    # ה-15 לחודש, on the 15th
    "day_of_month": _compiled(
        rf"""
        [ושב]?[בלה]?-?\s?(?P<hebrew_nth>\d{{1,2}})\ ל(?:חודש|חודש\ הזה)(?!\w)
      | (?:on|by|until|till|before)\ (?:the\ )?(?P<english_nth>\d{{1,2}})(?:st|nd|rd|th)\b
        (?!\ (?:of\ )?(?:{_ENGLISH_MONTHS}|floor|time|grade|place)\b)
      | the\ (?P<sure_nth>\d{{1,2}})(?:st|nd|rd|th)\ (?=(?:works|sounds|then|at\ \d|is\ (?:good|fine|ok))\b)
        """
    ),
    # 24 בדצמבר, ה-3 במרץ 2025   December 24th, 24 Dec
    "month_name": _compiled(
        rf"""
        [ושב]?[בלה]?-?(?P<hebrew_day_number>\d{{1,2}})\ [בל](?P<hebrew_month>{_HEBREW_MONTHS})(?!\w)(?:,?\ (?P<hebrew_year>20\d\d))?
      | (?:on\ |by\ )?(?:the\ )?(?P<day_before>\d{{1,2}})(?:st|nd|rd|th)?\ (?:of\ )?(?P<month_after>{_ENGLISH_MONTHS})\b\.?
        (?:,?\ (?P<year_after>20\d\d))?
      | (?:on\ |by\ )?(?P<month_before>{_ENGLISH_MONTHS})\b\.?\ (?:the\ )?(?P<day_after>\d{{1,2}})(?:st|nd|rd|th)?\b
        (?![:%]|\ (?:of|people|times|more)\b)(?:,?\ (?P<year_behind>20\d\d))?
        """
    ),
    # ב-24.12, 24/12/2024, on 24/12
    "digits": _compiled(
        r"""
        (?P<before_digits>[ושב]{0,2}[בלהמ]-?\s?|עד\ (?:ה-?)?|תאריך\ |(?:on|by|until|till|before|am|el|le)\ (?:the\ )?)?
        (?P<first>\d{1,2})(?P<separator>[./-])(?P<second>\d{1,2})(?:(?P=separator)(?P<year>20\d\d|\d\d))?
        (?![\w%₪$€°]|[./:-]\d
          |\s?(?:%|₪|\$|€|ש"ח|שח|שקל|מ'|ס"מ|ק"מ|קילו|ק"ג|ליטר|מעלות|דולר|יורו|kg|km|cm|usd|nis|ils|dollars?|euros?|bucks|degrees|percent
            |out\ of|hours?|cups?)(?!\w))
        """
    ),
}


# בשמונה וחצי, ב-20:30, רבע לתשע, 8 בערב   at 5pm, half past eight, noon
CLOCK_RE = re.compile(
    rf"""
    (?<![\w./:-])
    (?: (?:(?<=הערב\ )|(?<=tonight\ ))(?P<evening_hour>[6-9]|1[01])(?=$|[,.!\n]|\ (?:אצל|ב[א-ת]|at\ ))
      | (?P<hebrew_before>[ושכ]?(?:בשעה\ |בסביבות\ (?:השעה\ )?|לקראת\ |סביב\ |עד\ (?:ה-?)?|מ-?|לשעה\ |ב-?\s?|ל-?)|(?:at|by|around|from|until|till|about|@)\ ?|@)?
        (?P<hour>\d{{1,2}})(?:(?P<colon>[:.])(?P<minute>[0-5]\d))?
        (?![\w%₪$€]|[./-]\d|:\d|\ ?(?:%|₪|\$|€|ש"ח|שח|שקל|איש|אנשים|ימים|יום|שעות|דקות|דק'|שניות|פעמים|כרטיסים|קילו|ק"מ|אלף|ל[א-ת]|ב(?:{_HEBREW_MONTHS})|people|days?|weeks?|hours?|min|mins|minutes|km|times|of\ us)(?!\w))
        (?:\ ?(?P<clock_word>o'?clock))?
      | (?P<hour_with_half>\d{{1,2}})(?::(?P<minute_with_half>[0-5]\d))?\ ?(?P<half_of_day>[ap]\.?m\.?)(?!\w)
      | [ושכ]?(?:ב|עד\ |בשעה\ )?-?(?P<to_minutes>רבע|עשרה|חמישה|עשר\ דקות|חמש\ דקות|עשרים)\ ל(?P<to_hour>{_HOURS_IN_HEBREW}|\d{{1,2}})(?!\w)
      | (?<!פעם\ )(?P<bare_hour>{_HOURS_IN_HEBREW})(?:\ ו(?P<bare_minutes>חצי|רבע))?(?=\ (?:{_PART})(?!\w))
      | [ושכ]?(?:בשעה\ |בסביבות\ |לקראת\ |עד\ |ב|ל)-?(?P<hebrew_hour>{_HOURS_IN_HEBREW})(?!\w)
          (?:\ ו?(?P<hebrew_minutes>חצי|רבע|עשרה|עשרים|חמישה|עשר\ דקות)(?!\w))?
          (?!\ (?:אנשים|ימים|שעות|דקות|פעמים|שנים|שבועות|חודשים|שקל|אלף|מאות)(?!\w))
      | (?:(?:at|by|around)\ )?(?P<english_past>half\ past|quarter\ past|quarter\ to)\ (?P<past_hour>\d{{1,2}}|{_HOURS_IN_ENGLISH})\b
      | (?:at|by|around)\ (?P<english_hour>{_HOURS_IN_ENGLISH})\b(?:[ -](?P<english_thirty>thirty))?(?!\ (?:people|of|different|times|places))(?:\ ?(?P<clock_word_2>o'?clock))?
      | (?:at\ )?(?P<noon>noon|midday)\b
    )
    (?:[ ,]{{0,2}}(?P<part>לפנות\ בוקר|{_PART}|הערב|הלילה|הבוקר|in\ the\ (?:morning|afternoon|evening)|at\ night|tonight|this\ evening|[ap]\.?m\.?)(?!\w))?
    """,
    re.VERBOSE,
)

# בבוקר, בערב   in the morning, evening
PART_RE = re.compile(
    rf"(?<!\w)(?:לפנות בוקר|{_PART}|הערב|הלילה|הבוקר|morning|afternoon|evening|night|tonight|tonite)(?!\w)"
)
PARTS = {  # by how a part begins: its name, and whether its hours are those after noon
    "לפנות": "morning", "בבוקר": "morning", "הבוקר": "morning", "בצה": "noon", "אח": "afternoon", "בערב": "evening",
    "הערב": "evening", "בלילה": "night", "הלילה": "night", "in the m": "morning", "in the a": "afternoon",
    "in the e": "evening", "at n": "night", "tonig": "night", "tonit": "night", "this e": "evening", "this a": "afternoon",
    "morning": "morning", "afternoon": "afternoon", "evening": "evening", "night": "night", "a": "morning", "p": "afternoon",
}  # fmt: skip


def _prefixed(names: Iterable[str]) -> frozenset[str]:
    return frozenset(prefix + name for name in names for prefix in PREFIXES)


PREFIXES = ("", *"בלמהושכ", "וב", "ול", "שב", "של", "ומ", "שמ", "כש", "וה", "שה", "לה")
# A message holds no words of a kind without one of these.
DAY_WORDS: dict[str, frozenset[str]] = {
    "after_tomorrow": _prefixed(["מחרתיים", "מחרתים"]) | {"after"},
    "tomorrow": _prefixed(["מחר"])
    | {"tomorrow", "tommorow", "tommorrow", "tomorow", "tomoz", "tmrw", "tmr", "tmw", "2moro", "2mrw"},
    "today": _prefixed(["היום", "הערב", "הלילה"]) | {"today", "tonight", "tonite"},
    "this_evening": frozenset({"this"}),
    "saturday_night": _prefixed(['מוצ"ש', "מוצש", "מוצאי"]),
    "hebrew_weekday": _prefixed(["יום", *_HEBREW_DAYS.split("|")]) - _prefixed(["היום"]) - {"היום"},
    "english_weekday": frozenset(name for name in WEEKDAYS if name.isascii()),
    "hebrew_later": _prefixed(["עוד"]) | {"מהיום", "מעכשיו", "ממחר"},
    "english_later": frozenset(f"{unit}{ending}" for unit in ENGLISH_UNITS for ending in ("", "s")),
    "vague": _prefixed(["הבא", "סוף", 'סופ"ש', "סופש"]) | {"next", "weekend"},
}
# Of the kinds with digits, it holds none without such a place; these patterns take a tenth of the time of those above.
SIGNS_IN_DIGITS = {
    "day_of_month": re.compile(r"\d(?:st|nd|rd|th| לחודש)"),
    "month_name": re.compile("|".join(MONTHS)),
    "digits": re.compile(r"\d[./-]\d"),
}
PART_WORDS = _prefixed(
    _words('בבוקר בצהריים בצהרים אחה"צ אחהצ הצהריים הצהרים בערב הערב בלילה הלילה הבוקר בוקר')
) | _words("morning afternoon evening night tonight tonite")
CLOCK_WORDS = (
    _prefixed(name.partition("\\")[0] for name in _HOURS_IN_HEBREW.replace("שתיי?ם", "שתיים|שתים").split("|"))
    | _prefixed(["רבע"])
    | frozenset([*_HOURS_IN_ENGLISH.split("|"), "noon", "midday", "half", "quarter"])
)
KINDS_OF_WORD = {
    word: [kind for kind, its_words in DAY_WORDS.items() if word in its_words]
    for words in DAY_WORDS.values()
    for word in words
}
DATE_WORDS = CLOCK_WORDS | KINDS_OF_WORD.keys()
INSIDE = "/.:-_"  # or a letter or a digit


def _with_and(words: frozenset[str]) -> frozenset[str]:
    return frozenset(prefix + word for word in words for prefix in ("", "ו", "ש"))


# Who tells of what was says no plan: "ביום שישי הייתי אצלה", "on Friday we went".
PAST_WORDS = _with_and(
    _words(
        "אתמול שלשום עשית עשתה עשו עשינו ראית ראתה ראינו הלכת הלכנו הלכה הלכו הלך נסעת נסענו נסעה נסעו נסע חזרת חזרנו",
        "חזרה חזרו חזר הגעת הגענו הגיעה הגיעו הגיע אמרת אמרנו אמרה אמרו אמר קרה נגמרה התחיל התחילה קנית קנה קנו קנינו",
        "קנתה אכלת אכלנו אכלה אכלו אכל שמעת שמענו שמעה שמעו ניצחו ניצחנו הפסידו הפסיד הפסידה נולד נולדה נפטר נפטרה",
        "התחתן התחתנו ירד ירדה ירדו דיברנו דיברה דיברו דיברת נהנית נהנינו היכרנו נפגשנו ישנת ישנו היינו היית הייתם",
        "הייתה היתה היה היו was were did had went saw met came left got took ate said told lost won bought yesterday",
        "ago happened started ended arrived stayed worked visited finished missed called played talked watched",
        "enjoyed returned landed moved",
    )
)
# Words that end like a verb in the past of the first person ("הלכתי") and are none, or arrange what lies ahead.
NOT_PAST = _with_and(
    _words(
        "אותי אחותי חמותי כלתי סבתי דודתי שכנתי בלתי זולתי שנתי תקופתי קבוצתי תרבותי בריאותי אמנותי שגרתי ביקורתי בעייתי",
        "אתי שתי בתי מתי איתי דירתי משפחתי אמיתי ביתי אשתי שבתי כיתתי קבעתי הזמנתי נרשמתי שריינתי חברתי אמיתתי יצירתי",
        "משמעותי איכותי חברותי",
    )
)


def is_past(words: Iterable[str]) -> bool:
    """Tell whether any of these words tells of what was.

    >>> is_past(["ביום", "שישי", "הייתי"]), is_past(["מתי", "ביום", "שישי"])
    (True, False)
    """
    return not PAST_WORDS.isdisjoint(words) or any(
        word[-2:] == "תי" and len(word) > 3 and word not in NOT_PAST for word in words
    )


# What the past does not undo: a day that something was arranged for.
ARRANGED_RE = re.compile(
    r"(?<!\w)(?:[וש]?ה?קבע(?:נו|תי|ת|ו)?|הזמנ(?:תי|נו)|נרשמ(?:תי|נו)|דח(?:ו|ה|ינו|יתי)|נדח(?:ה|תה)|booked|scheduled|moved|postponed|planned|invited|set)(?!\w)"
)
# The word before the words of a day that makes them something else: "every Friday", "all day", "there is no tomorrow".
RECURRING_BEFORE = _words("כל בכל שכל וכל מדי ימי every each all another one any a second other")
NO_DAY_BEFORE = {
    "today": _words("אותו באותו סוף אמצע במשך שאר כמו עד מאז of until since"),
    "tomorrow": _words("אין no never of the"),
    "hebrew_weekday": frozenset(["פעם", "חלק", "סיבוב", "שיר"]),
    "english_weekday": _words("black good cyber ash casual happy super easter palm bloody"),
    "hebrew_later": _words(
        "לי לך לנו להם לו לה לכם נשאר נשארו צריך צריכה צריכים לקח לוקח ייקח יקח תן תני תנו חכה חכי נחכה מחכים יש אין",
        "רוצה דורש הוסיפו עבר עברו הארכתי קיבלתי קיבלנו ל",
    ),
}
NO_DAY_AFTER_RE = {
    "today": re.compile(r" ?(?:ה(?:הולדת|זה|ראשון|שני|אחרון|ההוא)|הולדת|של )"),
    "tomorrow": re.compile(r"(?: never|'s world| הוא יום חדש| יום חדש| is another day)"),
    "hebrew_weekday": re.compile(r" (?:ברציפות|לציון|שלי|שלום|ומבורך|לחודש|בדירוג|בתור|בטבלה|לעונה|מתוך|במשפחה|של )"),
    "english_weekday": re.compile(r" (?:times|vibes?|fever|mood|blues|mornings|afternoons|evenings|nights)"),
    "hebrew_later": re.compile(r" (?:של |כאלה|כזה|עבר|עברה|עד ש?|לפני ש?|אחד|אחת)"),
    "english_later": re.compile(r" (?:ago|of )"),
}
# Between two days: it is not certain which one. "tomorrow or on Friday", "מחר מחרתיים"
OR_RE = re.compile(r"[ ,]{0,2}(?:או|or|\\|/) ?|[ /-]")


def as_number(words: str) -> int:
    """Return the number that digits or a word of NUMBERS stand for.

    >>> as_number("12"), as_number("שמונה")
    (12, 8)
    """
    return int(words) if words.isdecimal() else NUMBERS[words]


def day_matches(plain: str, kind: str, words: Iterable[str]) -> Iterator[re.Match[str]]:
    """Yield where a normalised text, in which `words` are those of DATE_WORDS, names a day in words of `kind`."""
    if kind in DAY_RES:
        yield from DAY_RES[kind].finditer(plain)
    else:
        for word in words:
            if kind in KINDS_OF_WORD.get(word, ()):
                yield from _whole_word(word).finditer(plain)


@lru_cache
def _whole_word(word: str) -> re.Pattern[str]:
    return re.compile(rf"{re.escape(word)}(?!\w)")
