"""Who asks, answers, promises and keeps, beside the planted set (`test_digest_measured`)."""

from datetime import datetime, timedelta

import pytest
from digest_reading import Circle, digest_chat
from linear_time import assert_linear
from promise_words import acts_done, find_promise
from question_words import is_answer, is_question, is_withdrawal
from text_facts import NO_FACTS
from whatsapp_export import Message
from wording import wording_of

START = datetime(2024, 12, 10, 9, 30)
PAIR = Circle(me=["Noam"], others=["Ruth"])


def digest(*said, circle=PAIR, since=datetime.min):
    """Digest messages of (hours after the start, sender, text)."""
    messages = [(Message(START + timedelta(hours=hours), sender, text), False) for hours, sender, text in said]
    return digest_chat("chat", messages, circle, NO_FACTS, since=since, end=messages[-1][0].sent_at)


def test_a_question_shows_the_first_three_messages_that_followed():
    found = digest((0, "Ruth", "where is the key?"), *[(0.1, "Ruth", f"line {number}") for number in range(5)])
    (question,) = found.questions_to_me
    assert [message.text for message in question.since] == ["line 0", "line 1", "line 2"]


def test_an_answer_after_the_next_conversation_comes_too_late():
    asked = (0, "Ruth", "where is the key?")
    late = [(3, "Ruth", "hello"), (6, "Noam", "in the drawer")]
    assert digest(asked, (3, "Noam", "in the drawer")).questions_to_me == []
    assert len(digest(asked, *late).questions_to_me) == 1


def test_a_message_that_arrived_hours_late_begins_no_conversation():
    asked = (0, "Ruth", "where is the key?")
    late = [(-4, "Ruth", "I was in the metro"), (0.2, "Ruth", "hello")]
    assert digest(asked, *late, (3, "Noam", "in the drawer")).questions_to_me == []


def test_two_names_of_one_person_are_one_person():
    circle = Circle(me=["Noam", "Noam (work)"], others=["Ruth"])
    found = digest((0, "Noam", "where is the key?"), (0.1, "Noam (work)", "it is here, I think"), circle=circle)
    assert len(found.questions_of_mine) == 1
    assert found.figures.people == {"me": [2, 9]}


def test_what_was_said_before_the_period_is_left_out():
    found = digest((0, "Ruth", "where is the key?"), (30, "Ruth", "never"), since=START + timedelta(hours=1))
    assert (found.questions_to_me, found.figures.first) == ([], START + timedelta(hours=30))


def test_a_promise_is_kept_by_a_later_message_of_the_same_person_alone():
    said = (0, "Noam", "I'll send you the file")
    assert digest(said, (1, "Ruth", "I sent it")).promises_of_mine[0].kept_by is None
    assert digest(said, (1, "Noam", "sent it")).promises_of_mine[0].kept_by.text == "sent it"
    assert digest((0, "Noam", "sent it"), (1, "Noam", "I'll send you the file")).promises_of_mine[0].kept_by is None
    assert digest(said, (24 * 30, "Noam", "sent it")).promises_of_mine[0].kept_by is None


def test_a_picture_keeps_a_promise_to_send_for_three_days():
    said = (0, "Ruth", "אשלח לך תמונה")
    assert digest(said, (5, "Ruth", "<Media omitted>")).promises_of_others[0].kept_by is not None
    assert digest(said, (24 * 4, "Ruth", "<Media omitted>")).promises_of_others[0].kept_by is None


def test_figures_name_links_files_and_what_was_answered_most():
    found = digest(
        (0, "Ruth", "look https://example.com/a, nice"),
        (0.01, "Noam", "one"),
        (0.02, "Noam", "two"),
        (0.03, "Noam", "three"),
        (20, "Ruth", "report.pdf (file attached)"),
        (20.1, "Ruth", "thanks. (really)"),
    )
    figures = found.figures
    assert [address for _, address in figures.links] == ["https://example.com/a"]
    assert [name for _, name in figures.files] == ["report.pdf"]
    assert [(message.sender, number) for message, number in figures.most_answered()] == [("Ruth", 3)]
    assert figures.silence[1] == START + timedelta(hours=20)
    assert figures.by_hour()[9] == 4


@pytest.mark.parametrize(
    "text", ["ח", "חח ", "? ", "לא נכון? ", "אז ", "אשלח ", "אני שולח ", "I'll ", "done ", "אם ", "ok so ", "haha"]
)
def test_a_text_that_repeats_itself_takes_linear_time(text):
    for rule in (is_question, is_answer, is_withdrawal, find_promise, acts_done):
        assert_linear(lambda length, rule=rule: rule(wording_of((text * length)[: 8 * length] + "א")), 4_000)


def test_a_chat_of_questions_alone_takes_linear_time():
    def ask(length):
        digest(*[(number / 100, "Ruth", "where is the key?") for number in range(length)])

    assert_linear(ask, 4_000)


def test_a_group_whose_members_all_ask_and_wait_takes_linear_time():
    def ask(num_members):
        members = [f"Dan {number}" for number in range(num_members)]
        said = ((0, member, "let me check, are you home tonight?") for member in members)
        digest(*said, circle=Circle(me=[], others=members))

    assert_linear(ask, 12_000)


def test_a_chat_of_promises_alone_takes_linear_time():
    def promise(length):
        said = [(number / 100, "Noam", "I'll call you") for number in range(length)]
        digest(*[item for one in said for item in (one, (one[0], "Noam", "I bought milk"))])

    assert_linear(promise, 2_000)


@pytest.mark.parametrize("hours", [24 * 4, -24])
def test_promises_too_old_or_too_new_for_a_picture_take_linear_time(hours):
    def promise(length):
        said = [(number / 10_000, "Noam", "I'll send it") for number in range(length)]
        digest(*said, *[(hours + number / 10_000, "Noam", "<Media omitted>") for number in range(length)])

    assert_linear(promise, 2_000)
