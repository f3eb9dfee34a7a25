"""One chat, line by line: what is shown, what is logged, what the conversation then holds."""

import json
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from chat_session import ChatSession
from conversation_cache import GrowingCache
from conversation_log import ConversationLog, read_conversation, save_conversation
from live_conversation import Conversation
from terminal import PipedScreen, TerminalInput, TerminalScreen

from common.chat_format import PERSON_TEMPLATE, encode_conversation


class Lines:
    """The lines of a script, as a source of input."""

    def __init__(self, *lines):
        self.lines = list(lines)

    def read(self):
        return self.lines.pop(0) if self.lines else None


@pytest.fixture
def log(tmp_path):
    log = ConversationLog(tmp_path / "conversation.txt", print)
    yield log
    log.close()


@pytest.fixture
def sit(conversation, log, capsys):
    """Run lines through one session; return its exit status, standard output and standard error."""
    session = ChatSession(conversation, log, PipedScreen())

    def sit(*lines):
        capsys.readouterr()
        status = session.run(Lines(*lines))
        return status, *capsys.readouterr()

    return sit


def contents(conversation):
    return [{"role": message["role"], "content": message["content"]} for message in conversation.messages]


def test_stdout_carries_the_replies_alone_a_line_a_bubble(sit, conversation):
    status, shown, told = sit("hi", "", "  ", "ok", "exit", "never said")
    assert status == 0
    assert set(told.split("\n")) <= {"cut short", ""}
    replies = [message["content"] for message in conversation.messages if message["role"] == "assistant"]
    assert len(replies) == 2
    assert shown == "".join(f"{reply}\n\n" for reply in replies)


def test_the_jsonl_log_holds_the_conversation_after_every_line(sit, conversation, log):
    for line in [
        "one",
        "two",
        "/undo",
        "three",
        "/regenerate",
        "/swap",
        "four",
        "/reset",
        "five",
        "/undo",
        "/undo",
        "/undo",
    ]:
        sit(line)
        assert read_conversation(log.jsonl_path).messages == contents(conversation), line
    assert conversation.messages == []


def test_commands_on_an_empty_conversation_do_nothing(sit, conversation):
    _status, shown, told = sit("/undo", "/regenerate", "/reset", "/swap", "/stats")
    assert shown == ""
    assert told == "no message yet\nno message yet\nnew conversation\nroles swapped\nno reply yet\n"
    assert conversation.messages == []


def test_values_change_live_and_nonsense_is_refused(sit, conversation):
    _status, _shown, told = sit("/set temperature 0.9", "/set temperature much", "/set", "/params")
    assert conversation.sampling.temperature == 0.9
    assert told.startswith(
        "temperature 0.9\ntemperature must be a number from 0.01 to 5\nusage: /set NAME VALUE\ndo_sample False\ntemperature 0.9\n"
    )
    assert "seed 0\ncontext_tokens 160\ncomputed_on cpu, float32\n" in told


def test_stats_tell_why_steps_are_not_captured(sit, conversation):
    assert "CUDA graph" not in sit("hello", "/stats")[2]
    conversation.cache = GrowingCache(conversation.trained, "out of memory")
    assert "not as a CUDA graph: out of memory" in sit("again", "/stats")[2]


def test_stats_tell_what_came_from_the_cache(sit):
    _status, _shown, told = sit("hello there", "again", "/stats")
    assert "; prompt: " in told and " of them from the cache\n" in told and "\ncontext: " in told


def test_help_and_unknown_commands(sit):
    _status, shown, told = sit("/help", "/hlep", "/")
    assert "/regenerate" in told
    assert "no command /hlep; /help lists them, // sends a line that begins with a slash" in told
    assert shown == ""


def test_saved_conversations_go_on_elsewhere(sit, conversation, log, tmp_path):
    path = tmp_path / "kept.jsonl"
    _status, _shown, told = sit("hello", f"/save {path}", f"/save {path}")
    before = contents(conversation)
    assert "2 messages" in told and "exists; choose another name" in told
    _status, _shown, told = sit("/reset", f"/load {path}", f"/load {tmp_path}/none")
    assert contents(conversation) == before == read_conversation(log.jsonl_path).messages
    assert "the conversation continues" in told and "none: not read, No such file or directory" in told


def test_a_reply_without_room_is_refused_and_the_chat_goes_on(sit, conversation, log):
    sit("word " * 20)
    before = contents(conversation)
    status, shown, told = sit("/set max_new_tokens 100", "/regenerate")
    assert (status, shown) == (0, "")
    assert "the model's context has room for 80; shorten it, or allow shorter replies only" in told
    assert contents(conversation) == read_conversation(log.jsonl_path).messages == before
    save_conversation(log.path.with_name("long.jsonl"), before[:1])
    _status, shown, told = sit(f"/load {log.path.with_name('long.jsonl')}", "/regenerate")
    assert shown == "" and "has room for 80" in told
    assert sit("/set max_new_tokens 12", "/regenerate")[1] != ""


def test_the_last_lines_of_what_continues_are_shown_and_a_model_that_wrote_them(conversation, log, tmp_path, capsys):
    path = tmp_path / "kept.jsonl"
    said = [{"role": "user", "content": "message 0"}]
    said += [{"role": "user", "content": f"message {number}\nשלום"} for number in (1, 2, 3)]
    said += [{"role": "assistant", "content": "one\ntwo"}]
    save_conversation(path, said, ["Ruth on another base, trained 2026-11-24 06:13"])
    session = ChatSession(conversation, log, TerminalScreen())
    capsys.readouterr()
    session.run(Lines(f"/load {path}"))
    shown, told = capsys.readouterr()
    assert shown == (
        "... 1 earlier line\n🟩 message 1\n🟩 שלום\n🟩 message 2\n🟩 שלום\n🟩 message 3\n🟩 שלום\n🟦 one\n🟦 two\n"
    )
    mine = conversation.trained.name
    assert f"by another model (Ruth on another base, trained 2026-11-24 06:13); from here on: {mine}\n" in told
    # Resumed by the model that wrote the rest, it says so again; a conversation of its own says nothing.
    session.run(Lines("hi"))
    resumed = read_conversation(log.jsonl_path)
    assert resumed.models == ["Ruth on another base, trained 2026-11-24 06:13", mine]
    conversation.reset(resumed.messages)
    ChatSession(conversation, log, TerminalScreen(), resumed.models)
    assert "by another model (Ruth on another base" in capsys.readouterr()[1]
    ChatSession(conversation, log, TerminalScreen(), [mine])
    assert capsys.readouterr()[1] == ""


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("no_such/kept.jsonl", "no_such: no such folder; make it, or choose another place"),
        ("x" * 300, ": not written, File name too long"),
    ],
)
def test_a_place_that_is_not_there_is_said_and_the_chat_goes_on(sit, conversation, tmp_path, monkeypatch, typed, told):
    monkeypatch.chdir(tmp_path)
    _status, shown, said = sit(f"/save {typed}", "hello")
    assert told in said
    assert shown and conversation.messages[0]["content"] == "hello"
    assert not any(path.is_dir() for path in tmp_path.iterdir())


def test_too_long_a_line_is_refused_and_not_logged(sit, conversation, log):
    _status, shown, told = sit("word " * 300, "x" * 1_800_000)
    assert "this message has" in told and "this line has 1,800,000 characters" in told
    assert shown == "" and conversation.messages == [] and read_conversation(log.jsonl_path).messages == []


def test_what_acts_on_a_terminal_is_neither_said_nor_logged(sit, conversation, log):
    sit("a\x1b[2J\u202eb\x00")
    assert conversation.messages[0]["content"] == "a[2Jb"
    assert "\x1b" not in log.path.read_text(encoding="utf-8") + log.jsonl_path.read_text(encoding="utf-8")


def test_the_users_line_is_on_disk_before_the_reply_begins(conversation, log):
    seen = []

    class WatchingScreen(PipedScreen):
        def begin_reply(self):
            seen.append(read_conversation(log.jsonl_path).messages)

    ChatSession(conversation, log, WatchingScreen()).run(Lines("hi"))
    assert seen == [[{"role": "user", "content": "hi"}]]


# ---- The imitated person writes first --------------------------------------------------------------------------------


def test_the_imitated_person_may_begin(sit, conversation, log):
    _status, shown, told = sit("/begin")
    (opener,) = conversation.messages
    assert opener["role"] == "assistant" and shown == f"{opener['content']}\n\n"
    assert set(told.split("\n")) <= {"cut short", ""}
    assert read_conversation(log.jsonl_path).messages == contents(conversation)
    sit("hello", "/undo")
    assert (
        contents(conversation)
        == read_conversation(log.jsonl_path).messages
        == [{"role": "assistant", "content": opener["content"]}]
    )
    sit("/undo")
    assert conversation.messages == read_conversation(log.jsonl_path).messages == []


def test_an_opener_is_prompted_as_it_was_trained(sit, conversation):
    trained = conversation.trained
    sit("/begin", "hello")
    row = encode_conversation(trained.tokenizer, contents(conversation))
    prompt_ids, turn_ends = trained.encode_prompt([])
    assert row.input_ids[: len(prompt_ids)] == prompt_ids and turn_ends == []
    assert row.is_supervised.index(True) == len(prompt_ids)
    prompt_ids, _ = trained.encode_prompt(contents(conversation)[:2])
    assert row.input_ids[: len(prompt_ids)] == prompt_ids


def test_another_opener_takes_the_place_of_the_first(sit, conversation, log):
    conversation.sampling = replace(conversation.sampling, do_sample=True, temperature=3.0, min_p=0.0)
    sit("/begin")
    first = contents(conversation)
    sit("/regenerate")
    second = contents(conversation)
    assert [message["role"] for message in second] == ["assistant"] and second != first
    assert read_conversation(log.jsonl_path).messages == second


def test_nobody_begins_a_conversation_that_has_begun(sit, conversation):
    _status, shown, told = sit("hello", "/begin")
    assert "this conversation has begun already; /reset begins a new one" in told
    assert len(conversation.messages) == 2 and shown.count("\n\n") == 1
    sit("/reset", "/begin")
    assert [message["role"] for message in conversation.messages] == ["assistant"]


def test_a_base_that_lets_only_the_user_begin_says_so(tiny_model, log, capsys):
    tokenizer = deepcopy(tiny_model.tokenizer)
    refusal = "{% if not (messages[0].role == 'user' and messages[0].content) %}{{ raise_exception('no') }}{% endif %}"
    tokenizer.chat_template = refusal + PERSON_TEMPLATE
    conversation = Conversation(replace(tiny_model, tokenizer=tokenizer), seed=0)
    session = ChatSession(conversation, log, PipedScreen())
    session.run(Lines("/begin"))
    shown, told = capsys.readouterr()
    assert "with this base the imitated person cannot write first: the chat template refuses" in told
    assert shown == ""
    assert conversation.messages == []
    assert session.run(Lines("hello", "/swap", "/reset", "/swap", "/stats")) == 0
    told = capsys.readouterr().err
    assert "with this base the imitated person cannot write first" in told and "context: 0 of " in told
    assert told.count("roles swapped") == 1  # of the conversation without messages


# ---- Corrections -----------------------------------------------------------------------------------------------------


def corrections(log):
    return [
        json.loads(line)["messages"]
        for line in log.path.with_name("corrections.jsonl").read_text(encoding="utf-8").splitlines()
    ]


def test_a_better_reply_takes_the_place_of_the_last_and_is_kept(sit, conversation, log):
    sit("are you coming?")
    _status, shown, told = sit(r"/better כן אחי \n איפה?? 😂")
    better = {"role": "assistant", "content": "כן אחי\nאיפה?? 😂"}
    kept = log.path.with_name("corrections.jsonl")
    assert shown == "" and f"replaced, and kept; to teach it, train again with --corrections {kept}" in told
    assert (
        contents(conversation)
        == read_conversation(log.jsonl_path).messages
        == [
            {"role": "user", "content": "are you coming?"},
            better,
        ]
    )
    assert corrections(log) == [contents(conversation)]
    assert "🟦 \u2068איפה?? 😂\u2069 🟦" in log.path.read_text(encoding="utf-8")
    sit("ok")
    assert contents(conversation)[1] == better
    sit("/better yes", "/undo")
    assert read_conversation(log.jsonl_path).messages == contents(conversation) == corrections(log)[0]
    assert corrections(log)[1] == [
        *corrections(log)[0],
        {"role": "user", "content": "ok"},
        {"role": "assistant", "content": "yes"},
    ]


def test_an_opener_can_be_bettered_too(sit, conversation, log):
    sit("/begin", "/better hey, where are you?")
    assert corrections(log) == [contents(conversation)] == [[{"role": "assistant", "content": "hey, where are you?"}]]


def test_without_a_reply_or_words_nothing_is_bettered(sit, log):
    _status, _shown, told = sit("/better yes", "/better", "hello", r"/better \n")
    assert "no reply to replace\nusage: /better TEXT\n" in told and told.endswith("a reply needs words\n")
    assert not log.path.with_name("corrections.jsonl").exists()


def test_where_the_correction_cannot_be_written_the_reply_stays(sit, conversation, log):
    log.path.with_name("corrections.jsonl").mkdir()
    sit("hello")
    before = contents(conversation)
    _status, _shown, told = sit("/better yes")
    assert "corrections.jsonl: not written, Is a directory; the reply stays" in told
    assert contents(conversation) == read_conversation(log.jsonl_path).messages == before


class TypedLines(Lines, TerminalInput):
    """The same, as if typed at a terminal."""


def test_a_full_memory_during_a_reply_ends_no_typed_chat(conversation, log, capsys, monkeypatch):
    """As torch words it on a card. The next reply encodes everything again, and is the one that would have come."""
    generate, failures = type(conversation.cache).generate, [torch.OutOfMemoryError("CUDA out of memory. Tried ...")]

    def fail_once(*arguments):
        if failures:
            raise failures.pop()
        return generate(conversation.cache, *arguments)

    monkeypatch.setattr(conversation.cache, "generate", fail_once)
    session = ChatSession(conversation, log, TerminalScreen())
    assert session.run(TypedLines("hi", "/regenerate")) == 0
    shown, told = capsys.readouterr()
    assert "(no reply)" in shown and "close other programs, then /regenerate" in told
    assert [message["role"] for message in read_conversation(log.jsonl_path).messages] == ["user", "assistant"]

    failures.append(torch.OutOfMemoryError("CUDA out of memory. Tried ..."))
    with pytest.raises(torch.OutOfMemoryError):  # a program that pipes lines hears of it by the exit status
        session.run(Lines("hi"))
