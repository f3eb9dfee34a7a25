"""What a typed line means."""

import pytest
from irregular_files import make_irregular
from terminal import COMMANDS, Command, TerminalInput, help_text, read_line_as_command


@pytest.mark.parametrize(
    ("line", "meaning"),
    [
        ("שלום", "שלום"),
        ("  hi  ", "hi"),
        ("exit", Command("exit", "")),
        ("exit now", "exit now"),
        ("/exit", Command("exit", "")),
        ("/set temperature 0.5", Command("set", "temperature 0.5")),
        ("//home is where", "/home is where"),
        ("/", Command("", "")),
        ("", ""),
    ],
)
def test_a_line_is_words_or_a_command(line, meaning):
    assert read_line_as_command(line) == meaning


def test_help_lists_every_command_that_the_specification_names():
    named = {"help", "exit", "reset", "undo", "regenerate", "set", "params", "stats", "save", "load", "swap"}
    named |= {"begin", "better", "with", "as"}
    assert set(COMMANDS) == named
    assert all(f"/{name}" in help_text() for name in COMMANDS)


@pytest.mark.parametrize("kind", ["pipe", "socket", "device"])
def test_a_history_that_is_no_file_is_neither_waited_for_nor_replaced(tmp_path, kind):
    path = tmp_path / "conversation_history.txt"
    make_irregular(path, kind)
    before = path.lstat()
    TerminalInput(path).close()
    assert path.lstat().st_ino == before.st_ino


def test_a_linked_history_keeps_its_mode_and_an_own_one_is_private(tmp_path):
    target, link, own = tmp_path / "notes.txt", tmp_path / "link.txt", tmp_path / "own.txt"
    target.touch()
    target.chmod(0o644)
    link.symlink_to(target)
    for path in (link, own):
        TerminalInput(path).close()
    assert [path.stat().st_mode & 0o777 for path in (target, own)] == [0o644, 0o600]
