"""The values of a config.json from outside: kinds and ranges, so that no absurd one is tried.

Standard library only. A key that is absent or null is left to the library; keys that are not listed are, too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

LAYER_NAMES = ("num_hidden_layers", "n_layer", "num_layers")  # how many layers there are, in different families
# name: the lowest and the highest whole number. The highest are far above every published model's.
WHOLE_NUMBERS: dict[str, tuple[int, int]] = {
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "hidden_size_per_layer_input"), (1, 200_000)),
    **dict.fromkeys(("intermediate_size", "n_inner", "ffn_dim", "moe_intermediate_size"), (1, 2_000_000)),
    **dict.fromkeys(LAYER_NAMES, (1, 1_000)),
    **dict.fromkeys(("num_attention_heads", "n_head", "num_key_value_heads", "head_dim"), (1, 20_000)),
    **dict.fromkeys(("num_local_experts", "num_experts", "n_routed_experts"), (0, 10_000)),
    "vocab_size": (1, 10_000_000),
    **dict.fromkeys(("max_position_embeddings", "n_positions"), (8, 1_000_000_000)),
    "sliding_window": (0, 1_000_000_000),
}
ZERO_MEANS_NONE = ("hidden_size_per_layer_input",)
# Numbers that may have a fraction.
NUMBERS: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "norm_epsilon"), (0.0, 0.1)),
    "rope_theta": (1.0, 1e12),
    **dict.fromkeys(("attention_dropout", "resid_pdrop", "embd_pdrop", "attn_pdrop"), (0.0, 1.0)),
}
MAX_DEPTH = 20


def find_absurd_value(config: Mapping[str, Any], depth: int = 0) -> str | None:
    """Return the name of a value of the wrong kind or out of range, also in the configs inside; None if there is none.

    >>> find_absurd_value({"num_hidden_layers": 2, "text_config": {"vocab_size": -1}})
    'vocab_size'
    """
    if depth > MAX_DEPTH:
        return "its nesting"
    for name, value in config.items():
        if value is not None and name in WHOLE_NUMBERS:
            lowest, highest = WHOLE_NUMBERS[name]
            lowest = 0 if name in ZERO_MEANS_NONE else lowest
            # Some families have one number for each layer.
            numbers = value if isinstance(value, list) and value else [value]
            if not all(type(number) is int and lowest <= number <= highest for number in numbers):
                return name
        elif value is not None and name in NUMBERS:
            least, most = NUMBERS[name]
            if type(value) not in (int, float) or not math.isfinite(value) or not least <= value <= most:
                return name
        elif isinstance(value, Mapping):
            found = find_absurd_value(value, depth + 1)
            if found is not None:
                return found
        elif value is not None and name == "text_config":
            return name
    return None


def count_layers(config: Mapping[str, Any]) -> int:
    """Return the number of layers that a config asks for, the largest of the configs inside; 0 if it does not say."""
    own = [config.get(name) for name in LAYER_NAMES]
    inner = [count_layers(value) for value in config.values() if isinstance(value, Mapping)]
    return max([number for number in own if isinstance(number, int)] + inner, default=0)
