"""Draw the README's figures. Every number in them is computed from the shape of the default base model.

Writes pipeline.png, lora.png and four_bit.png beside this script, and where Chromium is installed also chat_digest.png: the
page of the digest, of the demo's made-up chat (Debian: chromium, fonts-noto-core, fonts-noto-color-emoji).
Run:    .venv/bin/python images/draw_images.py
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

IMAGES_DIR = Path(__file__).resolve().parent
GIB = 2**30

INK, PALE, BLUE, GREEN, ORANGE = "#22303c", "#e8edf2", "#3b76c4", "#3c9d63", "#d9822b"


@dataclass(frozen=True)
class BaseShape:
    """The sizes of a Mistral-like base that determine its number of parameters."""

    vocab_size: int = 64_001
    hidden_size: int = 4_096
    intermediate_size: int = 14_336
    num_layers: int = 32
    kv_size: int = 1_024  # 8 key and value heads of 128

    @property
    def projections(self) -> dict[str, tuple[int, int]]:
        """The seven linear layers of a block, as (inputs, outputs)."""
        hidden, intermediate = self.hidden_size, self.intermediate_size
        return {
            "q_proj": (hidden, hidden),
            "k_proj": (hidden, self.kv_size),
            "v_proj": (hidden, self.kv_size),
            "o_proj": (hidden, hidden),
            "gate_proj": (hidden, intermediate),
            "up_proj": (hidden, intermediate),
            "down_proj": (intermediate, hidden),
        }

    @property
    def num_projection_weights(self) -> int:
        """The weights stored in 4 bits."""
        return self.num_layers * sum(inputs * outputs for inputs, outputs in self.projections.values())

    @property
    def num_other_weights(self) -> int:
        """Embeddings, head and norms."""
        return 2 * self.vocab_size * self.hidden_size + (2 * self.num_layers + 1) * self.hidden_size

    @property
    def num_weights(self) -> int:
        """All parameters of the base."""
        return self.num_projection_weights + self.num_other_weights

    def num_lora_weights(self, rank: int) -> int:
        """Return the parameters of LoRA on the seven projections and the head: rank x (inputs + outputs) each."""
        in_blocks = self.num_layers * sum(inputs + outputs for inputs, outputs in self.projections.values())
        return rank * (in_blocks + self.hidden_size + self.vocab_size)


# NF4 with double quantization: half a byte per weight, a one-byte scale per 64 weights, a four-byte scale per 256 scales.
NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)


def new_figure(width: float, height: float) -> tuple[Figure, Axes]:
    """Return a figure of `width` x `height` inches with hidden axes in tenths of an inch."""
    figure = plt.figure(figsize=(width, height), facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, width * 10)
    axes.set_ylim(0, height * 10)
    axes.axis("off")
    return figure, axes


def box(axes: Axes, x: float, y: float, width: float, height: float, color: str, title: str, text: str) -> None:
    """Draw a rounded box with a title line and text below."""
    axes.add_patch(
        FancyBboxPatch(
            (x, y), width, height, boxstyle="round,pad=0,rounding_size=1", facecolor=color, edgecolor=INK, linewidth=1
        )
    )
    ink = "white" if color in (BLUE, GREEN, ORANGE) else INK
    axes.text(x + width / 2, y + height - 1.6, title, ha="center", va="top", color=ink, fontsize=11, weight="bold")
    axes.text(x + width / 2, y + height - 4.6, text, ha="center", va="top", color=ink, fontsize=9, linespacing=1.4)


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Draw an arrow from `start` to `end`."""
    axes.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=14, color=INK, linewidth=1.4))


def draw_pipeline() -> Figure:
    """Draw the three stages and the files between them."""
    figure, axes = new_figure(12.4, 4.6)
    stages = (
        (22, BLUE, "Stage 1", "load_whatsapp.py\n\ncleans, redacts,\nfinds conversations"),
        (54, GREEN, "Stage 2", "fine_tuning_model.py\n\na base in 4 bits\nlearns your replies"),
        (86, ORANGE, "Stage 3", "chat_bot.py\n\nanswers as you would"),
    )
    files = (
        (37, "formatted_data.jsonl", "one conversation a line"),
        (69, "saved_model/", "what was learnt:\na small adapter"),
        (101, "conversation.txt", "what was said"),
    )
    box(axes, 1, 27.5, 17, 11, PALE, "The export", ".txt or .zip,\nas the phone sends it")
    arrow(axes, (18, 33), (22, 33))
    for x, color, title, text in stages:
        box(axes, x, 26, 17, 14, color, title, text)
    for x, title, text in files:
        box(axes, x, 8, 22, 10, PALE, title, text)
        arrow(axes, (x - 4, 26), (x + 5, 18))
    for x, _, _ in files[:-1]:
        arrow(axes, (x + 16, 18), (x + 22, 26))
    axes.text(62.5, 44, "the base model, downloaded once", ha="center", va="center", color=INK, fontsize=9)
    arrow(axes, (62.5, 43.2), (62.5, 40))
    axes.plot([74.5, 94.5], [44, 44], color=INK, linewidth=1.4)
    arrow(axes, (94.5, 44.1), (94.5, 40))
    axes.text(1, 3, "Coloured: the scripts you run. Grey: files on your own computer.", color=INK, fontsize=9)
    return figure


def draw_lora(shape: BaseShape, rank: int = 32) -> Figure:
    """Draw one projection to scale, its two small matrices, and the share of all weights that is trained."""
    figure, axes = new_figure(11, 4.6)
    side = 24.0
    thin = side * rank / shape.hidden_size
    axes.add_patch(Rectangle((6, 12), side, side, facecolor=PALE, edgecolor=INK))
    axes.text(
        6 + side / 2, 24, f"W\n{shape.hidden_size:,} x {shape.hidden_size:,}\n4 bits, frozen", ha="center", va="center"
    )
    axes.text(34, 24, "+", fontsize=22, ha="center", va="center")
    axes.add_patch(Rectangle((38, 12), thin, side, facecolor=GREEN))
    axes.text(38, 9.6, f"B\n{shape.hidden_size:,} x {rank}", ha="center", va="top", fontsize=9)
    axes.text(42.5, 24, "x", fontsize=14, ha="center", va="center")
    axes.add_patch(Rectangle((46, 24), side, thin, facecolor=GREEN))
    axes.text(46 + side / 2, 22.6, f"A\n{rank} x {shape.hidden_size:,}", ha="center", va="top", fontsize=9)
    axes.text(38, 41.5, "One layer of the base model, drawn to scale", ha="center", fontsize=12, weight="bold")
    axes.text(
        6,
        3,
        f"{shape.hidden_size**2:,} weights stay as they are, {2 * rank * shape.hidden_size:,} are learnt.",
        fontsize=10,
    )

    trained = shape.num_lora_weights(rank)
    total = shape.num_weights + trained
    axes.text(93, 41.5, "The whole model", ha="center", fontsize=12, weight="bold")
    axes.add_patch(Rectangle((86, 12), 14, side, facecolor=PALE, edgecolor=INK))
    axes.add_patch(Rectangle((86, 12), 14, side * trained / total, facecolor=GREEN))
    axes.text(93, 25, f"{shape.num_weights:,}\nfrozen", ha="center", va="center", fontsize=10)
    axes.text(
        93,
        10.6,
        f"{trained:,} learnt\n= {100 * trained / total:.4f} %",
        ha="center",
        va="top",
        color=GREEN,
        fontsize=10,
    )
    return figure


def draw_four_bit(shape: BaseShape) -> Figure:
    """Draw the memory of the base's weights in three precisions, with the sizes of common cards."""
    figure, axes = plt.subplots(figsize=(9, 3.6), layout="constrained")
    rows = (("32 bits", 4.0, 4.0), ("16 bits", 2.0, 2.0), ("4 bits (NF4), as here", NF4_BYTES, 2.0))
    for place, (_, projection_bytes, other_bytes) in enumerate(rows):
        projections = shape.num_projection_weights * projection_bytes / GIB
        others = shape.num_other_weights * other_bytes / GIB
        axes.barh(place, projections, color=BLUE, label="the layers" if place == 0 else None)
        axes.barh(place, others, left=projections, color=ORANGE, label="embeddings and head" if place == 0 else None)
        axes.text(projections + others + 0.3, place, f"{projections + others:.1f} GiB", va="center")
    cards = (8, 12, 24)
    for card in cards:
        axes.axvline(card, color=INK, linestyle=":", linewidth=1)
        axes.text(card + 0.15, -0.72, f"{card} GB card", fontsize=8, color=INK)
    axes.set_yticks(range(len(rows)), [name for name, _, _ in rows])
    axes.set_ylim(2.6, -0.85)
    axes.set_xlim(0, 32)
    axes.set_xlabel("GiB of memory for the weights alone")
    axes.set_title(f"The default base model, {shape.num_weights / 1e9:.1f} billion weights", fontsize=12, weight="bold")
    axes.spines[["top", "right"]].set_visible(False)
    between_lines = (sum(cards[-2:]) / 2, axes.get_ylim()[0])
    axes.legend(loc="lower center", bbox_to_anchor=between_lines, bbox_transform=axes.transData, frameon=False)
    return figure


def draw_chat_digest(chromium: str, path: Path) -> None:
    """Write a picture of the digest's page to `path`: ten days of the demo's made-up chat."""
    source_dir = IMAGES_DIR.parent / "src"
    with tempfile.TemporaryDirectory() as folder:
        chat, page = f"{folder}/WhatsappChat.txt", f"{folder}/digest.html"
        digest = [sys.executable, source_dir / "data_preprocessing/chat_digest.py", chat, "--me", "Noam"]
        for command in (
            [sys.executable, source_dir / "demo/make_sample_chat.py", "--output", chat],
            [*digest, "--since", "10d", "--html", page],
            # --no-sandbox: root in a container has none; the page is our own and runs nothing
            [
                chromium,
                "--headless",
                "--no-sandbox",
                "--hide-scrollbars",
                "--window-size=720,1258",
                f"--screenshot={path}",
                page,
            ],
        ):
            subprocess.run(command, check=True, capture_output=True)


def main() -> None:
    """Draw the figures."""
    shape = BaseShape()
    for name, figure in (
        ("pipeline", draw_pipeline()),
        ("lora", draw_lora(shape)),
        ("four_bit", draw_four_bit(shape)),
    ):
        path = IMAGES_DIR / f"{name}.png"
        figure.savefig(path, dpi=110, metadata={"Software": None})
        print(f"written: {path.name}, {path.stat().st_size // 1024} KiB")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        print("chat_digest.png: left as it is, no Chromium found")
        return
    path = IMAGES_DIR / "chat_digest.png"
    draw_chat_digest(chromium, path)
    print(f"written: {path.name}, {path.stat().st_size // 1024} KiB")


if __name__ == "__main__":
    main()
