"""Trained folders over the tokenizers and families that become GGUF files; their adapters are random and large."""

import json

import base_families
import torch
from tiny_saved_model import write_saved_model
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

from common.chat_format import PERSON_TEMPLATE

LLAMA_SPECIALS = ("<unk>", "<s>", "</s>")
SPARE_ROWS = 5  # as many bases have: rows without a token


def make_byte_level_tokenizer(texts):
    """Return a byte-level BPE tokenizer, as GPT-2's."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return _train_byte_level(backend, texts, ["<s>", "</s>"], bos_token="<s>", eos_token="</s>")


def make_qwen_tokenizer(texts):
    """Return a tokenizer with the steps of Qwen's: characters composed, its own expression, byte-level."""
    backend = Tokenizer(models.BPE())
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    names = {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>", "extra_special_tokens": specials[1:]}
    tokenizer = _train_byte_level(backend, texts, specials, **names)
    tokenizer.chat_template = base_families.MARKINGS["qwen2.5"][0]
    return tokenizer


def _train_byte_level(backend, texts, specials, **names):
    base_families.learn_bytes(backend, texts, specials)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **names)
    tokenizer.chat_template = PERSON_TEMPLATE
    return tokenizer


def make_llama_tokenizer(texts, prefix):
    """Return a tokenizer of the Llama type (byte fallback, no tokenizer.model); `prefix`: who writes U+2581 first."""
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.Metaspace()
    learner.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=400, show_progress=False))
    learnt = json.loads(learner.to_str())["model"]
    byte_tokens = [f"<0x{number:02X}>" for number in range(256)]
    names = [*LLAMA_SPECIALS, *byte_tokens, *sorted(learnt["vocab"], key=learnt["vocab"].get)]
    vocabulary = {token: number for number, token in enumerate(names)}
    merges = [tuple(merge) for merge in learnt["merges"]]
    backend = Tokenizer(
        models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    if prefix == "first":
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    else:
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in LLAMA_SPECIALS])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>")
    tokenizer.chat_template = PERSON_TEMPLATE
    return tokenizer


# name: (family of base_families, maker of the tokenizer)
KINDS = {
    "byte-level, Mistral": ("mistral", make_byte_level_tokenizer),
    "Llama type, first": ("mistral", lambda texts: make_llama_tokenizer(texts, "first")),
    "Llama type, Prepend": ("llama", lambda texts: make_llama_tokenizer(texts, "prepend")),
    "Qwen2, tied": ("qwen2.5", make_qwen_tokenizer),
    "Qwen3, tied": ("qwen3", make_qwen_tokenizer),
}


def write_trained_folder(kind, folder, conversations):
    """Write base and trained folder of this kind into `folder`; return the trained one."""
    family, make_tokenizer = KINDS[kind]
    texts = [message["content"] for messages in conversations for message in messages]
    tokenizer = make_tokenizer(texts)
    model_type, shape = base_families.FAMILIES[family]
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    config = AutoConfig.for_model(model_type, **shape | ids | {"vocab_size": len(tokenizer) + SPARE_ROWS})
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    for parameter in model.parameters():  # norms and biases other than one and zero, as in a trained base
        torch.nn.init.normal_(parameter, mean=float(parameter.ndim == 1), std=0.2)
    model.save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    saved_dir = write_saved_model(folder / "saved", folder / "base", max_length=600, adapter_scale=0.2)
    tokenizer.save_pretrained(saved_dir)
    return saved_dir
