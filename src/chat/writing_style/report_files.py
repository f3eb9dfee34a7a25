"""The files of the report: three of numbers that may be shown to others, and the private page of examples.

It leaves what stands on them to `style_page` and `style_picture`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.script import replacing
from writing_style.held_out_replies import Exchange, take_evenly
from writing_style.style_page import make_examples_page, make_report_page
from writing_style.style_picture import draw_picture, draw_words, to_png, to_svg
from writing_style.writing_habits import find_key_words

REPORT_NAME = "style_report.json"
PAGE_NAME = "style_report.html"
PICTURE_NAME = "style_report.png"
EXAMPLES_NAME = "style_examples.html"


def write_report(folder: Path, report: Mapping[str, Any]) -> None:
    """Write the three files that hold numbers only."""
    judged, measured = report["judged"], report["sets"][report["settings"]["headline_set"]]
    title = f"Does it write like its owner? {judged['verdict'].capitalize()}"
    figure = draw_picture(measured, judged, title) if "bits" in measured else draw_words(title, judged["sentence"])
    with replacing(folder / PICTURE_NAME, "wb") as file:
        file.write(to_png(figure))
    _write(folder / PAGE_NAME, make_report_page(report, to_svg(figure) if "bits" in measured else None))
    _write(folder / REPORT_NAME, json.dumps(report, ensure_ascii=False, indent=1) + "\n")


def write_examples(
    folder: Path, exchanges: Sequence[Exchange], base: Sequence[str], tuned: Sequence[str], num_shown: int
) -> Path:
    """Write the private page of `num_shown` contexts with the real reply and both models'; return its path.

    `base` and `tuned` are the replies to `exchanges`, in their order.
    """
    examples = [
        {
            "conversation": exchanges[place].conversation,
            "context": exchanges[place].context,
            "owner": exchanges[place].reply,
            "base": base[place],
            "tuned": tuned[place],
        }
        for place in take_evenly(range(len(exchanges)), num_shown)
    ]
    key_words = find_key_words(tuned, [exchange.reply for exchange in exchanges])
    _write(folder / EXAMPLES_NAME, make_examples_page(examples, key_words))
    return folder / EXAMPLES_NAME


def _write(path: Path, text: str) -> None:
    with replacing(path) as file:
        file.write(text)
