"""Compare epoch limits, schedules and learning rates on little data of made-up people, over seeds.

Trains each choice with stage 2 on about 300 to 3,000 replies of people from `made_up_people`, and measures on a chat of the
same person that was not trained on: bits per character, the gain from the right context, and the share of replies that are
copies of training replies, beside the person's own share. Prints a Markdown table: mean over people and seeds, copies
pooled. Results are kept in WORK_DIR/results.jsonl; a second call only adds what is missing.
Run:    python3 tests/benchmarks/choose_epochs.py --work-dir DIR --sizes 300 600 --limits 3 6 8 10 20
        python3 tests/benchmarks/choose_epochs.py --work-dir DIR --rates 2e-4 6e-4 2e-3 auto --alphas 64 1024 --limits 10
Takes:  15 seconds of one processor core for a training of 300 replies and 10 epochs with the base made here.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import random
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from choose_defaults import SRC_DIR, train_into

sys.path[:0] = [str(SRC_DIR), str(SRC_DIR / "demo"), str(SRC_DIR.parent / "tests")]

from made_up_people import as_conversations, plain_conversations, write_chat, write_jsonl  # noqa: E402

PEOPLE = ("Avner", "Tamar", "Daniel")
NUM_BASE_CONVERSATIONS = 3_000
BASE_STEPS = 900
FRESH_SEED = 1_000  # of the chat that is measured on
NUM_FRESH_REPLIES = 150
NUM_OWN_REPLIES = 1_500  # for the share that the person repeats: no model has to write them


def make_base(
    folder: Path,
    hidden_size: int = 128,
    num_layers: int = 2,
    num_times: int = 1,
    change_talk: Callable[[list[dict[str, str]], random.Random], list[dict[str, str]]] = lambda talk, _rng: talk,
) -> None:
    """Make a small base that knows the language of the made-up people, and every second of their sentences.

    `num_times`: so many times the conversations and the steps. `change_talk` gets the messages of each conversation and
    returns what the base reads of it.
    """
    from make_small_base import BOS, EOS, make_model, make_tokenizer, neutral_texts, train_on_texts

    num_conversations = NUM_BASE_CONVERSATIONS * num_times
    texts = neutral_texts(num_conversations // 2, seed=0)
    rng = random.Random(0)
    for record in plain_conversations(num_conversations, seed=0, every=2):
        talk = change_talk(record["messages"], rng)
        turns = [f"<person{1 if turn['role'] == 'assistant' else 2}>{turn['content']}{EOS}" for turn in talk]
        texts.append(BOS + "".join(turns))
    random.Random(0).shuffle(texts)
    tokenizer = make_tokenizer(texts, vocab_size=2_000)
    model = make_model(len(tokenizer), hidden_size, num_layers, seed=0)
    train_on_texts(model, tokenizer, texts, BASE_STEPS * num_times, seed=0)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def train(folder: Path, base: Path, data: Path, flags: list[str], schedule: str) -> float:
    """Run stage 2 with this schedule of the learning rate; return the processor seconds it took."""
    import fine_tuning_model
    import held_out_evaluation

    parse_options = fine_tuning_model.parse_options

    def parse_with_schedule(*arguments: Any) -> argparse.Namespace:
        options = parse_options(*arguments)
        options.recipe = dataclasses.replace(options.recipe, lr_scheduler=schedule)
        return options

    started_at = time.process_time()
    with (
        mock.patch.object(fine_tuning_model, "parse_options", parse_with_schedule),
        mock.patch.object(held_out_evaluation, "NUM_SAMPLES", 0),  # sample replies take time and change nothing
    ):
        train_into(folder, base, data, flags)
    return time.process_time() - started_at


def measure(folder: Path, data: Path, person: str, seed: int) -> dict[str, Any]:
    """Measure the model in `folder` on a chat of the person that it was not trained on."""
    import torch
    from saved_model_checks import check_saved_model
    from trained_model import load_trained_model
    from writing_style.held_out_replies import list_exchanges, take_evenly
    from writing_style.model_replies import (
        BatchGeneration,
        encode_fitting,
        make_batches,
        score_replies,
        with_shuffled_contexts,
    )
    from writing_style.writing_habits import TrainingPhrases, describe_copies

    torch.set_num_threads(1)
    trained = load_trained_model(check_saved_model(folder), device="cpu")
    fresh = as_conversations(write_chat(person, NUM_FRESH_REPLIES, FRESH_SEED + seed), person)
    exchanges = take_evenly(
        list_exchanges({n: record["messages"] for n, record in enumerate(fresh)}), NUM_FRESH_REPLIES
    )

    def bits_per_char(rows: list[Any]) -> dict[str, float]:
        scored = score_replies(trained.model, trained.tokenizer, rows, trained.context_tokens)
        num_chars = sum(reply.num_chars for reply in scored)
        return {name: sum(getattr(reply, f"{name}_bits") for reply in scored) / num_chars for name in ("base", "tuned")}

    prompts = [
        encode_fitting(trained.tokenizer, exchange.context, 1_024, add_generation_prompt=True).input_ids
        for exchange in exchanges
    ]
    generation = BatchGeneration(trained)
    replies = [
        reply.text
        for number, rows in enumerate(make_batches([len(prompt) for prompt in prompts]))
        for reply in generation.generate([prompts[row] for row in rows], trained.sampling, seed + number)
    ]
    split = json.loads((folder / "held_out_conversations.json").read_text(encoding="utf-8"))
    held_out = {number for name in ("validation", "spread", "latest") for number in split[name]}
    phrases = TrainingPhrases(
        turn["content"]
        for number, line in enumerate(data.read_text(encoding="utf-8").splitlines())
        if number not in held_out
        for turn in json.loads(line)["messages"]
        if turn["role"] == "assistant"
    )

    def count_copies(texts: list[str]) -> tuple[int, int]:
        described = describe_copies(phrases, texts)
        return int(described["num_exact_copies"]), int(described["num_over_three_words"])

    right, shuffled = bits_per_char(exchanges), bits_per_char(with_shuffled_contexts(exchanges))
    return {
        "fresh_base": right["base"],
        "fresh_tuned": right["tuned"],
        "relevance": shuffled["tuned"] - right["tuned"],
        "copies": count_copies(replies),
        "owner_copies": count_copies(own_replies(person, seed)),
    }


def own_replies(person: str, seed: int) -> list[str]:
    """Return replies of the person that were never trained on."""
    records = as_conversations(write_chat(person, NUM_OWN_REPLIES // 2, FRESH_SEED + seed), person)
    replies = [turn["content"] for record in records for turn in record["messages"] if turn["role"] == "assistant"]
    return replies[:NUM_OWN_REPLIES]


def ask_the_style_report(folder: Path) -> dict[str, Any]:
    """Run the style report on the model's held-out conversations; return its verdict and its main numbers."""
    script = SRC_DIR / "chat/style_report.py"
    flags = ["--saved-model-path", str(folder), "--set", "spread", "--prompts", "120", "--device", "cpu"]
    shown = subprocess.run([sys.executable, str(script), *flags], check=True, capture_output=True, text=True).stdout
    measured = json.loads((folder / "style_report.json").read_text(encoding="utf-8"))["sets"]["spread"]
    closed = [row["gap_closed"]["tuned"]["value"] for row in measured["habits"] if row["is_measurable"]]
    return {
        "verdict": next(line for line in shown.splitlines() if line.startswith("verdict: ")).removeprefix("verdict: "),
        "gap_closed": statistics.median(closed),
        "report_copies": [measured["copies"]["tuned"][name] for name in ("num_exact_copies", "num_over_three_words")],
        "report_own": [measured["copies"]["owner"][name] for name in ("num_exact_copies", "num_over_three_words")],
    }


def run(options: argparse.Namespace, base: Path, case: dict[str, Any]) -> dict[str, Any]:
    """Train and measure one case; return its row."""
    data = options.work_dir / f"{case['person']}_{case['size']}_{case['seed']}.jsonl"
    if not data.exists():
        write_jsonl(data, case["person"], case["size"], case["seed"])
    folder = options.work_dir / "model"
    shutil.rmtree(folder, ignore_errors=True)
    flags = ["--epochs", str(case["limit"]), "--learning-rate", str(case["rate"]), "--seed", str(case["seed"])]
    flags += ["--alpha", str(case["alpha"])]
    if case["step_tokens"]:
        flags += ["--batch-tokens", str(case["step_tokens"])]
    seconds = train(folder, base, data, flags, case["schedule"])
    report = json.loads((folder / "training_report.json").read_text(encoding="utf-8"))
    log = [json.loads(line) for line in (folder / "training_log.jsonl").read_text(encoding="utf-8").splitlines()]
    measured = {name: report["validation"][name]["bits_per_char"] for name in ("base", "tuned")}
    best = next(row for row in log if row["step"] == report["best_step"] and "epoch" in row)
    settings = json.loads((folder / "training_settings.json").read_text(encoding="utf-8"))
    return {
        **case,
        **measured,
        "rate_used": settings["training"]["learning_rate"],
        "best_epoch": best["epoch"],
        "epochs": report["epochs"],
        "steps": report["steps"],
        "cpu_seconds": round(seconds, 1),
        "seconds": report["seconds"],
        **measure(folder, data, case["person"], case["seed"]),
        **(ask_the_style_report(folder) if options.report else {}),
    }


def show_table(rows: list[dict[str, Any]], names: tuple[str, ...]) -> None:
    """Print a line for each choice: means over people and seeds, copies pooled."""
    columns = "runs | validation, base | tuned | new chat | relevance | best epoch | epochs run | copies | own | CPU s"
    print("\n| " + " | ".join([*names, columns]) + " |\n|" + "---|" * (len(names) + 10))

    def key(row: dict[str, Any]) -> tuple[Any, ...]:
        return tuple(row[name] for name in names)

    for choice, group in itertools.groupby(sorted(rows, key=key), key):
        runs = list(group)

        def mean(name: str, runs: list[dict[str, Any]] = runs) -> float:
            return statistics.fmean(run[name] for run in runs)

        def share(name: str, runs: list[dict[str, Any]] = runs) -> float:
            copies, replies = (sum(run[name][place] for run in runs) for place in (0, 1))
            return copies / max(replies, 1)

        cells = [f"{mean(name):.3f}" for name in ("base", "tuned", "fresh_tuned", "relevance")]
        cells += [f"{mean(name):.1f}" for name in ("best_epoch", "epochs")]
        cells += [f"{share(name):.1%}" for name in ("copies", "owner_copies")] + [f"{mean('cpu_seconds'):.0f}"]
        print("| " + " | ".join([*map(str, choice), str(len(runs)), *cells]) + " |")


def main() -> None:
    """Train and measure what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work-dir", type=Path, required=True)
    parser.add_argument("--base-model-id", type=Path, help="default: a base made here, which knows the language")
    parser.add_argument("--people", nargs="+", default=list(PEOPLE))
    parser.add_argument("--sizes", nargs="+", type=int, default=[300, 600])
    parser.add_argument("--limits", nargs="+", type=int, default=[3, 6, 10, 20])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--schedules", nargs="+", default=["cosine"], help="names of transformers")
    parser.add_argument("--rates", nargs="+", default=["1e-3"], help="numbers, or auto")
    parser.add_argument("--alphas", nargs="+", type=int, default=[64], help="a high one makes a base want a lower rate")
    parser.add_argument("--step-tokens", type=int, help="tokens a step (default: the recipe's rule)")
    parser.add_argument("--report", action="store_true", help="also run the style report on each model")
    parser.add_argument("--columns", nargs="+", default=["base_name", "size", "alpha", "rate", "schedule", "limit"])
    parser.add_argument("--table", action="store_true", help="train nothing, print what is there")
    options = parser.parse_args()
    options.work_dir.mkdir(parents=True, exist_ok=True)
    base = options.base_model_id or options.work_dir / "knowing_base"
    if not options.table and not base.exists():
        make_base(base)
    results = options.work_dir / "results.jsonl"
    rows = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    cases = [
        {
            "base_name": base.name, "person": person, "size": size, "seed": seed, "limit": limit,
            "schedule": schedule, "rate": rate, "alpha": alpha, "step_tokens": options.step_tokens,
        }
        for size, seed, person, alpha, rate, schedule, limit in itertools.product(
            options.sizes, options.seeds, options.people, options.alphas, options.rates, options.schedules,
            options.limits,
        )
    ]  # fmt: skip
    for case in [] if options.table else cases:
        if not any(case.items() <= row.items() for row in rows):
            rows.append(run(options, base, case))
            with results.open("a") as file:
                file.write(json.dumps(rows[-1]) + "\n")
            print(json.dumps(rows[-1]), flush=True)
    show_table(rows, tuple(options.columns))


if __name__ == "__main__":
    main()
