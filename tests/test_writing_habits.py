"""What is counted in a reply, and plain numbers of one writer."""

import pytest
from writing_style.writing_habits import (
    Reply,
    count_elongation,
    count_endings,
    count_laughter,
    count_scripts,
    count_trigrams,
    describe_writer,
    find_key_words,
    list_emoji,
    list_words,
)


@pytest.mark.parametrize(
    ("message", "ending"),
    [
        ("בטח", "nothing"),
        ("בטח.", "."),
        ("מה?", "?"),
        ("מה?!", "repeated"),
        ("יאללה!!!", "repeated"),
        ("אולי...", "dots"),
        ("אולי…", "dots"),
        ("סבבה 👍🏽", "emoji"),
        ("כולנו 👨‍👩‍👧‍👦", "emoji"),
        ("אוהב ❤️", "emoji"),
        ("", "nothing"),
    ],
)
def test_tells_how_a_message_ends(message, ending):
    assert count_endings(message) == {ending: 1}


def test_a_family_or_a_skin_tone_is_one_emoji():
    assert list_emoji("a👨‍👩‍👧‍👦b💪🏽") == ["👨‍👩‍👧‍👦", "💪🏽"]


def test_laughter_is_no_elongation():
    assert count_elongation("חחחחחח\nhahahaha\nlooool") == {"without": 3}
    assert count_elongation("סבבהההה\nsooo") == {"with": 2}


def test_laughter_is_counted_by_kind_and_length():
    counted = count_laughter("חחח\nחחחחחחחחח\nHAHA\nlool\nxd\nמת 😂\nאח")
    assert counted == {"ח 3": 1, "ח 6": 1, "h": 1, "l": 1, "x": 1, "emoji": 1, "none": 1}


def test_letters_are_counted_by_alphabet():
    assert count_scripts("שלום ok 👍 да") == {"Hebrew": 4, "Latin": 2, "Cyrillic": 2}


def test_words_keep_prefixes_and_lose_case():
    assert list_words("ולבית OK don't צה״ל") == ["ולבית", "ok", "don't", "צה״ל"]


def test_trigrams_do_not_reach_across_messages():
    assert "בג " not in count_trigrams("אב\nגד") and " אב" in count_trigrams("אב\nגד")


def test_describes_a_writer_in_plain_numbers():
    described = describe_writer([Reply(0, "חחח כן 😂\nסבבה ok"), Reply(0, "")])
    assert described["messages_per_reply"] == 1.5
    assert described["share_laughing"] == pytest.approx(1 / 3)
    assert described["share_empty"] == 0.5
    assert described["latin_share_of_letters"] == pytest.approx(2 / 11)


def test_finds_the_words_used_too_often_and_too_seldom():
    tuned = ["בהחלט כן"] * 10
    owner = ["אחי כן"] * 10
    assert find_key_words(tuned, owner) == {"overused": ["בהחלט"], "underused": ["אחי"]}
