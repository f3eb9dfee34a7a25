"""The patterns of personal identifiers; `redaction` decides what becomes of them.

Every repetition is bounded, so that 60,000 digits, brackets or spaces in a row take linear time.
"""

from __future__ import annotations

import re

# Inside words and numbers of these scripts a joiner or soft hyphen has no meaning, and would hide a value from the rules.
JOINERS = "\u200c\u200d\xad"
MEANINGLESS_JOINER_RE = re.compile(
    rf"(?<=[\w@.+-])(?<![\u0600-\u0e7f])[{JOINERS}]{{1,8}}(?=[A-Za-z0-9@.+\s\-א-ת\u0660-\u0669])"
)
NATIVE_DIGITS = {first + value: str(value) for first in (0x660, 0x6F0, 0x966, 0x9E6, 0xFF10) for value in range(10)}

# Between the digits of one number: spaces, dashes, dots, brackets, underscores, bars, direction marks, keycap emoji.
SEPARATORS = r"[ _|\xa0\u202f\-\u2010-\u2015.()/\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufe0f\u20e3]"
# A message without five such digits in a row has no number to hide but codes.
FIVE_DIGITS_RE = re.compile(rf"\d(?:{SEPARATORS}{{0,3}}\d){{4}}")
# A set of characters takes two thirds of the time of `\d`. Of the scripts beyond U+FFFF it has the mathematical digits alone.
_DIGITS = "".join(filter(str.isdecimal, map(chr, range(0x10000))))
DIGIT_RE = re.compile(f"[{_DIGITS}\U0001d7ce-\U0001d7ff]")

# dan.levi@gmail.com; a Hebrew or Arabic prefix (ל) is not part of the address. With a space before the @ only the name of
# a mail provider tells an address from the mention of a user (hey @dana.levi), and only after a word that may be a name.
EMAIL_RE = re.compile(
    r"""
    (?:
        [^\W\u0590-\u06ff](?:[^\W\u0590-\u06ff]|[.%+'-]){0,63}[@＠]\s?
      | (?<![\w.%+'-])
        (?!(?i:me|at|on|is|it|to|a|an|any|my|your|our|his|her|their|the|this|of|or|and|not|no|with|by|from|for|in|use|using|new|old|hey|hi|e?mail|contact)\s)
        [^\W\u0590-\u06ff](?:[^\W\u0590-\u06ff]|[.%+'-]){0,63}\s[@＠]\s?
        (?=(?i:gmail|googlemail|hotmail|outlook|yahoo|ymail|icloud|walla|bezeqint|netvision|proton|protonmail|gmx|aol|yandex|zoho)\.)
    )
    (?P<domain>(?:[A-Za-z0-9-]{1,63}\.){1,5}[A-Za-z]{2,24})
    """,
    re.VERBOSE,
)
# gmail.com.thanks: only two letters may follow such an ending (gmail.com.br).
END_OF_DOMAIN_RE = re.compile(
    r"\.(?:com|net|org|edu|gov|(?:co|ac|org|gov|net|muni)\.[a-z]{2})(?:\.[a-z]{2}(?![A-Za-z0-9-]))?+(?=\.)",
    re.IGNORECASE,
)

# A token of mixed letters and digits that is no word. The first forms are known by their prefix.
SECRET_RE = re.compile(
    r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----[^-]{0,8000}(?:-----END [A-Z ]{0,40}PRIVATE KEY-----)?"
    r"|(?<![A-Za-z0-9])eyJ[\w-]{8,2000}\.[\w-]{8,4000}(?:\.[\w-]{1,2000})?"
    r"|(?<![A-Za-z0-9])(?:sk|pk|rk|ghp|gho|ghs|hf|npm|glpat|xox[abprs]|github_pat|AKIA|ASIA|AIza)[\w-]{12,200}"
    r"|(?<![A-Za-z0-9_+/=-])[A-Za-z0-9][A-Za-z0-9_+/=-]{19,400}"
)
WALLET_RE = re.compile(
    r"0x[0-9a-fA-F]{40}|(?:bc1|tb1|ltc1)[a-z0-9]{11,87}|[13LMDT][1-9A-HJ-NP-Za-km-z]{24,34}"  # Ether, Bitcoin and kin
)
# GB29 NWBK 6016 1331 9268 19
IBAN_RE = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]{2}\d{2}(?:[ -]?[A-Za-z0-9]){11,30}(?![A-Za-z0-9])")
IP_RE = re.compile(
    r"""
    (?<![\d.])(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)(?![\d.]?\d)   # 192.168.1.20
  | (?<![\w:])(?:[0-9a-f]{1,4}:){3,7}[0-9a-f]{1,4}(?![\w:])                                   # 00:1a:2b:3c:4d:5e
  | (?<![\w:])(?:[0-9a-f]{1,4}:){1,7}(?::[0-9a-f]{1,4}){1,7}(?![\w:])                         # fe80::1ff:fe23
    """,
    re.VERBOSE | re.IGNORECASE,
)
DAY, MONTH, YEAR = r"(?:0?[1-9]|[12]\d|3[01])", r"(?:0?[1-9]|1[0-2])", r"(?:19|20)\d\d"
DATE = rf"""(?:
    (?:{DAY}\s?[-–]\s?)? {DAY}[./-]{MONTH}[./-](?:{YEAR}|\d\d) | {MONTH}[./-]{DAY}[./-](?:{YEAR}|\d\d)   # 30.9.2022, 9/30/22
  | {YEAR}[./-]{MONTH}[./-]{DAY} | {YEAR}\s?[-–/]\s?{YEAR}                                             # 2022-09-30, 2019-2024
  | {YEAR}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01]) | (?:0[1-9]|[12]\d|3[01])(?:0[1-9]|1[0-2]){YEAR}     # 20220930, 30092022
)"""
CURRENCY = r"(?:[₪$€£](?!\d)|%|ש[\"״]?ח\b|שקל|דולר|יורו|אלף|מיליון|NIS\b|ILS\b|USD\b|EUR\b|GBP\b|shekel|dollar|euro|buck|pound|k\b)"
AMOUNT = r"(?:\d{1,3}(?:,\d{3}){1,3}|\d{1,7})(?:\.\d{1,2})?"
NUMBER_RE = re.compile(
    rf"""
    (?P<keep>(?<!\d)(?<!\d[./-])(?:
        {DATE}(?:\s?[-–]\s?{DATE})?(?![./-]?\d)
      | \d{{1,2}}:\d{{2}}(?::\d{{2}})?(?!\d)                                                  # 18:30
      | {AMOUNT}(?:(?:-|\s-\s){AMOUNT})?\s?{CURRENCY}                                             # 12500 ₪, 1500-2000 NIS
      | (?<=[₪$€£])(?<!\d[₪$€£])(?<!\d\s[₪$€£])\s?{AMOUNT}(?![\d-])                           # ₪12500, not 250 ₪12500
      | (?<=[₪$€£]\s)(?<!\d[₪$€£]\s)(?<!\d\s[₪$€£]\s){AMOUNT}(?![\d-])
      | \d{{1,3}}(?:,\d{{3}}){{1,6}}(?![\d,])                                                    # 1,250,000
    ))
  | (?P<place>-?\d{{1,3}}\.\d{{4,}},\s?-?\d{{1,3}}\.\d{{4,}})                                 # 32.0853, 34.7818
  | [+(]?\d(?:{SEPARATORS}{{0,3}}\d)*(?:\ufe0f?\u20e3)?
    """,
    re.VERBOSE,
)

S = SEPARATORS + "{0,3}"
# A phone or card number with line breaks where it has gaps: 052-123 / 4567, 4580 1234 / 5678 9012
SPLIT_OVER_LINES_RE = re.compile(
    r"(?<![\d+])(?:(?:\+?972[ \n-]{0,3}|0)(?:[57]\d|[23489])[ \n-]{0,3}\d{3}[ \n-]{0,3}\d{4}"
    r"|(?P<card>\d{4}[ -]\d{4}\n\d{4}[ -]\d{4}))(?!\d)"
)
# 052-1234567, +972 52 123 4567, 03-1234567, also in pairs; also numbers that are not assigned, so not in phonenumbers.
ISRAELI_PHONE_RE = re.compile(
    rf"(?<!\d)(?:(?:\+{S}|00{S})?9{S}7{S}2{S}(?:0{S})?|\(?0{S})(?:[57]{S}\d|[23489]){S}\d(?:{S}\d){{6}}(?!\d)"
    rf"|(?<!\d)1{S}[78]00(?:{S}\d){{6}}(?!\d)"
)
# 020 7946 0958: a number with a leading zero is no quantity, in any country.
NATIONAL_PHONE_RE = re.compile(rf"(?<!\d)\(?0(?:{S}\d){{8,10}}(?!\d)")
FOREIGN_PHONE_RE = re.compile(rf"(?:\+|(?<!\d)00{S}(?=[1-9]))\d(?:{S}\d){{6,14}}(?!\d)")
CARD_RE = re.compile(r"(?<!\d)(?:\d{4}([ -])\d{4}\1\d{4}\1\d{1,7}|\d{4}([ -])\d{6}\2\d{4,5}|\d{13,19})(?!\d)")
ID_RE = re.compile(r"(?<!\d)(?:\d{9}|\d{8}[ -]\d|\d{3}([ -])\d{3}\1\d{3}|\d-\d{7}-\d)(?!\d)")
LONG_RUN_RE = re.compile(r"(?:(?<!\d)\d{1,10}\.)?\d{5,}")
JOINED_RE = re.compile(r"(?<!\d)\d+(?:[-.\u2010-\u2015]\d+)+(?!\d)")  # 555-0123, 12-345-67
MIN_JOINED_DIGITS = 7

# Cheap tests before the expressions below. A text without any of CODE_WORDS, in lower case, matches neither CODE_WORD_RE
# nor PASSWORD_RE. LATIN_HINTS are those of them, and the word zero, that a text without a digit may tell a value with.
LATIN_HINTS = ("pass", "pwd", "code", "pin", "otp", "zero")
CODE_WORDS = ("קוד", "סיסמ", "אימות", "כספת", "פין", "code", "pass", "pin", "otp", "cvv", "cvc", "pwd")
CODE_WORD_RE = re.compile(
    r"(?<!\w)(?:[והבלמשכ]{0,3}(?:קוד|סיסמ[הא]|סיסמת|אימות|כספת|פין)\w{0,3}"
    r"|(?:pass|door|zip|post|gate)?codes?|passwords?|pass(?:wd|phrase)?|pwd|pin|otp|cvv2?|cvc)(?!\w)",
    re.IGNORECASE,
)
CODE_TOKEN_RE = re.compile(
    r"(?<![A-Za-z0-9.,:/])(?:\d{3}[ -]\d{3,4}(?!\w)|[A-Za-z0-9@#$%&*!_-]{3,24})(?![\w:/]|[.,]\d)"
)
CODE_REACH_CHARS = 30  # between the word and the code
MAX_CODE_CHARS = 24
PASSWORD_RE = re.compile(
    r"(?:(?<![A-Za-z])pass(?:word|code|wd)?|(?<![A-Za-z])pwd|סיסמ[הא]|סיסמת)(?:\w{0,3}[^\n:=\w]{0,3}\w{0,12}){0,2}?"
    r"(?:\s{0,2}[:=]\s{0,3}|\s(?:is|היא|הוא|זה|זו)\s(?=\S{0,40}[A-Za-z\d@#$%&*!]))(?P<secret>[^\s\[\]]{3,64})",
    re.IGNORECASE,
)
NO_PASSWORD_RE = re.compile(  # what follows "the password is" in plain sentences
    r"(?:wrong|not|the|too|very|same|correct|right|ok|okay|fine|still|required|weak|strong|easy|hard|long|short|on|in|what|an?|my"
    r"|your|saved|stored|written|changed|expired|invalid|incorrect|bad|good|so|really|always|also|just|now|somewhere|here|there|safe)\Z",
    re.IGNORECASE,
)
YEAR_RE = re.compile(rf"{YEAR}\Z")
