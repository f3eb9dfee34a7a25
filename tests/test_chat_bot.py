"""The chat as its user meets it: typed through a pseudo-terminal, piped, asked once, closed, refused."""

import json
import math
import os
import re
import resource
import shutil
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
from forked_scripts import ForkedScript, run_forked
from terminal_session import ENVIRONMENT, PROMPT, Terminal

SCRIPT_PATH = Path(__file__).resolve().parents[1] / "src" / "chat" / "chat_bot.py"


def script_arguments(saved_dir, log_path, *more):
    return [str(SCRIPT_PATH), "--saved-model-path", str(saved_dir), "--conversation-path", str(log_path), *more]


def arguments(saved_dir, log_path, *more):
    return [sys.executable, *script_arguments(saved_dir, log_path, *more)]


def run_chat(*command, lines="", **options):
    given = lines if isinstance(lines, bytes) else lines.encode()
    return subprocess.run(command, input=given, capture_output=True, env=ENVIRONMENT, **options)


def shown_lines(log_path):
    """Return the log without marks, isolates and padding."""
    return [
        re.sub("[\u200e\u2068\u2069]", "", line).strip() for line in log_path.read_text(encoding="utf-8").splitlines()
    ]


@pytest.mark.slow
def test_a_whole_session_at_a_terminal(talking_model_dir, tmp_path):
    log_path = tmp_path / "conversation.txt"
    terminal = Terminal(*arguments(talking_model_dir, log_path, "--greedy"))
    greeting = terminal.read_until(PROMPT)
    assert "imitating Noam on cpu" in greeting
    assert "/help lists the commands, exit leaves" in greeting
    assert terminal.say("שלום") == "🟦 היי\n🟦 מה נשמע? 😂\n"
    assert terminal.say("see you at 5") == "🟦 yalla bye 👨\u200d👩\u200d👧\n"
    assert terminal.say("/undo") == "last turn taken back\n"
    assert terminal.say("ok") == "🟦 סבבה\n"
    # Ctrl-C on a begun line clears it; letters typed wrong are taken back whole.
    terminal.type("abc")
    terminal.read_until("abc")
    terminal.type("\x03")
    terminal.read_until("line cleared")
    terminal.read_until(PROMPT)
    assert terminal.say("okש👨\u200d👩\u200d👧\x7f\x7f").endswith("ok\n🟦 סבבה\n")
    # Ctrl-C in a reply stops it and keeps what was said; what was typed meanwhile comes at the next prompt.
    terminal.say("/set max_new_tokens 290")
    terminal.type("long\r")
    terminal.read_until("word1")
    terminal.type("ok👨\u200d👩\u200d👧\x7f")
    terminal.type("\x03")
    shown = terminal.read_until(PROMPT)
    assert shown.endswith(f" [interrupted]\n{PROMPT}") and "ok" not in shown
    terminal.read_until("ok")
    assert terminal.say("") == "🟦 סבבה\n"
    # A paste of two lines is one message.
    terminal.type("\x1b[200~first line\nsecond line\x1b[201~\r")
    terminal.read_until("🟦 ")  # the reply has begun: a line that is drawn anew after a paste shows the prompt as well
    terminal.read_until(PROMPT)
    terminal.type("\x03")
    assert terminal.wait() == 130

    lines = shown_lines(log_path)
    assert lines[2].startswith("── Noam on talking_base")
    assert [line for line in lines if line[:1] in ("🟩", "🟦")][:4] == [
        "🟩 שלום 🟩",
        "🟦 היי 🟦",
        "🟦 מה נשמע? 😂 🟦",
        "🟩 see you at 5 🟩",
    ]
    assert lines.index("── last turn taken back ──") == lines.index("🟦 yalla bye 👨\u200d👩\u200d👧 🟦") + 2
    assert "🟩 first line 🟩" in lines and "🟩 second line 🟩" in lines
    records = [json.loads(line) for line in log_path.with_suffix(".jsonl").read_text(encoding="utf-8").splitlines()]
    assert [record["text"] for record in records if record.get("role") == "user"][-1] == "first line\nsecond line"
    assert [record["remark"] for record in records if "remark" in record][0] == "interrupted"
    history_path = tmp_path / "conversation_history.txt"
    assert history_path.read_text(encoding="utf-8").splitlines()[-1] == "first line second line"
    assert history_path.stat().st_mode & 0o777 == 0o600


@pytest.mark.slow
def test_a_resumed_session_in_visual_order_without_history(talking_model_dir, tmp_path):
    log_path = tmp_path / "conversation.txt"
    first = run_forked(*script_arguments(talking_model_dir, log_path, "--greedy", "-p", "ok"))
    assert (first.returncode, first.stdout) == (0, "סבבה\n\n")
    terminal = Terminal(
        *arguments(talking_model_dir, log_path, "--greedy", "--resume", "--bidi", "visual", "--no-history")
    )
    terminal.read_until("\n🟩 ok")  # the last lines of what continues
    assert terminal.read_until(PROMPT) == f"\n🟦 הבבס\n{PROMPT}"
    assert terminal.say("ok").startswith("🟦 הבבס\n")
    assert terminal.say("/regenerate").startswith("🟦 הבבס\n")
    terminal.type("\x04")
    assert terminal.wait() == 0
    assert not (tmp_path / "conversation_history.txt").exists()
    assert shown_lines(log_path).count("🟦 סבבה 🟦") == 3
    assert "── a saved conversation continues ──" in shown_lines(log_path)


@pytest.mark.slow
def test_piped_lines_give_the_dialogue_alone(talking_model_dir, tmp_path):
    lines = "שלום\n/stats\n\nok\n//x".encode() + b"\xff\x00"
    finished = run_chat(*arguments(talking_model_dir, tmp_path / "log.txt", "--greedy"), lines=lines)
    assert finished.returncode == 0
    turns = finished.stdout.decode().split("\n\n")
    assert turns[:2] == ["היי\nמה נשמע? 😂", "סבבה"]
    assert len(turns) == 4 and turns[3] == ""
    told = finished.stderr.decode()
    assert re.match(r"loading the model \.\.\.\n(without an NVIDIA card, .*\n)?first token after", told)
    assert "🟩 /x\N{REPLACEMENT CHARACTER} 🟩" in shown_lines(tmp_path / "log.txt")


@pytest.mark.slow
def test_the_imitated_person_begins_and_is_put_right_piped_then_resumed(talking_model_dir, tmp_path):
    command = script_arguments(talking_model_dir, tmp_path / "log.txt", "--greedy", "--max-new-tokens", "8")
    first = run_forked(*command, given="/begin\n/begin\nok\n/better יאללה \\n בא?\n")
    assert first.returncode == 0
    opener, answer, end = first.stdout.split("\n\n")
    assert opener and (answer, end) == ("סבבה", "")
    told = first.stderr
    assert "this conversation has begun already" in told and "replaced, and kept; to teach it" in told
    (corrected,) = (tmp_path / "corrections.jsonl").read_text(encoding="utf-8").splitlines()
    messages = json.loads(corrected)["messages"]
    assert messages == [
        {"role": "assistant", "content": opener},
        {"role": "user", "content": "ok"},
        {"role": "assistant", "content": "יאללה\nבא?"},
    ]
    resumed = run_forked(*command, "--resume", given="/undo\nok\n/undo\n/regenerate\n")
    assert resumed.stdout == f"סבבה\n\n{opener}\n\n"
    assert "── last reply replaced by a better one ──" in shown_lines(tmp_path / "log.txt")


@pytest.mark.slow
@pytest.mark.parametrize(("signal_number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_closed_from_outside_the_log_is_whole(talking_model_dir, tmp_path, signal_number, status):
    log_path = tmp_path / "conversation.txt"
    flags = script_arguments(talking_model_dir, log_path, "--greedy", "--max-new-tokens", "290")
    process = ForkedScript(flags[0], flags[1:], given="ok\n" + "long\n" * 1_000)
    while not log_path.exists() or "🟩 long 🟩" not in shown_lines(log_path):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal_number)
    process.communicate(timeout=60)
    assert process.returncode == status
    assert log_path.read_bytes().endswith(b"\n")
    records = [json.loads(line) for line in log_path.with_suffix(".jsonl").read_text(encoding="utf-8").splitlines()]
    assert [record["text"] for record in records[1:4]] == ["ok", "סבבה", "long"]


@pytest.mark.slow
def test_a_full_disk_costs_nothing_of_the_chat_and_shows_in_the_exit_status(talking_model_dir, tmp_path):
    def limit_file_size():
        resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))

    finished = run_chat(
        *arguments(talking_model_dir, tmp_path / "log.txt", "--greedy"), lines="ok\n" * 12, preexec_fn=limit_file_size
    )
    assert finished.stdout.decode().count("סבבה") >= 10
    assert finished.stderr.decode().count("not written (File too large)") == 1
    assert finished.returncode == 1


def test_wrong_usage_is_status_2():
    finished = run_chat(sys.executable, str(SCRIPT_PATH), "--temperature", "0")
    assert finished.returncode == 2
    assert "argument --temperature: temperature must be a number from 0.01 to 5" in finished.stderr.decode()


@pytest.mark.parametrize(
    ("context", "typed", "told"),
    [
        ("who", "Rut", 'nobody is called "Rut" in the training data; the nearest: Ruth'),
        ("none", "Ruth", "this model was trained without a header (--context none), so it is not told with whom it writes; "
                         "leave it out, or train with --context who"),
    ],
)  # fmt: skip
def test_a_name_that_the_model_was_not_told_is_refused_before_it_loads(
    tiny_saved_model_dir, tmp_path, context, typed, told
):
    saved_copy = shutil.copytree(tiny_saved_model_dir, tmp_path / "saved")
    path = saved_copy / "training_settings.json"
    settings = json.loads(path.read_text(encoding="utf-8")) | {"context": context, "partners": [{"name": "Ruth"}]}
    path.write_text(json.dumps(settings), encoding="utf-8")
    finished = run_chat(*arguments(saved_copy, tmp_path / "log.txt", "--with", typed), cwd=tmp_path)
    assert (finished.returncode, finished.stderr.decode()) == (1, f"chat_bot: --with: {told}\n")
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]


@pytest.mark.slow
def test_a_chat_with_somebody_is_logged_and_goes_on_with_them(talking_model_dir, tmp_path):
    saved_copy = shutil.copytree(talking_model_dir, tmp_path / "saved")
    path = saved_copy / "training_settings.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    settings |= {"context": "who,when", "partners": [{"name": "Ruth"}, {"name": "Koby"}]}
    path.write_text(json.dumps(settings), encoding="utf-8")
    log_path = tmp_path / "conversation.txt"
    for flags in (["--with", "koby", "-p", "ok"], ["--resume", "-p", "ok"]):
        finished = run_forked(*script_arguments(saved_copy, log_path, "--greedy", *flags))
        assert finished.returncode == 0, finished.stderr
    assert shown_lines(log_path).count("── with Koby ──") == 2
    records = [json.loads(line) for line in log_path.with_suffix(".jsonl").read_text(encoding="utf-8").splitlines()]
    told = [(record["with"], record["began_at"]) for record in records if record.get("event") == "header"]
    assert told[0] == told[1] and told[0][0] == "Koby"


def test_a_log_that_cannot_be_written_is_said_before_the_model_loads(tiny_saved_model_dir, tmp_path):
    os.mkfifo(tmp_path / "pipe.txt")
    finished = run_chat(*arguments(tiny_saved_model_dir, tmp_path / "pipe.txt"), cwd=tmp_path)
    assert finished.returncode == 1
    assert finished.stderr.decode() == (
        "chat_bot: pipe.txt: is no ordinary file; choose another with --conversation-path\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["pipe.txt"]


@pytest.mark.slow
def test_weights_that_are_not_finite_are_one_line_and_leave_no_log(tiny_saved_model_dir, tmp_path):
    saved_copy = shutil.copytree(tiny_saved_model_dir, tmp_path / "saved")
    path = saved_copy / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-4] + struct.pack("<f", math.nan))
    finished = run_forked(*script_arguments(saved_copy, tmp_path / "log.txt"), folder=tmp_path)
    assert finished.returncode == 1
    assert finished.stderr.endswith(
        "chat_bot: saved/adapter_model.safetensors: holds numbers that are not finite (the training diverged); train again\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]


def test_without_memory_for_the_libraries_it_is_one_line(tiny_saved_model_dir, tmp_path):
    limit = 250_000_000  # of addresses: enough for Python, too little for torch
    done = run_chat(
        *arguments(tiny_saved_model_dir, tmp_path / "log.txt", "-p", "hi"),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )
    assert done.returncode == 1
    assert done.stderr.decode().splitlines() == [
        "loading the model ...",
        "chat_bot: the memory is full; close other programs, choose a smaller base model, or raise the limit of ulimit -v",
    ]
    assert not (tmp_path / "log.txt").exists()
