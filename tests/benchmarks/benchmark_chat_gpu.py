"""The chat and the report's batches on a card: tokens a second, first tokens, replies a minute, and whether ways agree.

Reads   a folder that stage 2 wrote, with its base
Run     python3 tests/benchmarks/benchmark_chat_gpu.py saved_model
        python3 tests/benchmarks/benchmark_chat_gpu.py saved_model --only agreement,chat,step,first,batches,profile
        Without a card it runs on the processor, which is good for testing it with a tiny model.
Writes  nothing; prints a line of JSON for each measurement, and the end of the traceback of one that failed
"""

from __future__ import annotations

import argparse
import json
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from benchmark_chat import HISTORY_TOKENS, first_token_times
from conversation_cache import GrowingCache, StaticCache
from joint_adapter import join_adapter_products
from live_conversation import Conversation
from saved_model_checks import check_saved_model
from trained_model import TrainedModel, load_trained_model
from turns import take_back_reply
from writing_style.model_replies import BatchGeneration

from common.fused_layers import fuse_norms

REPLY_TOKENS = 128
STEPS = 100
BATCH_ROWS = (16, 32, 64)
BATCH_PROMPT_TOKENS = 200
BATCH_REPLY_TOKENS = 40  # replies of a chat are short
NUM_ALONE = 2  # replies one by one
MARGIN_TOKENS = 200  # of the context: for the lines that are timed
PARTS = ("agreement", "chat", "step", "first", "batches", "profile")
LAYERS = ("library", "joint", "joint, fused norms")  # the second only for a step's time
GREEDY_WALK = ("say", "say", "undo", "say", "regenerate", "edit", "say")


def clock() -> float:
    """Return the time in seconds once the card has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def show(**values: Any) -> None:
    """Print one measurement."""
    print(json.dumps(values, ensure_ascii=False), flush=True)


@contextmanager
def guarded(name: str) -> Iterator[None]:
    """Let one failure print the end of its traceback, and the rest go on."""
    started_at = clock()
    try:
        yield
    except Exception:  # noqa: BLE001 - card time is short: the other measurements count, too
        show(failed=name, traceback=traceback.format_exc().splitlines()[-8:])
    show(part=name, part_seconds=round(time.perf_counter() - started_at, 1))


def measure(saved_model_dir: Path, parts: list[str], context_tokens: int | None = None) -> None:
    """Measure the model in `saved_model_dir`: first with the library's layers, then with fewer kernels."""
    saved = check_saved_model(saved_model_dir)
    started_at = clock()
    with (
        mock.patch("trained_model.join_adapter_products", lambda model, dtype: 0),
        mock.patch("trained_model.fuse_norms", lambda model: 0),
    ):
        trained = load_trained_model(saved, is_merged=True)  # beside 4 bits the adapter stays unmerged
    trained = replace(trained, context_tokens=context_tokens or trained.context_tokens)
    show(
        loaded_seconds=round(clock() - started_at, 1),
        device=str(trained.device),
        card=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        torch=torch.__version__,
        context_tokens=trained.context_tokens,
    )
    library_logits = None
    for products in LAYERS:
        if products == "joint":
            with guarded("joining products"):
                show(layers_joined=join_adapter_products(trained.model, trained.device.dtype))
        if products == "joint, fused norms":
            with guarded("fusing norms"):
                show(norms_fused=fuse_norms(trained.model))
        with guarded(f"logits, {products} products"):
            logits = prompt_logits(trained)
            if library_logits is not None:
                show(products=products, logits_differ_by=round(float(spread_share(logits, library_logits)), 5))
            library_logits = logits
        static = None
        with guarded(f"capture, {products} products"):
            started_at = clock()
            static = StaticCache(trained)
            show(products=products, capture_seconds=round(clock() - started_at, 2), why_direct=static.why_direct)
        if static is None:
            continue
        for part in parts:
            if products == "joint" and part not in ("step", "profile"):
                continue
            with guarded(f"{part}, {products} products"):
                MEASUREMENTS[part](trained, static, products)
        del static
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def prompt_logits(trained: TrainedModel) -> torch.Tensor:
    """Return the logits after each token of one prompt."""
    prompt_ids, _turn_ends = trained.encode_prompt([{"role": "user", "content": "hello, are you coming at five?"}])
    with torch.no_grad():
        output = trained.model(input_ids=torch.tensor([prompt_ids], device=trained.model.device))
    return output.logits[0].float()


def spread_share(found: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    """Return the greatest difference of logits, as a share of their standard deviation."""
    return (found - expected).abs().max() / expected.std()


def measure_agreement(trained: TrainedModel, static: StaticCache, products: str) -> None:
    """Walk through a conversation both ways, greedily; show where the ids differ first and how close the two tokens are."""
    greedy = replace(trained.sampling, do_sample=False, max_new_tokens=24, max_bubbles=100)
    replies: list[list[list[int]]] = []
    for cache in (GrowingCache(trained), static):
        cache.drop()
        ids: list[list[int]] = []
        conversation = Conversation(trained, seed=0, sampling=greedy, cache=cache)
        for number, operation in enumerate(GREEDY_WALK):
            before = len(conversation.messages)
            if operation == "undo":
                conversation.undo()
            elif operation == "regenerate":
                take_back_reply(conversation.messages)
                conversation.answer()
            else:
                if operation == "edit" and before > 1:
                    conversation.messages[0] = {"role": "user", "content": "something else altogether"}
                conversation.add(f"line {number}: hello, what now?")
                conversation.answer()
            ids.append(list(cache._ids))
        replies.append(ids)
    num_same = sum(first == second for first, second in zip(*replies, strict=True))
    show(products=products, walk_steps=len(GREEDY_WALK), walk_steps_equal=num_same)
    if num_same < len(GREEDY_WALK):
        first, second = next(pair for pair in zip(*replies, strict=True) if pair[0] != pair[1])
        place = next(n for n in range(min(len(first), len(second))) if first[n] != second[n])
        pair = [first[place], second[place]]
        margins = []
        static.drop()
        static.decoder.read([first[:place]])
        margins.append(float(static.decoder.logits[0, pair].diff()))
        with torch.no_grad():
            output = trained.model(
                input_ids=torch.tensor([first[:place]], device=trained.model.device), logits_to_keep=1
            )
        margins.append(float(output.logits[0, -1, pair].float().diff()))
        show(
            first_difference_at=place,
            ids=pair,
            margin_static=round(margins[0], 4),
            margin_one_pass=round(margins[1], 4),
            logits_spread=round(float(output.logits.float().std()), 4),
            logits_differ_by=round(float(spread_share(static.decoder.logits[0], output.logits[0, -1].float())), 5),
        )
    # Captured and direct steps must agree to the last bit, or nearly: they are the same kernels.
    prompt_ids, _turn_ends = trained.encode_prompt([{"role": "user", "content": "hello"}])
    decoder, found = static.decoder, []
    for why_direct in (decoder.why_direct, "to compare"):
        before, decoder.why_direct = decoder.why_direct, why_direct
        decoder.rewind(0)
        decoder.read([prompt_ids])
        for _step in range(4):
            decoder.step(decoder.logits.argmax(-1))
        found.append(decoder.logits.clone())
        decoder.why_direct = before
    show(products=products, captured_and_direct_differ_by=float(spread_share(*found)))


def measure_chat(trained: TrainedModel, static: StaticCache, products: str) -> None:
    """Show the tokens a second of one reply as the chat draws it, today's way and captured."""
    chat_rate(trained, static, REPLY_TOKENS // 4)  # captures what is new
    show(products=products, way="captured", chat_tokens_per_second=round(chat_rate(trained, static, REPLY_TOKENS), 1))
    library = chat_rate(trained, GrowingCache(trained), REPLY_TOKENS // 4)  # few: a token takes 0.1 s
    show(products=products, way="library", chat_tokens_per_second=round(library, 1))
    with trained.model.disable_adapter():
        chat_rate(trained, static, REPLY_TOKENS // 4)
        show(
            way="captured, without the adapter",
            chat_tokens_per_second=round(chat_rate(trained, static, REPLY_TOKENS), 1),
        )


def chat_rate(trained: TrainedModel, cache: GrowingCache | StaticCache, max_new_tokens: int) -> float:
    """Return the tokens a second of the longest of three replies, its first token not counted."""
    sampling = replace(trained.sampling, do_sample=True, max_new_tokens=max_new_tokens, max_bubbles=100)
    replies = []
    for seed in range(3):
        cache.drop()
        conversation = Conversation(trained, seed=100 * seed, sampling=sampling, cache=cache)
        conversation.add("hello")
        replies.append(conversation.answer())
    reply = max(replies, key=lambda reply: reply.num_new_tokens)
    return (reply.num_new_tokens - 1) / max(reply.seconds - reply.first_token_seconds, 1e-9)


def measure_step(trained: TrainedModel, static: StaticCache, products: str) -> None:
    """Show the milliseconds of a step at several lengths: of a replay alone, and of what else a token takes."""
    decoder = static.decoder
    tokens = torch.zeros(1, dtype=torch.long, device=decoder.logits.device)
    for num_tokens in (100, 1_000, 1_900, 3_900):
        if num_tokens + STEPS > decoder.max_tokens:
            continue
        static.drop()
        decoder.read([[5] * num_tokens])
        started_at = clock()
        decoder.step(tokens)
        first = clock() - started_at  # with the capture, if this number of places is new
        started_at = clock()
        for _step in range(STEPS - 1):
            decoder.step(tokens)
        show(
            products=products,
            history_tokens=num_tokens,
            step_ms=round(1000 * (clock() - started_at) / (STEPS - 1), 2),
            first_step_seconds=round(first, 2),
            direct=decoder.why_direct,
        )


def measure_first_tokens(trained: TrainedModel, static: StaticCache, products: str) -> None:
    """Show the seconds to the first token after histories of several lengths."""
    caches = {"captured": static} if products == "library" else {"captured": static, "library": GrowingCache(trained)}
    for name, cache in caches.items():
        for num_tokens in HISTORY_TOKENS:
            if num_tokens > trained.context_tokens - MARGIN_TOKENS:
                continue
            with mock.patch("live_conversation.open_cache", lambda _trained, cache=cache: cache):
                cache.drop()
                first_token_times(trained, num_tokens, True, clock)  # captures what is new
                reading, reusing = (
                    min(first_token_times(trained, num_tokens, is_reusing, clock)) for is_reusing in (False, True)
                )
            show(
                products=products,
                way=name,
                history_tokens=num_tokens,
                reread_seconds=round(reading, 4),
                reuse_seconds=round(reusing, 4),
            )


def measure_batches(trained: TrainedModel, _static: StaticCache, products: str) -> None:
    """Show the replies a minute one by one and in batches; replies of 40 tokens to prompts of 200."""
    # No reply ends by itself, so that all ways write the same number of tokens.
    endless = replace(trained, end_ids=frozenset({max(trained.end_ids)}))
    sampling = replace(trained.sampling, do_sample=True, max_new_tokens=BATCH_REPLY_TOKENS, max_bubbles=100)
    prompt = ([5, 6, 7, 8, 9] * BATCH_PROMPT_TOKENS)[:BATCH_PROMPT_TOKENS]
    ways = [("library", 1)] if products == "library" else [("captured", 1), ("library", 16)]
    ways += [("captured", rows) for rows in (BATCH_ROWS if products == LAYERS[-1] else BATCH_ROWS[-1:])]
    for way, num_rows in ways:
        with guarded(f"batches of {num_rows}, {way}"):
            generation = BatchGeneration(endless, is_static=way == "captured")
            prompts = [[*prompt[row % 20 :]] for row in range(num_rows)]
            started_at = clock()
            if way == "captured":
                generation.generate(prompts, sampling, seed=0)
            first = clock() - started_at
            num_batches = NUM_ALONE if num_rows == 1 else 2
            started_at = clock()
            for seed in range(num_batches):
                generation.generate(prompts, sampling, seed)
            seconds = clock() - started_at
            show(
                products=products,
                way=way,
                rows=num_rows,
                replies_per_minute=round(60 * num_rows * num_batches / seconds, 1),
                first_batch_seconds=round(first, 2),
                is_static=generation._is_static,
                direct=generation._decoder.why_direct if generation._decoder else None,
            )


def measure_profile(trained: TrainedModel, static: StaticCache, products: str) -> None:
    """Show which kernels a step takes: name, number and milliseconds a step, the costliest first."""
    decoder = static.decoder
    static.drop()
    decoder.read([[5] * min(400, decoder.max_tokens // 2)])
    tokens = torch.zeros(1, dtype=torch.long, device=decoder.logits.device)
    decoder.step(tokens)
    activities = [torch.profiler.ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities = [torch.profiler.ProfilerActivity.CUDA]
    num_steps = 5
    with torch.profiler.profile(activities=activities) as profile:
        for _step in range(num_steps):
            decoder.step(tokens)
        clock()
    rows = [
        (event.key[:70], event.count / num_steps, event.self_device_time_total / 1000 / num_steps)
        for event in profile.key_averages()
    ]
    rows.sort(key=lambda row: -row[2])
    show(
        products=products,
        kernels_per_step=round(sum(row[1] for row in rows)),
        busy_ms_per_step=round(sum(row[2] for row in rows), 2),
        costliest=[[name, round(count, 1), round(ms, 3)] for name, count, ms in rows[:14]],
    )


MEASUREMENTS: dict[str, Callable[[TrainedModel, StaticCache, str], None]] = dict(
    zip(
        PARTS,
        (measure_agreement, measure_chat, measure_step, measure_first_tokens, measure_batches, measure_profile),
        strict=True,
    )
)


def main() -> None:
    """Print the measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("saved_model_dir", type=Path)
    parser.add_argument("--only", default=",".join(PARTS), metavar="PARTS", help="of %(default)s")
    parser.add_argument("--context-tokens", type=int, metavar="N", help="default: the length it was trained at")
    options = parser.parse_args()
    parts = [part for part in options.only.split(",") if part]
    if set(parts) - set(PARTS):
        parser.error(f"--only: parts are {', '.join(PARTS)}")
    measure(options.saved_model_dir, parts, options.context_tokens)


if __name__ == "__main__":
    main()
