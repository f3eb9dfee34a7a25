"""The controls of the verdict: on the measurements that the benchmark stored, and three of them measured here.

`tests/benchmarks/control_table.py` writes the file of measurements.
"""

import json
import random
from pathlib import Path

import pytest
from made_up_people import as_conversations, write_chat
from test_situations import dealt_out, replies_of
from test_style_verdict import bits
from writing_style.style_measuring import TrainingReplies, measure_set
from writing_style.style_verdict import AS_CLOSE, CLOSER, NO_CLOSER, reach_verdict
from writing_style.writing_habits import Reply

STORED = json.loads((Path(__file__).parent / "cases" / "control_measurements.json").read_text(encoding="utf-8"))
NUM_LIVE_REPLIES = 210


@pytest.mark.parametrize("row", STORED, ids=lambda row: f"{row['person']}-{row['control']}")
def test_each_control_gets_the_verdict_it_must_get(row):
    judged = reach_verdict(row["measured"])
    assert judged["verdict"] in row["expected"], [reason for reason in judged["reasons"] if reason["state"] != "yes"]


def test_at_least_ten_controls_on_three_people_are_stored():
    people = {row["person"] for row in STORED}
    assert len(people) >= 3
    for person in people:
        assert len({row["control"] for row in STORED if row["person"] == person}) >= 10


def test_each_verdict_says_what_to_do_next():
    for row in STORED:
        summary = reach_verdict(row["measured"])["summary"]
        assert len(summary) == 4
        assert summary[0].startswith("The tuned model and the untouched base each answered")
        assert summary[-1].startswith("What to do next: ")


def measure_live(person, write_tuned):
    """Measure replies written without a model, with the bits per character of a good one."""
    owner = replies_of(person, seed=1)[:NUM_LIVE_REPLIES]
    known = replies_of(person, seed=2)
    others = [
        Reply(number, turn["content"])
        for number, record in enumerate(as_conversations(write_chat(person, 150, seed=1, own_seed=0), person))
        for turn in record["messages"]
        if turn["role"] == "user"
    ][:NUM_LIVE_REPLIES]
    writers = {
        "owner": owner,
        "tuned": write_tuned(owner, known),
        "base": replies_of(person, seed=1, own_seed=1, is_plain=True)[:NUM_LIVE_REPLIES],
        "other": others,
    }
    training = TrainingReplies(
        owner=[reply.text for reply in known],
        other=[
            turn["content"]
            for record in as_conversations(write_chat(person, 150, seed=2, own_seed=0), person)
            for turn in record["messages"]
            if turn["role"] == "user"
        ],
        answers=known,
    )
    return reach_verdict(measure_set(writers, {"tuned": [], "base": []}, training, bits(), seed=0))


def parrot(owner, known):
    rng = random.Random(0)
    repertoire = rng.sample(sorted({reply.text for reply in known}), 30)
    return [reply._replace(text=rng.choice(repertoire)) for reply in owner]


@pytest.mark.slow
def test_a_parrot_is_refused_for_its_words():
    judged = measure_live("Avner", parrot)
    assert judged["verdict"] == NO_CLOSER
    assert "own words" in [reason["name"] for reason in judged["reasons"] if reason["state"] == "no"]


@pytest.mark.slow
def test_replies_dealt_out_are_refused_for_the_situation_alone():
    judged = measure_live("Tamar", lambda owner, known: dealt_out(owner))
    assert judged["verdict"] == NO_CLOSER
    assert [reason["name"] for reason in judged["reasons"] if reason["state"] == "no"] == ["situation"]
    assert "This no hangs on one of 7 reasons" in judged["summary"][1]


@pytest.mark.slow
def test_a_fresh_draw_of_the_owner_is_no_other_person():
    judged = measure_live("Daniel", lambda owner, known: replies_of("Daniel", seed=1, own_seed=1)[: len(owner)])
    assert judged["verdict"] in (CLOSER, AS_CLOSE), judged["reasons"]
