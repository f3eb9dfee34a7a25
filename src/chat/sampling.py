"""How the next token is chosen: the values of `generation_config.json`, each with its name, range and live change.

It leaves their use to `trained_model`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

# name: (lowest, highest) allowed. `top_k` 0 and `top_p` 1 and `min_p` 0 switch the filter off.
RANGES: dict[str, tuple[float, float]] = {
    "temperature": (0.01, 5.0),
    "min_p": (0.0, 1.0),
    "top_p": (0.01, 1.0),
    "top_k": (0, 1_000_000),
    "repetition_penalty": (0.1, 10.0),
    "max_new_tokens": (1, 100_000),
    "max_bubbles": (1, 100),
}


def range_of(name: str) -> str:
    """Return what is allowed as messages show it.

    >>> range_of("top_k")
    '0 to 1,000,000'
    """
    lowest, highest = RANGES[name]
    return f"{lowest:g} to {highest:,.15g}"


@dataclass(frozen=True)
class Sampling:
    """Values for one reply. The defaults stand in for what a trained folder's `generation_config.json` leaves out."""

    do_sample: bool = True
    temperature: float = 1.0  # measured closest to the owner; lower repeats the likeliest habit, higher rambles
    min_p: float = 0.05  # drops tokens less likely than this share of the likeliest: a floor that moves with certainty
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0  # looks at the reply alone: over a whole chat it would punish everyday words
    max_new_tokens: int = 128
    max_bubbles: int = 5  # a reply is a burst of up to so many messages

    def changed(self, name: str, value: str) -> Sampling:
        """Return a copy with `name` set from typed text; raise ValueError saying what is allowed."""
        if name == "do_sample":
            if value not in ("on", "off", "true", "false"):
                raise ValueError("do_sample is on or off")
            return replace(self, do_sample=value in ("on", "true"))
        if name not in RANGES:
            raise ValueError(f"no setting named {name}; there are do_sample, {', '.join(RANGES)}")
        lowest, highest = RANGES[name]
        kind = type(getattr(self, name))
        try:
            number = kind(value)
        except ValueError:
            number = kind(-1)
        if not lowest <= number <= highest:  # also false for nan
            raise ValueError(f"{name} is a {'whole ' if kind is int else ''}number from {range_of(name)}")
        return replace(self, **{name: number})

    @classmethod
    def from_generation_config(cls, config: Mapping[str, Any]) -> Sampling:
        """Take the known values from a `generation_config.json`; raise ValueError on one out of range."""
        sampling = cls()
        for field in fields(cls):
            value = config.get(field.name)
            if value is not None:
                sampling = sampling.changed(field.name, str(value).lower())
        return sampling
