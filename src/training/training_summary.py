"""What a finished training tells its owner: what was learnt from, how well, three replies beside the real ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from held_out_evaluation import ComparedReply
from prepared_run import Run
from recipes import CORRECTION_WEIGHT

from common.script import counted, printable


def describe_result(run: Run, report: Mapping[str, Any]) -> list[str]:
    """Return the lines about the data and the gain; `report`: what `make_report` returned."""
    trained = [talk for talk in run.data.conversations if talk.line_number not in run.held_out.lines]
    num_messages = sum(talk.num_replies if run.recipe.train_on == "person" else len(talk.messages) for talk in trained)
    replies = counted(num_messages, "reply" if run.recipe.train_on == "person" else "turn")
    if run.corrections is not None:
        num_corrections = len(run.corrections.conversations)
        replies += f" and {counted(num_corrections, 'correction')} (each as often as {CORRECTION_WEIGHT} replies)"
    lines = [
        f"  learnt from {counted(len(trained), 'conversation')} with {replies}, {counted(run.material.num_tokens, 'token')}; "
        f"read {report['epochs']:.1f} times"
    ]
    if "validation" in report:
        bits = {name: row["bits_per_char"] for name, row in report["validation"].items()}
        lines += [
            f"  best step  {report['best_step']:,} of {report['steps']:,}",
            f"  bits per character of held-out replies  base {bits['base']:.3f}, tuned {bits['tuned']:.3f} (lower is better)",
        ]
    return lines


def describe_replies(compared: Sequence[ComparedReply], person: str | None) -> list[str]:
    """Return the lines that show the model's replies beside those of `person`, in conversations that it never saw."""
    if not compared:
        return []
    name = printable(person or "you")
    labels = ["they wrote", f"{name} replied", "the model replies"]
    width = max(map(len, labels))
    lines = ["Replies in conversations that were not trained on:"]
    for pair in compared:
        texts = (pair.message, pair.real, pair.written)
        lines += [f"  {label:{width}}  {text}" for label, text in zip(labels, texts, strict=True)]
        lines.append("")
    return lines[:-1]
