"""Bubbles as golden lines, and what holds for every text. The lines were looked at once in Chromium."""

from unicodedata import bidirectional

import pytest
from bubbles import LINE_COLUMNS, LRM, PDI, WRAP_COLUMNS, render_bubble, render_caption, render_note, wrap_words
from hypothesis import given, settings
from hypothesis import strategies as st
from wcwidth import wcswidth, wrap

FSI = "\N{FIRST STRONG ISOLATE}"

# The rows of the picture "new": right edge at column 46, in code points. Marks only where letters run from right to left.
GOLDEN = [
    ("user", "שלום, מה נשמע?", 26),
    ("assistant", "סבבה! נפגש ב-10:30 אצל Dana :)", 0),
    ("user", "ok סבבה 😂", 30),
    ("assistant", "https://x.co/a?b=1 תראה את זה!", 0),
    ("user", "חחחחחח", 34),
    ("assistant", "(בטח) C++ או Python?", 0),
    ("user", "👨\u200d👩\u200d👧 ❤\ufe0f 🙏🏽", 32),
    ("user", "see you at 5", 28),
    ("assistant", "יאללה ביי...", 0),
]

WORDS = [
    " ", "  ", "a", "word ", "a-b", "x" * 45, "https://x.co/a?b=1", "\t", "שלום", "שָׁ", "e\u0301", "ك", "中", "한", "क", "ﷺ",
    "👨\u200d👩\u200d👧", "🇮🇱", "🙏🏽", "❤\ufe0f", "1\ufe0f\u20e3", "😂",
]  # fmt: skip


@pytest.mark.parametrize(("role", "text", "num_pad_columns"), GOLDEN)
def test_one_line_is_a_mark_padding_squares_and_an_isolate(role, text, num_pad_columns):
    square = "🟩" if role == "user" else "🟦"
    mark, begin, end = (LRM, FSI, PDI) if any("א" <= letter <= "ת" for letter in text) else ("", "", "")
    assert render_bubble(role, text) == f"{mark}{' ' * num_pad_columns}{square} {begin}{text}{end} {square}\n"


def test_wraps_at_words_and_gives_each_line_its_own_squares():
    assert render_bubble("assistant", "one two three four five six seven eight nine") == (
        "🟦 one two three four five six seven 🟦\n🟦 eight nine 🟦\n"
    )


def test_a_line_that_begins_with_a_word_of_the_other_direction_keeps_its_paragraphs():
    rlm = "\N{RIGHT-TO-LEFT MARK}"
    assert render_bubble("assistant", "ואז הלכנו לים ואכלנו גלידה ודיברנו Dana הלכה") == (
        f"{LRM}🟦 {FSI}ואז הלכנו לים ואכלנו גלידה ודיברנו{PDI} 🟦\n{LRM}🟦 {FSI}{rlm}Dana הלכה{PDI} 🟦\n"
    )


def test_cuts_a_word_longer_than_a_line_between_whole_emoji():
    family = "👨\u200d👩\u200d👧"
    lines = render_bubble("user", family * 20).splitlines()
    assert [line.count(family) for line in lines] == [17, 3]
    assert all(wcswidth(line) == LINE_COLUMNS for line in lines)


def test_a_message_cannot_forge_another_turn():
    forged = f"hi\n{LRM}🟦 {FSI}yes{PDI} 🟦\r\u2028{LRM}🟦 yes 🟦\x1b[1A\nNoam · 10:30\n\n── new ──\nכן 🟦"
    for line in render_bubble("user", forged).splitlines():
        assert line.lstrip(LRM + " ").startswith("🟩 ")
        assert line.endswith(" 🟩")
        if "כן" in line:
            assert line.endswith(f"כן 🟦{PDI} 🟩")


@settings(deadline=None)
@given(st.sampled_from(["user", "assistant"]), st.text(st.characters(exclude_categories=[]), max_size=200))
def test_every_line_is_whole_and_fits_whatever_is_said(role, text):
    rendered = render_bubble(role, text)
    assert rendered.endswith("\n")
    for line in rendered[:-1].split("\n"):
        assert line.count(FSI) == line.count(PDI) == line.startswith(LRM) <= 1
        assert line.startswith(LRM) or not any(bidirectional(character) in ("R", "AL") for character in line)
        assert 0 < wcswidth(line) <= LINE_COLUMNS
        if role == "user":
            assert wcswidth(line) == LINE_COLUMNS


def test_a_note_stands_in_the_middle():
    assert render_note("2026-11-24 06:13 +02:00") == "        ── 2026-11-24 06:13 +02:00 ──\n"
    assert render_note("Ruth on Hebrew-Mistral-7B, trained 2026-11-24 06:13") == (
        "       ── Ruth on Hebrew-Mistral-7B, ──\n        ── trained 2026-11-24 06:13 ──\n"
    )
    assert (
        render_note("Noam on small_base, trained 2026-11-28 10:01")
        == (
            "          ── Noam on small_base, ──\n        ── trained 2026-11-28 10:01 ──\n"  # a time alone would be one of the log
        )
    )
    assert render_note("רות") == f"{LRM}                  ── {FSI}רות{PDI} ──\n"


def test_a_caption_stands_on_the_side_of_its_bubbles():
    assert render_caption("assistant", "Ruth", "06:13") == "Ruth · 06:13\n"
    assert render_caption("assistant", "רות", "06:13") == f"{LRM}{FSI}רות{PDI} · 06:13\n"
    assert wcswidth(render_caption("user", "you", "06:13").rstrip("\n")) == LINE_COLUMNS
    assert wcswidth(render_caption("user", "x\n🟦" * 100, "06:13").rstrip("\n")) == LINE_COLUMNS


@settings(deadline=None)
@given(st.lists(st.sampled_from(WORDS), max_size=40))
def test_words_are_wrapped_as_the_library_wraps_them(words):
    text = "".join(words)
    wrapped = wrap(text, WRAP_COLUMNS, control_codes="ignore", propagate_sgr=False, break_on_hyphens=False)
    assert wrap_words(text, WRAP_COLUMNS) == (wrapped or [""])
