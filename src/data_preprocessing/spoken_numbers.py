"""Codes and long numbers that are said in words: "the code is four seven one two", "הקוד הוא ארבע שבע אחת שתיים".

Three words for numbers in a row are a code only beside a word for code; seven in a row are a number anywhere, unless
somebody counts. Every repetition is bounded, so that hostile text takes linear time.
"""

from __future__ import annotations

import re
from collections.abc import Callable

_VALUES = {
    0: "zero oh nought אפס",
    1: "one אחת אחד",
    2: "two שתיים שתים שניים",
    3: "three שלוש שלושה",
    4: "four ארבע ארבעה",
    5: "five חמש חמישה",
    6: "six שש שישה ששה",
    7: "seven שבע שבעה",
    8: "eight שמונה",
    9: "nine תשע תשעה",
    10: "ten עשר עשרה",
}
_LARGER_WORDS = (
    "eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty "
    "ninety hundred thousand double triple שלושת ארבעת חמשת ששת שבעת שמונת תשעת עשרים שלושים ארבעים חמישים שישים ששים שבעים שמונים תשעים מאה מאות אלף אלפים כפול"
)
VALUE_OF_WORD = {word: value for value, words in _VALUES.items() for word in words.split()}
_WORD = rf"(?:{'|'.join(sorted([*VALUE_OF_WORD, *_LARGER_WORDS.split()], key=len, reverse=True))}|(?<![.:/])\d(?![.:/]\d|/))(?!\w)"
_BETWEEN = r"[\s,.\-\u2013־]{1,3}(?:and\s|(?:and\s)?then\s|ואז\s|ו(?=[א-ת]))?"
SPOKEN_CODE_RE = re.compile(rf"(?<![\w-])ו?{_WORD}(?:{_BETWEEN}{_WORD}){{2,30}}", re.IGNORECASE)
SPOKEN_NUMBER_RE = re.compile(rf"(?<![\w-])ו?{_WORD}(?:{_BETWEEN}{_WORD}){{6,30}}", re.IGNORECASE)
# Between the word for code and a spoken code: the code for the door is, הקוד לדלת הוא
_TO_CODE_RE = re.compile(
    r"\W{0,3}(?:(?:is|are|was|its|it's|to|for|of|on|the|my|our|your|new|old|still|now|changed|here|door|gate|house|building|safe|phone|card|bank|lock"
    r"|alarm|access|entry|wifi|number|"
    r"הוא|היא|זה|זו|עכשיו|עדיין|החדש|החדשה|הישן|שלי|שלנו|שלך|שלו|שלה|של|כניסה|[לה][א-ת\"'׳]{2,12})\W{1,3}){0,6}",
    re.IGNORECASE,
)
# The code that you asked for is; however far, a sentence does not end between
_SAYS_RE = re.compile(r"[^.!?\n]*(?:[:=]|['’]s|\b(?:is|הוא|היא|זה|זו|to))\W{0,3}", re.IGNORECASE)
# Between a spoken code and the word for code after it: seven seven one two is the code, ארבע שבע אחת שתיים זה הקוד
_IS_THE_RE = re.compile(
    r"[,.]?\s(?:is|was|this\sis|that['’]?s|it['’]?s|זה|הוא|היא)\s(?:(?:the|my|your|our)\s(?:[A-Za-z]{1,10}\s)?)?",
    re.IGNORECASE,
)
MAX_IS_THE_CHARS = 24
MAX_GAP_CHARS = 45
MAX_CODE_WORD_CHARS = 15

# Cheap tests before the expressions. A long number nearly always contains a zero.
MIN_CHARS = 14
ZEROS = ("אפס", "zero")


def find_spoken_codes(text: str, code_word_re: re.Pattern[str]) -> list[tuple[int, int]]:
    """Return the spans of `text` that are a code said in words beside a match of `code_word_re`.

    A code may begin some words after it, or stand before it as in "four seven one two is the code". Counting
    (one two three) is a code only where the text says so: "the code is one two three four".
    """
    spans = []
    for code in SPOKEN_CODE_RE.finditer(text):
        start, end = code.span()
        is_counting = _is_counting(code[0])
        for word in code_word_re.finditer(text, max(0, start - MAX_GAP_CHARS - MAX_CODE_WORD_CHARS), start):
            gap = text[word.end() : start]
            if _SAYS_RE.fullmatch(gap) or (not is_counting and _TO_CODE_RE.fullmatch(gap)):
                spans.append((start, end))
                break
        else:
            word_after = code_word_re.search(text, end, end + MAX_IS_THE_CHARS + MAX_CODE_WORD_CHARS)
            if word_after and not is_counting and _IS_THE_RE.fullmatch(text, end, word_after.start()):
                spans.append((start, end))
    return spans


def hide_spoken_numbers(text: str, hide: Callable[[], str]) -> str:
    """Replace each row of seven or more words for numbers by what `hide` returns, but not somebody's counting.

    >>> hide_spoken_numbers("call zero five two one eight six four", lambda: "[NUMBER]")
    'call [NUMBER]'
    """
    return SPOKEN_NUMBER_RE.sub(lambda match: match[0] if _is_counting(match[0]) else hide(), text)


def _is_counting(words: str) -> bool:
    values = [VALUE_OF_WORD.get(word, VALUE_OF_WORD.get(word[1:])) for word in re.findall(r"\w+", words.lower())]
    steps = [
        abs(following - value)
        for value, following in zip(values, values[1:], strict=False)
        if value is not None and following is not None
    ]
    return 2 * steps.count(1) > len(steps)
