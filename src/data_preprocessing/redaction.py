"""Personal identifiers in a message -> placeholders such as [PHONE], in the messages of both people.

It rather hides too much than too little: a check digit decides the label, not whether to hide, and any other run of five or
more digits that is no time, date or price becomes [NUMBER]. Times, dates, prices, years and scores stay. Names stay too,
because finding them would need a model; the user's own word list can hide them. Addresses are found by street and number.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from itertools import islice

import identifier_patterns as patterns
from message_filters import LINK_RE
from spoken_numbers import MIN_CHARS, ZEROS, find_spoken_codes, hide_spoken_numbers
from street_addresses import hide_addresses

MAX_REGION_SAMPLES = 200  # phone numbers; more would not change the majority


def guess_phone_region(samples: Iterable[str]) -> str | None:
    """Return the country ("IL", "US") of most phone numbers in `samples`, None when there are none.

    >>> guess_phone_region(["call me: +44 20 7946 0958", "+44 20 7946 0018", "052-1234567"])
    'GB'
    """
    import phonenumbers

    def regions() -> Iterable[str]:
        for text in samples:
            if patterns.FIVE_DIGITS_RE.search(text) is None:
                continue
            for match in patterns.FOREIGN_PHONE_RE.finditer(text):
                try:
                    region = phonenumbers.region_code_for_number(phonenumbers.parse(match[0]))
                except phonenumbers.NumberParseException:
                    continue
                if region:
                    yield region
            if "+" not in text and patterns.ISRAELI_PHONE_RE.search(text):
                yield "IL"

    counts = Counter(islice(regions(), MAX_REGION_SAMPLES))
    return max(sorted(counts), key=counts.__getitem__) if counts else None


class Redactor:
    """Hides personal identifiers; `counts` holds the number of each kind, never the values."""

    def __init__(self, phone_region: str | None = None, hidden_words: Iterable[str] = ()) -> None:
        """Hide local numbers of `phone_region` ("IL"; None: of no country) and the user's own `hidden_words` too."""
        import phonenumbers  # here, not above: it takes 0.15 s, and `--help` does not need it
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
        if "." in text or "/" in text:
            if "/" in text or "www." in text:
                text = LINK_RE.sub(lambda match: match[0].replace(match[0].strip(), self._hide("LINK")), text)
            if "@" in text or "＠" in text:
                text = patterns.EMAIL_RE.sub(self._redact_email, without_joiners(text))
        if patterns.DIGIT_RE.search(text) is None:
            return self._redact_words(text) if _may_tell_in_words(text) else text

        text = without_joiners(text)
        lowered = text.lower()
        has_code_word = _has_one_of(patterns.CODE_WORDS, lowered)
        if len(text) >= 15:
            text = patterns.IBAN_RE.sub(self._redact_iban, text)
            text = patterns.SECRET_RE.sub(self._redact_secret, text)
        if len(text) >= 8:
            text = hide_addresses(text, lowered, lambda: self._hide("ADDRESS"))
        if has_code_word:
            text = self._redact_codes(self._redact_passwords(self._redact_spoken_codes(text)))
        if "." in text or ":" in text:
            text = patterns.IP_RE.sub(lambda match: self._hide("IP"), text)
        if patterns.FIVE_DIGITS_RE.search(text) is not None:
            if "\n" in text:
                text = patterns.SPLIT_OVER_LINES_RE.sub(self._redact_split, text)
            text = patterns.NUMBER_RE.sub(self._redact_number, text)
        return text

    def _redact_words(self, text: str) -> str:
        """Redact a text without a digit: passwords, and codes and numbers that are said in words."""
        if len(text) >= MIN_CHARS:
            text = self._redact_spoken_codes(text)
            if _has_one_of(ZEROS, text.lower()):
                text = hide_spoken_numbers(text, lambda: self._hide("NUMBER"))
        return self._redact_passwords(text)

    def _hide(self, kind: str) -> str:
        self.counts[kind] += 1
        return f"[{kind}]"

    def _redact_email(self, match: re.Match[str]) -> str:
        end = patterns.END_OF_DOMAIN_RE.search(match["domain"])
        return self._hide("EMAIL") + (match["domain"][end.end() :] if end else "")

    def _redact_split(self, match: re.Match[str]) -> str:
        return self._redact_card(match) if match["card"] else self._hide("PHONE")

    def _redact_number(self, match: re.Match[str]) -> str:
        number = match[0]
        if match["keep"] is not None or len(number) < 5:
            return number
        if match["place"] is not None:
            return self._hide("ADDRESS")
        if not number.isascii():  # other scripts' digits and dashes; the original is returned when nothing is hidden
            plain = "".join(str(int(character)) if character.isdecimal() else character for character in number)
            redacted = self._redact_digits(plain)
            return number if redacted == plain else redacted.removesuffix("\u20e3").removesuffix("\ufe0f")
        return self._redact_digits(number)

    def _redact_digits(self, number: str) -> str:
        number = patterns.ISRAELI_PHONE_RE.sub(self._redact_phone, number)
        number = patterns.FOREIGN_PHONE_RE.sub(self._redact_phone, number)
        number = patterns.CARD_RE.sub(self._redact_card, number)
        number = patterns.ID_RE.sub(self._redact_id, number)
        number = patterns.NATIONAL_PHONE_RE.sub(self._redact_phone, number)
        if self.phone_region is not None and len(_digits(number)) >= 7 and len(number) <= 60:
            for phone in reversed(list(self._phonenumbers.PhoneNumberMatcher(number, self.phone_region))):
                number = number[: phone.start] + self._hide("PHONE") + number[phone.end :]
        number = patterns.JOINED_RE.sub(self._redact_joined, number)
        return patterns.LONG_RUN_RE.sub(lambda _: self._hide("NUMBER"), number)

    def _redact_phone(self, _match: re.Match[str]) -> str:
        return self._hide("PHONE")

    def _redact_card(self, match: re.Match[str]) -> str:
        if all(map(patterns.YEAR_RE.match, re.split(r"\D", match[0]))):  # 1999 2000 2001 2002
            return match[0]
        return self._hide("CARD" if self._luhn.is_valid(_digits(match[0])) else "NUMBER")

    def _redact_id(self, match: re.Match[str]) -> str:
        return self._hide("ID" if self._idnr.is_valid(_digits(match[0])) else "NUMBER")

    def _redact_joined(self, match: re.Match[str]) -> str:
        groups = re.split(r"\D", match[0])
        lengths = [len(group) for group in groups]
        is_range = len(groups) == 2 and max(lengths) <= 4 and groups[0][0] != "0" and int(groups[0]) < int(groups[1])
        if is_range or sum(lengths) < patterns.MIN_JOINED_DIGITS or max(lengths) < 3:  # 1500-2000, 2-3, 10-20-30-40
            return match[0]
        return self._hide("NUMBER")

    def _redact_iban(self, match: re.Match[str]) -> str:
        """Hide the longest start that is a valid IBAN; an invalid one of 12 digits or more is hidden as a number."""
        candidate = match[0]
        for end in range(len(candidate), 14, -1):
            if candidate[end - 1].isalnum() and self._iban.is_valid(candidate[:end]):
                return self._hide("IBAN") + candidate[end:]
        end = max(position for position, character in enumerate(candidate) if character.isdigit()) + 1
        return self._hide("NUMBER") + candidate[end:] if len(_digits(candidate)) >= 12 else candidate

    def _redact_secret(self, match: re.Match[str]) -> str:
        token = match[0]
        if patterns.WALLET_RE.fullmatch(token):
            return self._hide("WALLET")
        num_digits = len(_digits(token))
        has_letters = any(character.isalpha() for character in token)
        is_path = "/" in token and (token.islower() or token.isupper())
        return self._hide("KEY") if num_digits >= 2 and has_letters and not is_path else token

    def _redact_codes(self, text: str) -> str:
        plain = text if text.isascii() else text.translate(patterns.NATIVE_DIGITS)
        spans: dict[int, int] = {}
        for word in patterns.CODE_WORD_RE.finditer(plain):
            before, after = max(0, word.start() - patterns.CODE_REACH_CHARS), word.end() + patterns.CODE_REACH_CHARS
            for token in patterns.CODE_TOKEN_RE.finditer(plain, word.end(), after + patterns.MAX_CODE_CHARS):
                gap = plain[word.end() : token.start()]
                if len(gap) <= patterns.CODE_REACH_CHARS and _is_code_like(token[0], gap, word[0]):
                    spans[token.start()] = token.end()
            for token in patterns.CODE_TOKEN_RE.finditer(plain, before, word.start()):
                is_number = not re.search("[^0-9 -]", token[0])
                if is_number and len(token[0]) >= 4 and not patterns.YEAR_RE.match(token[0]):  # 483920 is your code
                    spans[token.start()] = token.end()
        return self._redact_spans(text, spans.items())

    def _redact_spoken_codes(self, text: str) -> str:
        return self._redact_spans(text, find_spoken_codes(text, patterns.CODE_WORD_RE))

    def _redact_spans(self, text: str, spans: Iterable[tuple[int, int]]) -> str:
        for start, end in sorted(spans, reverse=True):
            text = text[:start] + self._hide("CODE") + text[end:]
        return text

    def _redact_passwords(self, text: str) -> str:
        return patterns.PASSWORD_RE.sub(self._redact_password, text)

    def _redact_password(self, match: re.Match[str]) -> str:
        secret = match["secret"].rstrip(".,!?)")
        if len(secret) < 3 or patterns.NO_PASSWORD_RE.match(secret):
            return match[0]
        start = match.start("secret") - match.start()
        return match[0][:start] + self._hide("CODE") + match[0][start + len(secret) :]


def without_joiners(text: str) -> str:
    """Return `text` without the joiners and soft hyphens that stand inside a number or a word of Latin or Hebrew."""
    if "\u200d" in text or "\u200c" in text or "\xad" in text:
        return patterns.MEANINGLESS_JOINER_RE.sub("", text)
    return text


def _may_tell_in_words(text: str) -> bool:
    """Tell whether a text without a digit may hold a password, or a code or number said in words: few texts may.

    Tests for one letter take a third of the time of those for several, so they come first.
    """
    return (
        "קוד" in text
        or "סיסמ" in text
        or ("פ" in text and ("פין" in text or "אפס" in text))
        or (
            ("p" in text or "P" in text or "od" in text or "OD" in text or "z" in text or "Z" in text)
            and _has_one_of(patterns.LATIN_HINTS, text.lower())
        )
    )


def _has_one_of(words: tuple[str, ...], lowered: str) -> bool:
    for word in words:  # noqa: SIM110  any() with a generator takes three times as long
        if word in lowered:
            return True
    return False


def _is_code_like(token: str, gap: str, word: str) -> bool:
    num_digits = len(_digits(token))
    if not token.replace(" ", "").replace("-", "").isdigit():
        return num_digits >= 1 and len(token) >= 5 and token[0] != "%"  # hunter2, AB12CD
    if patterns.YEAR_RE.match(token):
        return len(gap) <= 8
    return num_digits >= (3 if word.lower().startswith("cv") else 4)


def _digits(text: str) -> str:
    return "".join(str(int(character)) for character in text if character.isdecimal())


def _hidden_words_re(words: Iterable[str]) -> re.Pattern[str] | None:
    """Match any of `words` as a whole word, also after the Hebrew prefixes: דנה, לדנה, ושל-דנה."""
    longest_first = sorted(
        (word.split() for word in words if word.strip()), key=lambda parts: len("".join(parts)), reverse=True
    )
    if not longest_first:
        return None
    alternatives = "|".join(r"\s+".join(map(re.escape, parts)) for parts in longest_first)
    return re.compile(rf"(?<!\w)(?P<before>[והלבמשכ]{{0,3}}[-־]?)(?:{alternatives})(?!\w)", re.IGNORECASE)
