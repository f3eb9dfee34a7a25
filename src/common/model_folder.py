"""The format of the trained folder `saved_model/`: the names of its files, its version, the sampling values.

Stage 2 writes the folder; chat, report and exporter read it. Standard library only: it is imported before `--help` is
answered. Checking the folder is left to `saved_model_checks`, generating replies to `trained_model`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

SETTINGS_NAME = "training_settings.json"  # written last: its presence means that the model is complete
SETTINGS_FORMAT = 1
ADAPTER_NAME = "adapter_model.safetensors"
ADAPTER_CONFIG_NAME = "adapter_config.json"
GENERATION_NAME = "generation_config.json"
REPORT_NAME = "training_report.json"
LOG_NAME = "training_log.jsonl"
CURVE_NAME = "loss_curve.png"
CHECKPOINTS_NAME = "checkpoints"

# The held-out sets: for each, the lines of its conversations in the JSONL, counted from 0.
HELD_OUT_NAME = "held_out_conversations.json"

# name: (lowest, highest) allowed. `top_k` 0, `top_p` 1 and `min_p` 0 each switch that filter off.
RANGES: dict[str, tuple[float, float]] = {
    "temperature": (0.01, 5.0),
    "min_p": (0.0, 1.0),
    "top_p": (0.01, 1.0),
    "top_k": (0, 1_000_000),
    "repetition_penalty": (0.1, 10.0),
    "max_new_tokens": (1, 100_000),
    "max_bubbles": (1, 100),
}
# The values that stage 2 writes into `generation_config.json`; the others exist in the chat only.
WRITTEN_NAMES = ("do_sample", "temperature", "repetition_penalty", "top_k", "min_p", "max_new_tokens")


def range_of(name: str) -> str:
    """Return the allowed range as messages show it.

    >>> range_of("top_k")
    '0 to 1,000,000'
    """
    lowest, highest = RANGES[name]
    return f"{lowest:g} to {highest:,.15g}"


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn. The defaults are what stage 2 writes into the trained folder.

    Chosen by the style report over three seeds (tests/benchmarks/RESULTS.md): closer to the owner on every measure than
    the published temperature of 0.5 and penalty of 1.025, with which the model used its commonest habits too often.
    """

    do_sample: bool = True
    temperature: float = 1.0
    min_p: float = 0.05  # drops tokens whose probability is below this share of the most likely one's
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0  # counts the reply only: over a whole chat it would penalize everyday words
    max_new_tokens: int = 128
    max_bubbles: int = 5  # a reply is a burst of at most this many messages

    def changed(self, name: str, value: str) -> Sampling:
        """Return a copy with `name` set from typed text; raise ValueError with the allowed values."""
        if name == "do_sample":
            if value.lower() not in ("on", "off", "true", "false"):
                raise ValueError("do_sample must be on or off")
            return replace(self, do_sample=value.lower() in ("on", "true"))
        if name not in RANGES:
            raise ValueError(f"no setting named {name}; there are do_sample, {', '.join(RANGES)}")
        lowest, highest = RANGES[name]
        kind = type(getattr(self, name))
        try:
            number = kind(value)
        except ValueError:
            number = kind(-1)
        if not lowest <= number <= highest:  # false for nan too
            raise ValueError(f"{name} must be a {'whole ' if kind is int else ''}number from {range_of(name)}")
        return replace(self, **{name: number})

    def to_generation_config(self) -> dict[str, Any]:
        """Return the values that stage 2 writes."""
        return {name: getattr(self, name) for name in WRITTEN_NAMES}

    @classmethod
    def from_generation_config(cls, config: Mapping[str, Any]) -> Sampling:
        """Return the known values of a `generation_config.json`; raise ValueError if one is out of range."""
        sampling = cls()
        for field in fields(cls):
            value = config.get(field.name)
            if value is not None:
                sampling = sampling.changed(field.name, str(value))
        return sampling
