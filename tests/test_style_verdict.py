"""From measured numbers to a verdict: writers of known similarity, and every warning."""

import pytest
from made_up_writers import make_writers, write_as_friend, write_as_owner
from writing_style.copying import measure_excess
from writing_style.resampling import resample
from writing_style.style_measuring import TrainingReplies, measure_set
from writing_style.style_verdict import (
    AS_CLOSE,
    CANNOT_TELL,
    CLOSER,
    NO_CLOSER,
    NOT_ENOUGH_DATA,
    is_enough,
    not_enough_data,
    reach_verdict,
)
from writing_style.writing_habits import Reply, TrainingPhrases, describe_writer


def interval(value):
    return {"value": value, "low": value - 0.1, "high": value + 0.1}


def bits(owner_drop=1.2, other_drop=-0.1, relevance=0.3, base_relevance=0.16):
    """Bits per character as a model would give them; the texts decide the rest."""
    return {
        "owner_base": interval(3.1),
        "owner_tuned": interval(3.1 - owner_drop),
        "owner_drop": interval(owner_drop),
        "other_drop": interval(other_drop),
        "specificity": interval(owner_drop - other_drop),
        "relevance": interval(relevance),
        "base_relevance": interval(base_relevance),
        "relevance_gain": interval(relevance - base_relevance),
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
    """`measured` after the tuned model wrote `texts` (plain numbers, copies and repeats; all else stays)."""
    training = make_writers(300, seed=99)
    writers = make_writers(200, seed=1)
    writers["tuned"] = [Reply(reply.conversation, text) for reply, text in zip(writers["owner"], texts, strict=False)]
    known = [reply.text for name in ("owner", "other") for reply in training[name]]
    phrases = TrainingPhrases(reply.text for reply in training["owner"])
    resamples = resample((reply.conversation for reply in writers["owner"]), seed=0)
    return {
        **measured,
        "writers": {**measured["writers"], "tuned": describe_writer(writers["tuned"])},
        "excess": measure_excess(writers, phrases, known, resamples),
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
    assert judged["verdict"] == CANNOT_TELL
    assert "cannot be told" in judged["summary"][1]


@pytest.mark.slow
def test_a_chat_of_one_speaker_is_still_measured():
    writers = make_writers(100, seed=1)
    del writers["other"]
    training = TrainingReplies([reply.text for reply in make_writers(300, seed=99)["owner"]], [])
    without_other = {name: value for name, value in bits().items() if name not in ("other_drop", "specificity")}
    measured = measure_set(writers, {"tuned": [], "base": []}, training, without_other, seed=0)
    assert measured["side_of_the_owner"] is None
    assert set(measured["writers"]) == {"owner", "tuned", "base"}
    assert reach_verdict(measured)["verdict"] == CLOSER


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changed", "verdict", "name"),
    [
        ({"owner_drop": 0.05}, CANNOT_TELL, "prediction"),  # within the noise
        ({"owner_drop": 1.0, "other_drop": 1.0}, CANNOT_TELL, "person"),  # on both people equally
        ({"owner_drop": -0.3}, NO_CLOSER, "prediction"),
        ({"owner_drop": 1.0, "other_drop": 2.0}, NO_CLOSER, "person"),
        ({"relevance": 0.05}, NO_CLOSER, "relevance"),  # the base uses the context more
        ({"relevance": 0.05, "base_relevance": -0.1}, CANNOT_TELL, "relevance"),  # perhaps not at all
        ({"relevance": 0.2, "base_relevance": 0.25}, CANNOT_TELL, "relevance"),  # perhaps less than the base
        ({"relevance": 0.2, "base_relevance": 0.5}, NO_CLOSER, "relevance"),
        ({"relevance": -0.2}, NO_CLOSER, "relevance"),
    ],
)
def test_habits_alone_are_not_enough(perfect, changed, verdict, name):
    judged = reach_verdict({**perfect, "bits": bits(**changed)})
    assert judged["verdict"] == verdict
    state = {CANNOT_TELL: "open", NO_CLOSER: "no"}[verdict]
    assert name in [reason["name"] for reason in judged["reasons"] if reason["state"] == state]


@pytest.mark.slow
def test_a_no_says_on_which_reason_it_hangs_and_by_how_much(perfect):
    judged = reach_verdict({**perfect, "bits": bits(relevance=-0.2)})
    assert "This no hangs on one of 6 reasons" in judged["summary"][1]
    assert "by -0.20 [-0.30, -0.10] (the base: 0.16 [0.06, 0.26])" in judged["summary"][1]
    assert "(needed: above 0.02; the interval ends 0.12 below that)" in judged["summary"][1]


@pytest.mark.slow
def test_an_interval_at_a_limit_is_neither_yes_nor_no(perfect):
    side = {"value": 0.8, "low": 0.7, "high": 0.9}
    assert reach_verdict({**perfect, "side_of_the_owner": side})["verdict"] == CANNOT_TELL
    assert reach_verdict({**perfect, "position": {"value": 0.2, "low": 0.1, "high": 0.3}})["verdict"] == CANNOT_TELL


@pytest.mark.slow
def test_two_people_who_write_alike_leave_it_open(perfect):
    """Whatever the bits say: they fall on both alike."""
    for specificity in (-0.5, 0.0, 0.5):
        changed = {**perfect["bits"], "specificity": interval(specificity)}
        assert reach_verdict({**perfect, "bits": changed, "side_of_the_owner": None})["verdict"] == CANNOT_TELL


@pytest.mark.slow
def test_copies_and_repeats_cost_the_verdict(perfect):
    known = [reply.text for reply in make_writers(300, seed=99)["owner"]]
    fine = [reply.text for reply in make_writers(200, seed=7)["tuned"]]
    parrot = [known[number % 30] for number in range(200)]
    assert reach_verdict(with_tuned(perfect, parrot))["verdict"] == NO_CLOSER
    assert reach_verdict(with_tuned(perfect, ["סבבה אחי"] * 200))["verdict"] == NO_CLOSER
    a_few = [known[number] if number % 6 == 0 else fine[number] for number in range(200)]
    a_few = reach_verdict(with_tuned(perfect, a_few))
    assert a_few["verdict"] == CLOSER
    assert "replies of more than three words copied from training" in a_few["told_from_owner_by"]
    assert reach_verdict(with_tuned(perfect, fine))["verdict"] == AS_CLOSE


@pytest.mark.slow
def test_replies_deaf_to_their_situation_are_refused(perfect):
    def with_kept(value, base=0.7):
        row = {
            "label": "After a question",
            "is_measurable": True,
            "is_in_prompt": True,
            "is_told_from_owner": value < 0.5,
        }
        return {**perfect, "situations": {"rows": [row], "kept": interval(value), "base_kept": interval(base)}}

    assert reach_verdict(with_kept(0.0))["verdict"] == NO_CLOSER
    assert reach_verdict(with_kept(0.2))["verdict"] == CLOSER
    assert reach_verdict(with_kept(0.08))["verdict"] == NO_CLOSER
    assert reach_verdict(with_kept(0.9))["verdict"] == AS_CLOSE
    deaf_as_the_base = reach_verdict(with_kept(0.0, base=0.0))
    assert deaf_as_the_base["verdict"] == CLOSER
    assert "hardly fit" in deaf_as_the_base["warnings"][0]


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
    assert "wrote more than once: 100%" in warnings_of(["סבבה אחי"] * 200)
    assert "copied from training: 100%" in warnings_of(known)
    assert "neither in training nor in the base's replies: 50%" in warnings_of(["סבבה קשקשתא"] * 200)
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
