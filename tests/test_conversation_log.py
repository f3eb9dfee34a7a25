"""The log: private, whole after a kill, its own when another chat holds it, and nothing lost when the disk is full."""

import json
import os
import random
import re
import shutil
import signal
import time
from datetime import datetime

import pytest
from conversation_log import ConversationLog, read_conversation, save_conversation

from common.script import ScriptError


@pytest.fixture
def open_log(tmp_path):
    """Open logs in a folder of their own; what they warn of is collected in `warnings`."""
    logs = []

    def open_log(name="conversation.txt"):
        log = ConversationLog(tmp_path / name, open_log.warnings.append)
        logs.append(log)
        return log

    open_log.warnings = []
    yield open_log
    for log in logs:
        log.close()


def test_both_files_grow_with_each_bubble_and_are_private(open_log):
    log = open_log()
    log.start({"temperature": 0.5}, "Ruth on base")
    log.add_bubble("user", "שלום")
    log.add_bubble("assistant", "היי", "interrupted")
    lines = log.path.read_text(encoding="utf-8").splitlines()
    assert [line.strip("\u200e ") for line in lines if "🟩" in line or "🟦" in line] == [
        "🟩 \u2068שלום\u2069 🟩",
        "🟦 \u2068היי [interrupted]\u2069 🟦",
    ]
    records = [json.loads(line) for line in log.jsonl_path.read_text(encoding="utf-8").splitlines()]
    assert all(datetime.fromisoformat(record.pop("at")).utcoffset() is not None for record in records)
    assert records == [
        {"event": "start", "settings": {"temperature": 0.5}, "model": "Ruth on base"},
        {"role": "user", "text": "שלום"},
        {"role": "assistant", "text": "היי", "remark": "interrupted"},
    ]
    assert [path.stat().st_mode & 0o777 for path in (log.path, log.jsonl_path)] == [0o600, 0o600]


def test_a_burst_is_several_bubbles_and_each_turn_says_who_and_when(open_log):
    log = open_log()
    log.names["assistant"] = "Ruth"
    log.start({}, "Ruth on base, trained 2026-11-24 06:13")
    log.add_bubble("user", "hi")
    log.add_bubble("assistant", "one two three four five six seven eight nine")
    log.add_bubble("assistant", "ten")
    log.add_event("regenerate")
    log.add_bubble("assistant", "eleven")
    log.add_bubble("user", "a")
    log.add_bubble("user", "b")
    shown = re.sub(r"(?m)^ +", "", log.path.read_text(encoding="utf-8"))
    shown = re.sub(r"── \d{4}-.*:\d\d ──", "── date ──", re.sub(r"\d\d:\d\d$", "time", shown, flags=re.MULTILINE))
    assert shown == (
        "\n── date ──\n── Ruth on base, trained 2026-11-24 06:13 ──\n"
        "\nyou · time\n🟩 hi 🟩\n"
        "\nRuth · time\n🟦 one two three four five six seven 🟦\n🟦 eight nine 🟦\n\n🟦 ten 🟦\n"
        "\n── last reply taken back ──\n"
        "\nRuth · time\n🟦 eleven 🟦\n"
        "\nyou · time\n🟩 a 🟩\n\nyou · time\n🟩 b 🟩\n"
    )


def test_a_chat_past_midnight_gets_a_date_line(open_log, monkeypatch):
    def use_time_zone(name):
        monkeypatch.setenv("TZ", name)
        time.tzset()

    log = open_log()
    try:
        use_time_zone("XXX+12")
        log.start({}, "Ruth on base")
        log.add_bubble("user", "before")
        use_time_zone("XXX-14")  # the same moment, on another day
        today = datetime.now().strftime("%Y-%m-%d")
        log.add_bubble("assistant", "after")
        log.add_bubble("assistant", "again")
    finally:
        monkeypatch.undo()
        time.tzset()
    later = log.path.read_text(encoding="utf-8").partition("before")[2]
    assert [line.strip() for line in later.splitlines() if today in line] == [f"── {today} ──"]
    assert later.count("the model · ") == 1


def test_the_models_of_a_conversation_are_known_across_loads_and_saves(open_log, tmp_path):
    log = open_log()
    log.start({}, "first")
    log.add_bubble("user", "hi")
    assert read_conversation(log.jsonl_path).models == []  # nothing of it was written by a model yet
    log.add_bubble("assistant", "1")
    logged = read_conversation(log.jsonl_path)
    assert logged.models == ["first"]
    save_conversation(tmp_path / "saved.jsonl", logged.messages, logged.models)
    saved = read_conversation(tmp_path / "saved.jsonl")
    assert (saved.messages, saved.models) == (logged.messages, logged.models)
    log.start({}, "second")
    log.add_event("load", saved.messages, saved.models)
    log.add_bubble("assistant", "2")
    assert read_conversation(log.jsonl_path).models == ["first", "second"]
    log.add_event("reset")
    assert read_conversation(log.jsonl_path).models == []


@pytest.mark.parametrize("models", ["5", '"x"', "[5, null]", '["\\u001b[2Jx\\n\\ny", {}]'])
def test_damaged_names_of_models_do_no_harm(tmp_path, models):
    path = tmp_path / "conversation.jsonl"
    start = '{"event": "start", "model": {}, "models": ' + models + "}"
    path.write_text(start + '\n{"role": "assistant", "text": "hi"}\n', encoding="utf-8")
    assert read_conversation(path).models == (["[2Jx y"] if "u001b" in models else [])


def test_a_log_that_others_could_read_becomes_private(open_log, tmp_path):
    (tmp_path / "conversation.txt").write_text("old\n", encoding="utf-8")
    (tmp_path / "conversation.txt").chmod(0o644)
    assert open_log().path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("torn", [b"whole\nhalf a li", "whole\nש".encode()[:-1]])
def test_a_torn_last_line_is_closed_before_anything_follows(open_log, tmp_path, torn):
    (tmp_path / "conversation.txt").write_bytes(torn)
    (tmp_path / "conversation.jsonl").write_bytes(torn)
    log = open_log()
    log.add_bubble("user", "hi")
    assert log.path.read_bytes().startswith(torn + b"\n")
    assert read_conversation(log.jsonl_path).messages == [{"role": "user", "content": "hi"}]


def test_a_second_chat_gets_a_file_of_its_own_and_says_so(open_log, tmp_path):
    first, second = open_log(), open_log()
    first.add_bubble("user", "first")
    second.add_bubble("user", "second")
    assert second.path == tmp_path / f"conversation-{os.getpid()}.txt"
    assert second.jsonl_path == tmp_path / f"conversation-{os.getpid()}.jsonl"
    assert "another chat writes here" in open_log.warnings[0]
    assert "second" not in first.path.read_text(encoding="utf-8")


def test_a_log_deleted_or_moved_meanwhile_is_made_again(open_log):
    log = open_log()
    log.add_bubble("user", "before")
    log.path.unlink()
    log.jsonl_path.rename(log.jsonl_path.with_name("moved.jsonl"))
    log.add_bubble("user", "after")
    assert "after" in log.path.read_text(encoding="utf-8")
    assert read_conversation(log.jsonl_path).messages == [{"role": "user", "content": "after"}]
    assert not log.has_unwritten


def test_a_folder_deleted_meanwhile_is_made_again(tmp_path):
    log = ConversationLog(tmp_path / "chats" / "conversation.txt", print)
    shutil.rmtree(tmp_path / "chats")
    log.add_bubble("user", "after")
    log.close()
    assert not log.has_unwritten
    assert read_conversation(log.jsonl_path).messages == [{"role": "user", "content": "after"}]


def test_a_chat_in_which_nothing_was_said_leaves_no_new_file(tmp_path):
    ConversationLog(tmp_path / "conversation.txt", print).close()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "conversation.txt").touch()
    ConversationLog(tmp_path / "conversation.txt", print).close()
    assert [path.name for path in tmp_path.iterdir()] == ["conversation.txt"]


def test_what_is_no_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "folder.txt").mkdir()
    with pytest.raises(ScriptError, match="pipe.txt: is no ordinary file; choose another"):
        ConversationLog(tmp_path / "pipe.txt", print)
    with pytest.raises(IsADirectoryError):
        ConversationLog(tmp_path / "folder.txt", print)
    with pytest.raises(ScriptError, match="needed for the JSONL log"):
        ConversationLog(tmp_path / "conversation.jsonl", print)


LIMITED_PROGRAM = """
import resource, signal, sys
from pathlib import Path
from conversation_log import ConversationLog
log = ConversationLog(Path(sys.argv[1]), lambda warning: print("warning", warning))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (400, resource.RLIM_INFINITY))
for number in range(20):
    log.add_bubble("user" if number % 2 == 0 else "assistant", f"message {number}")
print("unwritten", log.has_unwritten)
if sys.argv[2] == "freed":
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
log.close()
print("unwritten", log.has_unwritten)
"""


@pytest.mark.parametrize("space", ["freed", "full"])
def test_a_full_disk_is_said_once_and_loses_nothing_once_there_is_space(start_python, tmp_path, space):
    path = tmp_path / "conversation.txt"
    output, errors = start_python(LIMITED_PROGRAM, str(path), space).communicate(timeout=60)
    assert errors == ""
    said = output.splitlines()
    assert said[0].startswith("warning") and "not written (File too large)" in said[0]
    assert said[1:] == ["unwritten True", f"unwritten {space == 'full'}"]
    shown = path.read_text(encoding="utf-8")
    if space == "freed":
        assert [f"message {number} " in shown for number in range(20)] == [True] * 20
        assert "\n".join(m["content"] for m in read_conversation(path.with_suffix(".jsonl")).messages) == "\n".join(
            f"message {number}" for number in range(20)
        )


def test_two_writers_of_one_file_leave_whole_lines(start_python, tmp_path):
    program = """
import sys
from pathlib import Path
from conversation_log import ConversationLog
log = ConversationLog(Path(sys.argv[1]), lambda warning: None)
for number in range(50):
    log.add_bubble("user", f"{number} " + "x" * 2000)
log.close()
"""
    writers = [start_python(program, str(tmp_path / "conversation.txt")) for _ in range(2)]
    assert [writer.wait(timeout=60) for writer in writers] == [0, 0]
    lines = [line for path in tmp_path.glob("*.jsonl") for line in path.read_text(encoding="utf-8").splitlines()]
    said = [json.loads(line)["text"].partition(" ")[0] for line in lines]
    assert sorted(said, key=int) == [str(number) for number in range(50) for _ in range(2)]


TALKING_PROGRAM = """
import sys
from pathlib import Path
from conversation_log import ConversationLog
log = ConversationLog(Path(sys.argv[1]), print)
for number in range(1_000_000):
    log.add_bubble("user" if number % 2 == 0 else "assistant", f"message {number} שלום " + "ארוך " * 20)
    print(number, flush=True)
"""


@pytest.mark.slow
def test_a_kill_at_any_moment_loses_no_bubble_that_was_said(start_python, tmp_path):
    moments = random.Random(0)
    for kill in range(20):
        path = tmp_path / f"{kill}.txt"
        talker = start_python(TALKING_PROGRAM, str(path))
        talker.stdout.readline()
        time.sleep(moments.uniform(0, 0.1))
        talker.send_signal(signal.SIGKILL)
        said = talker.communicate(timeout=60)[0].split("\n")[:-1]  # a line that was cut was not said
        num_said = len(said) + 1
        log = ConversationLog(path, print)
        log.add_bubble("user", "again")
        log.close()
        shown = path.read_text(encoding="utf-8")
        told = [message["content"].split("\n")[0] for message in read_conversation(path.with_suffix(".jsonl")).messages]
        assert all(f"message {number} " in shown for number in range(num_said))
        assert [int(text.split()[1]) for text in told[:num_said]] == list(range(num_said))
        assert shown.splitlines()[-1].endswith("🟩 again 🟩")


def test_the_jsonl_log_gives_the_last_conversation_without_what_was_taken_back(open_log):
    log = open_log()
    log.start({}, "Ruth on base")
    log.add_bubble("user", "of an earlier chat")
    log.start({}, "Ruth on base")
    log.add_bubble("user", "one")
    log.add_bubble("assistant", "1")
    log.add_bubble("assistant", "uno")
    log.add_bubble("user", "two\nlines")
    log.add_bubble("assistant", "2")
    log.add_event("regenerate")
    log.add_bubble("assistant", "zwei")
    log.add_bubble("user", "three")
    log.add_event("undo")
    assert read_conversation(log.jsonl_path).messages == [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "1\nuno"},
        {"role": "user", "content": "two\nlines"},
        {"role": "assistant", "content": "zwei"},
    ]
    log.add_event("swap")
    assert [message["role"] for message in read_conversation(log.jsonl_path).messages] == ["assistant", "user"] * 2
    log.add_event("load", [{"role": "user", "content": "loaded"}])
    assert read_conversation(log.jsonl_path).messages == [{"role": "user", "content": "loaded"}]
    log.add_event("reset")
    assert read_conversation(log.jsonl_path).messages == []


def test_damaged_lines_of_a_jsonl_log_are_left_out(tmp_path):
    path = tmp_path / "conversation.jsonl"
    hostile = [
        "[" * 100_000,
        '{"role": "system", "text": "x"}',
        '{"role": "user", "text": 5}',
        "\x00\x00",
        '{"role": "us',
    ]
    path.write_text("\n".join([*hostile, json.dumps({"role": "user", "text": "hi\x1b[2J"})]), encoding="utf-8")
    assert read_conversation(path).messages == [{"role": "user", "content": "hi[2J"}]


def test_of_a_log_of_gigabytes_only_the_end_is_read(tmp_path):
    path = tmp_path / "conversation.jsonl"
    with path.open("wb") as file:
        file.truncate(10**12)  # a hole: takes no space, and would fit no memory
        file.seek(0, os.SEEK_END)
        file.write(b'\n{"role": "user", "text": "hi"}\n')
    assert read_conversation(path).messages == [{"role": "user", "content": "hi"}]


def test_a_saved_conversation_reads_back_the_same(tmp_path):
    messages = [{"role": "user", "content": "שלום\n👨\u200d👩\u200d👧"}, {"role": "assistant", "content": "hi"}]
    save_conversation(tmp_path / "saved.jsonl", messages)
    assert read_conversation(tmp_path / "saved.jsonl").messages == messages
    assert (tmp_path / "saved.jsonl").stat().st_mode & 0o777 == 0o600


ENDED_PROGRAM = """
import signal, sys
from pathlib import Path
from conversation_log import ConversationLog
def leave(*_):
    raise SystemExit(143)
signal.signal(signal.SIGTERM, leave)
log = ConversationLog(Path(sys.argv[1]), print)
print("begun", flush=True)
try:
    for number in range(1_000_000):
        log.add_bubble("user" if number % 2 == 0 else "assistant", f"message {number}")
finally:
    log.close()
"""


@pytest.mark.slow
def test_ended_at_any_moment_both_files_say_the_same_once(start_python, tmp_path):
    moments = random.Random(0)
    for end in range(20):
        path = tmp_path / f"{end}.txt"
        talker = start_python(ENDED_PROGRAM, str(path))
        assert talker.stdout.readline() == "begun\n"
        time.sleep(moments.uniform(0, 0.1))
        talker.send_signal(signal.SIGTERM)
        assert talker.communicate(timeout=60)[1] == ""
        assert talker.returncode == 143
        shown = re.findall(r"message (\d+)", path.read_text(encoding="utf-8"))
        records = path.with_suffix(".jsonl").read_text(encoding="utf-8").splitlines()
        told = [json.loads(line)["text"].split()[1] for line in records]
        assert shown == told == [str(number) for number in range(len(told))]


def test_what_a_link_leads_to_keeps_its_mode_and_gets_the_chat(open_log, tmp_path):
    target = tmp_path / "notes.txt"
    target.write_text("mine\n", encoding="utf-8")
    target.chmod(0o644)
    (tmp_path / "conversation.txt").symlink_to(target)
    log = open_log()
    log.add_bubble("user", "hi")
    assert target.stat().st_mode & 0o777 == 0o644
    assert target.read_text(encoding="utf-8").startswith("mine\n") and "hi" in target.read_text(encoding="utf-8")
    assert log.path.is_symlink()
    assert log.jsonl_path.stat().st_mode & 0o777 == 0o600
