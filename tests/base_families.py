"""A tiny random base of each family that the project names, as a config: what differs between families is what they compute.

Widths are no multiple of 64, which some kernels for 4-bit layers need.
"""

from transformers import AutoConfig

SHAPE = {
    "vocab_size": 99,
    "hidden_size": 96,
    "intermediate_size": 160,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
GEMMA_SHAPE = SHAPE | {"head_dim": 24, "query_pre_attn_scalar": 24}

# name: (model_type, values)
FAMILIES = {
    "mistral": ("mistral", SHAPE),
    "llama": ("llama", SHAPE),
    "smollm": ("llama", SHAPE | {"tie_word_embeddings": True}),
    "qwen2.5": ("qwen2", SHAPE | {"tie_word_embeddings": True}),  # projections with biases
    "qwen3": ("qwen3", SHAPE | {"head_dim": 24, "tie_word_embeddings": True}),
    "gemma2": ("gemma2", GEMMA_SHAPE),
    "gemma3": ("gemma3_text", GEMMA_SHAPE),
    "gemma4": ("gemma4_text", SHAPE | {"head_dim": 24, "global_head_dim": 24, "vocab_size_per_layer_input": 99}),
    "phi3": ("phi3", SHAPE),
    "phi2": ("phi", SHAPE | {"num_key_value_heads": 4}),  # biases, and a head with one
    "gpt_neox": ("gpt_neox", {name: value for name, value in SHAPE.items() if name != "num_key_value_heads"}),
}


def make_config(family):
    """Return the config of a tiny base of this family."""
    model_type, values = FAMILIES[family]
    return AutoConfig.for_model(model_type, **values)
