"""The keys and values of a conversation, cut back to what the next prompt shares with them, and replies from there.

Two kinds with the same methods: `StaticCache` replays captured steps on a CUDA card, `GrowingCache` works everywhere by
the library's own `generate`. The messages are left to `live_conversation`.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from reply_stream import ReplyStream
from static_decoding import NotStatic, StaticDecoder, generate_tokens
from trained_chat import count_shared
from trained_model import TrainedModel
from transformers import DynamicCache
from transformers.cache_utils import LinearAttentionCacheLayerMixin

from common.model_folder import Sampling


def open_cache(trained: TrainedModel) -> GrowingCache | StaticCache:
    """Return an empty cache, the fastest that this device and this base allow."""
    if trained.device.kind != "cuda" or not can_be_cut(trained.model):
        return GrowingCache(trained)
    try:
        cache = StaticCache(trained)
    except (NotStatic, RuntimeError) as error:  # torch raises RuntimeError also when there is no memory
        return GrowingCache(trained, str(error).split("\n")[0])
    return cache if cache.why_direct is None else GrowingCache(trained, cache.why_direct)


def can_be_cut(model: Any) -> bool:
    """Return whether what `model` keeps of a text is keys and values of each token, which can be cut back to any length.

    Recurrent layers and convolutions (Mamba, LFM2, RWKV) keep one state, which already holds the last token.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    takes_cache = "past_key_values" in inspect.signature(base.forward).parameters
    if not takes_cache or getattr(base, "_is_stateful", False):
        return False
    layers = DynamicCache(config=base.config.get_text_config()).layers
    return not any(isinstance(layer, LinearAttentionCacheLayerMixin) for layer in layers)


class GrowingCache:
    """A cache that grows by each token, and the library's `generate`."""

    def __init__(self, trained: TrainedModel, why_direct: str | None = None) -> None:
        """`why_direct`: why steps are not captured on a device that could do it."""
        self._trained = trained
        self.why_direct = why_direct
        self._can_be_cut = can_be_cut(trained.model)
        self.drop()

    def drop(self) -> None:
        """Empty the cache."""
        # A plain cache, also for models with a sliding window: it can be cut back to any length. Without one, the library
        # makes its own for each reply.
        self._cache = DynamicCache() if self._can_be_cut else None
        self._ids: list[int] = []  # the last prompt and reply; the cache does not hold the last token

    def rewind(self, prompt_ids: list[int]) -> int:
        """Cut the cache back to what it shares with `prompt_ids`; return the number of shared tokens."""
        if self._cache is None:
            return 0
        num_cached = self._cache.get_seq_length()
        num_shared = count_shared(self._ids[:num_cached], prompt_ids)
        if num_shared == 0:
            self.drop()
        elif num_cached > num_shared:
            self._cache.crop(num_shared - num_cached)  # negative: how many to remove
        return num_shared

    def generate(self, prompt_ids: list[int], sampling: Sampling, seed: int, stream: ReplyStream) -> list[int]:
        """Give the reply's tokens to `stream` until it ends; return prompt and reply. `rewind` goes before."""
        self._ids = []  # interrupted within a step, the layers' caches may differ in length: nothing is reused
        own_cache: dict[str, Any] = {} if self._cache is None else {"past_key_values": self._cache}
        output = self._trained.generate(
            torch.tensor([prompt_ids], device=self._trained.model.device),
            sampling,
            seed,
            stopping_criteria=[stream],
            **own_cache,
        )
        self._ids = output[0].tolist()
        return self._ids


class StaticCache:
    """A cache of the context's length at fixed addresses, and captured steps."""

    def __init__(self, trained: TrainedModel) -> None:
        """Take the memory and capture the first step; raise as `StaticDecoder` does."""
        self._trained = trained
        self.decoder = StaticDecoder(trained.model, 1, trained.context_tokens)
        self._ids: list[int] = []

    @property
    def why_direct(self) -> str | None:
        """Why steps are not captured, or None if they are."""
        return self.decoder.why_direct

    def drop(self) -> None:
        """Empty the cache."""
        self._ids = []
        self.decoder.rewind(0)

    def rewind(self, prompt_ids: list[int]) -> int:
        """Cut the cache back to what it shares with `prompt_ids`; return the number of shared tokens."""
        num_shared = count_shared(self._ids[: self.decoder.num_tokens], prompt_ids)
        self.decoder.rewind(num_shared)
        return num_shared

    def generate(self, prompt_ids: list[int], sampling: Sampling, seed: int, stream: ReplyStream) -> list[int]:
        """Give the reply's tokens to `stream` until it ends; return prompt and reply. `rewind` goes before."""
        self._ids = []
        torch.manual_seed(seed)
        self.decoder.read([prompt_ids[self.decoder.num_tokens :]])
        ids = list(prompt_ids)

        def take(tokens: list[int]) -> bool:
            ids.extend(tokens)
            return stream.take(tokens[0])

        with torch.no_grad():
            generate_tokens(self.decoder, sampling, self._trained.end_ids, self._trained.reply_room(sampling), take)
        self._ids = ids
        return ids
