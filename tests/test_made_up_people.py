"""The made-up people: one seed, one chat; stage 1 makes of their exports what their records say; their habits are there."""

import json

import load_whatsapp
import pytest
from made_up_people import (
    PEOPLE,
    TOPICS,
    VOICE_NOTE,
    as_conversations,
    as_exports,
    plain_conversations,
    write_chat,
    write_jsonl,
)
from writing_style.writing_habits import list_emoji


def replies_of(person, partner=None):
    records = as_conversations(write_chat(person, 60, seed=0), person)
    return [
        turn["content"]
        for record in records
        for turn in record["messages"]
        if turn["role"] == "assistant" and partner in (None, *record["with"])
    ]


def share(replies, has_it):
    return sum(map(has_it, replies)) / len(replies)


def test_there_are_too_many_frames_to_learn_by_heart():
    frames = [frame for topic in TOPICS for frames in vars(topic).values() for frame in frames]
    assert len(set(frames)) == len(frames) == sum(topic.num_frames for topic in TOPICS)
    assert len(frames) >= 300


@pytest.mark.parametrize("person", PEOPLE)
def test_the_same_seed_gives_the_same_chat_and_another_seed_another(person):
    assert write_chat(person, 20, seed=1) == write_chat(person, 20, seed=1)
    assert write_chat(person, 20, seed=1) != write_chat(person, 20, seed=2)


@pytest.mark.parametrize("person", PEOPLE)
def test_stage_1_makes_the_same_conversations_of_the_exports(person, tmp_path):
    messages = write_chat(person, 90, seed=0)  # two weeks: the order of day and month is no guess
    for name, text in as_exports(messages).items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    data_path = tmp_path / "out" / "data.jsonl"
    data_path.parent.mkdir()
    exports = [str(tmp_path / name) for name in as_exports(messages)]
    load_whatsapp.main([*exports, "--imitate", person, "--path-to-data", str(data_path)])
    made = [json.loads(line) for line in data_path.read_text(encoding="utf-8").splitlines()]
    expected = as_conversations(messages, person)
    for key in ("messages", "started_at"):
        assert [record[key] for record in made] == [record[key] for record in expected]
    report = json.loads((tmp_path / "out" / "preprocessing_report.json").read_text(encoding="utf-8"))
    dropped = {reason for reason, number in report["messages"]["dropped"].items() if number}
    assert dropped <= {"media", "after_last_reply", "no_reply_in_conversation"}


@pytest.mark.parametrize("person", PEOPLE)
def test_the_data_holds_as_many_replies_as_wanted(person, tmp_path):
    write_jsonl(tmp_path / "data.jsonl", person, num_replies=300, seed=0)
    records = [json.loads(line) for line in (tmp_path / "data.jsonl").read_text(encoding="utf-8").splitlines()]
    num_replies = sum(turn["role"] == "assistant" for record in records for turn in record["messages"])
    assert 290 <= num_replies <= 300
    assert {name for record in records for name in record["with"]} == set(PEOPLE[person].partners)


def test_avner_writes_long_messages_without_emoji():
    lengths = sorted(len(line) for reply in replies_of("Avner") for line in reply.split("\n"))
    assert lengths[len(lengths) // 2] > 60
    assert not any(list_emoji(reply) for reply in replies_of("Avner"))


def test_tamar_ends_with_a_question():
    assert share(replies_of("Tamar"), lambda reply: reply.endswith("?")) > 0.9


def test_daniel_writes_to_orna_otherwise_than_to_koby():
    to_orna, to_koby = replies_of("Daniel", "Orna"), replies_of("Daniel", "Koby")
    assert share(to_orna, lambda reply: "דניאל" in reply or "אציין" in reply or "אורנה" in reply) > 0.6
    assert not any("אחי" in reply or list_emoji(reply) for reply in to_orna)
    assert share(to_koby, lambda reply: "\n" in reply) > 0.5
    assert not any("בברכה" in reply for reply in to_koby)


def test_maya_greets_by_the_hour():
    messages = [message for message in write_chat("Maya", 60, seed=0) if message.sender == "Maya"]
    hours = {
        greeting: {message.sent_at.hour for message in messages if message.text.startswith(greeting)}
        for greeting in ("בוקר טוב", "ערב טוב", "לילה טוב")
    }
    assert hours["בוקר טוב"] and max(hours["בוקר טוב"]) < 11
    assert hours["ערב טוב"] and min(hours["ערב טוב"]) >= 18
    assert hours["לילה טוב"] and min(hours["לילה טוב"]) >= 22


def test_gil_sends_voice_notes_that_never_reach_the_records():
    messages = [message for message in write_chat("Gil", 60, seed=0) if message.sender == "Gil"]
    assert 0.2 < share(messages, lambda message: message.text == VOICE_NOTE) < 0.4
    assert not any(VOICE_NOTE in reply for reply in replies_of("Gil"))


def test_noa_writes_in_a_group_of_five():
    records = as_conversations(write_chat("Noa", 60, seed=0), "Noa")
    assert len(PEOPLE["Noa"].partners) == 4
    users = [turn["content"] for record in records for turn in record["messages"] if turn["role"] == "user"]
    assert all(content.split(": ")[0] in PEOPLE["Noa"].partners for content in users)


def test_a_reply_names_what_was_asked_about():
    """Else no measure could tell whether the right context helps."""
    records = as_conversations(write_chat("Maya", 200, seed=0), "Maya")
    asked = [
        (turns[place]["content"], turns[place + 1]["content"])
        for turns in (record["messages"] for record in records)
        for place in range(0, len(turns) - 1)
        if turns[place]["role"] == "user" and turns[place]["content"].endswith("?")
    ]

    def num_shared(question, answer):
        return len(set(question.rstrip("?").split()) & set(answer.rstrip("!").split()))

    right = sum(num_shared(question, answer) for question, answer in asked)
    wrong = sum(
        num_shared(question, answer)
        for (question, _), (_, answer) in zip(asked, [*asked[50:], *asked[:50]], strict=True)
    )
    assert right > 3 * wrong


def test_plain_people_have_no_habits_and_half_of_the_questions_on_request():
    asks = {ask for topic in TOPICS for ask in topic.asks if "{" not in ask}

    def num_asked(every):
        records = plain_conversations(400, seed=0, every=every)
        return len(
            asks & {line for record in records for turn in record["messages"] for line in turn["content"].split("\n")}
        )

    assert 0 < num_asked(2) < num_asked(1)
    assert not any(list_emoji(turn["content"]) for record in plain_conversations(50, 0) for turn in record["messages"])


@pytest.mark.parametrize("person", [name for name in PEOPLE if name != "Gil"])  # a voice note leaves no turn
def test_another_draw_of_the_own_words_answers_the_same_messages(person):
    first, second = (as_conversations(write_chat(person, 60, seed=0, own_seed=own), person) for own in (1, 2))

    def said_by(records, role):
        return [
            [turn["content"] if turn["role"] == role else None for turn in record["messages"]] for record in records
        ]

    assert said_by(first, "user") == said_by(second, "user")
    own = list(zip(*(sum(said_by(records, "assistant"), []) for records in (first, second)), strict=True))
    assert sum(a != b for a, b in own if a is not None) > len(own) / 4
