"""A blind test for people: pairs of a real and a generated reply in random order, the key, and the score.

The page marks nothing itself: it only puts the chosen letters into one line, which is scored against the key. Page and
key are private files in the trained folder: the page shows the chat itself.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from common.script import ScriptError, replacing, shown_path
from writing_style.held_out_replies import Exchange, take_evenly
from writing_style.style_page import make_bubbles, make_page

QUIZ_NAME = "style_quiz.html"
KEY_NAME = "style_quiz_key.json"
SHOWN_MESSAGES = 4  # of the context before each pair

# All the page can do: write the chosen letters, in order, where they can be copied.
SCRIPT = """
document.addEventListener("change", () => {
  const letters = [...document.querySelectorAll("fieldset")].map(
    (pair) => (pair.querySelector("input:checked") || {value: "_"}).value);
  document.getElementById("answers").textContent = letters.join("");
});
"""


class Score(NamedTuple):
    """How often the real reply was found, with the 95 % interval of the rate."""

    num_right: int
    num_answered: int
    low: float
    high: float


def write_quiz(
    folder: Path, exchanges: Sequence[Exchange], tuned: Sequence[str], num_pairs: int, seed: int
) -> tuple[Path, int]:
    """Write page and key of at most `num_pairs` pairs; return the page's path and how many there are.

    `tuned` are the replies to `exchanges`, in their order.
    """
    pairs = choose_pairs(exchanges, tuned, num_pairs)
    command = f"python3 src/chat/style_report.py --saved-model-path {shown_path(folder)} --score-quiz"
    page, key = make_quiz(pairs, seed, command)
    with replacing(folder / QUIZ_NAME) as file:
        file.write(page)
    with replacing(folder / KEY_NAME) as file:
        file.write(json.dumps({"real": key}) + "\n")
    return folder / QUIZ_NAME, len(pairs)


def read_key(folder: Path) -> str:
    """Return the letters of the real replies; raise ScriptError when there is no key or a damaged one."""
    path = folder / KEY_NAME
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["real"])
    except FileNotFoundError:
        raise ScriptError(f"{shown_path(path)}: not found; make a blind test with --quiz first") from None
    except (KeyError, TypeError, ValueError):
        raise ScriptError(f"{shown_path(path)}: is damaged; make the blind test again with --quiz") from None


def choose_pairs(exchanges: Sequence[Exchange], tuned: Sequence[str], num_pairs: int) -> list[tuple[Exchange, str]]:
    """Return exchanges whose real and tuned replies differ and are not empty, evenly taken."""
    pairs = [
        (exchange, text)
        for exchange, text in zip(exchanges, tuned, strict=True)
        if text.strip() and text.strip() != exchange.reply.strip()
    ]
    return take_evenly(pairs, num_pairs)


def make_quiz(pairs: Sequence[tuple[Exchange, str]], seed: int, command: str) -> tuple[str, str]:
    """Return the page and the key: for each pair the letter of the real reply."""
    rng = random.Random(seed)
    key = "".join(rng.choice("AB") for _ in pairs)
    parts = [
        "<h1>Which one is real?</h1>",
        "<p>In each pair one reply was really written, the other by the chatbot. Choose the real one. Private: this page "
        "shows the chat itself. Ask people who know the owner: strangers are far easier to fool. Twenty pairs tell only "
        "extremes; a hundred are right to about ten points.</p>",
    ]
    for number, ((exchange, tuned), real_letter) in enumerate(zip(pairs, key, strict=True), start=1):
        replies = {real_letter: exchange.reply, "B" if real_letter == "A" else "A": tuned}
        context = "".join(
            make_bubbles(message["role"], message["content"]) for message in exchange.context[-SHOWN_MESSAGES:]
        )
        choices = "".join(
            f'<label><input type="radio" name="pair{number}" value="{letter}"> {letter}'
            f"{make_bubbles('assistant', replies[letter])}</label>"
            for letter in "AB"
        )
        parts.append(f"<h2>{number}</h2>{context}<fieldset>{choices}</fieldset>")
    parts.append(f'<h2>Your answers</h2><p><code id="answers">{"_" * len(pairs)}</code></p>')
    parts.append(f"<p>Score them with <code>{html.escape(command)}</code> and the letters above.</p>")
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    body = "<body>" + "\n".join(parts) + f"<script>{SCRIPT}</script></body>"
    return make_page("Which one is real? (private)", body, f"'sha256-{digest}'"), key


def score_answers(answers: str, key: str) -> Score:
    """Return the score of `answers`, a letter for each pair and "_" for one left out; raise ValueError on others."""
    answers = answers.strip().upper()
    if len(answers) != len(key) or set(answers) - set("AB_"):
        raise ValueError(f"{len(key)} letters are needed, A or B, or _ for a pair left out")
    num_answered = sum(answer != "_" for answer in answers)
    if num_answered == 0:
        raise ValueError("no pair was answered")
    num_right = sum(answer == letter for answer, letter in zip(answers, key, strict=True))
    return Score(num_right, num_answered, *wilson_interval(num_right, num_answered))


def wilson_interval(num_right: int, num_all: int) -> tuple[float, float]:
    """Return the 95 % interval of a rate (Wilson's, which also holds for few answers and at 0 and 1).

    >>> [round(end, 2) for end in wilson_interval(11, 20)]
    [0.34, 0.74]
    """
    z = 1.96
    rate = num_right / num_all
    centre = (rate + z * z / (2 * num_all)) / (1 + z * z / num_all)
    half = z * math.sqrt(rate * (1 - rate) / num_all + z * z / (4 * num_all**2)) / (1 + z * z / num_all)
    return max(0.0, centre - half), min(1.0, centre + half)
