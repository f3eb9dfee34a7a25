"""Bursts to turns, silence to conversations, senders to roles."""

from datetime import datetime, timedelta

import pytest
from conversations import ASSISTANT, USER, KeptMessage, build_turns, split_after_last_reply, split_at_silence
from hypothesis import given, settings
from hypothesis import strategies as st

START = datetime(2024, 5, 1, 9, 0)


def said(*lines):
    """Make messages of (seconds after the start, sender, text)."""
    return [KeptMessage(START + timedelta(seconds=seconds), sender, text) for seconds, sender, text in lines]


def roles_and_words(turns):
    return [(turn["role"], turn["content"]) for turn in turns]


def test_silence_of_more_than_the_gap_starts_another_conversation():
    messages = said((0, "Dan", "a"), (3600, "Rut", "b"), (7201, "Dan", "c"))
    assert [len(conversation) for conversation in split_at_silence(messages, 3600)] == [2, 1]


def test_silence_counts_from_the_latest_message_not_from_the_first():
    messages = said(*((minute * 60, "Dan", "a") for minute in range(0, 300, 50)))
    assert [len(conversation) for conversation in split_at_silence(messages, 3600)] == [6]


def test_file_order_is_kept_and_the_hour_repeated_by_winter_time_does_not_split():
    messages = said((3540, "Dan", "before"), (0, "Rut", "after the clock went back"))
    assert list(split_at_silence(messages, 3600)) == [messages]


def test_a_jump_back_of_months_splits():
    messages = said((90 * 86400, "Dan", "a"), (0, "Rut", "b"))
    assert [len(conversation) for conversation in split_at_silence(messages, 3600)] == [1, 1]


def test_no_messages_make_no_conversation():
    assert list(split_at_silence([], 3600)) == []


def test_bursts_become_turns_with_line_breaks():
    messages = said((0, "Dan", "hi"), (5, "Dan", "there"), (9, "Rut", "hey"), (12, "Rut", "two\nlines"))
    assert roles_and_words(build_turns(messages, {"Rut"}, 600)) == [
        (USER, "hi\nthere"),
        (ASSISTANT, "hey\ntwo\nlines"),
    ]


def test_turns_of_one_role_are_joined_across_the_turn_gap():
    messages = said((0, "Dan", "hi"), (1200, "Dan", "still there?"), (1300, "Rut", "yes"))
    assert roles_and_words(build_turns(messages, {"Rut"}, 600)) == [(USER, "hi\nstill there?"), (ASSISTANT, "yes")]


def test_a_leading_turn_of_the_imitated_person_stays():
    messages = said((0, "Rut", "morning"), (5, "Dan", "hi"), (9, "Rut", "coffee?"))
    assert [turn["role"] for turn in build_turns(messages, {"Rut"}, 600)] == [ASSISTANT, USER, ASSISTANT]


def test_in_a_group_each_burst_of_another_begins_with_the_name():
    messages = said(
        (0, "Dan", "hi"),
        (5, "Dan", "all"),
        (9, "Noa", "hey"),
        (700, "Noa", "anyone?"),
        (710, "Rut", "me"),
        (800, "Dan", "ok"),
    )
    names = {"Dan": "Dan", "Noa": "Noa"}
    assert roles_and_words(build_turns(messages, {"Rut"}, 600, names)) == [
        (USER, "Dan: hi\nall\nNoa: hey\nNoa: anyone?"),
        (ASSISTANT, "me"),
        (USER, "Dan: ok"),
    ]


def test_one_person_may_have_several_names():
    messages = said((0, "Dan", "hi"), (5, "Rut", "hey"), (9, "Rut Levi", "new phone"))
    assert roles_and_words(build_turns(messages, {"Rut", "Rut Levi"}, 600)) == [
        (USER, "hi"),
        (ASSISTANT, "hey\nnew phone"),
    ]


@pytest.mark.parametrize(
    ("senders", "num_answered"), [("DRD", 2), ("DDD", 0), ("RDDD", 1), ("DDR", 3), ("R", 1), ("", 0)]
)
def test_what_nobody_answered_is_parted_from_the_end(senders, num_answered):
    messages = said(*((index, sender, "x") for index, sender in enumerate(senders)))
    answered, unanswered = split_after_last_reply(messages, {"R"})
    assert (answered, unanswered) == (messages[:num_answered], messages[num_answered:])


MESSAGES = st.lists(
    st.builds(
        KeptMessage,
        st.integers(-9000, 9000).map(lambda seconds: START + timedelta(seconds=seconds)),
        st.sampled_from(["Rut", "Dan", "Noa"]),
        st.text(min_size=1),
    ),
    max_size=40,
)


@settings(max_examples=50, deadline=None)
@given(MESSAGES)
def test_every_message_is_in_exactly_one_place_and_roles_alternate(messages):
    conversations = list(split_at_silence(messages, 3600))
    assert [message for conversation in conversations for message in conversation] == messages
    for conversation in conversations:
        answered, unanswered = split_after_last_reply(conversation, {"Rut"})
        assert answered + unanswered == conversation
        turns = build_turns(answered, {"Rut"}, 600)
        assert all(one["role"] != two["role"] for one, two in zip(turns, turns[1:], strict=False))
        assert "\n".join(turn["content"] for turn in turns) == "\n".join(message.text for message in answered)
        assert not turns or turns[-1]["role"] == ASSISTANT
