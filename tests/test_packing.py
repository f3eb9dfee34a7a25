"""Cutting and packing: no reply is lost, none is learnt twice, rows are full, the same seed gives the same plan."""

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from packing import collate_row, cut_into_chunks, plan_schedule

from common.chat_format import PERSON_TEMPLATE, encode_conversation

LENGTHS = [random.Random(0).randint(5, 300) for _ in range(700)]


def test_each_epoch_trains_on_every_chunk_once():
    schedule = plan_schedule(LENGTHS, num_epochs=3, row_tokens=1024, rows_per_step=4, seed=0)
    start = 0
    for end in schedule.epoch_ends:
        chunks = [chunk for step in range(start + 1, end + 1) for chunk in schedule.chunks_of_step(step)]
        assert sorted(chunks) == list(range(len(LENGTHS)))
        start = end


def test_rows_hold_what_fits_and_are_nearly_full():
    schedule = plan_schedule(LENGTHS, num_epochs=1, row_tokens=1024, rows_per_step=1, seed=0)
    tokens = [sum(LENGTHS[chunk] for chunk in row) for row in schedule.rows]
    assert max(tokens) <= 1024
    assert sum(tokens) / (1024 * len(tokens)) > 0.95


def test_a_chunk_longer_than_a_row_has_one_of_its_own():
    schedule = plan_schedule([50, 400, 60], num_epochs=1, row_tokens=128, rows_per_step=1, seed=0)
    assert [1] in schedule.rows


def test_same_seed_same_plan_and_every_epoch_another():
    plans = [plan_schedule(LENGTHS, 2, 1024, 2, seed=7) for _ in range(2)]
    assert plans[0] == plans[1]
    first, second = plans[0].rows[: plans[0].epoch_ends[0] * 2], plans[0].rows[plans[0].epoch_ends[0] * 2 :]
    assert {tuple(sorted(row)) for row in first} != {tuple(sorted(row)) for row in second}
    assert plan_schedule(LENGTHS, 2, 1024, 2, seed=8) != plans[0]


@settings(max_examples=30)
@given(st.lists(st.integers(1, 90), min_size=1, max_size=60), st.integers(1, 5))
def test_every_step_is_whole_whatever_the_data(lengths, rows_per_step):
    schedule = plan_schedule(lengths, 2, 64, rows_per_step, seed=0)
    assert len(schedule.rows) == schedule.num_steps * rows_per_step
    assert all(schedule.rows)
    assert {chunk for row in schedule.rows for chunk in row} == set(range(len(lengths)))


def test_epochs_are_counted_in_fractions():
    schedule = plan_schedule(LENGTHS, 2, 1024, 1, seed=0)
    assert schedule.epoch_at(0) == 0
    assert schedule.epoch_at(schedule.epoch_ends[0]) == 1
    assert 1 < schedule.epoch_at(schedule.epoch_ends[0] + 1) < 1.1
    assert schedule.epoch_at(schedule.num_steps) == 2


CHUNKS = [
    {"input_ids": [1, 5, 6, 2], "is_supervised": [False, False, True, True]},
    {"input_ids": [1, 7, 2], "is_supervised": [True, False, True]},
]


def test_a_row_predicts_supervised_tokens_from_the_position_before_and_nothing_across_a_border():
    batch = collate_row([CHUNKS])
    assert batch["input_ids"].tolist() == [[1, 5, 6, 2, 1, 7, 2]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3, 0, 1, 2]]
    assert batch["logits_to_keep"].tolist() == [1, 2, 5]
    assert batch["labels"].tolist() == batch["shift_labels"].tolist() == [6, 2, 2]
    assert batch["cu_seq_lens_q"].tolist() == [0, 4, 7]
    assert batch["use_cache"] is False


@pytest.fixture(scope="module")
def encode(tiny_tokenizer):
    """Encode with our template, on a copy of the shared tokenizer."""
    from copy import deepcopy

    tokenizer = deepcopy(tiny_tokenizer)
    tokenizer.chat_template = PERSON_TEMPLATE
    return lambda messages: encode_conversation(tokenizer, messages)


def long_conversation(num_exchanges):
    return [
        {"role": role, "content": f"{word} {number} " * 3}
        for number in range(num_exchanges)
        for role, word in (("user", "question"), ("assistant", "answer"))
    ]


def supervised_ids(chunks):
    return [
        token_id
        for chunk in chunks
        for token_id, is_supervised in zip(chunk.input_ids, chunk.is_supervised, strict=True)
        if is_supervised
    ]


def test_a_long_conversation_is_cut_between_exchanges_and_loses_no_reply(encode):
    messages = long_conversation(40)
    whole = encode(messages)
    chunks = cut_into_chunks(encode, messages, max_length=300)
    assert len(chunks) > 2
    assert all(len(chunk.input_ids) <= 300 for chunk in chunks)
    assert supervised_ids(chunks) == supervised_ids([whole])
    assert sum(chunk.num_reply_chars for chunk in chunks) == sum(len(m["content"]) for m in messages[1::2])


def test_later_chunks_open_with_what_went_before_as_context(encode):
    messages = long_conversation(40)
    first, second, *_ = cut_into_chunks(encode, messages, max_length=300)
    first_supervised = second.is_supervised.index(True)
    assert first_supervised > 30  # history, besides the question itself
    history = second.input_ids[1:30]
    assert any(first.input_ids[at : at + len(history)] == history for at in range(len(first.input_ids)))


@pytest.mark.parametrize("words", [{"user": 900, "assistant": 3}, {"user": 3, "assistant": 900}])
def test_an_exchange_longer_than_the_limit_is_cut_inside_and_counted(encode, words):
    messages = [
        {"role": role, "content": " ".join(f"{role[0]}{number}" for number in range(words[role]))}
        for role in ("user", "assistant")
    ]
    cuts = []
    chunks = cut_into_chunks(encode, messages, 256, lambda: cuts.append(1))
    assert all(len(chunk.input_ids) <= 256 for chunk in chunks)
    assert supervised_ids(chunks) == supervised_ids([encode(messages)])
    assert len(cuts) == 1
    assert all(not chunk.is_supervised[0] for chunk in chunks)  # nothing predicts the first token of a row
    assert all(chunk.input_ids[0] == encode(messages).input_ids[0] for chunk in chunks)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=12), st.booleans(), st.integers(64, 160))
def test_no_reply_is_lost_or_learnt_twice_whatever_the_lengths(encode, sizes, starts_with_reply, max_length):
    roles = ["assistant", "user"] if starts_with_reply else ["user", "assistant"]
    messages = [{"role": roles[n % 2], "content": "word " * size} for n, size in enumerate(sizes)]
    while messages and messages[-1]["role"] == "user":
        messages.pop()
    if not messages:
        return
    chunks = cut_into_chunks(encode, messages, max_length)
    assert all(len(chunk.input_ids) <= max_length for chunk in chunks)
    assert supervised_ids(chunks) == supervised_ids([encode(messages)])


def test_collated_tensors_are_of_the_types_the_model_takes():
    batch = collate_row([CHUNKS])
    assert batch["input_ids"].dtype == batch["labels"].dtype == batch["logits_to_keep"].dtype == torch.int64
    assert batch["cu_seq_lens_q"].dtype == torch.int32
