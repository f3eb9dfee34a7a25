"""How many private values the redaction finds in made-up messages, and how many harmless ones it hides, per kind.

The messages lie in `cases/redaction_messages.txt`. Run as a program, this prints the table of the README:

    .venv/bin/python tests/test_redaction_measured.py
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).resolve().parents[1] / folder) for folder in ("src", "src/data_preprocessing")]

import pytest
from message_filters import remove_invisible
from redaction import Redactor

CASES_PATH = Path(__file__).with_name("cases") / "redaction_messages.txt"
README_PATH = Path(__file__).resolve().parents[1] / "README.md"
VALUE_RE = re.compile("⟦(.*?)⟧", re.DOTALL)
ESCAPE_RE = re.compile(r"\\(n|u[0-9a-f]{4})")
PLACEHOLDERS = r"\[[A-Z]+\](?:\W{0,3}\[[A-Z]+\])*"

# (recall, precision) that each kind must keep, in percent.
FLOORS = {
    "phone numbers": (95, 95),
    "e-mail addresses and mentions": (90, 95),
    "links": (95, 95),
    "identity numbers, cards and accounts": (90, 95),
    "codes in digits": (90, 95),
    "codes and numbers in words": (90, 95),
    "street addresses with the word for street": (90, 95),
    "street addresses without the word for street": (85, 95),
    "hidden in odd places": (95, 95),
}


@dataclass
class Measured:
    """What became of the messages of one kind."""

    num_values: int = 0  # messages with a value to hide
    num_near_misses: int = 0
    missed: list[tuple[str, str]] = field(
        default_factory=list
    )  # (message, redacted) in which something of a value stays
    lost: list[tuple[str, str]] = field(default_factory=list)  # in which a harmless word was hidden

    @property
    def recall(self) -> float:
        return 1 - len(self.missed) / self.num_values

    @property
    def precision(self) -> float:
        num_found = self.num_values - len(self.missed)
        return num_found / max(1, num_found + len(self.lost))


def read_cases() -> dict[str, list[tuple[bool, str]]]:
    """Return (whether a value is to be hidden, message) of each kind."""
    cases: dict[str, list[tuple[bool, str]]] = {}
    for line in CASES_PATH.read_text(encoding="utf-8").split("\n"):
        if line.startswith("== "):
            messages = cases[line[3:]] = []
        elif line.startswith(("+ ", "- ")):
            message = ESCAPE_RE.sub(lambda match: "\n" if match[1] == "n" else chr(int(match[1][1:], 16)), line[2:])
            messages.append((line[0] == "+", message))
    return cases


def measure(messages: list[tuple[bool, str]]) -> Measured:
    measured = Measured()
    for has_value, written in messages:
        marked = remove_invisible(written)  # what the stage redacts is clean
        text = VALUE_RE.sub(r"\1", marked)
        redacted = Redactor("IL").redact(text)
        if not has_value:
            measured.num_near_misses += 1
            if redacted != text:
                measured.lost.append((text, redacted))
            continue
        measured.num_values += 1
        outside = VALUE_RE.split(marked)[::2]
        if not re.fullmatch(PLACEHOLDERS.join(map(re.escape, outside)), redacted):
            measured.missed.append((text, redacted))
            if any(word not in redacted for part in outside for word in part.split()):
                measured.lost.append((text, redacted))
    return measured


@pytest.fixture(scope="module")
def measured() -> dict[str, Measured]:
    return {kind: measure(messages) for kind, messages in read_cases().items()}


def total_of(measured: dict[str, Measured]) -> Measured:
    total = Measured()
    for one in measured.values():
        total.num_values += one.num_values
        total.num_near_misses += one.num_near_misses
        total.missed += one.missed
        total.lost += one.lost
    return total


def test_the_list_is_long_and_has_as_many_near_misses_as_values(measured: dict[str, Measured]) -> None:
    total = total_of(measured)
    assert total.num_values >= 200
    assert total.num_near_misses >= total.num_values


def test_the_readme_shows_this_table(measured: dict[str, Measured]) -> None:
    assert table(measured) in README_PATH.read_text(encoding="utf-8")


def test_every_kind_keeps_its_recall_and_precision(measured: dict[str, Measured]) -> None:
    assert measured.keys() == FLOORS.keys()
    for kind, (recall, precision) in FLOORS.items():
        one = measured[kind]
        assert round(100 * one.recall) >= recall, (kind, one.missed)
        assert round(100 * one.precision) >= precision, (kind, one.lost)


def table(measured: dict[str, Measured]) -> str:
    lines = ["| kind | values found (recall) | harmless messages left alone | precision |", "|---|---|---|---|"]
    for kind, one in {**measured, "all": total_of(measured)}.items():
        num_harmed = len({text for text, _ in one.lost})
        lines.append(
            f"| {kind} | {one.num_values - len(one.missed)} of {one.num_values} ({one.recall:.0%}) "
            f"| {one.num_near_misses - num_harmed} of {one.num_near_misses} | {one.precision:.0%} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    results = {kind: measure(messages) for kind, messages in read_cases().items()}
    print(table(results))
    for kind, one in results.items():
        for title, messages in (("missed", one.missed), ("harmed", one.lost)):
            for text, redacted in messages:
                print(f"{kind}: {title}: {text!r} -> {redacted!r}")
