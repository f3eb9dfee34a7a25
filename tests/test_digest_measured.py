"""How many open questions, promises and dates the digest finds in made-up messages, and how many it only takes for such.

The messages lie in `cases/digest/`: a planted set, and four that were written after the rules, each once the misses of the one
before were mended. Run as a program, this prints the table of the results, with every miss:

    .venv/bin/python tests/test_digest_measured.py
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).resolve().parents[1] / folder) for folder in ("src", "src/data_preprocessing")]

import pytest
from digest_reading import Circle, digest_chat
from message_dates import find_dates
from promise_words import ANY, acts_done, acts_shown, find_promise
from text_facts import NO_FACTS
from whatsapp_export import Message
from wording import wording_of

CASES_DIR = Path(__file__).with_name("cases") / "digest"
SETS = {
    "planted": CASES_DIR,
    "held back": CASES_DIR / "held_back",
    "held back, second": CASES_DIR / "held_back_second",
    "held back, third": CASES_DIR / "held_back_third",
    "held back, fourth": CASES_DIR / "held_back_fourth",
}
MIN_PRECISION, MIN_RECALL = 0.95, 0.80
# What stands for a message without words: what an export writes there, and the reason why stage 1 leaves it out.
STANDS_FOR = {
    "<media>": ("<Media omitted>", "media"),
    "<call>": ("Voice call. 10 sec", "call"),
    "<location>": ("location: https://maps.google.com/?q=32.08,34.78", "location"),
}
OTHERS = {"two": ["Ruth"], "group": ["Ruth", "Dan", "דן", "Noa"]}
SILENCE = timedelta(hours=3)


@dataclass
class Measured:
    """What became of the messages of one kind."""

    num_wanted: int = 0
    num_near_misses: int = 0
    num_found: int = 0  # of those wanted
    missed: list[str] = field(default_factory=list)
    false: list[str] = field(default_factory=list)

    @property
    def recall(self) -> float:
        return self.num_found / self.num_wanted

    @property
    def precision(self) -> float:
        return self.num_found / (self.num_found + len(self.false))


def parts_of(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield (heading, lines) of the parts of a file of cases; what stands before the first heading explains the file."""
    parts = path.read_text(encoding="utf-8").split("\n== ")[1:]
    for part in parts:
        heading, _, lines = part.partition("\n")
        yield heading, [line for line in lines.split("\n") if line]


def measure_dates(folder: Path, of_headings: str = "") -> Measured:
    measured = Measured()
    for heading, lines in parts_of(folder / "dates.txt"):
        if of_headings not in heading:
            continue
        sent_at = datetime.fromisoformat(heading.partition(" @ ")[2])
        for line in lines:
            wanted, _, text = line.partition(" | ")
            found = {
                f"{phrase.day}" + (f" {phrase.at:%H:%M}" if phrase.at else "")
                for phrase in find_dates(wording_of(text), sent_at)
                if phrase.day
            }
            if wanted[0].isdigit():
                measured.num_wanted += 1
                if found == {wanted}:
                    measured.num_found += 1
                else:
                    measured.missed.append(text)
            else:
                measured.num_near_misses += 1
            measured.false += [f"{text}: {date}" for date in found - {wanted}]
    return measured


def measure_promises(folder: Path) -> Measured:
    measured = Measured()
    for heading, lines in parts_of(folder / "promises.txt"):
        for line in lines if heading != "Kept" else ():
            is_wanted, text = line[0] == "+", line[2:]
            count(measured, text, is_wanted, find_promise(wording_of(text)) is not None)
    return measured


def count(measured: Measured, text: str, is_wanted: bool, is_found: bool) -> None:
    if is_wanted:
        measured.num_wanted += 1
        measured.num_found += is_found
        if not is_found:
            measured.missed.append(text)
    else:
        measured.num_near_misses += 1
        if is_found:
            measured.false.append(text)


def measure_kept(folder: Path) -> Measured:
    measured = Measured()
    for heading, lines in parts_of(folder / "promises.txt"):
        for line in lines if heading == "Kept" else ():
            mark, _, both = line.partition(" | ")
            promise, _, later = both.partition(" => ")
            acts = acts_shown(STANDS_FOR[later][1]) if later in STANDS_FOR else acts_done(wording_of(later))
            count(measured, both, mark == "kept", find_promise(wording_of(promise)) in acts or ANY in acts)
    return measured


def measure_questions(folder: Path) -> Measured:
    measured = Measured()
    for kind, lines in parts_of(folder / "questions.txt"):
        sent_at = datetime(2024, 12, 10, 9, 30)
        messages, wanted, unwanted = [], set(), set()
        for line in lines:
            if line == "~":
                sent_at += SILENCE
                continue
            sent_at += timedelta(minutes=1)
            sender, _, text = line[2:].partition(": ")
            written = STANDS_FOR[text][0] if text in STANDS_FOR else text
            messages.append((Message(sent_at, "נועם" if sender == "me" else sender, written), False))
            if line[0] == "+":
                wanted.add(text)
            elif line[0] == "-":
                unwanted.add(text)
        digest = digest_chat("chat", messages, Circle(["נועם"], OTHERS[kind]), NO_FACTS)
        found = {question.message.text for question in digest.questions_to_me + digest.questions_of_mine}
        measured.num_wanted += len(wanted)
        measured.num_near_misses += len(unwanted)
        measured.num_found += len(found & wanted)
        measured.missed += sorted(wanted - found)
        measured.false += sorted(found - wanted)
    return measured


def measure(folder: Path) -> dict[str, Measured]:
    return {
        "questions without an answer": measure_questions(folder),
        "promises": measure_promises(folder),
        "dates": measure_dates(folder),
    }


@pytest.fixture(scope="module")
def planted() -> dict[str, Measured]:
    return measure(SETS["planted"])


def test_the_planted_set_is_long_and_has_as_many_near_misses(planted: dict[str, Measured]) -> None:
    wanted = sum(measured.num_wanted for measured in planted.values())
    assert wanted >= 300
    assert sum(measured.num_near_misses for measured in planted.values()) >= wanted


@pytest.mark.parametrize("name", SETS)
def test_every_kind_keeps_its_recall_and_precision(name: str) -> None:
    for kind, measured in measure(SETS[name]).items():
        assert measured.precision >= MIN_PRECISION, (kind, measured.false)
        assert measured.recall >= MIN_RECALL, (kind, measured.missed)


@pytest.mark.parametrize("name", SETS)
def test_of_twenty_hebrew_phrases_of_daily_life_one_is_missed_at_most(name: str) -> None:
    headings = {"planted": "Hebrew phrases of daily life"}
    measured = measure_dates(SETS[name], headings.get(name, "Twenty Hebrew phrases"))
    assert measured.num_wanted == 20
    assert measured.num_found >= 19, measured.missed


def test_what_looks_like_keeping_a_promise_is_found() -> None:
    measured = measure_kept(SETS["planted"])
    assert measured.num_wanted >= 20
    assert measured.precision >= MIN_PRECISION, measured.false
    assert measured.recall >= MIN_RECALL, measured.missed


def table() -> str:
    lines = ["| set | kind | found (recall) | near misses | precision |", "|---|---|---|---|---|"]
    for name, folder in SETS.items():
        for kind, one in measure(folder).items():
            lines.append(
                f"| {name} | {kind} | {one.num_found} of {one.num_wanted} ({one.recall:.0%}) | {one.num_near_misses} "
                f"| {one.precision:.0%} |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
    for name, folder in SETS.items():
        for kind, one in measure(folder).items():
            for title, texts in (("missed", one.missed), ("false", one.false)):
                for text in texts:
                    print(f"{name}: {kind}: {title}: {text}")
