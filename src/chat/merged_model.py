"""Base and adapter merged into one ordinary model folder that encodes prompts as the chat does.

Choosing and renaming the folder is left to `export_model`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from modelfile import MODELFILE_NAME, write_modelfile
from peft.tuners.lora import LoraLayer
from saved_model_checks import SavedModel
from trained_chat import load_tokenizer
from trained_model import load_adapter
from transformers import AutoTokenizer, GenerationConfig
from transformers.utils import logging as transformers_logging
from who_and_when import header_of_today

from common.base_model_files import read_json_object
from common.chat_format import encode_conversation
from common.compute_device import load_causal_model
from common.model_folder import ADAPTER_CONFIG_NAME, GENERATION_NAME
from common.outside_files import loading
from common.private_files import replacing
from common.script import ScriptError, printable, shown_path

# Encoded by the trained folder's tokenizer and by the exported one: scripts, emoji, laughter, line breaks, numbers,
# role markers. Each is used once as the user's message and once as a reply.
PROBE_TEXTS = (
    "שלום, מה נשמע?", "see you at 5 :)", "👨\u200d👩\u200d👧 ❤️ 🙏🏽", "חחחחחח", "שורה\nועוד שורה", "<person1>", "?!",
    "١٢٣ café 你好", "10:30 - 12:00", "  spaces  ",
)  # fmt: skip

GGUF_NAME = "model-q8_0.gguf"  # 8 bits: half the memory, and no visible loss in the replies


def write_merged_model(saved: SavedModel, folder: Path) -> int:
    """Write base + adapter, tokenizer, sampling values and a Modelfile into `folder`; return the number of token rows.

    The weights keep the base's own number type. Raises ScriptError when tokenizer and weights do not belong together.
    """
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    tokenizer, _end_ids = load_tokenizer(saved)
    model = load_merged_model(saved)
    num_rows = model.get_input_embeddings().weight.shape[0]
    fill_up_vocabulary(tokenizer, num_rows, saved.folder)
    with loading(shown_path(saved.folder / GENERATION_NAME), "its values", "correct it, or train again"):
        model.generation_config = GenerationConfig.from_pretrained(saved.folder)
    folder.mkdir(mode=0o700)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    add_names_of_transformers_4(folder)
    make_gguf = f"python3 src/chat/export_model.py --gguf q8_0 --export-path THIS_FOLDER/{GGUF_NAME}"
    write_modelfile(
        folder / MODELFILE_NAME,
        tokenizer,
        saved.generation,
        GGUF_NAME,
        comments=[make_gguf],
        header=header_of_today(saved),
    )
    check_same_prompts(saved.folder, folder)
    return int(num_rows)


def load_merged_model(saved: SavedModel) -> Any:
    """Load the base unquantised, add the adapter to its weights and return a plain model of the base's class."""
    with loading(shown_path(saved.base_dir), "the base model", "download it again, or train again on another one"):
        base = load_causal_model(saved.base_dir, dtype="auto")
    if base.config.tie_word_embeddings and targets_output_layer(saved, base):
        # Embeddings and head share one matrix; the adapter changes only the head, so the head gets its own copy.
        head = base.get_output_embeddings()
        head.weight = torch.nn.Parameter(head.weight.detach().clone())
        base.config.tie_word_embeddings = False
    adapted = load_adapter(base, saved)
    refuse_shared_layers(adapted, saved.base.name)
    return adapted.merge_and_unload(safe_merge=True)


def refuse_shared_layers(model: Any, name: str) -> None:
    """Raise ScriptError if layers of the base `name` that have one weight together have adapters of their own (Zamba 2)."""
    layers: list[Any] = [layer for layer in model.modules() if isinstance(layer, LoraLayer)]
    weights = [layer.get_base_layer().weight.data_ptr() for layer in layers]
    if len(set(weights)) < len(weights):
        raise ScriptError(
            f"{printable(name)}: shares weights between its layers, and the adapter changes each of them in its own way, so the "
            "two cannot become one model; load base and adapter with peft instead"
        )


def targets_output_layer(saved: SavedModel, base: Any) -> bool:
    """Return whether the adapter changes the output layer (`lm_head`, whatever the base calls it)."""
    targets = read_json_object(saved.folder / ADAPTER_CONFIG_NAME)["target_modules"]
    head = base.get_output_embeddings()
    return any(module is head and name.rsplit(".", 1)[-1] in targets for name, module in base.named_modules())


def fill_up_vocabulary(tokenizer: Any, num_rows: int, folder: Path) -> None:
    """Add a token for each row without one, as llama.cpp does: it loads no model with fewer tokens than rows."""
    if len(tokenizer) > num_rows:
        raise ScriptError(
            f"{shown_path(folder / 'tokenizer.json')}: has {len(tokenizer):,} tokens, the base model only "
            f"{num_rows:,} rows; train again on a base whose tokenizer fits"
        )
    tokenizer.add_tokens([f"[PAD{number}]" for number in range(len(tokenizer), num_rows)])


def add_names_of_transformers_4(folder: Path) -> None:
    """Let transformers 4.57, and tools built on it, read the files that transformers 5 wrote into `folder`.

    Both versions know the names written here; 5 reads the same values from them.
    """
    config = read_json_object(folder / "config.json")
    rope = config.get("rope_parameters") or {}  # null for a base without rotary positions
    # Not where each kind of layer has its own, which 4.57 has under other names.
    if isinstance(rope.get("rope_theta"), (int, float)):
        config["rope_theta"] = rope["rope_theta"]
        if rope.get("rope_type", "default") != "default":
            config["rope_scaling"] = {name: value for name, value in rope.items() if name != "rope_theta"}
        _write_json(folder / "config.json", config)
    settings = read_json_object(folder / "tokenizer_config.json")
    if settings.get("tokenizer_class") == "TokenizersBackend":
        settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    if isinstance(settings.get("extra_special_tokens"), list):
        settings["additional_special_tokens"] = settings.pop("extra_special_tokens")
    _write_json(folder / "tokenizer_config.json", settings)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    with replacing(path) as file:
        json.dump(content, file, ensure_ascii=False, indent=2)


def probe_conversations() -> list[list[dict[str, str]]]:
    """Return short conversations whose prompts every export must encode as the training did."""
    conversations = []
    for number, text in enumerate(PROBE_TEXTS):
        answer = PROBE_TEXTS[number - 1]
        messages = [
            {"role": "user", "content": text},
            {"role": "assistant", "content": answer},
            {"role": "user", "content": answer},
        ]
        conversations += [messages[:1], messages]
    return conversations


def check_same_prompts(trained_dir: Path, exported_dir: Path) -> None:
    """Raise ScriptError unless both folders' tokenizers encode the same conversations to the same ids."""
    trained, exported = (
        AutoTokenizer.from_pretrained(folder, trust_remote_code=False) for folder in (trained_dir, exported_dir)
    )
    for conversation in probe_conversations():
        ids = [
            encode_conversation(tokenizer, conversation, add_generation_prompt=True).input_ids
            for tokenizer in (trained, exported)
        ]
        if ids[0] != ids[1]:
            raise ScriptError(
                f"{shown_path(exported_dir)}: the exported tokenizer encodes prompts differently; "
                "please report it with the name of the base model"
            )
