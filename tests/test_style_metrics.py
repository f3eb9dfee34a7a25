"""Counting habits and comparing writers, on made-up writers whose likeness is known."""

import doctest

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up_writers import make_writers, write_as_friend
from writing_style import author_classifier, blind_quiz, style_metrics
from writing_style.style_metrics import (
    HABITS,
    count_elongation,
    count_endings,
    count_laughter,
    count_scripts,
    count_trigrams,
    describe_writer,
    find_key_words,
    has_loop,
    jensen_shannon,
    length_distance,
    list_emoji,
    list_words,
    make_draws,
    measure_habits,
)

FEW_DRAWS = 100  # rougher ends of the intervals, a quarter of the time

COUNTS = st.lists(st.integers(0, 50), min_size=4, max_size=4).map(lambda numbers: np.array(numbers, dtype=float))


@pytest.fixture(scope="module")
def rows_by_dose():
    """For imitations that are right in none, a third, two thirds and all of the replies: the row of each habit."""
    return {
        dose: {row["name"]: row for row in measure_habits(make_writers(150, 1, dose), seed=0, num_draws=FEW_DRAWS)}
        for dose in (0.0, 0.33, 0.67, 1.0)
    }


@pytest.mark.parametrize("module", [style_metrics, author_classifier, blind_quiz], ids=lambda module: module.__name__)
def test_examples_in_the_docstrings_hold(module):
    assert doctest.testmod(module).failed == 0


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


def test_a_repeated_block_is_a_loop_and_laughter_is_not():
    assert has_loop("אני בא אני בא אני בא אני בא")
    assert not has_loop("חחחחחחחחחחחחחחח לא לא לא")


@given(COUNTS, COUNTS)
def test_divergence_is_symmetric_and_between_0_and_1(first, second):
    divergence = jensen_shannon(first, second)
    assert divergence == pytest.approx(jensen_shannon(second, first), abs=1e-12)
    assert 0 <= divergence <= 1
    assert jensen_shannon(first, first * 3) == pytest.approx(0, abs=1e-9)


def test_divergence_of_writers_with_nothing_in_common_is_1():
    assert jensen_shannon(np.array([3.0, 0]), np.array([0, 5.0])) == pytest.approx(1)
    assert jensen_shannon(np.array([3.0, 0]), np.array([0.0, 0])) == 1  # one uses emoji, the other none
    assert jensen_shannon(np.array([0.0, 0]), np.array([0.0, 0])) == 0


def test_length_distance_is_the_mean_step_in_log_length():
    lengths = np.array([9.0, 19.0, 99.0])
    assert length_distance(np.array([4.0, 0, 0]), np.array([0.0, 4, 0]), lengths) == pytest.approx(np.log(2))
    assert length_distance(np.array([2.0, 0, 2]), np.array([0.0, 4, 0]), lengths) == pytest.approx(
        (np.log(2) + np.log(5)) / 2
    )


def test_a_conversation_never_lies_on_both_sides_of_a_split():
    draws = make_draws(range(20), num_draws=50, num_splits=3, seed=0)
    assert (draws.reference * draws.compared == 0).all()
    assert ((draws.reference + draws.compared).sum(-1) == 20).all()


def test_a_perfect_imitation_closes_the_whole_gap(rows_by_dose):
    for row in rows_by_dose[1.0].values():
        if row["is_measurable"]:
            assert row["gap_closed"]["tuned"]["value"] == pytest.approx(1, abs=0.1), row["name"]
            assert not row["is_told_from_owner"], row["name"]


def test_the_base_itself_closes_nothing(rows_by_dose):
    for row in rows_by_dose[0.0].values():
        if row["is_measurable"]:
            assert row["gap_closed"]["tuned"]["value"] == pytest.approx(0, abs=0.1), row["name"]
            assert not row["is_closer"], row["name"]


@pytest.mark.parametrize("name", ["length", "endings", "punctuation", "words", "trigrams"])
def test_more_of_the_owner_is_nearer_to_the_owner(rows_by_dose, name):
    closed = [rows_by_dose[dose][name]["gap_closed"]["tuned"]["value"] for dose in (0.0, 0.33, 0.67, 1.0)]
    assert closed == sorted(closed)
    assert closed[0] < closed[-1] - 0.1


def test_what_nobody_does_cannot_be_measured(rows_by_dose):
    assert not rows_by_dose[1.0]["elongation"]["is_measurable"]
    assert rows_by_dose[1.0]["elongation"]["gap_closed"] is None


def test_enough_habits_tell_base_and_owner_apart(rows_by_dose):
    assert sum(row["is_measurable"] for row in rows_by_dose[1.0].values()) >= len(HABITS) - 2


def test_the_friend_is_no_perfect_imitation():
    rows = measure_habits(make_writers(100, seed=2, imitated=write_as_friend), seed=0, num_draws=FEW_DRAWS)
    assert sum(row["is_told_from_owner"] for row in rows) >= 5


def test_the_same_seed_gives_the_same_numbers():
    writers = make_writers(40, seed=3)
    first, again, other_seed = (measure_habits(writers, seed, num_draws=20) for seed in (5, 5, 6))
    assert first == again
    assert first != other_seed


def test_describes_a_writer_in_plain_numbers():
    described = describe_writer([style_metrics.Reply(0, "חחח כן 😂\nסבבה ok"), style_metrics.Reply(0, "")])
    assert described["messages_per_reply"] == 1.5
    assert described["share_laughing"] == pytest.approx(1 / 3)
    assert described["share_empty"] == 0.5
    assert described["latin_share_of_letters"] == pytest.approx(2 / 11)


def test_finds_the_words_used_too_often_and_too_seldom():
    tuned = [style_metrics.Reply(0, "בהחלט כן")] * 10
    owner = [style_metrics.Reply(0, "אחי כן")] * 10
    assert find_key_words(tuned, owner) == {"overused": ["בהחלט"], "underused": ["אחי"]}
