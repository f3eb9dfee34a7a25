"""llama.cpp with a GGUF file, in this process: texts -> token ids, prompts -> log-probabilities or the next token.

`xllamacpp` holds llama.cpp with its server. The server listens on a socket file in a private folder and asks for a
random key: no port is open, and no other user or web page can ask it. What is asked is left to `gguf_check` and
`llama_cpp_model`.
"""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
import socket
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from common.script import ScriptError, printable, shown_path

PACKAGE = "xllamacpp"
INSTALL_COMMAND = f"pip install {PACKAGE}"
MEMORY_OF_REORDERED = 3.0  # times the file: mapped, reordered, and as much left for the other programs
ALL_TOKENS = 10_000_000  # more than any vocabulary
ANSWER_SECONDS = 600.0  # by the socket: far more than encoding or rendering takes


def is_llama_cpp_installed() -> bool:
    """Return whether the package is there, without importing it."""
    return importlib.util.find_spec(PACKAGE) is not None


class LlamaCppServer:
    """A running server; made by `start_llama_cpp`."""

    def __init__(self, server: Any, socket_path: Path, key: str) -> None:
        """Speak to `server` (xllamacpp's), which also listens on `socket_path`."""
        self._server, self._socket_path, self._key = server, socket_path, key

    def close(self) -> None:
        """Stop the server; nothing can be asked afterwards."""
        self._server = None

    def encode(self, text: str) -> list[int]:
        """Return the ids of `text`; special tokens in it count as such, and none is added."""
        answer = self._ask("/tokenize", {"content": text, "add_special": False, "parse_special": True})
        return [int(token_id) for token_id in answer["tokens"]]

    def apply_template(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """Return the prompt for the reply to `messages`, by the template in the file."""
        return str(self._ask("/apply-template", {"messages": list(messages)})["prompt"])

    def first_token_log_probabilities(self, prompt_ids: Sequence[int], num_tokens: int) -> dict[int, float]:
        """Return id and log-probability of the `num_tokens` most likely tokens after the prompt."""
        given = self._log_probabilities(prompt_ids, self.encode("a")[-1], num_tokens)
        return dict(list(given.items())[:num_tokens])

    def read(self, prompt_ids: Sequence[int], is_new: bool) -> None:
        """Read the prompt up to what is read of it already; `is_new`: read all of it again."""
        self._predict(prompt_ids, n_predict=0, cache_prompt=not is_new)

    def draw_token(self, prompt_ids: Sequence[int], **options: Any) -> int:
        """Read the prompt and return the next token, drawn as llama.cpp's sampling `options` say."""
        return int(self._predict(prompt_ids, **options)["__verbose"]["tokens"][0])

    def log_probability(self, prompt_ids: Sequence[int], token_id: int, plain_id: int) -> float:
        """Read the prompt and return the log-probability of the next token being `token_id`.

        `plain_id`: any token of plain text.
        """
        given = self._log_probabilities(prompt_ids, token_id, 1)
        # Of a token inside a character none are given: then those of all tokens are asked for, beside a plain one.
        return given[token_id] if given else self._log_probabilities(prompt_ids, plain_id, ALL_TOKENS)[token_id]

    def _log_probabilities(self, prompt_ids: Sequence[int], chosen_id: int, num_tokens: int) -> dict[int, float]:
        """Return the `num_tokens` most likely tokens, the likeliest first, then `chosen_id`; empty where none are given.

        Of a reply that ends at once or inside a character none are given. So the choice, though not the probabilities, is
        made for it.
        """
        options = {"temperature": 0.0, "samplers": ["temperature"], "logit_bias": [[chosen_id, 1_000.0]]}
        answer = self._predict(prompt_ids, n_probs=num_tokens, **options)["choices"][0]["logprobs"]
        if answer is None:
            return {}
        chosen = answer["content"][0]
        return {int(entry["id"]): float(entry["logprob"]) for entry in [*chosen["top_logprobs"], chosen]}

    def _predict(self, prompt_ids: Sequence[int], **options: Any) -> Any:
        """Ask without the socket, which takes 2 ms less, for at most one token."""
        request = {"prompt": list(prompt_ids), "n_predict": 1, "return_tokens": True, "verbose": True, "stream": False}
        answer = self._server.handle_completions(request | options)
        if "error" in answer:
            raise LlamaCppError(f"llama.cpp refused a prompt: {answer['error'].get('message')}")
        return answer

    def _ask(self, address: str, request: Mapping[str, Any]) -> Any:
        import http.client  # only here: the chat never asks by the socket

        connection = http.client.HTTPConnection("localhost", timeout=ANSWER_SECONDS)
        connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.sock.settimeout(ANSWER_SECONDS)
            connection.sock.connect(str(self._socket_path))
            headers = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"}
            connection.request("POST", address, json.dumps(request), headers)
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        if answer.status != http.client.OK:
            raise LlamaCppError(f"llama.cpp refused {address} ({answer.status})")
        return json.loads(content)


class LlamaCppError(RuntimeError):
    """llama.cpp did not answer as expected."""


@contextmanager
def start_llama_cpp(
    model_path: Path,
    adapter_path: Path | None = None,
    context_tokens: int = 4096,
    is_exact: bool = False,
    has_socket: bool = True,
) -> Iterator[LlamaCppServer]:
    """Load a GGUF file, an adapter's beside it, on the processor; raise ScriptError when llama.cpp refuses it.

    `is_exact` computes as transformers does in float32 (with a float32 cache). Without `has_socket`, the socket is
    removed at once and nobody can connect: then only this process can ask for tokens, and no text can be encoded.
    """
    # Two waiting threads would take a busy processor from the one that computes.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import psutil

    try:
        import xllamacpp
    except (ImportError, OSError) as error:
        raise ScriptError(
            f"{PACKAGE}: cannot be loaded ({printable(str(error))}); {INSTALL_COMMAND} --force-reinstall"
        ) from None

    with tempfile.TemporaryDirectory(prefix="llama-") as folder:  # 0700
        socket_path, key = Path(folder) / "s.sock", secrets.token_hex(16)
        params = xllamacpp.CommonParams()
        params.hostnames, params.api_keys = [str(socket_path)], [key]
        params.model.path = str(model_path)
        params.n_ctx, params.n_parallel = context_tokens, 1
        params.n_gpu_layers = 0
        num_threads = os.environ.get("OMP_NUM_THREADS", "")
        if num_threads.isdigit():  # as torch does
            params.cpuparams.n_threads = params.cpuparams_batch.n_threads = max(1, int(num_threads))
        params.ui = params.endpoint_slots = params.warmup = params.fit_params = False
        # A copy of the weights in another order: a fifth more tokens a second in q4_0, where the memory has room for it.
        params.no_extra_bufts = model_path.stat().st_size * MEMORY_OF_REORDERED > psutil.virtual_memory().available
        params.cache_ram_mib, params.verbosity = 0, -1
        if adapter_path is not None:
            params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(adapter_path), 1.0)]
        # On a processor, flash attention reads a long prompt a quarter faster, but after it each new token takes half as
        # long again.
        params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        if is_exact:
            params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        try:
            server = xllamacpp.Server(params)
        except RuntimeError:
            what = shown_path(model_path) if adapter_path is None else f"{shown_path(adapter_path)} beside it"
            raise ScriptError(f"{what}: llama.cpp cannot load it; export it again, with enough free memory") from None
        if not has_socket:
            socket_path.unlink()
        running = LlamaCppServer(server, socket_path, key)
        try:
            # A server that is stopped before its loop has begun never ends (xllamacpp 2026.10): wait for an answer.
            running.read([0], is_new=True)
            yield running
        finally:
            running.close()
            del server
            socket_path.unlink(missing_ok=True)
