"""A blind test for people: pairs of a real and a generated reply in random order, the key, and the score.

The page does not score: it only collects the chosen letters into one line, to be scored against the key. Page and key
are private files in the trained folder; the page quotes the chat.
"""

from __future__ import annotations

import json
import random
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from scipy.stats import binomtest

from common.outside_files import read_json
from common.private_files import replacing
from common.script import ScriptError, shown_path
from writing_style.held_out_replies import Exchange, take_evenly
from writing_style.style_page import render_page

QUIZ_NAME = "style_quiz.html"
KEY_NAME = "style_quiz_key.json"
SHOWN_MESSAGES = 4  # of the context, above each pair

# The page's only script: collect the chosen letters, in order, for copying.
SCRIPT = """
document.addEventListener("change", () => {
  const letters = [...document.querySelectorAll("fieldset")].map(
    (pair) => (pair.querySelector("input:checked") || {value: "_"}).value);
  document.getElementById("answers").textContent = letters.join("");
});
"""

QUIZ = """\
{% extends "page" %}
{% from "parts" import bubbles %}
{% block body %}
<h1>Which one is real?</h1>
<p>In each pair, one reply is real and the other was written by the chatbot. Choose the real one. Private: this page
quotes the chat. Ask people who know the owner: strangers are much easier to fool. Twenty pairs show only large
differences; a hundred pairs give the rate to within about ten points.</p>
{% for pair in pairs %}
{% set number = loop.index %}
<h2>{{ number }}</h2>
{% for message in pair.context %}
{{ bubbles(message.role, message.content) }}
{% endfor %}
<fieldset>
{% for letter in "AB" %}
<label><input type="radio" name="pair{{ number }}" value="{{ letter }}"> {{ letter }}
{{ bubbles("assistant", pair[letter]) }}</label>
{% endfor %}
</fieldset>
{% endfor %}
<h2>Your answers</h2>
<p><code id="answers">{{ "_" * pairs | length }}</code></p>
<p>Score them with <code>{{ command }}</code> and the letters above.</p>
{% endblock %}
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
    """Write page and key of at most `num_pairs` pairs; return the page's path and the number of pairs.

    `tuned` are the replies to `exchanges`, in their order.
    """
    pairs = choose_pairs(exchanges, tuned, num_pairs)
    command = f"python3 src/chat/style_report.py --saved-model-path {shlex.quote(shown_path(folder))} --score-quiz"
    page, key = make_quiz(pairs, seed, command)
    with replacing(folder / QUIZ_NAME) as file:
        file.write(page)
    with replacing(folder / KEY_NAME) as file:
        file.write(json.dumps({"real": key}) + "\n")
    return folder / QUIZ_NAME, len(pairs)


def read_key(folder: Path) -> str:
    """Return the letters of the real replies; raise ScriptError when the key is missing or damaged."""
    path = folder / KEY_NAME
    try:
        return str(read_json(path)["real"])
    except FileNotFoundError:
        raise ScriptError(f"{shown_path(path)}: not found; make a blind test with --quiz first") from None
    except (KeyError, TypeError, ValueError):
        raise ScriptError(f"{shown_path(path)}: is damaged; make the blind test again with --quiz") from None


def choose_pairs(exchanges: Sequence[Exchange], tuned: Sequence[str], num_pairs: int) -> list[tuple[Exchange, str]]:
    """Return `num_pairs` exchanges, evenly spaced, whose real and tuned replies differ and are not empty."""
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
    shown = [
        {
            "context": exchange.context[-SHOWN_MESSAGES:],
            real_letter: exchange.reply,
            "B" if real_letter == "A" else "A": tuned,
        }
        for (exchange, tuned), real_letter in zip(pairs, key, strict=True)
    ]
    return render_page(QUIZ, title="Which one is real? (private)", script=SCRIPT, pairs=shown, command=command), key


def score_answers(answers: str, key: str) -> Score:
    """Return the score of `answers`: a letter for each pair, "_" if skipped; raise ValueError on anything else."""
    answers = answers.strip().upper()
    if len(answers) != len(key) or set(answers) - set("AB_"):
        raise ValueError(f"{len(key)} letters are needed: A, B, or _ for a skipped pair")
    num_answered = sum(answer != "_" for answer in answers)
    if num_answered == 0:
        raise ValueError("no pair was answered")
    num_right = sum(answer == letter for answer, letter in zip(answers, key, strict=True))
    # Wilson's interval also holds for few answers and at 0 and 1.
    interval = binomtest(num_right, num_answered).proportion_ci(method="wilson")
    return Score(num_right, num_answered, float(interval.low), float(interval.high))
