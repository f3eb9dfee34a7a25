"""The character filter: what acts on a terminal goes, what belongs to words and emoji stays."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.text_safety import remove_unsafe_characters


@pytest.mark.parametrize(
    "hostile",
    ["\x1b[2J", "\x1b]52;c;aGk=\x07", "\x9b31m", *"\x00\r\x7f\u202e\u2066\u2028\ufeff\ud83d"],
)
def test_removes_what_acts_on_a_terminal_or_on_its_neighbours(hostile):
    cleaned = remove_unsafe_characters(f"a{hostile}b")
    assert not set("\x1b\x9b\x00\x07\r\x7f\u202e\u2066\u2028\ufeff\ud83d") & set(cleaned)
    assert cleaned[0] + cleaned[-1] == "ab"


@pytest.mark.parametrize("text", ["a\nb\tc", "👨\u200d👩\u200d👧 ❤\ufe0f", "שלום\u200f!", "\u200eabc", "שָׁלוֹם", "🏴󠁧󠁢󠁥󠁮󠁧󠁿"])
def test_keeps_words_and_whole_emoji(text):
    assert remove_unsafe_characters(text) == text


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=[])), st.integers(0, 50))
def test_cleaning_in_pieces_equals_cleaning_at_once(text, cut):
    assert remove_unsafe_characters(text[:cut]) + remove_unsafe_characters(text[cut:]) == remove_unsafe_characters(text)


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=[])))
def test_result_is_always_writable_as_utf8(text):
    remove_unsafe_characters(text).encode("utf-8")
