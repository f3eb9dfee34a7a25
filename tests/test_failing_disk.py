"""The disk fails at every operation in turn (after SQLite's tests): the old output or the new one, said in one line."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conversation_log import read_conversation
from make_sample_chat import sample_export

TESTS = Path(__file__).parent
STAGE_1 = TESTS.parent / "src/data_preprocessing/load_whatsapp.py"
OUTPUTS = ("preprocessing_report.json", "dropped_messages.jsonl", "formatted_data.jsonl")  # in the order of renaming
FAULTS = [("EIO", "once"), ("ENOSPC", "lasting")]

pytestmark = pytest.mark.slow


def run_failing(folder, number, fault, script, *arguments, env=None):
    command = [sys.executable, str(TESTS / "failing_disk.py"), str(folder / "count"), str(number), *fault, str(script)]
    return subprocess.run([*command, *arguments], cwd=folder, env=env, capture_output=True, text=True, timeout=60)


def count_operations(folder, script, *arguments, env=None):
    """How many operations a run on a sound disk takes."""
    sound = run_failing(folder, 0, ("EIO", "once"), script, *arguments, env=env)
    assert sound.returncode == 0, sound.stderr
    return int((folder / "count").read_text())


def assert_one_line(errors, name):
    assert errors.startswith(f"{name}: "), errors
    assert errors.count("\n") == 1, errors


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: "-".join(fault))
def test_stage_1_leaves_each_output_old_or_new_whatever_operation_fails(tmp_path, fault):
    (tmp_path / "chat.txt").write_text(sample_export(20, seed=1), encoding="utf-8")
    out = tmp_path / "out"
    arguments = ("chat.txt", "--imitate", "Noam", "--day-first", "--path-to-data", "out/formatted_data.jsonl")
    num_operations = count_operations(tmp_path, STAGE_1, *arguments)
    assert num_operations > 15  # three files: open, write, flush, rename; their folder
    new = {name: (out / name).read_bytes() for name in OUTPUTS}
    old = dict.fromkeys(OUTPUTS, b"old\n")
    for number in range(1, num_operations + 1):
        for name, content in old.items():
            (out / name).write_bytes(content)
        failed = run_failing(tmp_path, number, fault, STAGE_1, *arguments)
        contents = {path.name: path.read_bytes() for path in out.iterdir()}
        assert contents.keys() == new.keys(), number  # nothing temporary stays
        is_new = [contents[name] == new[name] for name in OUTPUTS]
        assert all(contents[name] in (old[name], new[name]) for name in OUTPUTS), number
        assert is_new == sorted(is_new, reverse=True), number  # the data last: it is never newer than its ledger
        if failed.returncode == 0:
            assert all(is_new), number  # an operation without which it works as well: the folder was there
        else:
            assert failed.returncode == 1, number
            assert_one_line(failed.stderr, "load_whatsapp")


TALK = """
import sys
from pathlib import Path
from common.script import run_script
from conversation_log import ConversationLog

def main():
    log = ConversationLog(Path(sys.argv[1]), lambda warning: print("warning:", warning, file=sys.stderr))
    log.start({}, "Ruth on base")
    for number in range(6):
        log.add_bubble("user" if number % 2 == 0 else "assistant", f"message {number}")
    log.close()
    return 1 if log.has_unwritten else 0

run_script(main)
"""


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: "-".join(fault))
def test_the_conversation_log_loses_nothing_it_does_not_own_up_to(tmp_path, fault, module_environment):
    script = tmp_path / "talk.py"
    script.write_text(TALK)
    num_operations = count_operations(tmp_path, script, "sound/log.txt", env=module_environment)
    assert num_operations > 20  # two files: open, and for each message a write and a flush
    said = [f"message {number}" for number in range(6)]
    for number in range(1, num_operations + 1):
        folder = tmp_path / f"{number}"
        failed = run_failing(tmp_path, number, fault, script, f"{number}/log.txt", env=module_environment)
        logs = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("log.*")}
        if failed.stderr.startswith("talk: "):  # at the opening: nothing was said yet
            assert failed.returncode == 1
            assert_one_line(failed.stderr, "talk")
            assert not any(logs.values())
            continue
        if failed.returncode or failed.stderr:  # else it works as well without: the folder was there
            assert_one_line(failed.stderr, "warning")
        turns = [turn["content"] for turn in read_conversation(folder / "log.jsonl").messages]
        shown = [text for text in said if text in logs["log.txt"]]
        assert all(logs["log.txt"].count(text) <= 1 for text in said), number
        assert all(json.loads(line) for line in logs["log.jsonl"].splitlines())
        assert turns == said[: len(turns)] and shown == said[: len(shown)], number  # whole, and in order
        assert (failed.returncode == 0) == (turns == shown == said), number
        assert fault[1] == "lasting" or failed.returncode == 0, number  # what failed once was written later
