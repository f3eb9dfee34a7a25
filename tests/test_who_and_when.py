"""Who and when in the chat: what is prompted, what is logged, what the commands answer."""

import json
import re
from dataclasses import replace
from datetime import datetime

import pytest
from chat_session import ChatSession
from conversation_log import ConversationLog, read_conversation
from conversing import regenerate, say
from live_conversation import Conversation
from terminal import PipedScreen
from test_chat_session import Lines
from who_and_when import UnknownName, WhoAndWhen

from common.chat_format import encode_conversation

SETTINGS = {
    "context": "who,when",
    "partners": [{"name": "Ruth"}, {"name": "Koby"}, {"name": "family", "members": ["Adi", "Boaz"]}],
}
MORNING, EVENING = datetime(2024, 12, 13, 9, 30), datetime(2024, 12, 14, 19, 0)
IN_THE_MORNING, IN_THE_EVENING = "Ruth · Friday, morning", "Ruth · Saturday, evening"


class Clock:
    """Stands still until it is set."""

    def __init__(self):
        self.now = MORNING

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def make_conversation(tiny_model, clock):
    """A function that makes a greedy conversation with a model of these settings."""

    def make(**changed):
        who_and_when = WhoAndWhen(SETTINGS | changed, clock)
        greedy = replace(tiny_model.sampling, do_sample=False, max_new_tokens=8)
        return Conversation(tiny_model, seed=0, sampling=greedy, who_and_when=who_and_when)

    return make


@pytest.fixture
def sit(tmp_path, capsys):
    """A function that runs lines through a session with a conversation; returns what was told."""
    logs = []

    def sit(conversation, *lines):
        log = ConversationLog(tmp_path / f"{len(logs)}.txt", print)
        logs.append(log)
        capsys.readouterr()
        assert ChatSession(conversation, log, PipedScreen()).run(Lines(*lines)) == 0
        return capsys.readouterr().err.replace("cut short\n", "")

    sit.logs = logs
    yield sit
    for log in logs:
        log.close()


def prompt_of(conversation):
    return conversation.trained.tokenizer.decode(conversation.fit_prompt())


def test_the_prompt_begins_as_a_row_of_the_training_does(make_conversation, tiny_model):
    conversation = make_conversation()
    say(conversation, "one")
    say(conversation, "two")
    messages = [{"role": m["role"], "content": m["content"]} for m in conversation.messages]
    row = encode_conversation(tiny_model.tokenizer, messages, header=IN_THE_MORNING).input_ids
    for number in (1, 3):
        prompt, _ = tiny_model.encode_prompt(messages[:number], conversation.who_and_when.header)
        assert row[: len(prompt)] == prompt
    assert prompt_of(conversation).startswith(f"<s><person2>{IN_THE_MORNING}\none</s>")


def test_the_time_is_that_at_which_a_conversation_began(make_conversation, clock):
    conversation = make_conversation()
    say(conversation, "one")
    clock.now = EVENING
    say(conversation, "two")
    assert conversation.who_and_when.header == IN_THE_MORNING
    conversation.reset()
    say(conversation, "three")
    assert conversation.who_and_when.header == IN_THE_EVENING


def test_a_full_context_keeps_the_header(make_conversation):
    conversation = make_conversation()
    for number in range(12):
        say(conversation, f"{number} two three four")
    assert "\n0 two" not in prompt_of(conversation)
    assert re.match(rf"<s><person2>{IN_THE_MORNING}\n\d+ two three four</s>", prompt_of(conversation))


def test_the_header_costs_no_token_of_the_cache(make_conversation):
    conversation = make_conversation()
    say(conversation, "one")
    second = say(conversation, "two")
    assert second.num_reused_tokens > conversation.who_and_when.header.count(" ")
    assert regenerate(conversation).num_reused_tokens == second.num_prompt_tokens - 1


@pytest.mark.parametrize("settings", [{"context": "none"}, {"context": "none", "partners": []}])
def test_without_a_context_nothing_changes(make_conversation, tiny_model, sit, settings):
    conversation = make_conversation(**settings)
    told = sit(conversation, "one", "/with Ruth")
    assert told == "this model was trained without a header (--context none), so it is not told with whom it writes\n"
    assert prompt_of(conversation).startswith("<s><person2>one</s>")
    assert "header" not in sit.logs[0].jsonl_path.read_text(encoding="utf-8")
    assert "with" not in sit.logs[0].path.read_text(encoding="utf-8")


def test_with_begins_a_new_conversation_and_lists_the_names(make_conversation, sit):
    conversation = make_conversation()
    told = sit(conversation, "one", "/with", "/with koby")
    assert told == "* Ruth\n  Koby\n  family (a group: Adi, Boaz)\nnew conversation\nwith Koby\n"
    assert conversation.messages == []
    assert conversation.who_and_when.header.startswith("Koby")
    assert sit(make_conversation(), "/with Koby") == "with Koby\n"


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("/with Rut", 'nobody is called "Rut" in the training data; the nearest: Ruth\n'),
        ("/with x\x1by", 'nobody is called "xy" in the training data; they have Ruth, Koby, family\n'),
        ("/as Gil", 'nobody is called "Gil" in the training data; they have Adi, Boaz\n'),
        ("/as", "usage: /as NAME\n"),
    ],
)
def test_an_unknown_name_is_one_line_and_changes_nothing(make_conversation, sit, typed, told):
    conversation = make_conversation()
    assert sit(conversation, "one", typed) == told
    assert conversation.messages and conversation.who_and_when.partner.name == "Ruth"


def test_in_a_group_the_user_writes_as_a_member(make_conversation, sit):
    conversation = make_conversation()
    told = sit(conversation, "/with family", "one", "/as boaz", "two", "/as Adi")
    assert told == "with family, as Adi\nwith family, as Boaz\nwith family, as Adi\n"
    said = [message["content"] for message in conversation.messages if message["role"] == "user"]
    assert said == ["Adi: one", "Boaz: two"]
    assert read_conversation(sit.logs[0].jsonl_path).messages[0] == {"role": "user", "content": "Adi: one"}
    shown = sit.logs[0].path.read_text(encoding="utf-8").splitlines()
    note = next(number for number, line in enumerate(shown) if "with family, as Boaz" in line)
    assert shown[note - 1] == "" and shown[note - 2]  # apart from the reply above


def test_a_burst_of_one_member_has_one_name():
    who_and_when = WhoAndWhen(SETTINGS)
    who_and_when.choose_member("Adi")
    heard = [{"role": "user", "content": "Adi: one\nBoaz: two"}]
    assert who_and_when.as_in_training("three", heard) == "Adi: three"
    heard[0]["content"] += "\nAdi: three"
    assert who_and_when.as_in_training("four", heard) == "four"
    assert who_and_when.as_in_training("five", [*heard, {"role": "assistant", "content": "x"}]) == "Adi: five"


def test_a_group_can_be_written_in_without_a_header(make_conversation, sit):
    conversation = make_conversation(context="none")
    sit(conversation, "one", "/as Boaz", "two")
    assert [m["content"] for m in conversation.messages if m["role"] == "user"] == ["Boaz: two"]
    assert prompt_of(conversation).startswith("<s><person2>Boaz: two</s>")


def test_without_a_group_there_is_no_member(make_conversation, sit):
    told = sit(make_conversation(partners=[{"name": "Ruth"}]), "/as Adi")
    assert told == "the training data have no group, so there is no member to write as\n"


def test_the_log_says_with_whom_and_a_conversation_goes_on_so(make_conversation, sit, clock):
    conversation = make_conversation()
    sit(conversation, "/with family", "/as Boaz", "one")
    log = sit.logs[0]
    shown = log.path.read_text(encoding="utf-8")
    assert "with family, as Boaz" in shown
    assert "Boaz · " in shown and "you · " not in shown
    record = read_conversation(log.jsonl_path).header_record
    assert {name: record[name] for name in ("event", "with", "as", "began_at")} == {
        "event": "header", "with": "family", "as": "Boaz", "began_at": "2024-12-13T09:30:00",
    }  # fmt: skip
    before = prompt_of(conversation)
    clock.now = EVENING
    resumed = make_conversation()
    resumed.messages = read_conversation(log.jsonl_path).messages
    resumed.who_and_when.restore(record)
    assert prompt_of(resumed).split("</s>")[0] == before.split("</s>")[0]
    sit(resumed)  # what is logged at the start is enough to go on once more
    assert read_conversation(sit.logs[1].jsonl_path).header_record["as"] == "Boaz"
    assert read_conversation(sit.logs[1].jsonl_path).messages == read_conversation(log.jsonl_path).messages


def test_a_saved_conversation_keeps_with_whom_it_was(make_conversation, sit, tmp_path, clock):
    conversation = make_conversation()
    path = tmp_path / "kept.jsonl"
    sit(conversation, "/with Koby", "one", f"/save {path}")
    clock.now = EVENING
    other = make_conversation()
    sit(other, "two", f"/load {path}")
    assert other.who_and_when.header == "Koby · Friday, morning"
    assert json.loads(path.read_text(encoding="utf-8").splitlines()[1])["with"] == "Koby"


def test_a_conversation_that_does_not_say_when_it_began_has_the_same_header_from_then_on(make_conversation, sit, clock):
    conversation = make_conversation()
    conversation.messages = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}]
    sit(conversation, "three")
    clock.now = EVENING
    resumed = make_conversation()
    resumed.who_and_when.restore(read_conversation(sit.logs[0].jsonl_path).header_record)
    assert resumed.who_and_when.header == conversation.who_and_when.header == IN_THE_MORNING


def test_a_log_of_another_model_tells_nothing_wrong(make_conversation):
    conversation = make_conversation()
    conversation.who_and_when.restore({"with": "Dana", "as": ["x"], "began_at": "noon"})
    assert conversation.who_and_when.partner.name == "Ruth" and conversation.who_and_when.began_at is None


def test_undo_and_swap_keep_the_header(make_conversation, sit):
    conversation = make_conversation()
    sit(conversation, "one", "two", "/undo", "/swap")
    assert conversation.who_and_when.header == IN_THE_MORNING
    assert prompt_of(conversation).startswith(f"<s><person2>{IN_THE_MORNING}")


def test_a_name_is_found_in_any_letter_case_and_part_of_it_is_near():
    who_and_when = WhoAndWhen({"context": "who", "partners": [{"name": "Ruth Levi"}, {"name": "RUTH LEVI"}]})
    who_and_when.choose("RUTH LEVI")
    assert who_and_when.header == "RUTH LEVI"
    who_and_when.choose("ruth levi")
    assert who_and_when.header == "Ruth Levi"
    with pytest.raises(UnknownName, match="the nearest: Ruth Levi"):
        who_and_when.choose("ruth")


def test_a_correction_says_with_whom_and_when(make_conversation, sit):
    sit(make_conversation(), "one", "/better two")
    (line,) = (sit.logs[0].path.parent / "corrections.jsonl").read_text(encoding="utf-8").splitlines()
    correction = json.loads(line)
    assert (correction["chat"], correction["started_at"]) == ("Ruth", "2024-12-13T09:30:00")
    assert correction["messages"][-1] == {"role": "assistant", "content": "two"}
