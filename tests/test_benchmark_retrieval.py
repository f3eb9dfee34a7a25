"""Past exchanges of the retrieval trial: never of a held-out, the same or a later conversation; half of the rows go without."""

import random

from benchmark_retrieval import DROPPED_SHARE, NUM_PAST, is_dropped, list_past, pick, with_past
from made_up_facts import ASKED, TOLD, write_facts


def test_past_exchanges_are_of_earlier_conversations_that_are_not_held_out():
    records = write_facts(seed=0)[:120]
    rng = random.Random(0)
    held_out = set(rng.sample(range(len(records)), 30))
    past = list_past(records, held_out)
    where = {(found.told, found.conversation) for found in past}
    num_chosen = 0
    for line, record in enumerate(records):
        scores = [rng.random() for _ in past]
        chosen = pick(past, line, record["started_at"], scores)
        num_chosen += len(chosen)
        for told in chosen:
            lines = {conversation for words, conversation in where if words == told}
            assert any(other < line and other not in held_out for other in lines)
        # Whatever the scores: the best of all are the conversation's own and later exchanges here.
        scores = [100.0 if found.conversation >= line else 0.0 for found in past]
        assert set(pick(past, line, record["started_at"], scores)) <= {
            found.told for found in past if found.conversation < line
        }
    assert num_chosen > 0.9 * NUM_PAST * len(records)


def test_best_exchange_stands_next_to_the_question():
    records = write_facts(seed=0)[:40]
    past = list_past(records, [])
    scores = [float(place) for place in range(len(past))]
    chosen = pick(past, line=-1, started_at="9999", scores=scores)
    assert chosen[-1] == past[-1].told
    text = with_past([{"role": "user", "content": "שאלה"}], chosen)[0]["content"]
    assert text.endswith("שאלה")
    assert chosen[-1].reply in text.split("\n")[-3]


def test_about_half_of_the_rows_have_no_past_exchanges():
    num_dropped = sum(is_dropped(seed=0, line=line) for line in range(2_000))
    assert abs(num_dropped / 2_000 - DROPPED_SHARE) < 0.05


def test_a_fact_is_told_before_it_is_asked_for():
    told = set()
    for record in write_facts(seed=1):
        fact = record.get("fact")
        if fact and fact["act"] == TOLD:
            assert fact["value"] in " ".join(turn["content"] for turn in record["messages"][:2])
            told.add((fact["kind"], fact["key"], fact["value"]))
        elif fact:
            assert fact["act"] == ASKED
            assert (fact["kind"], fact["key"], fact["value"]) in told
            assert fact["value"] in record["messages"][1]["content"]
            assert fact["value"] not in record["messages"][0]["content"]
