"""The cleaner: what WhatsApp wrote goes, what people wrote stays, and every message that goes has its reason."""

from __future__ import annotations

import json
import random
from pathlib import Path

import message_filters
import pytest
from code_and_chat_samples import CODE_SNIPPETS, TRICKY_SENTENCES, plain_sentences
from hypothesis import given, settings
from hypothesis import strategies as st
from linear_time import assert_linear
from message_filters import DROP_REASONS, clean_text, drop_reason, filter_text, is_unknown_placeholder

MARK = "\u200e"  # iOS begins with it what WhatsApp itself wrote
PLACEHOLDERS = json.loads(Path(message_filters.__file__).with_name("placeholders.json").read_text(encoding="utf-8"))


def _texts_of(kind: str) -> list[str]:
    """Return the texts of a kind with the wild cards filled in."""
    return [text.replace("*", "Rut").replace("#", "12") for texts in PLACEHOLDERS[kind].values() for text in texts]


# --- Texts of WhatsApp ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["media", "contact", "deleted", "call", "location", "system_text", "notice"])
def test_drops_every_text_of_whatsapp_under_its_reason(kind: str) -> None:
    wrong = [
        (body, drop_reason(body, "Rut"))
        for text in _texts_of(kind)
        for body in (text, f"{MARK}{text}", f"\u200f{text}\u200f ", f"{text.rstrip('.')}.")
        if drop_reason(body, "Rut") != kind
    ]
    assert wrong == []


@pytest.mark.parametrize("kind", ["media", "contact", "deleted", "call", "location", "edited", "notice"])
def test_keeps_the_same_words_inside_a_sentence(kind: str) -> None:
    lost = [
        sentence
        for text in _texts_of(kind)
        for sentence in (f"so it says {text} and nothing else", f"כתוב לי {text} מה זה?")
        if clean_text(sentence, "Rut") != sentence
    ]
    assert lost == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("<Media omitted>", "media"),
        ("<המדיה לא נכללה>", "media"),
        ("<Some new note omitted>", "media"),
        (f"{MARK}image omitted", "media"),
        ("image omitted", "media"),
        ("IMG-20220930-WA0001.jpg (file attached)", "media"),
        ("\u200eIMG-20220930-WA0001.jpg (קובץ מצורף)", "media"),
        ("PTT-20220930-WA0003.opus (in a language we do not know)", "media"),
        ("2015-03-01-PHOTO-00000012.jpg <attached>", "media"),
        (f"{MARK}<attached: 00000042-PHOTO-2022-09-30-18-15-42.jpg>", "media"),
        ("<in a language: 00000042-PHOTO-2022-09-30-18-15-42.jpg>", "media"),
        (f"{MARK}report.pdf • {MARK}2 pages {MARK}<attached: 00000002-report.pdf>", "media"),
        ("report.pdf • 2 pages document omitted", "media"),
        ("report.pdf (file attached)\nreport", "media"),
        ("Dan Levi.vcf (file attached)", "contact"),
        (f"{MARK}<attached: 00000004-Dan.vcf>", "contact"),
        ("You deleted this message.", "deleted"),
        (f"{MARK}This message was deleted by admin Dan.", "deleted"),
        (f"{MARK}Voice call. 10 sec", "call"),
        ("שיחה קולית שלא נענתה", "call"),
        ("location: https://maps.google.com/?q=32.0853,34.7818", "location"),
        ("מיקום: https://maps.google.com/?q=32.0853,34.7818", "location"),
        ("Cafe Nero (Main street 5): https://foursquare.com/v/4b05", "location"),
        ("POLL:\nPizza or sushi?\nOPTION: pizza (3 votes)\nOPTION: sushi (0 votes)", "poll"),
        (f"{MARK}סקר:\nפיצה או סושי?\n{MARK}אפשרות: פיצה", "poll"),
        ("null", "system_text"),
        (f"{MARK}A text that no table knows", "system_text"),
        ("Waiting for this message. This may take a while.", "system_text"),
        ("", "empty"),
        (" \u200f\n\u200d", "empty"),
        ("<This message was edited>", "empty"),
        ("https://example.com/a?b=c#d", "link"),
        ("www.example.co.il\nhttps://example.com .", "link"),
        ("booking.com", "link"),
    ],
)
def test_drops_what_nobody_wrote(text: str, reason: str) -> None:
    assert filter_text(text, "Rut") == (None, reason)
    assert (clean_text(text, "Rut"), drop_reason(text, "Rut")) == (None, reason)


def test_drops_notices_that_have_no_sender() -> None:
    assert filter_text("Dan left", None) == (None, "notice")


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("IMG-20220930-WA0001.jpg (file attached)\nour new dog\n\nשמו רקס", "our new dog\n\nשמו רקס"),
        ("<Media omitted>\nour new dog", "our new dog"),
        (f"{MARK}<attached: 00000042-PHOTO-2022-09-30.jpg>\nour new dog", "our new dog"),
        (f"our new dog {MARK}<attached: 00000042-PHOTO-2022-09-30.jpg>", "our new dog"),
        (f"our new dog {MARK}image omitted", "our new dog"),
        ("see you at 8 <This message was edited>", "see you at 8"),
        (f"נתראה ב-8 {MARK}<ההודעה נערכה>", "נתראה ב-8"),
        ("hola <Se editó este mensaje.>", "hola"),
        ("סקר: מי בא מחר?", "סקר: מי בא מחר?"),
        ("poll: who comes?", "poll: who comes?"),
        ("my cv (file attached) see mail", "my cv (file attached) see mail"),
        ("voice call?", "voice call?"),
        ("מיקום?", "מיקום?"),
        ("null and void", "null and void"),
        ("look https://example.com/a?b=c at this", "look at this"),
        ("so https://example.com/a, and?", "so, and?"),
        ("hi\nhttps://example.com\nbye", "hi\nbye"),
        ("hi\n\nhttps://example.com\n\nbye", "hi\n\nbye"),
        ("read (https://example.com) now", "read now"),
        ("תראו https://he.wikipedia.org/wiki/שלום איזה יופי", "תראו איזה יופי"),
        ("bit.ly/3xYz קראתי", "קראתי"),
        ("ראיתי בwww.example.co.il היום", "ראיתי ב היום"),
        ("ראיתי בbit.ly/3xYz היום", "ראיתי ב היום"),
        ("I ordered from booking.com yesterday", "I ordered from booking.com yesterday"),
        ("mail me at dan@gmail.com/work", "mail me at dan@gmail.com/work"),
        ("24/7 and/or 30.9/1.10", "24/7 and/or 30.9/1.10"),
        ("\u200fשלום\u200f \u202a+972\u202c", "שלום +972"),
        ("\x1b[31mred\x1b[0m\x07 \x9b1mbold \x1b]0;title\x07end\x00", "red bold end"),
        ("\u202eevil\u202c \u2066x\u2069", "evil x"),
        ("one\r\ntwo\u2028three\x0bfour", "one\ntwo\nthree\nfour"),
        ("  spaces   inside  stay ", "spaces   inside  stay"),
        ("\ud83d broken", "broken"),
        ("</s> [INST] <|im_start|> {{7*7}}", "</s> [INST] <|im_start|> {{7*7}}"),
    ],
)
def test_keeps_what_a_person_wrote(text: str, kept: str) -> None:
    assert filter_text(text, "Rut") == (kept, None)


@pytest.mark.parametrize(
    "text",
    [
        "👨\u200d👩\u200d👧 ❤\ufe0f 👍🏽 🏴\U000e0067\U000e0062\U000e007f",
        "می\u200cخواهم",
        "5\ufe0f\u20e3",
        "Z̶̡a̴l̷g̵o̷",
        "שָׁלוֹם",
    ],
)
def test_emoji_joiners_and_accents_stay_byte_exact(text: str) -> None:
    assert clean_text(f"\u200f{text} hi", "Rut") == f"{text} hi"


@pytest.mark.parametrize(
    ("text", "is_placeholder"),
    [
        ("<Média mellőzve>", True),
        (f"{MARK}<novel text>", True),
        ("<3", False),
        ("<3>", False),
        ("a <b> c", False),
        ("<a\nb c>", False),
    ],
)
def test_knows_the_shape_of_an_unknown_placeholder(text: str, is_placeholder: bool) -> None:
    assert is_unknown_placeholder(text) is is_placeholder


def test_every_reason_is_described() -> None:
    assert all(reason.isidentifier() and description for reason, description in DROP_REASONS.items())


# --- Code -----------------------------------------------------------------------------------------------------------------


def test_loses_at_most_half_a_percent_of_plain_sentences() -> None:
    sentences = plain_sentences(random.Random(3), count=6000)
    lost = [sentence for sentence in sentences if clean_text(sentence, "Rut") != sentence]
    assert len(lost) <= 0.005 * len(sentences), lost[:20]


@pytest.mark.parametrize("sentence", TRICKY_SENTENCES)
def test_no_word_is_a_reason(sentence: str) -> None:
    assert clean_text(sentence, "Rut") == sentence


def test_recognises_code_of_many_languages() -> None:
    missed = [snippet for snippet in CODE_SNIPPETS if drop_reason(snippet, "Rut") != "code"]
    found = 1 - len(missed) / len(CODE_SNIPPETS)
    assert found >= 0.95, missed


# --- Hostile text -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "unit",
    [
        "1", "[", "(", "{", "<", " ", "\n", ";", "a.", "x://", "www.", "<a: b>", "\x1b[", "\x9d", MARK, "a = ", "if (",
        '"a": ', "a(b", "f\n", "{\n", "(a)\n", "x.jpg (", "select from ", "import a,", "-- ", "POLL:\n", " • ", "<\n",
    ],
    ids=repr,
)  # fmt: skip
def test_hostile_text_stays_linear(unit: str) -> None:
    assert_linear(lambda length: filter_text(unit * (length // len(unit)), "Rut"), 60_000)


@pytest.mark.parametrize("text", ["{spaces}x{spaces}>", "POLL:\n{lines}", MARK + "{tags}"])
def test_hostile_text_of_several_parts_stays_linear(text: str) -> None:
    def filter_parts(length: int) -> None:
        filter_text(text.format(spaces=" " * length, lines="x\n" * length, tags="<attached: " * (length // 5)), "Rut")

    assert_linear(filter_parts, 30_000)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=80) | st.text(alphabet=f"{MARK}<>:. \n/(attached)omid•\x1b[m\u202eש", max_size=60))
def test_either_words_or_a_reason_comes_out(text: str) -> None:
    kept, reason = filter_text(text, "Rut")
    assert (kept is None) == (reason in DROP_REASONS)
    if kept is not None:
        assert kept == kept.strip() != ""
        assert not any(ord(character) < 32 and character not in "\n\t" for character in kept)
        assert not any(
            character in "\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff\x9b"
            for character in kept
        )
        kept.encode("utf-8")


def test_what_stands_for_a_lost_character_is_not_learnt():
    """An export whose phone had lost a character holds U+FFFD; a model would learn to write it."""
    assert clean_text("good \N{REPLACEMENT CHARACTER}morning\uffff", "Rut") == "good morning"
    assert drop_reason("\N{REPLACEMENT CHARACTER}\N{OBJECT REPLACEMENT CHARACTER}", "Rut") == "empty"
