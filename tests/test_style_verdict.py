"""From measured numbers to a verdict: writers of known similarity, and every warning."""

import pytest
from made_up_writers import make_writers, write_as_friend, write_as_owner
from writing_style.style_measuring import TrainingReplies, measure_set
from writing_style.style_verdict import (
    AS_CLOSE,
    CLOSER,
    NO_CLOSER,
    NOT_ENOUGH_DATA,
    is_enough,
    not_enough_data,
    reach_verdict,
)
from writing_style.writing_habits import Reply


def interval(value):
    return {"value": value, "low": value - 0.1, "high": value + 0.1}


def bits(owner_drop=1.2, other_drop=-0.1):
    """Bits per character as a model would give them; the texts decide the rest."""
    return {
        "owner_base": interval(3.1),
        "owner_tuned": interval(3.1 - owner_drop),
        "owner_drop": interval(owner_drop),
        "other_drop": interval(other_drop),
        "specificity": interval(owner_drop - other_drop),
    }


def measure(writers, **drops):
    training = make_writers(300, seed=99)
    replies = TrainingReplies(*([reply.text for reply in training[name]] for name in ("owner", "other")))
    endings = {name: ["complete"] * len(writers[name]) for name in ("tuned", "base")}
    return measure_set(writers, endings, replies, bits(**drops), seed=0)


@pytest.fixture(scope="module")
def perfect():
    return measure(make_writers(200, seed=1))


def with_tuned(measured, texts):
    """`measured` after the tuned model wrote `texts` (plain numbers and copies; the intervals stay)."""
    from writing_style.writing_habits import TrainingPhrases, describe_copies, describe_writer

    phrases = TrainingPhrases(reply.text for reply in make_writers(300, seed=99)["owner"])
    return {
        **measured,
        "writers": {**measured["writers"], "tuned": describe_writer([Reply(0, text) for text in texts])},
        "copies": {**measured["copies"], "tuned": describe_copies(phrases, texts)},
    }


@pytest.mark.slow
def test_a_perfect_imitation_is_as_close_as_the_owner(perfect):
    judged = reach_verdict(perfect)
    assert judged["verdict"] == AS_CLOSE
    assert judged["is_trustworthy"]
    assert judged["warnings"] == []


@pytest.mark.slow
def test_an_imitation_right_three_times_of_four_is_closer_and_still_told_apart():
    judged = reach_verdict(measure(make_writers(200, seed=1, dose=0.75)))
    assert judged["verdict"] == CLOSER
    assert len(judged["told_from_owner_by"]) >= 3


@pytest.mark.slow
def test_the_base_is_no_closer_than_itself():
    assert reach_verdict(measure(make_writers(100, seed=1, dose=0.0)))["verdict"] == NO_CLOSER


@pytest.mark.slow
def test_imitating_the_other_person_flips_the_verdict():
    measured = measure(make_writers(100, seed=1, imitated=write_as_friend))
    assert measured["side_of_the_owner"]["high"] < 0.5
    assert reach_verdict(measured)["verdict"] == NO_CLOSER


@pytest.mark.slow
def test_a_model_of_both_people_equally_is_no_closer():
    """Shuffled labels: half of its replies are written like the owner, half like the other person."""
    writers = make_writers(200, seed=1, dose=0.5, imitated=write_as_owner, otherwise=write_as_friend)
    measured = measure(writers)
    assert measured["side_of_the_owner"]["low"] < 0.5 < measured["side_of_the_owner"]["high"]
    assert reach_verdict(measured)["verdict"] == NO_CLOSER


@pytest.mark.slow
def test_shuffled_names_make_the_page_grey():
    """Without two people to tell apart the classifier is worthless, and the report says so."""
    writers = make_writers(100, seed=1)
    for place in range(0, 100, 2):
        writers["owner"][place], writers["other"][place] = writers["other"][place], writers["owner"][place]
    judged = reach_verdict(measure(writers))
    assert not judged["is_trustworthy"]
    assert judged["verdict"] == NO_CLOSER


@pytest.mark.slow
def test_a_chat_of_one_speaker_is_still_measured():
    writers = make_writers(100, seed=1)
    del writers["other"]
    training = TrainingReplies([reply.text for reply in make_writers(300, seed=99)["owner"]], [])
    measured = measure_set(writers, {"tuned": [], "base": []}, training, {"owner_drop": interval(1)}, seed=0)
    assert measured["side_of_the_owner"] is None
    assert set(measured["writers"]) == {"owner", "tuned", "base"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "drops",
    [{"owner_drop": 0.05}, {"owner_drop": 1.0, "other_drop": 1.0}, {"owner_drop": -0.3}],
    ids=["within the noise", "on both people equally", "more bits"],
)
def test_habits_alone_are_not_enough(perfect, drops):
    assert reach_verdict({**perfect, "bits": bits(**drops)})["verdict"] == NO_CLOSER


@pytest.mark.slow
def test_with_fewer_than_200_replies_no_difference_says_nothing(perfect):
    assert reach_verdict({**perfect, "num_replies": 199})["verdict"] == CLOSER


@pytest.mark.slow
def test_every_fault_of_the_replies_raises_its_warning(perfect):
    def warnings_of(texts, **endings):
        return " / ".join(reach_verdict({**with_tuned(perfect, texts), "endings": {"tuned": endings}})["warnings"])

    fine = [reply.text for reply in make_writers(200, seed=7)["tuned"]]
    known = [reply.text for reply in make_writers(300, seed=99)["owner"]][:200]
    assert warnings_of(fine) == ""
    assert "are empty" in warnings_of(fine[:100] + [""] * 100)
    assert "repeat another reply" in warnings_of(["סבבה אחי"] * 200)
    assert "memorized" in warnings_of(known)
    assert "stuck in a loop" in warnings_of(["אני בא אני בא אני בא אני בא אני בא"] * 5 + fine[5:])
    assert "cut at the length limit" in warnings_of(fine, limit=30)
    assert "other person's turn" in warnings_of(fine, marker=1)


@pytest.mark.parametrize(
    ("num_replies", "num_conversations", "expected"), [(50, 8, True), (49, 20, False), (200, 7, False), (0, 0, False)]
)
def test_refuses_below_the_documented_numbers(num_replies, num_conversations, expected):
    assert is_enough(num_replies, num_conversations) == expected


def test_too_little_data_is_reported_with_its_numbers():
    judged = not_enough_data(20, 5)
    assert judged["verdict"] == NOT_ENOUGH_DATA
    assert "20 held-out replies in 5 conversations" in judged["sentence"]
    assert "1 held-out reply in 1 conversation;" in not_enough_data(1, 1)["sentence"]
