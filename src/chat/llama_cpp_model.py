"""The trained model as a GGUF file, computed by llama.cpp: prompt ids -> the tokens of a reply.

Imports no torch. Starting llama.cpp is left to `llama_cpp_server`, prompts to `trained_chat`, choosing the file to
`gguf_header`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from gguf_header import SAMPLER_ORDER, ModelFiles
from llama_cpp_server import LlamaCppServer, start_llama_cpp
from reply_stream import ReplyStream
from saved_model_checks import SavedModel
from trained_chat import TrainedChat, count_shared, load_tokenizer

from common.model_folder import Sampling

LARGEST_SEED = 2**32 - 2  # the next one asks llama.cpp for a random seed

# A prompt is read in parts: Ctrl-C acts between two of them.
FIRST_PART_TOKENS, LARGEST_PART_TOKENS = 8, 256  # the first takes a 7B half a second
PART_SECONDS = 0.5


@dataclass(frozen=True)
class LlamaCppModel(TrainedChat):
    """A GGUF file in a running llama.cpp; made by `run_llama_cpp_model`."""

    server: LlamaCppServer
    type_name: str  # of the file: q8_0

    @property
    def computed_on(self) -> str:
        """The engine and the number type."""
        return f"cpu, llama.cpp, {self.type_name}"

    def open_cache(self) -> LlamaCppCache:
        """Return the cache for a conversation; llama.cpp holds one at a time."""
        return LlamaCppCache(self)

    def log_probability(self, prompt_ids: Sequence[int], token_id: int) -> float:
        """Return the log-probability of `token_id` after the prompt."""
        plain_id = self.tokenizer("a", add_special_tokens=False)["input_ids"][-1]
        return self.server.log_probability(prompt_ids, token_id, plain_id)

    def sampling_options(self, sampling: Sampling, num_reply_tokens: int) -> dict[str, Any]:
        """Return what llama.cpp is asked for the token after `num_reply_tokens` of the reply.

        The probabilities are those of transformers' `generate` as `trained_model` calls it.
        """
        has_penalty = sampling.repetition_penalty != 1.0 and num_reply_tokens > 0
        options: dict[str, Any] = {
            "samplers": list(SAMPLER_ORDER),
            "temperature": sampling.temperature if sampling.do_sample else 0.0,
            "top_k": sampling.top_k,
            "top_p": sampling.top_p,
            "min_p": sampling.min_p,
            "repeat_penalty": sampling.repetition_penalty if has_penalty else 1.0,
            "repeat_last_n": num_reply_tokens,  # the last tokens of the prompt are the reply so far
        }
        if num_reply_tokens == 0:
            options["logit_bias"] = [[token_id, False] for token_id in sorted(self.end_ids)]  # no empty reply
        return options


class LlamaCppCache:
    """The conversation that llama.cpp holds; it reuses what a prompt shares with the last one by itself."""

    why_direct: str | None = None

    def __init__(self, model: LlamaCppModel) -> None:
        """Begin with nothing read."""
        self._model = model
        self._part_tokens = FIRST_PART_TOKENS
        self.drop()

    def drop(self) -> None:
        """Empty the cache."""
        self._ids: list[int] = []  # the last prompt and reply; the last token is not read
        self._is_new = True

    def rewind(self, prompt_ids: list[int]) -> int:
        """Return the number of tokens that the last prompt and reply share with `prompt_ids`: they are not read again."""
        return count_shared(self._ids[:-1], prompt_ids)

    def generate(self, prompt_ids: list[int], sampling: Sampling, seed: int, stream: ReplyStream) -> list[int]:
        """Give the reply's tokens to `stream` until it ends; return prompt and reply. `rewind` goes before."""
        num_read = self.rewind(prompt_ids)
        self._ids = []  # until all is well
        ids = list(prompt_ids)
        num_read = self._read(ids, num_read, stream)
        if stream.end_if_stopped():
            self._ids = ids[: num_read + 1]
            return ids
        draws = random.Random(seed)
        for number in range(self._model.reply_room(sampling)):
            options = self._model.sampling_options(sampling, number)
            ids.append(self._model.server.draw_token(ids, seed=draws.randint(0, LARGEST_SEED), **options))
            if stream.take(ids[-1]):
                break
        self._ids = ids
        return ids

    def _read(self, prompt_ids: list[int], num_read: int, stream: ReplyStream) -> int:
        """Read the prompt but its last part, unless the reply is stopped; return how much of it was read."""
        while (len(prompt_ids) - num_read > self._part_tokens or self._is_new) and not stream.end_if_stopped():
            started_at = time.monotonic()
            num_new = min(self._part_tokens, len(prompt_ids) - num_read)
            num_read += num_new
            self._model.server.read(prompt_ids[:num_read], self._is_new)
            self._is_new = False
            rate = num_new / max(time.monotonic() - started_at, 1e-6)
            self._part_tokens = int(min(max(rate * PART_SECONDS, FIRST_PART_TOKENS), LARGEST_PART_TOKENS))
        return num_read


@contextmanager
def run_llama_cpp_model(saved: SavedModel, files: ModelFiles) -> Iterator[LlamaCppModel]:
    """Load the checked folder's GGUF files; raise ScriptError when they or the tokenizer cannot be used."""
    tokenizer, end_ids = load_tokenizer(saved)
    context_tokens = min(saved.settings["max_length"], files.header.max_context_tokens)
    with start_llama_cpp(
        files.model_path, files.adapter_path, context_tokens, is_exact=files.header.is_float32, has_socket=False
    ) as server:
        yield LlamaCppModel(
            tokenizer=tokenizer,
            settings=saved.settings,
            sampling=saved.sampling,
            end_ids=end_ids,
            context_tokens=context_tokens,
            server=server,
            type_name=files.header.type_name,
        )
