"""The file of corrections: whole lines of the training data's form, whatever happens to the disk or beside it."""

import json
import os
import stat
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from corrections import append_correction, as_reply
from full_disk import full_disk

from common.conversation_data import read_training_data
from common.script import ScriptError

BEFORE = [{"role": "user", "content": "בא לך פיצה?", "ids": [1, 2]}]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "corrections.jsonl"


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


def test_a_line_is_an_exchange_that_only_the_owner_may_read(path):
    path.touch(mode=0o644)
    append_correction(path, BEFORE, "יאללה 🔥")
    append_correction(path, BEFORE, "כן")
    exchange = [{"role": "user", "content": "בא לך פיצה?"}, {"role": "assistant", "content": "יאללה 🔥"}]
    assert lines(path)[0] == {"messages": exchange}
    assert "יאללה 🔥" in path.read_text(encoding="utf-8")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [talk.messages[-1]["content"] for talk in read_training_data(path).conversations] == ["יאללה 🔥", "כן"]


def test_a_line_cut_by_a_crash_costs_no_other(path):
    path.write_text('{"messages": [{"ro', encoding="utf-8")
    append_correction(path, BEFORE, "yes")
    data = read_training_data(path, skip_bad_lines=True)
    assert len(data.bad_lines) == len(data.conversations) == 1


def test_several_chats_write_whole_lines(path, monkeypatch):
    write = os.write

    def write_a_part(handle, data):  # as a system may; then another chat goes on
        num_bytes = write(handle, data[:1_000])
        time.sleep(0.0001)
        return num_bytes

    monkeypatch.setattr(os, "write", write_a_part)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: append_correction(path, BEFORE, f"{number} " * 3_000), range(40)))
    assert sorted(int(line["messages"][1]["content"].split()[0]) for line in lines(path)) == list(range(40))


def test_a_full_disk_leaves_nothing_of_the_line(path):
    append_correction(path, BEFORE, "yes")
    before = path.read_bytes()
    with full_disk(len(before) + 50), pytest.raises(OSError, match="File too large"):
        append_correction(path, BEFORE, "no " * 100)
    assert path.read_bytes() == before


def test_what_is_no_file_is_refused_at_once(path):
    os.mkfifo(path)
    with pytest.raises(ScriptError, match="corrections.jsonl: is no ordinary file; remove it"):
        append_correction(path, BEFORE, "yes")


@pytest.mark.parametrize(
    ("typed", "reply"),
    [
        (r"yes\nno", "yes\nno"),
        (r"a\\nb", r"a\nb"),
        ("pasted\nlines ", "pasted\nlines"),
        (r"\n \n yes \n", "yes"),
        (r"C:\temp", r"C:\temp"),
        (r"\n", ""),
    ],
)
def test_messages_of_a_reply_are_typed_in_one_line(typed, reply):
    assert as_reply(typed) == reply
