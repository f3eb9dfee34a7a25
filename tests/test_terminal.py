"""What a typed line means."""

import pytest
from terminal import COMMANDS, Command, help_text, read_line_as_command


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
    named |= {"begin", "better"}
    assert set(COMMANDS) == named
    assert all(f"/{name}" in help_text() for name in COMMANDS)
