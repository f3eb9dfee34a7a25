"""The Modelfile for Ollama: which GGUF file, how a conversation is written, how a reply is drawn and where it stops."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.chat_format import PERSON_TEMPLATE, find_end_of_turn_id, has_system_turn
from common.model_folder import Sampling
from common.outside_files import NotReadableError, read_limited
from common.private_files import replacing
from common.script import printable

MODELFILE_NAME = "Modelfile"
OWN_LINE = f"# ollama create me -f {MODELFILE_NAME}"

# PERSON_TEMPLATE in Ollama's language (Go templates). `{bos}` stands in it: the GGUF file adds no token by itself.
OLLAMA_PERSON_TEMPLATE = (
    'START{{ range .Messages }}{{ if eq .Role "assistant" }}<person1>{{ else }}<person2>{{ end }}'
    "{{ .Content }}END_OF_TURN{{ end }}<person1>"
)
# A token that ends no string and opens no expression of that language, nor a line of the Modelfile.
PLAIN_TOKEN_RE = re.compile(r'[^\s"`\\{}\x00-\x1f\x7f-\x9f]*')
MAX_MODELFILE_BYTES = 1_000_000
# Ollama's name for each value of generation_config.json.
PARAMETERS = {
    "temperature": "temperature",
    "min_p": "min_p",
    "top_p": "top_p",
    "top_k": "top_k",
    "repetition_penalty": "repeat_penalty",
    "max_new_tokens": "num_predict",
}


def write_modelfile(
    path: Path,
    tokenizer: Any,
    generation: Mapping[str, Any],
    gguf_name: str,
    adapter_name: str | None = None,
    comments: Sequence[str] = (),
    header: str = "",
) -> None:
    """Write the Modelfile of the GGUF file `gguf_name` beside it, with an adapter's file on top if there is one.

    `header`: the line before a conversation, for a model that was trained with one.
    """
    lines = [*(f"# {comment}" for comment in comments), OWN_LINE]
    lines.append(f"FROM ./{printable(gguf_name)}")
    if adapter_name is not None:
        lines.append(f"ADAPTER ./{printable(adapter_name)}")
    marks = (tokenizer.bos_token or "", tokenizer.eos_token or "")
    if not all(map(PLAIN_TOKEN_RE.fullmatch, marks)):
        lines.append("# No template: the tokens around a turn cannot be written in a Modelfile.")
    elif tokenizer.chat_template == PERSON_TEMPLATE:
        template = OLLAMA_PERSON_TEMPLATE.replace("START", tokenizer.bos_token or "", 1)
        lines.append(f'TEMPLATE """{template.replace("END_OF_TURN", tokenizer.eos_token)}"""')
    else:
        lines.append("# The base has a chat template of its own: Ollama finds it in the GGUF file.")
    if header and has_system_turn(tokenizer):
        shown = printable(header).replace('"', "'")  # three of them would end the value
        lines += ["# Who writes, and when: write it anew for another person or day.", f'SYSTEM """{shown}"""']
    elif header:
        lines.append(
            f"# Trained with a line that says who writes, and when. Begin each conversation with it: {printable(header)}"
        )
    sampling = Sampling.from_generation_config(generation)  # numbers, whatever the file has them written as
    lines += [
        f"PARAMETER {ollama_name} {getattr(sampling, name)}"
        for name, ollama_name in PARAMETERS.items()
        if generation.get(name) is not None
    ]
    lines += [f"PARAMETER stop {json.dumps(token, ensure_ascii=False)}" for token in stop_tokens(tokenizer)]
    with replacing(path) as file:
        file.write("\n".join(lines) + "\n")


def is_own_modelfile(path: Path) -> bool:
    """Tell whether the file at `path` was written here."""
    try:
        return OWN_LINE.encode() in read_limited(path, MAX_MODELFILE_BYTES).splitlines()
    except (OSError, NotReadableError):
        return False


def stop_tokens(tokenizer: Any) -> list[str]:
    """Return the token that ended a turn in training, then the tokenizer's own end of a text if it is another one."""
    tokens = [tokenizer.convert_ids_to_tokens(find_end_of_turn_id(tokenizer)), tokenizer.eos_token]
    return [token for token in dict.fromkeys(tokens) if token is not None]
