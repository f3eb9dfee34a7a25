"""The made-up export is always the same bytes, looks like a real one, and holds two people anyone can tell apart."""

import random
import re
from datetime import datetime, timedelta
from statistics import mean

import pytest
from chat_grammar import NEUTRAL_PEOPLE, NOAM, RUTH, SLOTS, neutral_conversations, write_conversation
from make_sample_chat import EDITED_MARK, EXTRA_MESSAGES, NOTICES, NUM_CONVERSATIONS, SEED, sample_export

HEADER_RE = re.compile(r"^(\d{1,2}\.\d{1,2}\.\d{4}, \d{2}:\d{2}) - (?:(Noam|Ruth): )?", re.MULTILINE)


@pytest.fixture(scope="module")
def export_text():
    return sample_export(NUM_CONVERSATIONS, SEED)


@pytest.fixture(scope="module")
def messages(export_text):
    """(sent_at, sender or None, text) of every message."""
    parts = HEADER_RE.split(export_text)[1:]
    return [
        (datetime.strptime(sent_at, "%d.%m.%Y, %H:%M"), sender, text.removesuffix("\n"))
        for sent_at, sender, text in zip(parts[0::3], parts[1::3], parts[2::3], strict=True)
    ]


def words_of(messages, name):
    """Return what this person wrote in words: no media lines, numbers and the like."""
    patterns = [re.escape(extra).replace("0000", r"\d+") for extra in EXTRA_MESSAGES]
    extra_re = re.compile("|".join(patterns))
    return [
        text.removesuffix(EDITED_MARK)
        for _, sender, text in messages
        if sender == name and not extra_re.fullmatch(text)
    ]


def test_every_run_gives_the_same_bytes(export_text):
    assert sample_export(NUM_CONVERSATIONS, SEED) == export_text
    assert sample_export(NUM_CONVERSATIONS, SEED + 1) != export_text


def test_holds_thousands_of_messages_over_months(messages):
    times = [sent_at for sent_at, _, _ in messages]
    assert 3_000 < len(messages) < 10_000
    assert times[-1] - times[0] > timedelta(days=150)
    assert times == sorted(times)


def test_conversations_are_parted_by_more_than_an_hour_of_silence(messages):
    gaps = [later[0] - earlier[0] for earlier, later in zip(messages, messages[1:], strict=False)]
    assert sum(gap > timedelta(hours=1) for gap in gaps) >= NUM_CONVERSATIONS - 1
    assert not any(timedelta(minutes=10) < gap <= timedelta(hours=1) for gap in gaps)


def test_holds_what_real_exports_hold_besides_words(messages):
    texts = [text for _, _, text in messages]
    for extra in EXTRA_MESSAGES:
        pattern = re.compile(re.escape(extra).replace("0000", r"\d+"))
        assert any(pattern.fullmatch(text) for text in texts), extra
    for notice in NOTICES:
        assert (None, notice) in [(sender, text) for _, sender, text in messages]
    assert any("\n" in text for text in texts)
    assert any(text.endswith(EDITED_MARK) for text in texts)


def test_the_two_have_clearly_different_habits(messages):
    noam, ruth = words_of(messages, "Noam"), words_of(messages, "Ruth")
    assert mean(map(len, noam)) < 0.7 * mean(map(len, ruth))
    assert not any(text.endswith(".") for text in noam)
    assert sum("." in text for text in ruth) > 0.3 * len(ruth)
    assert sum("חח" in text for text in noam) > 0.05 * len(noam)
    assert not any("חחח" in text for text in ruth)
    assert not set(NOAM.emoji) & set(RUTH.emoji)
    for person, texts, others in ((NOAM, noam, ruth), (RUTH, ruth, noam)):
        assert sum(any(emoji in text for emoji in person.emoji) for text in texts) > 0.05 * len(texts)
        assert not any(emoji in text for text in others for emoji in person.emoji)


def test_hebrew_comes_with_some_english(messages):
    letters = "".join(text for _, sender, text in messages if sender)
    num_hebrew = len(re.findall("[א-ת]", letters))
    num_latin = len(re.findall("[A-Za-z]", letters))
    assert 0.03 < num_latin / (num_hebrew + num_latin) < 0.3


def test_the_base_learns_from_other_people_only():
    names = {name for turns in neutral_conversations(200, seed=0) for name, _ in turns}
    assert names == {person.name for person in NEUTRAL_PEOPLE}
    assert not names & {"Noam", "Ruth"}
    assert neutral_conversations(5, seed=3) == neutral_conversations(5, seed=3)


def test_an_answer_refers_to_what_was_asked():
    named = []
    for seed in range(200):
        turns = write_conversation((NOAM, RUTH), random.Random(seed))
        text = " ".join(message for _, messages in turns for message in messages)
        named.append({day for day in SLOTS["day"] if f"ביום {day}" in text})
    assert {1} < set(map(len, named)) <= {0, 1}, "two days in one conversation, or no day in any"
