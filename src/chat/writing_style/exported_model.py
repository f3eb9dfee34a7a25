"""The exported model (a GGUF file in llama.cpp) on the held-out exchanges: its replies, its bits, what exporting costs.

Its replies and bits take the place of the tuned model's. The unquantised adapter in transformers is the reference.
Starting llama.cpp is left to `llama_cpp_model`, the base model's part to `model_replies`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from llama_cpp_model import LlamaCppModel

from common.model_folder import Sampling
from writing_style.held_out_replies import Exchange
from writing_style.model_replies import SampledReply, ScoredReply, encode_exchange
from writing_style.resampling import interval_of, resample


def generate_exported(
    exported: LlamaCppModel, prompts: Sequence[Sequence[int]], sampling: Sampling, seed: int
) -> list[SampledReply]:
    """Return one reply to each prompt, drawn as the chat does; the same prompts and seed give the same replies."""
    cache = exported.open_cache()
    replies = []
    for number, prompt in enumerate(prompts):
        stream = exported.new_stream(len(prompt), sampling)
        cache.generate(list(prompt), sampling, seed + number, stream)
        stream.finish("limit")
        replies.append(SampledReply("\n".join(stream.bubbles), str(stream.ending)))
    return replies


def score_exported(
    exported: LlamaCppModel,
    exchanges: Sequence[Exchange],
    scored: Sequence[ScoredReply],
    show_progress: Callable[[int], None] = lambda num_replies: None,
) -> list[ScoredReply]:
    """Return `scored`, the bits of `exchanges`, with the exported model's bits as the tuned ones."""
    results = []
    for exchange, reply in zip(exchanges, scored, strict=True):
        ids, num_scored = encode_exchange(exported.tokenizer, exchange, exported.context_tokens)
        nats = -sum(
            exported.log_probability(ids[:place], ids[place]) for place in range(len(ids) - num_scored, len(ids))
        )
        results.append(replace(reply, tuned_bits=nats / math.log(2)))
        show_progress(1)
    return results


def measure_cost(
    exported: LlamaCppModel, unquantised: Sequence[ScoredReply], scored: Sequence[ScoredReply], seed: int
) -> dict[str, Any]:
    """Return the bits per character of the real replies under both models, and the difference with its interval."""
    resamples = resample((reply.conversation for reply in scored), seed)
    totals = resamples.total(
        (before.conversation, (before.tuned_bits, after.tuned_bits, before.num_chars))
        for before, after in zip(unquantised, scored, strict=True)
    )
    before, after = totals[:, 0] / totals[:, 2], totals[:, 1] / totals[:, 2]
    return {
        "engine": exported.computed_on,
        "unquantised": interval_of(before)._asdict(),
        "exported": interval_of(after)._asdict(),
        "difference": interval_of(after - before)._asdict(),
    }
