"""The report as one picture: bits per character, every habit between base and owner, and the classifier's answers.

The same figure becomes the PNG and the drawing in the HTML page. It holds only numbers and our own labels, so that it
is safe to share. Nothing is computed here.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from writing_style.style_page import WRITER_LABELS

# Safe for colour-blind readers (palette of Okabe and Ito); the markers differ in shape, too.
COLOURS = {"tuned": "#0072b2", "other": "#e69f00", "owner": "#009e73", "base": "#8a8a8a"}
GREY = "#8a8a8a"
LEFT, RIGHT = -0.6, 1.4  # of the axis from base (0) to owner (1); values beyond are drawn at the edge
SVG_SETTINGS: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "style report", "font.family": "sans-serif"}


def draw_picture(measured: Mapping[str, Any], title: str) -> Figure:
    """Return the figure of one measured set with its verdict, grey when a check failed."""
    num_habits = len(measured["habits"])
    with matplotlib.rc_context(SVG_SETTINGS):
        figure = Figure(figsize=(11, 5.6 + 0.33 * num_habits), layout="constrained")
        panels = figure.subplots(3, 1, height_ratios=(3.2, num_habits + 1.5, len(measured["taken_for"]) + 0.8))
        _draw_bits(panels[0], measured["bits"])
        _draw_habits(panels[1], measured["habits"])
        _draw_taken_for(panels[2], measured["taken_for"])
        figure.suptitle(title, fontsize=15, weight="bold")
        for panel in panels:
            panel.set_facecolor("none")
        if not measured["is_trustworthy"]:
            figure.set_facecolor("#d9d9d9")
            figure.text(0.5, 0.5, "DO NOT TRUST", fontsize=70, color="#b00000", alpha=0.25, ha="center", rotation=25)
    return figure


def draw_words(title: str, sentence: str) -> Figure:
    """Return a figure with the reason why there is nothing to draw."""
    figure = Figure(figsize=(11, 2))
    figure.text(0.5, 0.65, title, fontsize=15, weight="bold", ha="center")
    figure.text(0.5, 0.3, sentence, ha="center", wrap=True)
    return figure


def to_png(figure: Figure) -> bytes:
    """Return the figure as a PNG."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()


def to_svg(figure: Figure) -> str:
    """Return the figure as an `<svg>` element for the page, without a background; the same figure gives the same text."""
    buffer = io.StringIO()
    background = figure.get_facecolor()
    figure.set_facecolor("none")  # the page's own shows through, light or dark
    with matplotlib.rc_context(SVG_SETTINGS):
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None, "Creator": None})
    figure.set_facecolor(background)
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _draw_bits(axes: Axes, bits: Mapping[str, Mapping[str, float]]) -> None:
    groups = {
        "owner": "the owner's replies",
        "shuffled": "the same, in shuffled contexts",
        "other": "the other person's replies",
    }
    shown = [group for group in groups if f"{group}_base" in bits]
    for row, group in enumerate(shown):
        base, tuned = bits[f"{group}_base"], bits[f"{group}_tuned"]
        colour = COLOURS["other"] if group == "other" else COLOURS["tuned"]
        axes.annotate(
            "",
            (tuned["value"], row),
            (base["value"], row),
            arrowprops={"arrowstyle": "-|>", "color": colour, "lw": 1.5, "shrinkA": 5, "shrinkB": 5},
        )
        for interval, face in ((base, "white"), (tuned, colour)):
            axes.plot([interval["low"], interval["high"]], [row, row], color=colour, lw=5, alpha=0.35)
            axes.plot(interval["value"], row, "o", ms=8, color=colour, mfc=face)
        # The numbers stand outside of the pair, where nothing is drawn.
        left, right = sorted((base, tuned), key=lambda interval: interval["value"])
        for number, edge, side in (
            (left, min(left["low"], right["low"]), -1),
            (right, max(left["high"], right["high"]), 1),
        ):
            axes.annotate(
                f"{number['value']:.2f}",
                (edge, row),
                (9 * side, 0),
                textcoords="offset points",
                ha="left" if side > 0 else "right",
                va="center",
            )
    axes.set_yticks(range(len(shown)), [groups[group] for group in shown])
    axes.set_ylim(len(shown) - 0.4, -0.7)
    axes.margins(x=0.09)
    axes.set_title(
        "Bits per character: hollow = base, filled = tuned (lower is better, above all for the owner)", loc="left"
    )
    _strip(axes)


def _draw_habits(axes: Axes, rows: list[dict[str, Any]]) -> None:
    # The clearest first, the unmeasurable last.
    ordered = sorted(rows, key=lambda row: (not row["is_measurable"], -_position(row)))
    for place, row in enumerate(ordered):
        if not row["is_measurable"]:
            axes.text(0.5, place, "base and owner cannot be told apart here", color=GREY, ha="center", va="center")
            continue
        for writer, marker, size in (("owner", "s", 6), ("other", "D", 7), ("tuned", "o", 9)):
            if writer not in row["gap_closed"]:
                continue
            interval = row["gap_closed"][writer]
            value, low, high = (min(max(interval[key], LEFT), RIGHT) for key in ("value", "low", "high"))
            if writer == "owner":
                axes.fill_betweenx([place - 0.38, place + 0.38], low, high, color=COLOURS["owner"], alpha=0.2, lw=0)
                continue
            axes.plot([low, high], [place, place], color=COLOURS[writer], lw=3 if writer == "tuned" else 1.2)
            face = COLOURS[writer] if writer == "tuned" else "white"
            if interval["value"] <= LEFT:  # farther from the owner than the axis shows
                marker = "<"
            axes.plot(value, place, marker, ms=size, color=COLOURS[writer], mfc=face, clip_on=False)
    axes.axvline(0, color=COLOURS["base"], lw=1.5, zorder=0)
    axes.axvline(1, color=COLOURS["owner"], lw=1.5, zorder=0)
    axes.set_xlim(LEFT, RIGHT)
    axes.set_xticks([0, 1], ["base model", "the owner's\nsecond half"])
    axes.set_yticks(range(len(ordered)), [row["label"] for row in ordered])
    for label, row in zip(axes.get_yticklabels(), ordered, strict=True):
        if not row["is_measurable"]:
            label.set_color(GREY)
    axes.set_ylim(len(ordered) - 0.4, -0.7)
    axes.set_title(
        "Habits: dot = tuned, diamond = the other person, green = the owner's own spread (95 % intervals)", loc="left"
    )
    _strip(axes)


def _position(row: Mapping[str, Any]) -> float:
    return float(row["gap_closed"]["tuned"]["value"]) if row["is_measurable"] else 0.0


def _draw_taken_for(axes: Axes, taken_for: Mapping[str, Mapping[str, Mapping[str, float]]]) -> None:
    writers = [writer for writer in WRITER_LABELS if writer in taken_for]
    classes = [label for label in ("owner", "other", "base") if label in taken_for[writers[0]]]
    for place, writer in enumerate(writers):
        start = 0.0
        for label in classes:
            share = taken_for[writer][label]["value"]
            axes.barh(
                place, share, 0.66, left=start, color=COLOURS[label], label=WRITER_LABELS[label] if place == 0 else None
            )
            if share >= 0.05:
                axes.text(start + share / 2, place - 0.1, f"{share:.0%}", ha="center", va="center", color="white")
            start += share
        # Along the lower edge of the bar: the numbers stand above it.
        owner = taken_for[writer]["owner"]
        axes.plot([owner["low"], owner["high"]], [place + 0.26, place + 0.26], color="white", lw=3.5)
        axes.plot([owner["low"], owner["high"]], [place + 0.26, place + 0.26], color="#1a1a1a", lw=1.5)
    axes.set_yticks(range(len(writers)), [WRITER_LABELS[writer] for writer in writers])
    axes.set_ylim(len(writers) - 0.4, -0.7)
    axes.set_xlim(0, 1)
    axes.set_xticks([0, 0.5, 1], ["0", "50 %", "100 %"])
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=3, frameon=False, title="classified as")
    axes.set_title(
        "Classifier: whose reply is this? (line = 95 % interval of the owner's share)",
        loc="left",
    )
    _strip(axes)


def _strip(axes: Axes) -> None:
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
