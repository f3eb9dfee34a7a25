"""Prove a GGUF file: it belongs to this training, and llama.cpp reads prompts and predicts replies as transformers does.

The same ids are not enough when transformers is compared with itself: llama.cpp has tokenizers of its own. Writing the
file is left to `gguf_file`, its header to `gguf_header`, running llama.cpp to `llama_cpp_server`.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import torch
from gguf_header import Content, check_header, find_base_beside, read_header
from gguf_tokenizer import normalizes_text
from llama_cpp_server import INSTALL_COMMAND, LlamaCppServer, is_llama_cpp_installed, start_llama_cpp
from merged_model import probe_conversations
from saved_model_checks import SavedModel
from trained_model import load_trained_model
from transformers import AutoTokenizer

from common.base_model_files import check_safetensors_file, list_weight_files
from common.chat_format import encode_conversation, with_header
from common.conversation_data import TrainingDataError, read_training_data
from common.conversation_header import context_from_settings, headers_by_line
from common.script import PROJECT_ROOT, ScriptError, counted, shown_path

NUM_CONVERSATIONS = 100
NUM_COMPARED_PROMPTS = 3  # whose first token's log-probabilities are compared
NUM_COMPARED_TOKENS = 50  # the most likely ones
LARGEST_DIFFERENCE_F32 = 1e-3  # measured: 4e-5 for one file, 3e-4 for an adapter beside its base
CONTEXT_TOKENS = 1024
MEMORY_PER_PARAMETER_BYTES = 4 * 1.1  # the reference in float32


def check_gguf(
    saved: SavedModel, content: Content, path: Path, final_path: Path, command: str, type_name: str
) -> list[str]:
    """Compare the file at `path` with its training; return what was compared, as the lines that the user sees.

    `final_path` is the name that messages give it, and beside which an adapter's base lies; `command` checks it later.
    Raises ScriptError when anything differs.
    """
    check_header(saved, content, path, final_path)
    if not is_llama_cpp_installed():
        return [f"Not checked in llama.cpp. To check it: {INSTALL_COMMAND}, then {command}"]
    base_path = find_base_beside(saved, final_path) if content == "adapter" else None
    if content == "adapter" and base_path is None:
        return [f"Not checked in llama.cpp: no base lies beside it. Write one with --base-only, then run {command}"]
    model_path, adapter_path = (path, None) if base_path is None else (base_path, path)
    with start_llama_cpp(model_path, adapter_path, CONTEXT_TOKENS, is_exact=True) as server:
        return [
            _compare_ids(saved, server, final_path),
            _compare_log_probabilities(saved, content, server, model_path, final_path, type_name),
        ]


def _compare_ids(saved: SavedModel, server: LlamaCppServer, final_path: Path) -> str:
    """Return what was compared; raise ScriptError on the first prompt whose ids differ."""
    tokenizer = AutoTokenizer.from_pretrained(saved.folder, trust_remote_code=False)
    is_composed = normalizes_text(saved.folder)
    probes, conversations = probe_conversations(), read_conversations(saved, tokenizer)
    num_as_chat = 0
    for number, messages in enumerate([*probes, *conversations]):
        if is_composed:
            messages = [
                {**message, "content": unicodedata.normalize("NFC", message["content"])} for message in messages
            ]
        prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        kind = "a probe" if number < len(probes) else f"conversation {number - len(probes) + 1}"
        if server.apply_template(messages) != prompt:
            raise _differs(final_path, f"llama.cpp renders the chat template differently in {kind}")
        if server.encode(prompt) != ids:
            raise _differs(final_path, f"llama.cpp encodes {kind} to other token ids")
        num_as_chat += encode_conversation(tokenizer, messages, add_generation_prompt=True).input_ids == ids
    compared = f"{counted(len(probes), 'probe')} and {counted(len(conversations), 'conversation')}"
    return (
        f"Checked in llama.cpp: the same prompt and the same token ids in {compared}"
        + ("" if conversations else " (the data of the training is not at hand)")
        + f"; {num_as_chat} of them are the chat's own ids"
        + (" (the words in composed form, NFC, which llama.cpp leaves to its caller)." if is_composed else ".")
    )


def _differs(final_path: Path, what: str) -> ScriptError:
    return ScriptError(
        f"{shown_path(final_path)}: {what} than transformers; it was refused: "
        "please report it with the name of the base model"
    )


def read_conversations(saved: SavedModel, tokenizer: Any) -> list[list[dict[str, str]]]:
    """Return up to 100 conversations of the training, each with its header, up to its last message of the other person.

    An opener is left out: many templates, rendered by other programs, demand that the user begins.
    """
    path = PROJECT_ROOT / str(saved.settings.get("path_to_data", ""))
    try:
        data = read_training_data(path, skip_bad_lines=True)
    except (TrainingDataError, OSError):
        return []
    if data.sha256 != saved.settings.get("data_sha256"):
        return []
    step = max(1, len(data.conversations) // NUM_CONVERSATIONS)
    chosen = data.conversations[::step][:NUM_CONVERSATIONS]
    headers = headers_by_line(data.conversations, context_from_settings(saved.settings))
    read = []
    for conversation in chosen:
        first = 0 if conversation.messages[0]["role"] == "user" else 1
        messages = conversation.messages[first:-1]
        if messages:
            read.append(with_header(tokenizer, messages, headers[conversation.line_number]))
    return read


def _compare_log_probabilities(
    saved: SavedModel, content: Content, server: LlamaCppServer, model_path: Path, final_path: Path, type_name: str
) -> str:
    """Return the largest difference, or why it was not measured; raise ScriptError when float32 differs."""
    needed = _num_parameters(saved) * MEMORY_PER_PARAMETER_BYTES + model_path.stat().st_size
    available = psutil.virtual_memory().available
    if needed > available:
        return (
            f"Log-probabilities: not compared ({needed / 2**30:.0f} GiB of memory would be needed, "
            f"{available / 2**30:.0f} GiB are free)."
        )
    reference = load_trained_model(saved, device="cpu", dtype="float32")
    prompts = [reference.encode_prompt(messages)[0] for messages in probe_conversations()]
    fitting = [prompt for prompt in prompts if len(prompt) < min(CONTEXT_TOKENS, reference.context_tokens)]
    difference = max(
        _largest_difference(reference.model, prompt, server, is_base=content == "base")
        for prompt in fitting[:NUM_COMPARED_PROMPTS]
    )
    if type_name == "f32" and read_header(model_path).is_float32 and difference > LARGEST_DIFFERENCE_F32:
        raise ScriptError(
            f"{shown_path(final_path)}: llama.cpp's log-probabilities differ by {difference:.1e} from those of "
            "transformers; it was refused: please report it with the name of the base model"
        )
    return (
        f"Log-probabilities of the first token: at most {difference:.1e} from transformers in float32 "
        f"({NUM_COMPARED_TOKENS} likeliest tokens of {counted(len(fitting[:NUM_COMPARED_PROMPTS]), 'prompt')})."
    )


def _num_parameters(saved: SavedModel) -> int:
    headers = [check_safetensors_file(path) for path in list_weight_files(saved.base_dir)]
    return sum(math.prod(entry["shape"]) for header in headers for name, entry in header.items() if name[:2] != "__")


def _largest_difference(model: Any, prompt_ids: Sequence[int], server: LlamaCppServer, is_base: bool) -> float:
    with torch.no_grad():
        if is_base:
            with model.disable_adapter():
                logits = model(input_ids=torch.tensor([prompt_ids])).logits[0, -1]
        else:
            logits = model(input_ids=torch.tensor([prompt_ids])).logits[0, -1]
    expected = torch.log_softmax(logits.float(), dim=-1)
    given = server.first_token_log_probabilities(prompt_ids, NUM_COMPARED_TOKENS)
    return max(abs(float(expected[token_id]) - value) for token_id, value in given.items())
