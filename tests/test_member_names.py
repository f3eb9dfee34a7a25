"""The names before the messages of a group's members: found, and taken off before anything is judged."""

import json

import pytest
from made_up_people import PEOPLE, as_conversations, write_chat
from test_style_report import write_split
from writing_style.held_out_replies import choose_set, read_held_out_data
from writing_style.member_names import find_members, name_before, without_names

from common.conversation_data import Conversation, read_training_data


def conversations_of(person, tmp_path):
    path = tmp_path / "data.jsonl"
    records = as_conversations(write_chat(person, 60, seed=0), person)
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return read_training_data(path).conversations


@pytest.mark.parametrize("person", PEOPLE)
def test_finds_the_members_of_a_group_and_no_other_partner(person, tmp_path):
    expected = set(PEOPLE[person].partners) if PEOPLE[person].group_name else set()
    assert find_members(conversations_of(person, tmp_path)) == expected


def test_a_partner_who_writes_names_with_colons_is_no_group():
    turns = ["Dan: was here", "note: buy milk", "and nothing else"]
    messages = [message for turn in turns for message in ({"role": "user", "content": turn},)]
    assert find_members([Conversation(0, messages, "", "Ruth")]) == frozenset()


def test_a_longer_name_is_taken_off_whole():
    assert without_names("Adi Bar: hi\nAdi: hello", {"Adi", "Adi Bar"}) == "hi\nhello"
    assert without_names("Adi: hi", ()) == "Adi: hi"
    assert name_before("hi", {"Adi"}) is None


def test_members_are_judged_without_their_names_and_the_model_is_shown_them(tmp_path):
    records = as_conversations(write_chat("Noa", 60, seed=0), "Noa")
    data_path = write_split(tmp_path, [record["messages"] for record in records], spread=list(range(0, 60, 2)))
    data = read_held_out_data(tmp_path, data_path)
    held_out = choose_set(data, "spread", 500)
    members = PEOPLE["Noa"].partners
    assert not [reply for reply in data.training_replies("user") if reply.startswith(tuple(f"{m}:" for m in members))]
    for exchange in held_out.other:
        assert not any(f"{member}: " in exchange.reply for member in members)
    shown = [message["content"] for exchange in held_out.owner for message in exchange.context]
    assert any(text.startswith("Yossi: ") for text in shown)
