"""One epoch of fine-tuning on WhatsApp-like lengths: ours against the published recipe, a padding Trainer and TRL.

Every way of training ("arm") runs in its own process and on one thread, with the same model (hidden 256, 4 layers, random
weights), the same conversations and the same number of tokens per step. Measured: real tokens (without padding) per second
of CPU time, growth of the peak memory, and the loss on held-out replies afterwards. The published recipe is slow, so it
trains a fixed number of rows only; its rate is per token, too. Each arm runs once per round; the medians are printed.

Arms keep their activations unless they say gradient checkpointing: the published recipe used it, and ours does where
memory is short.

Run     python3 tests/benchmarks/benchmark_training.py    (prints the table of RESULTS.md; about 45 minutes)
        A CUDA card is measured by benchmark_training_gpu.py.
Needs   tests/benchmarks/requirements.txt
"""

# ruff: noqa: E402  the environment is prepared before any model library is imported
from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
SRC_DIR = Path(__file__).resolve().parents[2] / "src"
sys.path[:0] = [str(SRC_DIR / "training"), str(SRC_DIR)]

from common.base_model_files import prepare_environment, work_offline

prepare_environment()
work_offline()

import torch
from datasets import Dataset
from head_loss import compute_loss_in_blocks
from packed_attention import SEGMENT_ATTENTION, register_segment_attention
from packing import PackedRows, collate_row, plan_schedule
from peft import LoraConfig, get_peft_model
from published_recipe import BATCHES_PER_STEP, DROPOUT, PaddedCollator, plan_padded_schedule
from qlora_model import enable_gradient_checkpointing
from transformers import AutoModelForCausalLM, MistralConfig, Trainer, TrainingArguments, set_seed

# Of an epoch, by size of the vocabulary. The first steps are slow; with fewer they would count more than in a real epoch.
NUM_CONVERSATIONS = {4_096: 512, 64_001: 192}
PUBLISHED_ROWS = 8  # one step of the slow arm; all its padded rows cost the same
NUM_HELD_OUT = 40
STEP_TOKENS = 1_024  # about the same for every arm: 8 rows of about 128 tokens, or one packed row
ROWS_PER_STEP = 8
ROUNDS = 3
LEARNING_RATE = 1e-3  # for every arm; high enough for a random model to learn
SEED = 0
SEVEN_PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]

ARMS = {
    "published": "(a) published recipe: rows padded to 2,000, every token's loss, dropout .07, LoRA on the head",
    "published_checkpointing": "(a) the same, gradient checkpointing",
    "padded": "(b) Trainer, padded to the longest of 8 rows",
    "trl": "(c) TRL SFTTrainer, packing",
    "ours": "(d) ours",
    "ours_head": "(d) ours, LoRA on the head as in (a)",
    "ours_checkpointing": "(d) the same, gradient checkpointing",
}


def make_conversations(vocab_size: int, number: int, seed: int) -> list[dict[str, list]]:
    """Make conversations of 2 to 12 turns and about 100 tokens, a third of them the imitated person's.

    Token ids follow Zipf's law, in a range of its own for each speaker, so that there is something to learn.
    """
    rng = random.Random(seed)
    conversations = []
    for _ in range(number):
        length = min(1_000, max(16, round(rng.lognormvariate(4.45, 0.65))))  # then the turn is finished
        input_ids, is_supervised = [1], [False]
        while len(input_ids) < length:
            for is_reply in (False, True):
                for _ in range(max(2, round(rng.expovariate(1 / (8 if is_reply else 16))))):
                    rank = min(vocab_size // 4 - 1, int(rng.paretovariate(0.6)))
                    input_ids.append(3 + rank + (vocab_size // 2 if is_reply else 0))
                    is_supervised.append(is_reply)
                input_ids.append(2)
                is_supervised.append(is_reply)
        conversations.append({"input_ids": input_ids, "is_supervised": is_supervised})
    return conversations


def make_model(vocab_size: int, has_head: bool, dropout: float = 0.0, attention: str = "sdpa"):
    set_seed(SEED)
    config = MistralConfig(
        vocab_size=vocab_size,
        hidden_size=256,
        intermediate_size=896,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        use_cache=False,
    )
    base = AutoModelForCausalLM.from_config(config, attn_implementation=attention)
    if attention == SEGMENT_ATTENTION:
        compute_loss_in_blocks(base)
    return base if dropout is None else put_lora_on(base, has_head, dropout)


def lora_config(has_head: bool, dropout: float) -> LoraConfig:
    targets = SEVEN_PROJECTIONS + ["lm_head"] * has_head
    return LoraConfig(r=32, lora_alpha=64, lora_dropout=dropout, target_modules=targets, task_type="CAUSAL_LM")


def put_lora_on(base, has_head: bool, dropout: float):
    set_seed(SEED)
    return get_peft_model(base, lora_config(has_head, dropout))


def common_arguments(folder: str) -> dict:
    return {
        "output_dir": folder,
        "num_train_epochs": 1,
        "learning_rate": LEARNING_RATE,
        "use_cpu": not torch.cuda.is_available(),
        "bf16": torch.cuda.is_available(),
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "seed": SEED,
        "optim": "paged_adamw_8bit" if torch.cuda.is_available() else "adamw_torch_fused",
    }


def published_trainer(model, conversations, folder):
    schedule = plan_padded_schedule(len(conversations), 1, SEED)
    arguments = TrainingArguments(
        **common_arguments(folder),
        per_device_train_batch_size=1,
        gradient_accumulation_steps=BATCHES_PER_STEP,
        remove_unused_columns=False,
    )
    return Trainer(
        model=model,
        args=arguments,
        train_dataset=PackedRows(learn_every_token(conversations), schedule.rows),
        data_collator=PaddedCollator(pad_token_id=0),
    )


def learn_every_token(rows):
    return [row | {"is_supervised": [False] + [True] * (len(row["input_ids"]) - 1)} for row in rows]


def pad_to_longest(rows):
    longest = max(len(row["input_ids"]) for row in rows)
    batch = {
        "input_ids": torch.zeros(len(rows), longest, dtype=torch.long),
        "attention_mask": torch.zeros(len(rows), longest, dtype=torch.long),
        "labels": torch.full((len(rows), longest), -100),
    }
    for place, row in enumerate(rows):
        ids, length = torch.tensor(row["input_ids"]), len(row["input_ids"])
        batch["input_ids"][place, :length] = ids
        batch["attention_mask"][place, :length] = 1
        batch["labels"][place, :length] = ids.masked_fill(~torch.tensor(row["is_supervised"]), -100)
    return batch


def padded_trainer(model, conversations, folder):
    arguments = TrainingArguments(
        **common_arguments(folder), per_device_train_batch_size=ROWS_PER_STEP, remove_unused_columns=False
    )
    return Trainer(model=model, args=arguments, train_dataset=conversations, data_collator=pad_to_longest)


def trl_trainer(model, conversations, folder, row_tokens=STEP_TOKENS, use_liger_kernel=False):
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast
    from trl import SFTConfig, SFTTrainer

    words = {"<pad>": 0, "<s>": 1, "</s>": 2}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, "<pad>")), pad_token="<pad>", eos_token="</s>"
    )
    rows = [
        {"input_ids": row["input_ids"], "assistant_masks": [int(wanted) for wanted in row["is_supervised"]]}
        for row in conversations
    ]
    arguments = SFTConfig(
        **common_arguments(folder),
        per_device_train_batch_size=1,
        max_length=row_tokens,
        packing=True,
        gradient_checkpointing=False,  # the caller decides
        use_liger_kernel=use_liger_kernel,
    )
    # The column assistant_masks stands for assistant_only_loss, which wants messages instead of ids.
    trainer = SFTTrainer(model=model, args=arguments, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)
    num_labels = sum(label != -100 for row in trainer.train_dataset["labels"] for label in row)
    assert num_labels == sum(sum(row["is_supervised"]) for row in conversations), "TRL learns from other tokens"
    return trainer


def our_trainer(model, conversations, folder, row_tokens=STEP_TOKENS, **arguments):
    lengths = [len(row["input_ids"]) for row in conversations]
    schedule = plan_schedule(lengths, num_epochs=1, row_tokens=row_tokens, rows_per_step=1, seed=SEED)
    settings = common_arguments(folder) | arguments
    arguments = TrainingArguments(**settings, per_device_train_batch_size=1, remove_unused_columns=False)
    return Trainer(
        model=model,
        args=arguments,
        train_dataset=PackedRows(conversations, schedule.rows),
        data_collator=collate_row,
    )


TRAINERS = {
    "published": published_trainer,
    "published_checkpointing": published_trainer,
    "padded": padded_trainer,
    "trl": trl_trainer,
    "ours": our_trainer,
    "ours_head": our_trainer,
    "ours_checkpointing": our_trainer,
}


def run_arm(arm: str, vocab_size: int) -> dict:
    """Train one arm in this process and return the measurements."""
    torch.set_num_threads(1)
    register_segment_attention()
    conversations = make_conversations(vocab_size, NUM_CONVERSATIONS[vocab_size], SEED)
    tokens_per_row = statistics.mean(len(row["input_ids"]) for row in conversations)
    is_ours, is_published = arm.startswith("ours"), arm.startswith("published")
    if is_published:
        conversations = conversations[:PUBLISHED_ROWS]
    model = make_model(
        vocab_size,
        has_head=arm not in ("padded", "trl", "ours"),
        dropout=DROPOUT if is_published else 0.0,
        attention=SEGMENT_ATTENTION if is_ours else "sdpa",
    )
    if arm.endswith("checkpointing"):
        enable_gradient_checkpointing(model)
    with tempfile.TemporaryDirectory() as folder:
        trainer = TRAINERS[arm](model, conversations, folder)
        before_bytes = forget_peak_memory()
        started_at, cpu_started_at = time.perf_counter(), time.process_time()
        trainer.train()
        cpu_seconds = time.process_time() - cpu_started_at
        result = {
            "arm": arm,
            "vocab_size": vocab_size,
            "rows": len(conversations),
            "steps": trainer.state.global_step,
            "cpu_seconds": cpu_seconds,
            "wall_seconds": time.perf_counter() - started_at,
            "peak_growth_mib": (peak_memory_bytes() - before_bytes) / 2**20,
        }
    result["tokens_per_cpu_second"] = tokens_per_row * len(conversations) / cpu_seconds
    result["held_out_loss"] = held_out_loss(model, vocab_size)
    return result


def forget_peak_memory() -> int:
    """Reset the kernel's peak memory of this process; return its memory now."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status_bytes("VmRSS")


def peak_memory_bytes() -> int:
    return _status_bytes("VmHWM")


def _status_bytes(name: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


def held_out_loss(model, vocab_size: int) -> float:
    """Return the mean loss of the supervised tokens of other conversations, each alone in plain attention."""
    base = model.get_base_model()
    base.set_attn_implementation("sdpa")
    model.eval()
    total, number = 0.0, 0
    with torch.no_grad():
        for row in make_conversations(vocab_size, NUM_HELD_OUT, SEED + 1):
            batch = {name: tensor.to(model.device) for name, tensor in pad_to_longest([row]).items()}
            num_supervised = sum(row["is_supervised"])
            total += model(**batch).loss.item() * num_supervised
            number += num_supervised
    return total / number


def objective_difference(vocab_size: int = 4_096) -> float:
    """Return the difference between the published loss and ours, both on every token of the same 8 conversations."""
    register_segment_attention()
    model = make_model(vocab_size, has_head=True).eval()
    rows = learn_every_token(make_conversations(vocab_size, ROWS_PER_STEP, SEED))
    with torch.no_grad():
        published = model(**PaddedCollator(pad_token_id=0)([rows])).loss
        model.get_base_model().set_attn_implementation(SEGMENT_ATTENTION)
        compute_loss_in_blocks(model.get_base_model())
        ours = model(**collate_row([rows])).loss
    return abs(published.item() - ours.item())


def run_all(only_vocab: int | None) -> None:
    print(f"Difference of the published loss and ours on every token of the same rows: {objective_difference():.1e}\n")
    for vocab_size in NUM_CONVERSATIONS if only_vocab is None else (only_vocab,):
        print(describe_conversations(vocab_size), flush=True)
        measured: dict[str, list[dict]] = {arm: [] for arm in ARMS}
        for arm in list(ARMS) * ROUNDS:
            command = [sys.executable, __file__, "--arm", arm, "--vocab", str(vocab_size)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                sys.exit(f"{arm}: failed\n{done.stderr[-3000:]}")
            measured[arm].append(json.loads(done.stdout.splitlines()[-1]))
            print(done.stdout.splitlines()[-1], file=sys.stderr, flush=True)
        print_table(vocab_size, {arm: take_medians(rounds) for arm, rounds in measured.items()})


def take_medians(rounds: list[dict]) -> dict:
    """Return the medians of the timed figures; the others are the same in every round."""
    timed = ("tokens_per_cpu_second", "peak_growth_mib")
    return rounds[0] | {name: statistics.median(one[name] for one in rounds) for name in timed}


def describe_conversations(vocab_size: int) -> str:
    rows = make_conversations(vocab_size, NUM_CONVERSATIONS[vocab_size], SEED)
    lengths = [len(row["input_ids"]) for row in rows]
    share = sum(sum(row["is_supervised"]) for row in rows) / sum(lengths)
    return (
        f"Vocabulary {vocab_size:,}: {len(rows)} conversations, {statistics.median(lengths):.0f} tokens in the median, "
        f"{statistics.mean(lengths):.0f} in the mean, {max(lengths)} at most; {100 * share:.0f} % supervised\n"
    )


def print_table(vocab_size: int, results: dict[str, dict]) -> None:
    print(
        "| arm | rows | real tokens / CPU s | peak memory growth, MiB | held-out loss after it |\n|---|---|---|---|---|"
    )
    for arm, result in results.items():
        loss = "-" if arm.startswith("published") else f"{result['held_out_loss']:.3f}"
        print(
            f"| {ARMS[arm]} | {result['rows']} | {result['tokens_per_cpu_second']:,.0f} "
            f"| {result['peak_growth_mib']:,.0f} | {loss} |"
        )

    def ratio(fast: str, slow: str) -> str:
        speed = results[fast]["tokens_per_cpu_second"] / results[slow]["tokens_per_cpu_second"]
        memory = results[slow]["peak_growth_mib"] / results[fast]["peak_growth_mib"]
        return f"{speed:.1f}x faster, memory 1/{memory:.1f}"

    print(f"\nOurs against the published recipe, head on both: {ratio('ours_head', 'published')}.")
    print(f"The same, gradient checkpointing on both: {ratio('ours_checkpointing', 'published_checkpointing')}.")
    print(f"Ours without gradient checkpointing against with it: {ratio('ours_head', 'ours_checkpointing')}.")
    print(f"Ours against the padding Trainer: {ratio('ours', 'padded')}.")
    print(f"Ours against TRL, seven projections on both: {ratio('ours', 'trl')}.\n", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arm", choices=ARMS, help="run one arm in this process and print its result as JSON")
    parser.add_argument("--vocab", type=int, choices=NUM_CONVERSATIONS, help="only this vocabulary size")
    options = parser.parse_args()
    if options.arm:
        print(json.dumps(run_arm(options.arm, options.vocab or min(NUM_CONVERSATIONS))))
    else:
        run_all(options.vocab)


if __name__ == "__main__":
    main()
