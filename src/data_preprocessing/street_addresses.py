"""Street addresses in a message, found by what stands around a street's name and number.

A word for street (`street_re`), a flat or a floor (`Herzl 14 apartment 6`, `apartment 6, 14 Herzl`), or words such as
"I live at" tell an address; a name and a number alone do not. Words that are no street's name before such a number (room,
bus, tomorrow) are listed. Every repetition is bounded, so that hostile text takes linear time.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache

# Cheap tests before the expressions below: a text without any of these, in lower case, matches none of them but STREET_RE.
UNIT_WORDS = ("דיר", "קומה", "כניסה", "ד'", "ד׳", "כנ'", "כנ׳", "ap", "flat", "unit", "suite", "floor", "entrance")
SAYING_WORDS = ("גר", "כתובת", "liv", "address")

_GAP = r"(?:\s{0,2}[,(\u2013-]\s{0,2}|\s{1,2})"  # between the parts of an address

# ---- Hebrew ----------------------------------------------------------------------------------------------------------

_HEBREW_LETTER = r"[א-ת\"'׳״-]"
# No name of a street, also after a preposition: בקומה 14, מחר 9 דירה 6, דירה 6 שילמה 200
_NO_HEBREW_NAME = r"""(?:
    דירה | דירת | דירות | קומה | קומות | כניסה | בניין | בנין | בית | בתים | בלוק | גוש | חלקה | אגף | מחלקה | מעלית | חדר | חדרים | משרד
  | חניה | חנייה | חניון | מחסן | שער | אולם | כיתה | שורה | כיסא | מושב | עמדה | דלפק | מדף | ארון | תא | מספר | מס['׳]? | קו | אוטובוס | רכבת
  | רציף | תחנה | טרמינל | יציאה | מחלף | כביש | שיעור | פרק | עמוד | שאלה | תרגיל | סעיף | דף | גיל | בן | בת | בני | רמה | שלב | ערוץ | חלק
  | עונה | משחק | מבחן | יום | שבת | ראשון | שני | שלישי | רביעי | חמישי | שישי | מחר | היום | אתמול | הערב | הלילה | בערב | בוקר | צהריים
  | שעה | דקה | דקות | שנה | שנים | חודש | שבוע | פעם | פעמים | עוד | יש | אין | היו | היה | הייתה | היינו | יהיו | לי | לך | לו | לה | לנו | לכם | להם
  | אני | אתה | את | אתם | הוא | היא | אנחנו | הם | הן | זה | זאת | זו | אלה | כל | רק | גם | או | אם | כי | כבר | בערך | כמעט | לפחות | עד | עם | בלי
  | של | על | אל | ליד | מול | אחרי | לפני | בין | כמו | יותר | פחות | הכי | מאוד | ממש | אולי | נגיד | בסוף | שם | פה | כאן | לבד | ביחד
  | ראינו | ראיתי | קנינו | קניתי | קנה | קנתה | מכרו | שכרנו | שכרתי | שילמה | שילם | שילמו | שילמנו | משלם | משלמת | משלמים | עולה | עולים
  | עלתה | עלה | נשאר | נשארו | נשארה | צריך | צריכה | צריכים | חייב | חייבת | רוצה | רוצים | קיבלה | קיבל | קיבלנו | תשלום | מחיר | שכירות | ועד
  | ריקה | תפוסה | קונים | קונה | שוכר | שוכרת | שוכרים | שכן | שכנה | שכנים | ישיבה | פגישה | כנס | זום | סניף | חנות | מרפאה | מגדל | מקום | מפנים | מפנה | אנשים | איש | ילדים | שותפים | דיירים | בנות | בנים | מטר | שקל | אחוז | סך | סה["״]כ | בסך | תעלה | תעלו | עולים | גר | גרה | גרים
)"""
# What is counted after a number that is none of a house: 14 שנים, 5 דקות
_COUNTED_IN_HEBREW = (
    r"(?:שנ|חודש|שבוע|יום|ימי|דק|שעה|שעות|מטר|קילו|ק[\"״]?מ|מ[\"״]ר|איש|אנשי|שקל|ש[\"״]?ח|אלף|אחוז|פעמ|חדר|קומות|דירות|ילד|"
    r"בנות|בנים|שותפ|כלב|חתול|תחנ|מעלות|נקודות|מדרגות)"
)
# The first word of names of two: בן יהודה, דוד המלך. Other first words stay in the text: they may be no part of the name.
_TWO_HEBREW_WORDS = rf"""(?:
    (?:בן|אבן|אבא|קרן|המלך|קינג|עמק|דרך|הרב|רבי|נחלת|נווה|גבעת|שער|בעל|עולי|שבטי|אנשי|חובבי|יד|רמת)\s
    (?!(?:דירה|קומה|כניסה|בניין)(?!\w)){_HEBREW_LETTER}{{2,20}}
  | אחד\sהעם | יהודה\sהלוי | (?:דוד|שלמה|שאול)\sהמלך | משה\s(?:דיין|שרת|הס) | יצחק\s(?:רבין|שדה) | מנחם\sבגין | חנה\sסנש | שלום\sעליכם
  | לוי\sאשכול | גולדה\sמאיר | זלמן\sשזר | יגאל\sאלון | חיים\s(?:ויצמן|לבנון)
)"""
_ANY_HEBREW_WORD = rf"[א-ת]{_HEBREW_LETTER}{{1,19}}"
_HEBREW_WORD = rf"(?![בלמוהש]{{0,2}}{_NO_HEBREW_NAME}(?!\w)){_ANY_HEBREW_WORD}"
# Streets that most towns have. A floor or an entrance tells an address only after one of them, for offices and shops have both.
_KNOWN_STREETS = (
    "הרצל|ז['׳]בוטינסקי|ויצמן|רוטשילד|סוקולוב|ביאליק|בלפור|ארלוזורוב|הנביאים|אלנבי|דיזנגוף|קפלן|הירקון|שינקין|רמב[\"״]ם|בוגרשוב|פרישמן|בגין|"
    'רבין|ברנר|טרומפלדור|נורדאו|אוסישקין|הנשיא|העצמאות|ההסתדרות|הגפן|הזית|הרצוג|בורוכוב|רמז|קק["״]ל|דיין|טשרניחובסקי|המסגר|הברזל|הארבעה|'
    "herzl|jabotinsky|weizmann|rothschild|sokolov|bialik|balfour|arlozorov|allenby|dizengoff|kaplan|hayarkon|sheinkin|begin|rabin|nordau"
)
_KNOWN = rf"(?i:{_KNOWN_STREETS})(?!\w)"
# The start of a name. The preposition stays: בהרצל 14 becomes ב[ADDRESS].
_HEBREW_START = rf"(?<!\w)(?<![א-ת][\"'׳״])(?!(?![בלמ]?{_TWO_HEBREW_WORDS})[בלמוהש]{{0,2}}{_NO_HEBREW_NAME}(?!\w))(?P<before>[בלמ])?"
_HOUSE = r"(?:מספר\s|מס['׳]\s)?\d{1,3}(?:\s?[א-ת]['׳]?(?!\w))?(?:/\d{1,3})?(?![\w/]|[.,:]\d)"
_HEBREW_UNIT_NUMBER = rf"(?:\s(?:מספר|מס['׳]))?\s?(?:\d{{1,3}}|[א-ת]['׳]?)(?![\w/]|[.,:]\d)(?!\s{_COUNTED_IN_HEBREW})"
_HEBREW_FLAT = rf"(?:דירה|דירת|ד['׳]){_HEBREW_UNIT_NUMBER}"
_HEBREW_UNIT = rf"(?:דירה|דירת|ד['׳]|קומה|כניסה|כנ['׳]){_HEBREW_UNIT_NUMBER}"
_HEBREW_UNITS = rf"{_HEBREW_UNIT}(?:{_GAP}{_HEBREW_UNIT}){{0,2}}"
_HEBREW_UNITS_WITH_FLAT = rf"(?:{_HEBREW_UNIT}{_GAP}){{0,2}}{_HEBREW_FLAT}(?:{_GAP}{_HEBREW_UNIT}){{0,2}}"

# ---- English ---------------------------------------------------------------------------------------------------------

_NO_ENGLISH_NAME = r"""(?i:
    the|a|an|my|your|our|his|her|their|this|that|these|those|its?|in|on|at|of|from|to|and|or|for|with|by|about|around|over|under|only|just|like
  | i|you|he|she|we|they|is|are|was|were|be|been|have|has|had|do|did|got|get|saw|see|seen|buy|bought|sold|rent|rented|need|want|paid|pay|cost|costs
  | apartments?|apt|flats?|units?|suites?|floors?|entrances?|buildings?|rooms?|bedrooms?|beds?|gates?|terminals?|platforms?|tracks?|bus|buses|line|lines
  | trains?|level|levels|page|pages|chapter|lesson|question|exercise|part|section|step|version|channel|season|episode|game|match|test|exam|class|grade
  | table|seat|row|door|doors|locker|number|no|nr|block|wing|ward|lift|elevator|stairs|parking|lot|exit|highway|route|hall|studio|office|offices|desk
  | iphone|ipad|galaxy|windows|player|team|group|day|days|week|weeks|month|months|year|years|hours?|minutes?|mins?|seconds?|am|pm|today|tomorrow
  | yesterday|tonight|morning|evening|noon|monday|tuesday|wednesday|thursday|friday|saturday|sunday|january|february|march|april|may|june|july
  | august|september|october|november|december|jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec|people|persons?|men|women|kids|guys|times?|percent
  | now|soon|later|right|max|again|ok|okay|please|thanks|lol|sharp|exactly|anyway|homework|meetings?|conference|store|shop|tower|mall|ikea
  | dollars?|shekels?|euros?|pounds?|bucks|meters?|metres?|km|miles?|kg|big|small|nice|new|old|star|story|storey|more|less|than|all|each|every|some
  | top|first|second|third|last|next|age|aged|size|score|than|then|there|here|when|maybe|another|same|different
)"""
_COUNTED_IN_ENGLISH = (
    r"(?i:(?:years?|months?|weeks?|days?|hours?|minutes?|mins?|seconds|times|people|percent|pages?|meters?|metres?|km|miles?|"
    r"dollars?|shekels?|euros?|pounds?|rooms?|bedrooms?|am|pm|k)\b|%)"
)
_ENGLISH_WORD = rf"(?!{_NO_ENGLISH_NAME}\b)[A-Za-z][A-Za-z'’-]{{1,20}}"
_CAPITAL_WORD = rf"(?!{_NO_ENGLISH_NAME}\b)[A-Z][A-Za-z'’-]{{1,20}}"
# Two words only inside a sentence: at its start, the first of them may be any word.
_NO_FIRST_WORD = r"(?:Send|Come|Meet|Bring|Deliver|Go|Try|Call|Ask|Take|Near|Live|Address|Ok|Yes|No|Hi|Hey|So|Ring)\b"
_CAPITAL_NAME = rf"(?:(?!{_NO_FIRST_WORD}){_CAPITAL_WORD}\s)?{_CAPITAL_WORD}"
_ENGLISH_HOUSE = r"\d{1,4}[A-Za-z]?(?![\w/%]|[.,:]\d)"
_ENGLISH_FLAT = (
    r"(?i:apartment|apt\.?|flat)\s?(?:no\.?\s|number\s|\#\s?)?(?:\d{1,4}[A-Za-z]?|[A-H])"
    rf"(?![\w/%]|[.,:]\d)(?!\s{_COUNTED_IN_ENGLISH})"
)
_ENGLISH_UNIT = (
    r"(?:(?i:apartment|apt\.?|flat|unit|suite|floor)\s?(?:no\.?\s|number\s|\#\s?)?(?:\d{1,4}[A-Za-z]?|[A-H])|(?i:entrance)\s(?:\d{1,2}|[A-Ha-h]))"
    rf"(?![\w/%]|[.,:]\d)(?!\s{_COUNTED_IN_ENGLISH})"
)
_ENGLISH_UNITS = rf"{_ENGLISH_UNIT}(?:{_GAP}{_ENGLISH_UNIT}){{0,2}}"
_ENGLISH_UNITS_WITH_FLAT = rf"(?:{_ENGLISH_UNIT}{_GAP}){{0,2}}{_ENGLISH_FLAT}(?:{_GAP}{_ENGLISH_UNIT}){{0,2}}"
_ENDS_HERE = r"(?=\s{0,3}(?:[.,!?;)\n]|\Z))"

# ---- Both ------------------------------------------------------------------------------------------------------------

_UNITS_AFTER = rf"(?:{_GAP}(?:{_HEBREW_UNITS}|{_ENGLISH_UNITS}))?"

STREET_RE = re.compile(
    rf"""
    (?P<before>(?<![\w])[ובלמהש]{{0,3}})
    (?:רחוב|רח['׳]|שדרות|שד['׳]|סמטת|סמ['׳]|כיכר)\s{{1,3}}                            # רחוב הרצל 10
    (?:(?!(?:היו|היה|יש|עם|של|לפני|אחרי|בערך|כל|רק|עוד|ליד|אין|זה|הזה|עד)\s)[א-ת"'׳״-]{{2,20}}\s{{1,3}}){{1,3}}
    (?!\d{{1,4}}\s{_COUNTED_IN_HEBREW})\d{{1,4}}[א-ת]?(?!\w){_UNITS_AFTER}
  | (?<![\w.,:])\d{{1,5}}[A-Za-z]?\s{{1,3}}                                              # 12 Baker Street
    (?i:(?:(?!(?:the|down|up|my|this|our|that|your|a|an|in|on|of|from|to|and|minutes?|people|more|blocks?|hours?|meters?)\s)
    [A-Z][\w'.-]{{1,20}}\s{{1,3}}){{1,3}}
    (?:street|st|avenue|ave|road|rd|boulevard|blvd|lane|ln|drive|court|square)\b){_UNITS_AFTER}
    """,
    re.VERBOSE,
)
# Herzl 14 apartment 6, 14 Herzl apartment 6
_NAME_HOUSE_UNIT = (
    (
        rf"{_HEBREW_START}(?:(?:{_TWO_HEBREW_WORDS}|{_ANY_HEBREW_WORD})\s{{1,2}}{_HOUSE}{_GAP}{_HEBREW_UNITS_WITH_FLAT}"
        rf"|(?:{_TWO_HEBREW_WORDS}|{_KNOWN})\s{{1,2}}{_HOUSE}{_GAP}{_HEBREW_UNITS}"
        rf"|(?<!\d\s){_HOUSE}\s{{1,2}}(?:{_TWO_HEBREW_WORDS}|{_KNOWN}){_GAP}{_HEBREW_UNITS})"
    ),
    (
        rf"(?<![\w.'-])(?:(?:{_CAPITAL_NAME}|{_ENGLISH_WORD})\s{{1,2}}{_ENGLISH_HOUSE}{_GAP}{_ENGLISH_UNITS_WITH_FLAT}"
        rf"|{_KNOWN}\s{{1,2}}{_ENGLISH_HOUSE}{_GAP}{_ENGLISH_UNITS})"
    ),
    (
        rf"(?<![\w.,:/-]){_ENGLISH_HOUSE}\s{{1,2}}(?:{_CAPITAL_NAME}{_GAP}{_ENGLISH_UNITS}"
        rf"|{_ENGLISH_WORD}(?=,|[^\n]{{1,24}}{_ENDS_HERE}){_GAP}{_ENGLISH_UNITS_WITH_FLAT})"
    ),
)
# apartment 6, 14 Herzl
_UNIT_NAME_HOUSE = (
    (
        rf"(?<!\w)(?P<before>[בלמ])?{_HEBREW_UNITS}"
        rf"(?:(?:,\s{{0,2}}[בל]?|\s{{1,2}}ב)(?:{_TWO_HEBREW_WORDS}|{_HEBREW_WORD})|\s{{1,2}}(?:{_TWO_HEBREW_WORDS}|{_KNOWN}))"
        rf"\s{{1,2}}{_HOUSE}(?!\s{_COUNTED_IN_HEBREW})"
        rf"|(?<!\w){_HEBREW_UNITS}{_GAP}{_HOUSE}\s{{1,2}}(?:{_TWO_HEBREW_WORDS}|{_KNOWN})"
    ),
    (
        rf"(?<!\w){_ENGLISH_UNITS}(?:,\s{{0,2}}(?:(?:at|on|in)\s)?|\s(?:at|on|in)\s|\s(?={_KNOWN}|\d{{1,4}}\s))"
        rf"(?:{_CAPITAL_NAME}\s{{1,2}}{_ENGLISH_HOUSE}|{_KNOWN}\s{{1,2}}{_ENGLISH_HOUSE}|{_ENGLISH_HOUSE}\s{{1,2}}{_CAPITAL_NAME}"
        rf"|{_ENGLISH_HOUSE}\s{{1,2}}{_ENGLISH_WORD}{_ENDS_HERE})(?!\s{_COUNTED_IN_ENGLISH})"
    ),
)
# I live at 14 Herzl
_SAID = (
    (
        rf"(?P<said>(?<!\w)(?:גרה?|גרים|גרות|מתגורר(?:ת|ים)?|ל?כתובת|הכתובת)(?:\s(?:שלי|שלנו|שלו|שלה|היא|זה))?[:\s]{{1,3}})"
        rf"{_HEBREW_START}(?:{_TWO_HEBREW_WORDS}|{_ANY_HEBREW_WORD}(?:\s{_HEBREW_WORD}){{0,2}})"
        rf"\s{{1,2}}{_HOUSE}(?!\s{{0,2}}{_COUNTED_IN_HEBREW}|\s[א-ת]{{2,12}}(?:ים|ות)(?!\w))"
    ),
    (
        r"(?P<said>(?i:\b(?:liv(?:e|es|ed|ing)\s(?:at|on)|(?:my|our|the|his|her|their|new)\saddress(?:\sis)?:?|address:))\s{1,2})(?P<before>)"
        rf"(?:{_ENGLISH_HOUSE}\s{{1,2}}{_CAPITAL_NAME}|{_CAPITAL_NAME}\s{{1,2}}{_ENGLISH_HOUSE}"
        rf"|{_ENGLISH_HOUSE}\s{{1,2}}{_ENGLISH_WORD}{_ENDS_HERE})(?!\s{{0,2}}{_COUNTED_IN_ENGLISH})"
    ),
)


@cache
def _compiled(expressions: tuple[str, ...]) -> list[re.Pattern[str]]:
    """Compile `expressions` when a text first needs them: all of them take 50 ms."""
    return [re.compile(expression, re.VERBOSE) for expression in expressions]


def hide_addresses(text: str, lowered: str, hide: Callable[[], str]) -> str:
    """Replace each address of `text` by what `hide` returns; `lowered` is `text` in lower case.

    >>> hide_addresses("I am at 14 Herzl, apt. 6 now", "i am at 14 herzl, apt. 6 now", lambda: "[ADDRESS]")
    'I am at [ADDRESS] now'
    """

    def replace(match: re.Match[str]) -> str:
        groups = match.groupdict()
        return (groups.get("said") or "") + (groups.get("before") or "") + hide()

    text = STREET_RE.sub(replace, text)
    for word in UNIT_WORDS:  # any() with a generator takes three times as long
        if word in lowered:
            for expression in _compiled(_NAME_HOUSE_UNIT + _UNIT_NAME_HOUSE):
                text = expression.sub(replace, text)
            break
    for word in SAYING_WORDS:
        if word in lowered:
            for expression in _compiled(_SAID):
                text = expression.sub(replace, text)
            break
    return text
