"""The chat on a CUDA card: its first token as a conversation grows, its tokens a second, and bare `generate` beside it.

Reads   a folder that stage 2 wrote, with its base
Run     python3 tests/benchmarks/benchmark_chat_gpu.py saved_model
        python3 tests/benchmarks/benchmark_chat_gpu.py saved_model --variants   (also a static cache, and 16 bits)
        Without a card it runs on the processor, which is good for testing it with a tiny model.
Writes  nothing; prints a line of JSON for each measurement
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from benchmark_chat import HISTORY_TOKENS, first_token_times
from live_conversation import Conversation
from saved_model_checks import SavedModel, check_saved_model
from trained_model import TrainedModel, load_trained_model
from transformers import AutoModelForCausalLM, GenerationConfig

REPLY_TOKENS = 128
BARE_TOKENS = 64
WARM_UP_TOKENS = 8
MARGIN_TOKENS = 200  # of the context: for the lines that are timed


def clock() -> float:
    """Return the time in seconds once the card has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def measure(saved_model_dir: Path, has_variants: bool, show: Callable[[dict[str, Any]], None]) -> None:
    """Measure the model in `saved_model_dir` and give each result to `show`."""
    saved = check_saved_model(saved_model_dir)
    started_at = clock()
    trained = load_trained_model(saved, is_merged=True)  # beside 4 bits the adapter stays unmerged
    seconds = clock() - started_at
    show({"loaded_seconds": round(seconds, 1), "device": str(trained.device), "context_tokens": trained.context_tokens})
    for num_tokens in HISTORY_TOKENS:
        if num_tokens <= trained.context_tokens - MARGIN_TOKENS:
            rereading, reusing = (
                min(first_token_times(trained, num_tokens, is_reusing, clock)) for is_reusing in (False, True)
            )
            show(
                {
                    "history_tokens": num_tokens,
                    "reread_seconds": round(rereading, 4),
                    "reuse_seconds": round(reusing, 4),
                }
            )
    chat_rate(trained, REPLY_TOKENS // 2)  # warms up
    show({"chat_tokens_per_second": round(chat_rate(trained, REPLY_TOKENS), 1)})
    show({"bare_generate": round(bare_rate(trained.model, trained), 1)})
    with trained.model.disable_adapter():
        show({"bare_generate_without_adapter": round(bare_rate(trained.model, trained), 1)})
    if has_variants:
        measure_variants(saved, trained, show)


def chat_rate(trained: TrainedModel, max_new_tokens: int) -> float:
    """Return the tokens a second of one reply, as the chat draws it."""
    sampling = replace(trained.sampling, do_sample=True, max_new_tokens=max_new_tokens, max_bubbles=100)
    conversation = Conversation(trained, seed=0, sampling=sampling)
    started_at = clock()
    reply = conversation.say("hello")
    return reply.num_new_tokens / (clock() - started_at)


def bare_rate(model: Any, trained: TrainedModel, num_tokens: int = BARE_TOKENS, **options: Any) -> float:
    """Return the tokens a second of the library's `generate` alone, on the same prompt."""
    prompt_ids, _turn_ends = trained.encode_prompt([{"role": "user", "content": "hello"}])
    input_ids = torch.tensor([prompt_ids], device=model.device)

    def generate(number: int) -> None:
        config = GenerationConfig(
            do_sample=False, max_new_tokens=number, min_new_tokens=number, pad_token_id=0, **options
        )
        model.generate(input_ids=input_ids, attention_mask=torch.ones_like(input_ids), generation_config=config)

    generate(WARM_UP_TOKENS)
    started_at = clock()
    generate(num_tokens)
    return num_tokens / (clock() - started_at)


def measure_variants(saved: SavedModel, trained: TrainedModel, show: Callable[[dict[str, Any]], None]) -> None:
    """Measure `generate` with a static cache, and the bare base in 16 bits instead of 4."""
    static = {"num_tokens": REPLY_TOKENS, "cache_implementation": "static"}
    show({"static_cache": round(bare_rate(trained.model, trained, **static), 1)})
    trained.model.to("cpu")  # two bases need not fit on the card
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    base = AutoModelForCausalLM.from_pretrained(
        saved.base_dir, dtype=torch.bfloat16, device_map={"": trained.device.name}, attn_implementation="sdpa"
    ).eval()
    show({"base_in_16_bits": round(bare_rate(base, trained), 1)})
    show({"base_in_16_bits_static_cache": round(bare_rate(base, trained, **static), 1)})


def main() -> None:
    """Print the measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("saved_model_dir", type=Path)
    parser.add_argument("--variants", action="store_true", help="also a static cache, and the base in 16 bits")
    options = parser.parse_args()
    measure(options.saved_model_dir, options.variants, lambda result: print(json.dumps(result), flush=True))


if __name__ == "__main__":
    main()
