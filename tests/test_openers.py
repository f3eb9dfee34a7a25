"""Openers in the style report: found in the held-out conversations, counted, compared where there are enough, shown apart."""

import pytest
from test_style_report import write_split
from writing_style.held_out_replies import read_held_out_data
from writing_style.model_replies import RepliesFile, SampledReply, sample_replies
from writing_style.openers import MAX_OPENERS, has_enough, list_openers, measure_openers

CONVERSATION = [
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": "what's up"},
]


def opened_by_the_owner(number):
    words = ("mazal tov", "are you home?", "yalla beach", "call me")[number % 4]
    return [{"role": "assistant", "content": f"{words} 🎉\nok?"}, *CONVERSATION]


@pytest.fixture
def read(tmp_path):
    """A function that returns data whose first conversations are held out; so many of them begin with the owner."""

    def read(num_openers, num_others=5):
        held_out = [opened_by_the_owner(number) for number in range(num_openers)] + [CONVERSATION] * num_others
        data_path = write_split(tmp_path, [*held_out, CONVERSATION], spread=list(range(len(held_out))))
        return read_held_out_data(tmp_path, data_path)

    return read


def test_openers_are_the_first_messages_of_the_owner(read):
    openers = list_openers(read(3), "spread")
    assert [(opener.conversation, opener.number, opener.context) for opener in openers] == [
        (n, 0, []) for n in range(3)
    ]
    assert openers[1].reply == "are you home? 🎉\nok?"
    assert not has_enough(openers)
    assert len(list_openers(read(3 * MAX_OPENERS), "spread")) == MAX_OPENERS


def test_too_few_are_counted_only(read):
    data = read(3)
    assert measure_openers(list_openers(data, "spread"), {}, data, seed=0) == {"num_openers": 3, "habits": []}


def test_openers_like_the_owners_are_told_from_others(read):
    data = read(60)
    openers = list_openers(data, "spread")
    assert has_enough(openers)
    owner = [opener.reply for opener in openers]
    base = ["Dear Sir or Madam, I am writing to you in a long sentence."] * 60
    measured = measure_openers(openers, {"owner": owner, "tuned": owner[1:] + owner[:1], "base": base}, data, seed=0)
    rows = {row["name"]: row for row in measured["habits"]}
    assert measured["num_openers"] == 60
    for name in ("length", "burst", "emoji_rate", "words"):
        assert rows[name]["is_closer"] and not rows[name]["is_told_from_owner"]
    assert rows["words"]["base"]["value"] > 0.9


def test_a_model_writes_openers_from_the_prompt_of_one(read, tiny_model, tmp_path):
    openers = list_openers(read(4), "spread")
    prompts = []

    def write_tuned(batch, _sampling, _seed):
        prompts.extend(batch)
        return [SampledReply("hey", "complete")] * len(batch)

    replies_file = RepliesFile(tmp_path / "replies.jsonl", {})
    sampled = sample_replies(tiny_model, openers, 0, replies_file, write_tuned=write_tuned)
    assert prompts == [tiny_model.encode_prompt([])[0]] * 4
    assert len(sampled["base"]) == 4 and all(reply.text for reply in sampled["base"])
