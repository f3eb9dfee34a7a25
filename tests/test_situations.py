"""Replies that fit what they answer, and the same replies dealt out to other questions."""

import random

import pytest
from made_up_people import as_conversations, write_chat
from writing_style.resampling import resample
from writing_style.situations import measure_situations
from writing_style.writing_habits import Reply, Situation

NUM_CONVERSATIONS = 150
OTHERS = ("Avner", "Daniel", "Maya")


def replies_of(person, seed, own_seed=0, **how):
    """A person's replies with their situations, as the report makes them."""
    replies = []
    records = as_conversations(write_chat(person, NUM_CONVERSATIONS, seed, own_seed, **how), person)
    for number, record in enumerate(records):
        turns = record["messages"]
        for place in range(1, len(turns)):
            if turns[place]["role"] == "assistant":
                before = turns[:place]
                situation = Situation(
                    heard="\n".join(turn["content"] for turn in before[-3:]),
                    is_first=not any(turn["role"] == "assistant" for turn in before),
                    partner=record["with"][0],
                    hour=int(record["started_at"][11:13]),
                )
                replies.append(Reply(number, turns[place]["content"], situation))
    return replies


def dealt_out(replies):
    texts = [reply.text for reply in replies]
    random.Random(0).shuffle(texts)
    return [reply._replace(text=text) for reply, text in zip(replies, texts, strict=True)]


def measure(person, tuned_of, context="none"):
    owner = replies_of(person, seed=1)
    writers = {"owner": owner, "tuned": tuned_of(owner), "base": dealt_out(owner)}
    resamples = resample((reply.conversation for reply in owner), seed=0)
    measured = measure_situations(replies_of(person, seed=2), writers, resamples, context)
    return {row["name"]: row for row in measured["rows"]}, measured["kept"]


@pytest.fixture(scope="module", params=["Tamar", *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)])
def person(request):
    return request.param


def test_another_draw_of_the_owner_keeps_what_the_owner_shows(person):
    rows, kept = measure(person, lambda owner: replies_of(person, seed=1, own_seed=1))
    assert kept["low"] > 0.75
    assert not any(row["is_told_from_owner"] for row in rows.values())


def test_replies_dealt_out_keep_nothing(person):
    rows, kept = measure(person, dealt_out)
    assert kept["low"] <= 0 < kept["high"] < 0.25
    assert rows["question"]["is_measurable"] and rows["question"]["is_told_from_owner"]
    assert rows["topic"]["is_measurable"] and rows["topic"]["is_told_from_owner"]


def test_the_partner_shows_where_the_owner_writes_otherwise_to_each():
    rows, _ = measure("Daniel", lambda owner: replies_of("Daniel", seed=1, own_seed=1))
    assert rows["partner"]["is_measurable"] and not rows["partner"]["is_in_prompt"]
    assert rows["partner"]["owner"]["value"] > 0.9
    told, _ = measure("Daniel", dealt_out, "who")
    assert told["partner"]["is_in_prompt"] and told["partner"]["is_told_from_owner"]


def test_the_hour_shows_where_the_owner_greets_by_it():
    rows, _ = measure("Maya", lambda owner: replies_of("Maya", seed=1, own_seed=1))
    assert rows["hour"]["is_measurable"]
    rows, _ = measure("Avner", lambda owner: owner)
    assert not rows["hour"]["is_measurable"]


@pytest.mark.parametrize(("partner", "hour"), [("", None), ("Eitan", 9)])
def test_what_is_not_known_or_always_the_same_is_no_class(partner, hour):
    same = [Reply(number, "שלום", Situation("?", True, partner, hour)) for number in range(20)]
    resamples = resample(range(20), seed=0)
    measured = measure_situations(same, {"owner": same, "tuned": same, "base": same}, resamples)
    assert [row["name"] for row in measured["rows"]] == ["topic"]
    assert measured["kept"] is None
