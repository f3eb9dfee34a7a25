"""Loops are noticed, laughter and ordinary talk are not."""

import pytest
from reply_stream import is_looping


def looks_looping(text):
    """Judge `text` as if every letter were one token."""
    return is_looping([ord(letter) for letter in text], lambda ids: "".join(map(chr, ids)))


@pytest.mark.parametrize("block", ["אני באה ", "ok ok", "what?", "a long block of 20 le"[:20]])
def test_a_block_four_times_in_a_row_is_a_loop(block):
    assert not looks_looping(f"well {block * 3}")
    assert looks_looping(f"well {block * 4}")


def test_a_loop_is_noticed_although_it_does_not_end_with_a_whole_block():
    assert looks_looping("abcdefabcdefabcdefabcdefab")


@pytest.mark.parametrize(
    "laughter", ["חחחחחחחחחחחחחחחחחחחח", "hahahahahahahahahaha", "😂😂😂😂😂😂😂😂😂😂😂😂😂😂😂😂😂😂"]
)
def test_laughter_is_no_loop_up_to_25_letters(laughter):
    assert not looks_looping(laughter)
    assert looks_looping(laughter * 3)


def test_laughter_after_words_counts_for_itself():
    assert not looks_looping("זה ממש מצחיק אותי עכשיו " + "ח" * 20)


def test_different_talk_is_no_loop():
    assert not looks_looping("one two three four five six seven eight nine ten eleven twelve")
