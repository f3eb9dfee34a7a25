"""Personal identifiers in a message -> typed placeholders such as [PHONE], for both speakers.

Recall first: a check digit chooses the label, not whether to hide, and any other run of five or more digits that is no
time, date or price becomes [NUMBER]. Times, dates, prices, years and scores stay, and so do names: there is no model
here that would know them; a user's own word list hides those that matter. Addresses are found only by street and number.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from itertools import islice

from message_filters import LINK_RE

# What may stand between the digits of one number: spaces, dashes, dots, brackets, direction marks, keycap emoji.
SEPARATORS = r"[ \xa0\u202f\-\u2010-\u2015.()/\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufe0f\u20e3]"
FIVE_DIGITS_RE = re.compile(
    rf"\d(?:{SEPARATORS}{{0,3}}\d){{4}}"
)  # a message without has no number to hide, except codes
DIGIT_RE = re.compile(r"\d")

EMAIL_RE = re.compile(
    r"[A-Za-z0-9](?:[A-Za-z0-9._%+'-]{0,63}|[^\W\u0590-\u06ff]{0,63})\s?@\s?(?:[A-Za-z0-9-]{1,63}\.){1,5}[A-Za-z]{2,24}"
)

# A token that is no word: letters and digits mixed. The first forms are known by how they begin.
SECRET_RE = re.compile(
    r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----[^-]{0,8000}(?:-----END [A-Z ]{0,40}PRIVATE KEY-----)?"
    r"|(?<![A-Za-z0-9])eyJ[\w-]{8,2000}\.[\w-]{8,4000}(?:\.[\w-]{1,2000})?"
    r"|(?<![A-Za-z0-9])(?:sk|pk|rk|ghp|gho|ghs|hf|npm|glpat|xox[abprs]|github_pat|AKIA|ASIA|AIza)[\w-]{12,200}"
    r"|(?<![A-Za-z0-9_+/=-])[A-Za-z0-9][A-Za-z0-9_+/=-]{19,400}"
)
WALLET_RE = re.compile(
    r"0x[0-9a-fA-F]{40}|(?:bc1|tb1|ltc1)[a-z0-9]{11,87}|[13LMDT][1-9A-HJ-NP-Za-km-z]{24,34}"  # Ether, Bitcoin and kin
)
IBAN_RE = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]{2}\d{2}(?:[ -]?[A-Za-z0-9]){11,30}(?![A-Za-z0-9])")
IP_RE = re.compile(
    r"(?<![\d.])(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)(?![\d.]?\d)"
    r"|(?<![\w:])(?:[0-9a-fA-F]{1,4}:){3,7}[0-9a-fA-F]{1,4}(?![\w:])|(?<![\w:])(?:[0-9a-fA-F]{1,4}:){1,7}(?::[0-9a-fA-F]{1,4}){1,7}(?![\w:])"
)
ADDRESS_RE = re.compile(
    r"""
    (?P<before>(?<![\w])[ובלמהש]{0,3})
    (?:רחוב|רח['׳]|שדרות|שד['׳]|סמטת|סמ['׳]|כיכר)\s{1,3}                            # רחוב הרצל 10
    (?:(?!(?:היו|היה|יש|עם|של|לפני|אחרי|בערך|כל|רק|עוד|ליד|אין|זה|הזה|עד)\s)[א-ת"'׳״-]{2,20}\s{1,3}){1,3}\d{1,4}[א-ת]?(?!\w)
  | (?<![\w.,:])\d{1,5}[A-Za-z]?\s{1,3}                                              # 12 Baker Street
    (?:(?!(?:the|down|up|my|this|our|that|your|a|an|in|on|of|from|to|and|minutes?|people|more|blocks?|hours?|meters?)\s)[A-Za-z][\w'.-]{1,20}\s{1,3}){1,3}
    (?:street|st|avenue|ave|road|rd|boulevard|blvd|lane|ln|drive|court|square)\b
    """,
    re.VERBOSE | re.IGNORECASE,
)

DAY, MONTH, YEAR = r"(?:0?[1-9]|[12]\d|3[01])", r"(?:0?[1-9]|1[0-2])", r"(?:19|20)\d\d"
DATE = rf"""(?:
    (?:{DAY}\s?[-–]\s?)? {DAY}[./-]{MONTH}[./-](?:{YEAR}|\d\d) | {MONTH}[./-]{DAY}[./-](?:{YEAR}|\d\d)   # 30.9.2022, 9/30/22
  | {YEAR}[./-]{MONTH}[./-]{DAY} | {YEAR}\s?[-–/]\s?{YEAR}                                             # 2022-09-30, 2019-2024
  | {YEAR}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01]) | (?:0[1-9]|[12]\d|3[01])(?:0[1-9]|1[0-2]){YEAR}     # 20220930, 30092022
)"""
CURRENCY = r"(?:₪|\$|€|£|%|ש[\"״]?ח\b|שקל|דולר|יורו|אלף|מיליון|NIS\b|ILS\b|USD\b|EUR\b|GBP\b|shekel|dollar|euro|buck|pound|k\b)"
AMOUNT = r"(?:\d{1,3}(?:,\d{3}){1,3}|\d{1,7})(?:\.\d{1,2})?"
NUMBER_RE = re.compile(
    rf"""
    (?P<keep>(?<!\d)(?<!\d[./-])(?:
        {DATE}(?:\s?[-–]\s?{DATE})?(?![./-]?\d)
      | \d{{1,2}}:\d{{2}}(?::\d{{2}})?(?!\d)                                                  # 18:30
      | {AMOUNT}(?:\s?-\s?{AMOUNT})?\s?{CURRENCY}                                             # 12500 ₪, 1500-2000 NIS
      | (?<=[₪$€£])\s?{AMOUNT}(?![\d-]) | (?<=[₪$€£]\s){AMOUNT}(?![\d-])                      # ₪12500
      | \d{{1,3}}(?:,\d{{3}})+(?![\d,])                                                       # 1,250,000
    ))
  | (?P<place>-?\d{{1,3}}\.\d{{4,}},\s?-?\d{{1,3}}\.\d{{4,}})                                 # 32.0853, 34.7818
  | [+(]?\d(?:{SEPARATORS}{{0,3}}\d)*
    """,
    re.VERBOSE,
)

S = SEPARATORS + "{0,3}"
# 052-1234567, +972 52 123 4567, 03-1234567, also spelled in pairs; invented ones too, which a table of ranges would miss.
ISRAELI_PHONE_RE = re.compile(
    rf"(?<!\d)(?:(?:\+{S}|00{S})?9{S}7{S}2{S}(?:0{S})?|\(?0{S})(?:[57]{S}\d|[23489]){S}\d(?:{S}\d){{6}}(?!\d)"
    rf"|(?<!\d)1{S}[78]00(?:{S}\d){{6}}(?!\d)"
)
FOREIGN_PHONE_RE = re.compile(rf"\+\d(?:{S}\d){{6,14}}(?!\d)")
CARD_RE = re.compile(r"(?<!\d)(?:\d{4}([ -])\d{4}\1\d{4}\1\d{1,7}|\d{4}([ -])\d{6}\2\d{4,5}|\d{13,19})(?!\d)")
ID_RE = re.compile(r"(?<!\d)(?:\d{9}|\d{8}[ -]\d|\d{3}([ -])\d{3}\1\d{3}|\d-\d{7}-\d)(?!\d)")
LONG_RUN_RE = re.compile(r"(?:(?<!\d)\d{1,10}\.)?\d{5,}")
JOINED_RE = re.compile(r"(?<!\d)\d+(?:[-.\u2010-\u2015]\d+)+(?!\d)")  # 555-0123, 12-345-67
MIN_JOINED_DIGITS = 7

CODE_WORDS = (
    "קוד",
    "סיסמ",
    "אימות",
    "כספת",
    "פין",
    "code",
    "pass",
    "pin",
    "otp",
    "cvv",
    "cvc",
    "pwd",
)  # cheap test first
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
MAX_REGION_SAMPLES = 200  # numbers; more do not change a majority


def guess_phone_region(samples: Iterable[str]) -> str | None:
    """Return the country ("IL", "US") most phone numbers in `samples` belong to, None when there are none.

    >>> guess_phone_region(["call me: +44 20 7946 0958", "+44 20 7946 0018", "052-1234567"])
    'GB'
    """
    import phonenumbers

    def regions() -> Iterable[str]:
        for text in samples:
            if FIVE_DIGITS_RE.search(text) is None:
                continue
            for match in FOREIGN_PHONE_RE.finditer(text):
                try:
                    region = phonenumbers.region_code_for_number(phonenumbers.parse(match[0]))
                except phonenumbers.NumberParseException:
                    continue
                if region:
                    yield region
            if "+" not in text and ISRAELI_PHONE_RE.search(text):
                yield "IL"

    counts = Counter(islice(regions(), MAX_REGION_SAMPLES))
    return max(sorted(counts), key=counts.__getitem__) if counts else None


class Redactor:
    """Hides personal identifiers; `counts` tells how many of each kind, never which."""

    def __init__(self, phone_region: str | None = None, hidden_words: Iterable[str] = ()) -> None:
        """Prepare for local numbers of `phone_region` ("IL", None for no country) and the user's own `hidden_words`."""
        import phonenumbers  # here, not above: 0.15 s that `--help` need not wait for
        from stdnum import iban, luhn
        from stdnum.il import idnr

        self._phonenumbers, self._iban, self._luhn, self._idnr = phonenumbers, iban, luhn, idnr
        self.phone_region = phone_region
        self.counts: Counter[str] = Counter()
        self._hidden_re = _hidden_words_re(hidden_words)

    def redact(self, text: str) -> str:
        """Return `text` with every identifier replaced by its placeholder.

        >>> Redactor("IL").redact("052-1234567, at 18:30 for 250 ₪")
        '[PHONE], at 18:30 for 250 ₪'
        """
        if self._hidden_re is not None:
            text = self._hidden_re.sub(lambda match: match["before"] + self._hide("HIDDEN"), text)
        if "." in text or "://" in text:
            if "/" in text or "www." in text:
                text = LINK_RE.sub(lambda match: match[0].replace(match[0].strip(), self._hide("LINK")), text)
            if "@" in text:
                text = EMAIL_RE.sub(lambda match: self._hide("EMAIL"), text)
        has_code_word = _has_code_word(text.lower())
        if DIGIT_RE.search(text) is None:
            return self._redact_passwords(text) if has_code_word else text

        if len(text) >= 15:
            text = IBAN_RE.sub(self._redact_iban, text)
            text = SECRET_RE.sub(self._redact_secret, text)
        if len(text) >= 8:
            text = ADDRESS_RE.sub(lambda match: (match["before"] or "") + self._hide("ADDRESS"), text)
        if has_code_word:
            text = self._redact_codes(self._redact_passwords(text))
        if "." in text or ":" in text:
            text = IP_RE.sub(lambda match: self._hide("IP"), text)
        if FIVE_DIGITS_RE.search(text) is not None:
            text = NUMBER_RE.sub(self._redact_number, text)
        return text

    def _hide(self, kind: str) -> str:
        self.counts[kind] += 1
        return f"[{kind}]"

    def _redact_number(self, match: re.Match[str]) -> str:
        number = match[0]
        if match["keep"] is not None or len(number) < 5:
            return number
        if match["place"] is not None:
            return self._hide("ADDRESS")
        if not number.isascii():  # native digits; the marks and dashes of the original come back when nothing is hidden
            plain = "".join(str(int(character)) if character.isdecimal() else character for character in number)
            redacted = self._redact_digits(plain)
            return number if redacted == plain else redacted
        return self._redact_digits(number)

    def _redact_digits(self, number: str) -> str:
        if self.phone_region in (None, "IL") or "972" in number:
            number = ISRAELI_PHONE_RE.sub(lambda _: self._hide("PHONE"), number)
        number = FOREIGN_PHONE_RE.sub(lambda _: self._hide("PHONE"), number)
        number = CARD_RE.sub(self._redact_card, number)
        number = ID_RE.sub(
            lambda found: self._hide("ID" if self._idnr.is_valid(_digits(found[0])) else "NUMBER"), number
        )
        if self.phone_region is not None and len(_digits(number)) >= 7 and len(number) <= 60:
            for phone in reversed(list(self._phonenumbers.PhoneNumberMatcher(number, self.phone_region))):
                number = number[: phone.start] + self._hide("PHONE") + number[phone.end :]
        return LONG_RUN_RE.sub(lambda _: self._hide("NUMBER"), JOINED_RE.sub(self._redact_joined, number))

    def _redact_card(self, match: re.Match[str]) -> str:
        if all(map(YEAR_RE.match, re.split(r"\D", match[0]))):  # 1999 2000 2001 2002
            return match[0]
        return self._hide("CARD" if self._luhn.is_valid(_digits(match[0])) else "NUMBER")

    def _redact_joined(self, match: re.Match[str]) -> str:
        groups = re.split(r"\D", match[0])
        is_range = (
            len(groups) == 2 and groups[0][0] != "0" and len(groups[1]) <= 4 and int(groups[0]) < int(groups[1])
        )  # 1500-2000
        if is_range or sum(map(len, groups)) < MIN_JOINED_DIGITS or max(map(len, groups)) < 3:
            return match[0]
        return self._hide("NUMBER")

    def _redact_iban(self, match: re.Match[str]) -> str:
        """Hide the longest beginning that is a valid IBAN; a wrong one that is mostly digits is hidden as a number."""
        candidate = match[0]
        for end in range(len(candidate), 14, -1):
            if candidate[end - 1].isalnum() and self._iban.is_valid(candidate[:end]):
                return self._hide("IBAN") + candidate[end:]
        end = max(position for position, character in enumerate(candidate) if character.isdigit()) + 1
        return self._hide("NUMBER") + candidate[end:] if len(_digits(candidate)) >= 12 else candidate

    def _redact_secret(self, match: re.Match[str]) -> str:
        token = match[0]
        if WALLET_RE.fullmatch(token):
            return self._hide("WALLET")
        num_digits = len(_digits(token))
        has_letters = any(character.isalpha() for character in token)
        is_path = "/" in token and (token.islower() or token.isupper())
        return self._hide("KEY") if num_digits >= 2 and has_letters and not is_path else token

    def _redact_codes(self, text: str) -> str:
        spans: dict[int, int] = {}
        for word in CODE_WORD_RE.finditer(text):
            before, after = max(0, word.start() - CODE_REACH_CHARS), word.end() + CODE_REACH_CHARS
            for token in CODE_TOKEN_RE.finditer(text, word.end(), after + MAX_CODE_CHARS):
                gap = text[word.end() : token.start()]
                if len(gap) <= CODE_REACH_CHARS and _is_code_like(token[0], gap, word[0]):
                    spans[token.start()] = token.end()
            for token in CODE_TOKEN_RE.finditer(text, before, word.start()):
                is_number = not re.search("[^0-9 -]", token[0])
                if is_number and len(token[0]) >= 4 and not YEAR_RE.match(token[0]):  # 483920 is your code
                    spans[token.start()] = token.end()
        for start, end in sorted(spans.items(), reverse=True):
            text = text[:start] + self._hide("CODE") + text[end:]
        return text

    def _redact_passwords(self, text: str) -> str:
        return PASSWORD_RE.sub(self._redact_password, text)

    def _redact_password(self, match: re.Match[str]) -> str:
        secret = match["secret"].rstrip(".,!?)")
        if len(secret) < 3 or NO_PASSWORD_RE.match(secret):
            return match[0]
        start = match.start("secret") - match.start()
        return match[0][:start] + self._hide("CODE") + match[0][start + len(secret) :]


def _has_code_word(lowered: str) -> bool:
    for word in CODE_WORDS:  # noqa: SIM110  any() with a generator costs three times as much
        if word in lowered:
            return True
    return False


def _is_code_like(token: str, gap: str, word: str) -> bool:
    num_digits = len(_digits(token))
    if not token.replace(" ", "").replace("-", "").isdigit():
        return num_digits >= 1 and len(token) >= 5 and token[0] != "%"  # hunter2, AB12CD
    if YEAR_RE.match(token):
        return len(gap) <= 8
    return num_digits >= (3 if word.lower().startswith("cv") else 4)


def _digits(text: str) -> str:
    return "".join(str(int(character)) for character in text if character.isdecimal())


def _hidden_words_re(words: Iterable[str]) -> re.Pattern[str] | None:
    """Match any of `words` as a whole word, also after the Hebrew prefixes: דנה, לדנה, ושל-דנה."""
    patterns = [
        r"\s+".join(map(re.escape, word.split())) for word in sorted(words, key=len, reverse=True) if word.strip()
    ]
    if not patterns:
        return None
    return re.compile(rf"(?<!\w)(?P<before>[והלבמשכ]{{0,3}}[-־]?)(?:{'|'.join(patterns)})(?!\w)", re.IGNORECASE)
