"""How long the chat takes for its first token as a conversation grows, and what streaming costs.

Reads   nothing. Builds a random MistralForCausalLM of 155 M parameters (hidden 1,024, 9 layers, vocabulary 16,001)
Writes  nothing; prints the tables that stand in RESULTS.md
Run     OMP_NUM_THREADS=1 python3 tests/benchmarks/benchmark_chat.py
Takes   some minutes and 3 GB of memory; times are seconds of the processor, so that other programs hardly matter
"""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

PROJECT_ROOT = Path(__file__).resolve().parents[2]
for folder in ("src", "src/chat", "src/demo", "tests", "tests/benchmarks"):
    sys.path.insert(0, str(PROJECT_ROOT / folder))

import make_small_base  # noqa: E402
import torch  # noqa: E402
from live_conversation import Conversation  # noqa: E402
from saved_model_checks import check_saved_model  # noqa: E402
from timed_conversation import HISTORY_TOKENS, REPEATS, first_token_times  # noqa: E402
from tiny_saved_model import write_saved_model  # noqa: E402
from trained_model import TrainedModel, load_trained_model  # noqa: E402
from transformers import DynamicCache, GenerationConfig, MistralConfig, MistralForCausalLM  # noqa: E402

DECODED_TOKENS = 64
VOCAB_SIZE = 16_001


def main() -> None:
    """Print the tables."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        trained = build_model(Path(folder))
    print("| history, tokens | reading everything again, s | the chat, s | ratio |\n|---|---|---|---|")
    for num_tokens in HISTORY_TOKENS:
        rereading, reusing = (min(first_token_times(trained, num_tokens, is_reusing)) for is_reusing in (False, True))
        print(f"| {num_tokens:,} | {rereading:.3f} | {reusing:.3f} | {rereading / reusing:.1f} |", flush=True)
    bare, chat = decode_rates(trained)
    print(f"\nDecoding: bare generate {bare:.2f}, the chat {chat:.2f} tokens a second: {chat / bare:.3f} of it.")


def build_model(folder: Path) -> TrainedModel:
    """Return the random model with a random adapter, merged as the chat does it on a processor."""
    saved_dir = write_random_model(folder)
    return load_trained_model(check_saved_model(saved_dir), device="cpu", dtype="float32", is_merged=True)


def write_random_model(folder: Path) -> Path:
    """Write base and trained folder into `folder`; return the trained one."""
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=1024,
        intermediate_size=3584,
        num_hidden_layers=9,
        num_attention_heads=16,
        num_key_value_heads=4,
        max_position_embeddings=8192,
        sliding_window=None,
    )
    MistralForCausalLM(config).save_pretrained(folder / "base")
    make_small_base.make_tokenizer(make_small_base.neutral_texts(100, seed=0), 512).save_pretrained(folder / "base")
    return write_saved_model(folder / "saved", folder / "base", max_length=4096)


def decode_rates(trained: TrainedModel) -> tuple[float, float]:
    """Return tokens a second of bare `generate` and of the chat, on the same prompt, alternating."""
    sampling = replace(trained.sampling, do_sample=False, max_new_tokens=DECODED_TOKENS, max_bubbles=100)
    messages = [{"role": "user", "content": "hello"}]
    prompt_ids, _turn_ends = trained.encode_prompt(messages)
    input_ids = torch.tensor([prompt_ids])
    greedy = GenerationConfig(
        do_sample=False,
        max_new_tokens=DECODED_TOKENS,
        min_new_tokens=1,
        eos_token_id=sorted(trained.end_ids),
        pad_token_id=0,
    )
    bare_rates, chat_rates = [], []
    for _repeat in range(REPEATS):
        started_at = time.process_time()
        output = trained.model.generate(
            input_ids=input_ids,
            attention_mask=torch.ones_like(input_ids),
            past_key_values=DynamicCache(),
            generation_config=greedy,
        )
        bare_rates.append((output.shape[1] - input_ids.shape[1]) / (time.process_time() - started_at))
        conversation = Conversation(trained, seed=0, sampling=sampling)
        started_at = time.process_time()
        conversation.add("hello")
        reply = conversation.answer(on_text=lambda text: sys.stderr.write(text))
        chat_rates.append(reply.num_new_tokens / (time.process_time() - started_at))
    return max(bare_rates), max(chat_rates)


if __name__ == "__main__":
    main()
