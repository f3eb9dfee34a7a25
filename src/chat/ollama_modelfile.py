"""The Modelfile with which Ollama serves the exported model, once llama.cpp's converter has made a GGUF file of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.chat_format import PERSON_TEMPLATE
from common.script import replacing

GGUF_NAME = "model-q8_0.gguf"  # 8 bits: half of the memory, and no loss that shows in the replies

# PERSON_TEMPLATE in Ollama's language (Go templates). The first `{bos}` is the GGUF file's own affair.
OLLAMA_PERSON_TEMPLATE = (
    '{{ range .Messages }}{{ if eq .Role "assistant" }}<person1>{{ else }}<person2>{{ end }}'
    "{{ .Content }}END_OF_TURN{{ end }}<person1>"
)
# Ollama's name for each value of generation_config.json.
PARAMETERS = {
    "temperature": "temperature",
    "min_p": "min_p",
    "top_p": "top_p",
    "top_k": "top_k",
    "repetition_penalty": "repeat_penalty",
    "max_new_tokens": "num_predict",
}


def write_modelfile(path: Path, tokenizer: Any, generation: Mapping[str, Any]) -> None:
    """Write the Modelfile for the model whose tokenizer and sampling values are given."""
    lines = [
        f"# python3 convert_hf_to_gguf.py THIS_FOLDER --outtype q8_0 --outfile {GGUF_NAME}   (llama.cpp's converter)",
        "# ollama create me -f Modelfile",
        f"FROM ./{GGUF_NAME}",
    ]
    if tokenizer.chat_template == PERSON_TEMPLATE:
        template = OLLAMA_PERSON_TEMPLATE.replace("END_OF_TURN", tokenizer.eos_token)
        lines.append(f'TEMPLATE """{template}"""')
    else:
        lines.append("# The base has a chat template of its own: Ollama finds it in the GGUF file.")
    lines += [
        f"PARAMETER {ollama_name} {generation[name]}" for name, ollama_name in PARAMETERS.items() if name in generation
    ]
    lines.append(f"PARAMETER stop {json.dumps(tokenizer.eos_token)}")
    with replacing(path) as file:
        file.write("\n".join(lines) + "\n")
