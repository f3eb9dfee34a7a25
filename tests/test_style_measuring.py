"""Comparing writers habit by habit, on made-up writers of known similarity."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up_writers import make_writers, write_as_friend
from writing_style.resampling import interval_of, resample, split_draws
from writing_style.style_measuring import jensen_shannon, length_distance, measure_habits
from writing_style.writing_habits import HABITS

FEW_DRAWS = 100  # rougher intervals in a quarter of the time

COUNTS = st.lists(st.integers(0, 50), min_size=4, max_size=4).map(lambda numbers: np.array(numbers, dtype=float))


@pytest.fixture(scope="module")
def rows_by_dose():
    """The row of each habit, for imitations that are right in none, a third, two thirds and all of the replies."""
    return {
        dose: {row["name"]: row for row in measure_habits(make_writers(150, 1, dose), seed=0, num_draws=FEW_DRAWS)[0]}
        for dose in (0.0, 0.33, 0.67, 1.0)
    }


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


def test_a_conversation_is_never_on_both_sides_of_a_split():
    draws = split_draws(range(20), num_draws=50, num_splits=3, seed=0)
    assert (draws.reference * draws.compared == 0).all()
    assert ((draws.reference + draws.compared).sum(-1) == 20).all()


def test_sums_are_of_all_conversations_first_and_then_of_the_draws():
    resamples = resample([7, 3, 7, 5], seed=0)
    totals = resamples.total([(3, (1, 10)), (5, (1, 20)), (7, (1, 30)), (7, (0, 5))])
    assert totals[0].tolist() == [3, 65]
    assert totals.shape == (401, 2)
    assert (totals[:, 0] == 3).all()
    assert interval_of(totals[:, 1]).low < 65 < interval_of(totals[:, 1]).high


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


def test_another_person_is_no_perfect_imitation():
    rows, position = measure_habits(make_writers(100, seed=2, imitated=write_as_friend), seed=0, num_draws=FEW_DRAWS)
    assert sum(row["is_told_from_owner"] for row in rows) >= 5
    assert position.high < 0.25


def test_the_same_seed_gives_the_same_numbers():
    writers = make_writers(40, seed=3)
    first, again, other_seed = (measure_habits(writers, seed, num_draws=20) for seed in (5, 5, 6))
    assert first == again
    assert first != other_seed
