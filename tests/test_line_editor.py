"""A line typed at a terminal: whole letters, what waits during a reply, resizes. No model is loaded."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from line_editor import EditedLine, lay_out
from terminal_session import PROMPT, Terminal
from wcwidth import iter_graphemes, wcwidth

SOURCE = Path(__file__).resolve().parents[1] / "src"
FAMILY, FLAG, HAND, HEART = "👨\u200d👩\u200d👧", "🇮🇱", "🙏🏽", "❤\ufe0f"
POINTED = "שָׁ"
LETTERS = [FAMILY, FLAG, HAND, HEART, POINTED, "e\u0301", "א", "a", "1\ufe0f\u20e3"]

# A chat without a model: it says what it was told, as Python writes it; it loads while a file is there, and answers `slow`
# when another appears.
CHAT = f"""
import sys, time
sys.path[:0] = [{str(SOURCE)!r}, {str(SOURCE / "chat")!r}]
from pathlib import Path
from terminal import TerminalInput, showing_progress
from common.script import run_script

def main():
    folder = Path(sys.argv[1])
    with showing_progress("loading"):
        while (folder / "loading").exists():
            time.sleep(0.01)
    lines = TerminalInput(folder / "history.txt")
    try:
        while (line := lines.read()) is not None:
            print("begun", end=" ", flush=True)
            while line == "slow" and not (folder / "answer").exists():
                time.sleep(0.01)
            print(f"said {{ascii(line)}}", flush=True)
    finally:
        lines.close()

run_script(main)
"""


@pytest.fixture
def terminal(tmp_path):
    terminal = Terminal(sys.executable, "-c", CHAT, str(tmp_path))
    terminal.read_until(PROMPT)
    yield terminal
    terminal.process.kill()
    terminal.process.wait()


def said(terminal, keys):
    """Type `keys` and Enter; return the line that the program then got."""
    terminal.type(keys + "\r")
    terminal.read_until("said ")
    line = terminal.read_until("\n").strip()
    terminal.read_until(PROMPT)
    return line


class TestEditedLine:
    @pytest.mark.parametrize("letter", LETTERS)
    def test_each_key_takes_a_whole_letter(self, letter):
        line = EditedLine(f"a{letter}b")
        line.move_left()
        line.delete_left()
        assert (line.text, line.cursor) == ("ab", 1)
        line.insert(letter)
        line.move_left()
        assert line.cursor == 1
        line.move_right()
        assert line.cursor == 1 + len(letter)
        line.move_left()
        line.delete_right()
        assert line.text == "ab"

    @settings(deadline=None)
    @example([" ", "\u200d", "move_word_left"])
    @given(
        st.lists(
            st.one_of(
                st.sampled_from([*LETTERS, " ", "\u200d", "\u0301", "🏽", "🇮"]),
                st.sampled_from([name for name in vars(EditedLine) if not name.startswith("_") and name != "insert"]),
            ),
            max_size=30,
        )
    )
    def test_the_cursor_never_stands_inside_a_letter(self, steps):
        line = EditedLine()
        for step in steps:
            getattr(line, step)() if hasattr(line, step) else line.insert(step)
            ends = [0]
            for letter in iter_graphemes(line.text):
                ends.append(ends[-1] + len(letter))
            assert line.cursor in ends

    def test_words_are_cut_and_put_back(self):
        line = EditedLine("see you  שלום ")
        line.cut_word_left()
        assert line.text == "see you  "
        line.move_to_start()
        line.put_back()
        assert line.text == "שלום see you  "
        line.move_word_right()
        line.cut_to_end()
        line.cut_to_start()
        line.put_back()
        assert line.text == "שלום see"
        line.move_word_left()
        assert line.cursor == len("שלום ")


class TestRows:
    @settings(deadline=None)
    @given(st.lists(st.sampled_from([*LETTERS, " ", "\n", "word "]), max_size=60), st.integers(10, 40))
    def test_no_row_is_wrapped_by_a_terminal_that_draws_each_code_point(self, letters, columns):
        text = "".join(letters)
        rows, cursor_row, before_cursor = lay_out(PROMPT, EditedLine(text), columns)
        assert all(sum(max(0, wcwidth(character)) for character in row) < columns for row in rows)
        assert "".join(row[len(PROMPT) if number == 0 else 3 :] for number, row in enumerate(rows)) == text.replace(
            "\n", ""
        )
        assert (cursor_row, before_cursor) == (len(rows) - 1, rows[-1])


class TestTerminal:
    def test_what_is_sent_is_what_was_left_of_the_letters(self, terminal):
        assert said(terminal, f"a{FAMILY}\x7fb") == ascii("ab")
        assert said(terminal, f"{FLAG}{HAND}x\x1b[D\x1b[D\x7f") == ascii(f"{HAND}x")
        assert said(terminal, f"{POINTED}{HEART}\x1b[D\x1b[3~!") == ascii(f"{POINTED}!")
        assert said(terminal, "\x1b[A\x7f?") == ascii(f"{POINTED}?")
        assert said(terminal, "ac\x1b\x1b[Db") == ascii("abc")  # Esc, then an arrow

    def test_keys_typed_during_a_reply_come_at_the_next_prompt(self, terminal, tmp_path):
        terminal.type("slow\r")
        terminal.read_until("begun ")
        terminal.type(f"early {FAMILY}x\x7f")
        time.sleep(0.3)
        (tmp_path / "answer").touch()
        assert terminal.read_until(PROMPT) == f"said 'slow'\n{PROMPT}"  # nothing of it within the reply
        assert terminal.read_until(FAMILY) == f"early {FAMILY}"
        assert said(terminal, "") == ascii(f"early {FAMILY}")

    def test_keys_typed_while_the_model_loads_come_at_the_first_prompt(self, tmp_path):
        (tmp_path / "loading").touch()
        terminal = Terminal(sys.executable, "-c", CHAT, str(tmp_path))
        terminal.read_until("loading, 0 s")
        time.sleep(0.1)
        terminal.type("early")
        time.sleep(0.3)
        (tmp_path / "loading").unlink()
        assert "early" not in terminal.read_until(PROMPT)
        terminal.read_until("early")
        assert said(terminal, "") == ascii("early")
        terminal.type("\x04")
        assert terminal.wait() == 0

    def test_a_dumb_terminal_gets_no_escape_sequence(self, tmp_path):
        terminal = Terminal(sys.executable, "-c", CHAT, str(tmp_path), term="dumb")
        terminal.read_until(PROMPT)
        assert "\x1b" not in terminal.unread.decode()
        assert said(terminal, "ok") == ascii("ok")
        terminal.type("\x04")
        assert terminal.wait() == 0

    def test_lines_typed_ahead_are_sent_one_by_one(self, terminal, tmp_path):
        terminal.type("slow\r")
        terminal.read_until("begun ")
        terminal.type("one\rtwo\rth")
        (tmp_path / "answer").touch()
        assert "said 'one'" in terminal.read_until("said 'two'")
        assert said(terminal, "ree") == ascii("three")

    def test_a_resize_loses_nothing_that_was_typed_or_shown(self, terminal, tmp_path):
        for columns in (30, 100, 12):
            terminal.type("word " * 4)
            terminal.read_until("word " * 2)
            terminal.resize(columns)
            time.sleep(0.1)
        assert said(terminal, "") == ascii("word " * 12)
        terminal.type("slow\r")
        terminal.read_until("begun ")
        terminal.resize(60)
        terminal.type("after")
        (tmp_path / "answer").touch()
        terminal.read_until("after")
        assert said(terminal, "") == ascii("after")

    def test_a_paste_is_one_line_and_longer_than_the_terminals_buffer(self, terminal):
        pasted = "\n".join(["line"] * 2_000)
        terminal.type("\x1b[200~")
        for start in range(0, len(pasted), 1_000):
            terminal.type(pasted[start : start + 1_000])
        terminal.type("\x1b[201~")
        terminal.read_until("line")
        assert said(terminal, "") == ascii(pasted)

    @pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
    def test_the_terminal_is_left_as_it_was(self, terminal, tmp_path, number, status):
        assert said(terminal, "kept") == ascii("kept")
        terminal.type("begun")
        terminal.read_until("begun")
        terminal.process.send_signal(number)
        assert terminal.process.wait(timeout=20) == status
        after = subprocess.check_output(["stty", "-a"], stdin=terminal.master, text=True)
        assert " echo " in after and " icanon " in after
        assert (tmp_path / "history.txt").read_text(encoding="utf-8") == "kept\n"
        assert (tmp_path / "history.txt").stat().st_mode & 0o777 == 0o600

    def test_stopped_and_continued_it_reads_on(self, terminal):
        terminal.type("half")
        terminal.read_until("half")
        terminal.process.send_signal(signal.SIGSTOP)
        subprocess.run(["stty", "sane"], stdin=terminal.master, check=True)  # as a shell does
        terminal.process.send_signal(signal.SIGCONT)
        terminal.read_until("\x1b[?2004h")  # a paste is one line again
        assert terminal.read_until("half").endswith(f"{PROMPT}half")
        assert said(terminal, f"{FAMILY}\x7f") == ascii("half")

    def test_killed_while_it_is_stopped_it_ends(self, tmp_path):
        (tmp_path / "chat.py").write_text(CHAT, encoding="utf-8")
        # In this locale it tells of its jobs in English.
        shell = Terminal("env", "LC_ALL=C.UTF-8", "bash", "--norc", "--noprofile", "-i")
        shell.type(shlex.join([sys.executable, str(tmp_path / "chat.py"), str(tmp_path)]) + "\r")
        shell.read_until(PROMPT)
        shell.type("half")
        shell.read_until("half")
        shell.type("\x1a")
        shell.read_until("Stopped")
        shell.type("kill %1\r")
        told = ""
        for _ in range(100):
            shell.type("sleep 0.1; jobs; echo ask''ed\r")
            told += shell.read_until("asked")
            if "Exit 143" in told:
                break
        assert "Exit 143" in told
        shell.type("exit\r")
        shell.wait()

    def test_a_closed_window_ends_it(self, terminal):
        os.close(terminal.master)
        assert terminal.process.wait(timeout=20) in (0, 129)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("tmux") is None, reason="needs tmux")
def test_in_tmux_the_cursor_stands_where_the_letters_end(tmp_path):
    """tmux draws some letters wider than others do: the cursor is where tmux itself puts it after what stands before it."""

    def tmux(*words):
        command = ["tmux", "-u", "-S", str(tmp_path / "socket"), *words]
        return subprocess.run(
            command, capture_output=True, text=True, check=True, env=os.environ | {"LC_ALL": "C.UTF-8"}
        ).stdout

    def shown():
        return tmux("capture-pane", "-pJ")

    def cursor():
        return int(tmux("display", "-p", "#{cursor_x}"))

    def wait_until(is_so):
        end = time.monotonic() + 30
        while not is_so():
            assert time.monotonic() < end, (cursor(), shown())
            time.sleep(0.05)

    (tmp_path / "chat.py").write_text(CHAT, encoding="utf-8")
    tmux(
        "new-session",
        "-d",
        "-x",
        "60",
        "-y",
        "20",
        shlex.join([sys.executable, str(tmp_path / "chat.py"), str(tmp_path)]),
    )
    try:
        wait_until(lambda: PROMPT.strip() in shown())
        ends = [cursor()]
        letters = [FAMILY, HAND, FLAG, HEART, POINTED, "א"]
        for number, letter in enumerate(letters):
            tmux("send-keys", "-l", letter)
            begun = "".join(letters[: number + 1])
            wait_until(lambda begun=begun: begun in shown())
            ends.append(cursor())
        for end in reversed(ends[:-1]):
            tmux("send-keys", "Left")
            wait_until(lambda end=end: cursor() == end)
        tmux("send-keys", "Right")
        tmux("send-keys", "Right")
        tmux("send-keys", "BSpace")
        tmux("send-keys", "Enter")
        said_line = f"said {ascii(''.join(letters).replace(HAND, ''))}"
        wait_until(lambda: said_line in shown())
    finally:
        tmux("kill-server")
