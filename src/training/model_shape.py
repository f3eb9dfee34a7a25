"""What decides the memory and the time of training: the base's shape, its weights, and the rows of a step.

A shape is read from the config alone, for the family of Llama: Mistral, Qwen and most other bases of today. All of them have
the same decoder layer: seven linear layers, two norms, attention with fewer heads for keys and values. No library of models
is needed, which would take longer to load than the whole check. Other families have no shape here; `fake_training_step`
builds them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from recipes import FUSED_OPTIMIZER

# Of each family: whether q, k and v have a bias, and whether each head of q and k has a norm of its own.
FAMILIES = {"llama": (False, False), "mistral": (False, False), "qwen2": (True, False), "qwen3": (False, True)}
NEEDED_KEYS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "tie_word_embeddings",
)
# With these, a layer is another one than counted here.
UNKNOWN_KEYS = ("attention_bias", "mlp_bias")

POSITION_KEYS = ("max_position_embeddings", "n_positions", "max_seq_len")  # the last of MPT and DBRX
SUPERVISED_SHARE = 1 / 3  # of the tokens, while there is no data to count


@dataclass(frozen=True)
class ParameterCount:
    """Parameters of base and adapter; quantized weights are counted singly."""

    trainable: int
    total: int

    @property
    def trainable_percent(self) -> float:
        """The trainable share of base and adapter, in percent."""
        return 100 * self.trainable / self.total


@dataclass(frozen=True)
class Weights:
    """How many weights a base has, by what is done with them."""

    total: int
    linear: int  # of the linear layers except the head: those are quantized
    largest: int  # of the largest of them
    multiplied: int  # of the layers with LoRA, except the head: for each token
    head: int  # for each supervised token
    lora_per_rank: int  # inputs and outputs of all layers with LoRA, the head included
    head_widths: int  # of these, of the head


@dataclass(frozen=True)
class Load:
    """What decides the memory of one training step besides the model."""

    row_tokens: int = 2048
    supervised_share: float = SUPERVISED_SHARE  # of the tokens
    rank: int = 32
    alpha: int = 64
    dropout: float = 0.0
    adapter_dtype: torch.dtype = torch.float32
    gradient_checkpointing: bool = True
    accumulates: bool = True  # several rows make a step: the gradients of the adapter stay between them
    is_captured: bool = False  # forward and backward pass are CUDA graphs (captured_decoder)
    optimizer: str = FUSED_OPTIMIZER
    chat_tokens: int = 2048  # the context of a chat


@dataclass(frozen=True)
class ModelShape:
    """The sizes of a base of the family of Llama."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_key_value_heads: int
    head_size: int
    is_tied: bool  # the head shares its weights with the embeddings
    has_qkv_bias: bool
    has_head_norms: bool  # of q and k

    @property
    def query_size(self) -> int:
        """The width of q, and of what attention returns."""
        return self.num_heads * self.head_size

    @property
    def key_value_size(self) -> int:
        """The width of k, and of v."""
        return self.num_key_value_heads * self.head_size

    @property
    def projections(self) -> tuple[tuple[int, int], ...]:
        """The widths (in, out) of a layer's q, k, v, o, gate, up and down."""
        hidden, inner = self.hidden_size, self.intermediate_size
        return (
            (hidden, self.query_size),
            (hidden, self.key_value_size),
            (hidden, self.key_value_size),
            (self.query_size, hidden),
            (hidden, inner),
            (hidden, inner),
            (inner, hidden),
        )

    @property
    def num_weights(self) -> int:
        """All weights of the base; shared ones count once."""
        of_layer = sum(width * height for width, height in self.projections) + 2 * self.hidden_size
        if self.has_qkv_bias:
            of_layer += self.query_size + 2 * self.key_value_size
        if self.has_head_norms:
            of_layer += 2 * self.head_size
        embeddings = (1 if self.is_tied else 2) * self.vocab_size * self.hidden_size
        return embeddings + self.num_layers * of_layer + self.hidden_size


def read_shape(config: Mapping[str, Any]) -> ModelShape | None:
    """Return the shape that this `config.json` describes, or None for another family or an incomplete config.

    >>> read_shape({"model_type": "gpt2"}) is None
    True
    """
    family = FAMILIES.get(str(config.get("model_type")))
    is_complete = all(type(config.get(key)) in (int, bool) for key in NEEDED_KEYS)
    if family is None or not is_complete or any(config.get(key) for key in UNKNOWN_KEYS):
        return None
    head_size = config.get("head_dim")
    if head_size is None:
        if config["model_type"] == "qwen3":  # its library has a default of its own
            return None
        head_size = config["hidden_size"] // config["num_attention_heads"]
    return ModelShape(
        vocab_size=config["vocab_size"],
        hidden_size=config["hidden_size"],
        intermediate_size=config["intermediate_size"],
        num_layers=config["num_hidden_layers"],
        num_heads=config["num_attention_heads"],
        num_key_value_heads=config["num_key_value_heads"],
        head_size=head_size,
        is_tied=config["tie_word_embeddings"],
        has_qkv_bias=family[0],
        has_head_norms=family[1],
    )


def read_context(config: Mapping[str, Any]) -> int | None:
    """Return the number of positions that this `config.json` gives the text model, or None if it names none.

    >>> read_context({"model_type": "gpt2", "n_positions": 1024})
    1024
    """
    text = config.get("text_config") or config
    found = (text.get(key) for key in POSITION_KEYS)
    return next((value for value in found if type(value) is int), None)
