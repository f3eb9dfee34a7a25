"""The families of bases that the project names: what each computes, as the config of a tiny one, and how it marks turns.

Widths are no multiple of 64, which some kernels for 4-bit layers need. The templates have the form of the published ones.
"""

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

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

# In these, no attention keeps the segments of a packed row apart: short convolutions know nothing of borders, ALiBi counts
# along the row, Falcon chooses its attention when it is built, and BLOOM's forward pass drops what it does not know.
# A new model's small weights hardly tell one token from another.
_TOKENS = {name: SHAPE[name] for name in SHAPE if name.endswith("_token_id") or name == "vocab_size"}
_TOKENS |= {"initializer_range": 0.3}
UNPACKABLE = {
    "lfm2": ("lfm2", SHAPE | _TOKENS | {"layer_types": ["conv", "full_attention"]}),
    "bloom": ("bloom", _TOKENS | {"hidden_size": 96, "n_layer": 2, "n_head": 4}),
    "mpt": ("mpt", _TOKENS | {"d_model": 96, "n_heads": 4, "n_layers": 2, "max_seq_len": 256}),
    "falcon": (
        "falcon",
        _TOKENS | {"hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "attention_dropout": 0.2},
    ),
}


def make_config(family):
    """Return the config of a tiny base of this family."""
    model_type, values = (FAMILIES | UNPACKABLE)[family]
    return AutoConfig.for_model(model_type, **values)


def write_base(family, folder):
    """Write a tiny base of this family, with random weights and without a tokenizer, into `folder`; return that."""
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(make_config(family)).save_pretrained(folder)
    return folder


def load_with_lora(base_dir, device):
    """Load a base with LoRA whose second matrices are not zero, as after some steps."""
    from qlora_model import add_lora, load_quantized_base  # here: most users need no 4 bits

    model = add_lora(load_quantized_base(base_dir, device, "eager"), rank=4, alpha=8, dropout=0.0)
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = 0.02 * torch.randn(parameter.shape, generator=generator)
    return model


_CHATML = (
    "{% for m in messages %}SYSTEM{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_DEFAULT_SYSTEM = (
    "{% if loop.first and m['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
)
_CHATML_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")

# A thought before the last reply only; none in the prompt, unless thinking is switched off.
_QWEN3 = """{%- set ns = namespace(last=-1) %}
{%- for m in messages %}{%- if m.role == 'user' %}{%- set ns.last = loop.index0 %}{%- endif %}{%- endfor %}
{%- for m in messages %}
{%- if m.role == 'assistant' and loop.index0 > ns.last and loop.last %}
{{- '<|im_start|>assistant\n<think>\n\n</think>\n\n' + m.content.lstrip('\n') + '<|im_end|>\n' }}
{%- else %}{{- '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}
{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\n\n</think>\n\n' }}{%- endif %}
{%- endif %}"""

# Alternating turns that the user begins, no system turn, words without spaces around them.
_GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{% for m in messages %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
    "{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else m['role']) + '\n' + m['content'] | trim }}"
    "{{ '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
_GEMMA_TOKENS = ("<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>")

_GEMMA4 = (
    "{{ bos_token }}{% if enable_thinking is defined and enable_thinking %}{{ '<|turn>system\n<|think|><turn|>\n' }}{% endif %}"
    "{% for m in messages %}{{ '<|turn>' + ('model' if m['role'] == 'assistant' else m['role']) + '\n' }}"
    "{{ m['content'] | trim + '<turn|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|turn>model\n' }}{% endif %}"
)

# The date of today in a system turn of its own.
_LLAMA = (
    "{{ bos_token }}{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
    "{{ '<|start_header_id|>system<|end_header_id|>\n\nToday Date: ' + date_string + '\n\n<|eot_id|>' }}"
    "{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + m['content'] | trim }}"
    "{{ '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)

_MISTRAL = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
    "{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'] + eos_token }}{% endif %}{% endfor %}"
)

_PHI3 = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)

# name: (template, None for a base without one; special tokens; the names of some of them)
MARKINGS = {
    "mistral": (_MISTRAL, ("<s>", "</s>"), {"bos_token": "<s>", "eos_token": "</s>"}),
    "llama": (
        _LLAMA,
        ("<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"),
        {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"},
    ),
    "smollm": (_CHATML.replace("SYSTEM", _DEFAULT_SYSTEM), _CHATML_TOKENS, {"eos_token": "<|im_end|>"}),
    "qwen2.5": (_CHATML.replace("SYSTEM", _DEFAULT_SYSTEM), _CHATML_TOKENS, {"eos_token": "<|endoftext|>"}),
    "qwen3": (_QWEN3, _CHATML_TOKENS, {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}),
    "gemma2": (_GEMMA, _GEMMA_TOKENS, {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"}),
    "gemma3": (_GEMMA, _GEMMA_TOKENS, {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"}),
    "gemma4": (
        _GEMMA4,
        ("<pad>", "<eos>", "<bos>", "<|turn>", "<turn|>", "<|think|>"),
        {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"},
    ),
    "phi3": (
        _PHI3,
        ("<|endoftext|>", "<|user|>", "<|assistant|>", "<|end|>"),
        {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"},
    ),
    "phi2": (None, ("<|endoftext|>",), {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}),
    "gpt_neox": (None, ("<|endoftext|>",), {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}),
}
_WITHOUT_TEMPLATE = (None, ("<pad>", "<s>", "</s>"), {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"})


def make_tokenizer(family, texts):
    """Return a byte-level tokenizer that learnt its words from `texts`, with the special tokens and template of a family."""
    template, specials, names = MARKINGS.get(family, _WITHOUT_TEMPLATE)
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    learn_bytes(backend, texts, specials)
    others = [token for token in specials if token not in names.values()]
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, extra_special_tokens=others, **names)
    tokenizer.chat_template = template
    return tokenizer


def learn_bytes(backend, texts, specials):
    """Let a byte-level tokenizer learn 400 tokens from `texts`."""
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=list(specials),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
