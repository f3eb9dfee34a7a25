"""A trained folder's tokenizer -> the keys of a GGUF file, so that llama.cpp gives the same token ids.

llama.cpp knows pre-tokenizers by name and has no normalizers: a tokenizer of any other form is refused in words. Whether
the ids are equal is left to `gguf_check`, which asks llama.cpp itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gguf import GGUFWriter, TokenType

from common.chat_format import find_end_of_turn_id
from common.outside_files import read_json
from common.script import ScriptError, printable, shown_path

# llama.cpp's name of each pre-tokenizer that is a regular expression, by the expression in tokenizer.json.
PRE_TOKENIZERS = {
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+": (
        "qwen2"
    ),
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+": (
        "llama-bpe"
    ),
}
IGNORES_MERGES = {"llama-bpe"}  # llama.cpp takes a whole word that is a token before it merges, for these names only

BYTE_TOKEN_RE = re.compile(r"<0x[0-9A-F]{2}>")
# Tokens that match more than their own characters: llama.cpp has no such rule.
REFUSED_TOKEN_FLAGS = ("lstrip", "rstrip", "single_word")


def add_tokenizer(writer: GGUFWriter, tokenizer: Any, folder: Path, num_rows: int) -> None:
    """Write the tokenizer of `folder` into `writer`, with the chat template and where a turn ends.

    `num_rows`: the rows of the model's embeddings; a row without a token gets an unused one, since llama.cpp loads no
    model with fewer tokens than rows. Raises ScriptError when llama.cpp could not give the same ids.
    """
    path = folder / "tokenizer.json"
    content = read_json(path)
    model = content["model"]
    if model.get("type") != "BPE" or model.get("dropout"):
        raise _unsupported(path, f"a {printable(str(model.get('type')))} tokenizer")
    if model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        raise _unsupported(path, "a tokenizer that marks the parts of words")
    if len(tokenizer) > num_rows:
        raise ScriptError(
            f"{shown_path(path)}: has {len(tokenizer):,} tokens, the base model only {num_rows:,} rows; "
            "train again on a base whose tokenizer fits"
        )
    vocabulary: dict[str, int] = model["vocab"]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    if _is_llama_type(content, path):
        writer.add_tokenizer_model("llama")
        writer.add_tokenizer_pre("default")
        writer.add_add_space_prefix(_prepends_space(content, path))
        writer.add_token_scores(_scores_of_merges(vocabulary, merges, num_rows))
    else:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(_name_of_pre_tokenizer(content, path))
        writer.add_token_merges(merges)
    _add_token_list(writer, content, vocabulary, num_rows, path)
    _add_special_ids(writer, tokenizer)
    writer.add_chat_template(tokenizer.chat_template)


def normalizes_text(folder: Path) -> bool:
    """Return whether the tokenizer of `folder` composes characters (NFC) first: llama.cpp leaves that to its caller."""
    normalizers = _parts(read_json(folder / "tokenizer.json").get("normalizer"), "normalizers")
    return any(part["type"] == "NFC" for part in normalizers)


def _is_llama_type(content: Mapping[str, Any], path: Path) -> bool:
    """Return whether unknown characters become byte tokens and spaces are written as U+2581, as SentencePiece does."""
    has_byte_level = any(part["type"] == "ByteLevel" for part in _parts(content.get("pre_tokenizer"), "pretokenizers"))
    if content["model"].get("byte_fallback") and not has_byte_level:
        return True
    if not has_byte_level:
        raise _unsupported(path, "neither a byte-level tokenizer nor one of the Llama type")
    return False


def _parts(component: Mapping[str, Any] | None, key: str) -> list[Mapping[str, Any]]:
    if component is None:
        return []
    return list(component[key]) if component["type"] == "Sequence" else [component]


def _name_of_pre_tokenizer(content: Mapping[str, Any], path: Path) -> str:
    normalizers = [part["type"] for part in _parts(content.get("normalizer"), "normalizers")]
    *before, byte_level = _parts(content["pre_tokenizer"], "pretokenizers")
    if normalizers not in ([], ["NFC"]) or byte_level["type"] != "ByteLevel" or byte_level.get("add_prefix_space"):
        raise _unsupported(path, "a byte-level tokenizer that changes the text first")
    kinds = [part["type"] for part in before]
    name = None
    if byte_level.get("use_regex", True):
        if not kinds:
            name = "gpt-2"
        elif kinds == ["Digits"] and before[0].get("individual_digits"):
            name = "smollm"
    elif kinds == ["Split"] and before[0].get("behavior") == "Isolated" and not before[0].get("invert"):
        name = PRE_TOKENIZERS.get(before[0]["pattern"].get("Regex", ""))
    if name is None or bool(content["model"].get("ignore_merges")) != (name in IGNORES_MERGES):
        raise _unsupported(path, "a pre-tokenizer that llama.cpp has no known name for")
    return name


def _prepends_space(content: Mapping[str, Any], path: Path) -> bool:
    """Return whether the tokenizer writes U+2581 before the text after a special token."""
    normalizers = _parts(content.get("normalizer"), "normalizers")
    before = _parts(content.get("pre_tokenizer"), "pretokenizers")
    kinds = [part["type"] for part in normalizers]
    if kinds == ["Prepend", "Replace"] and not before:
        return True
    if kinds == ["Replace"] and not before:
        return False
    if not kinds and [part["type"] for part in before] == ["Metaspace"] and not before[0].get("split", True):
        # "first" means the very first text, and a prompt begins with a special token: nothing is written after it.
        return before[0].get("prepend_scheme") == "always"
    raise _unsupported(path, "a tokenizer of the Llama type with other steps than the known ones")


def _scores_of_merges(vocabulary: Mapping[str, int], merges: Sequence[str], num_rows: int) -> list[float]:
    """Return the score of each token: llama.cpp joins the pair with the highest score first, so minus the merge's rank."""
    scores = [0.0] * num_rows
    is_scored = [False] * num_rows
    for rank, merge in enumerate(merges):
        token_id = vocabulary[merge.replace(" ", "", 1)]
        if not is_scored[token_id]:
            scores[token_id], is_scored[token_id] = -float(rank), True
    return scores


def _add_token_list(
    writer: GGUFWriter, content: Mapping[str, Any], vocabulary: Mapping[str, int], num_rows: int, path: Path
) -> None:
    tokens = [f"[PAD{number}]" for number in range(num_rows)]
    types = [TokenType.UNUSED] * num_rows
    is_llama_type = bool(content["model"].get("byte_fallback"))
    for token, token_id in vocabulary.items():
        is_byte = is_llama_type and BYTE_TOKEN_RE.fullmatch(token)
        tokens[token_id], types[token_id] = token, TokenType.BYTE if is_byte else TokenType.NORMAL
    for added in content.get("added_tokens", []):
        if any(added.get(flag) for flag in REFUSED_TOKEN_FLAGS):
            raise _unsupported(path, f"a token that takes the spaces around it along ({printable(added['content'])})")
        is_unknown = is_llama_type and added["content"] == content["model"].get("unk_token")
        kind = TokenType.CONTROL if added.get("special") else TokenType.USER_DEFINED
        tokens[added["id"]], types[added["id"]] = added["content"], TokenType.UNKNOWN if is_unknown else kind
    writer.add_token_list(tokens)
    writer.add_token_types(types)


def _add_special_ids(writer: GGUFWriter, tokenizer: Any) -> None:
    """Write the ids of the special tokens; the template writes them itself, so llama.cpp must not."""
    end_of_turn_id = find_end_of_turn_id(tokenizer)
    eos_id = tokenizer.eos_token_id
    writer.add_eos_token_id(end_of_turn_id if eos_id is None else eos_id)
    writer.add_eot_token_id(end_of_turn_id)
    for token_id, add in (
        (tokenizer.bos_token_id, writer.add_bos_token_id),
        (tokenizer.unk_token_id, writer.add_unk_token_id),
        (tokenizer.pad_token_id, writer.add_pad_token_id),
    ):
        if token_id is not None:
            add(token_id)
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)


def _unsupported(path: Path, what: str) -> ScriptError:
    return ScriptError(
        f"{shown_path(path)}: is {what}, which this export cannot write as GGUF; "
        "export without --gguf, for transformers"
    )
