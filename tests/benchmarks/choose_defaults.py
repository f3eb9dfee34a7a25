"""Compare learning rates, epochs, ranks and sampling values on a small base, over seeds, on the validation conversations.

Trains each recipe with stage 2, generates replies in the validation contexts with each sampling, and prints a Markdown
table for recipes and one for sampling: mean over the seeds [lowest, highest]. `gap closed` is the median over the habits
in which base and owner differ; 1 is as close as the owner to themselves.
Run:    python3 tests/benchmarks/choose_defaults.py --base-model-id BASE --path-to-data FILE --work-dir DIR
Takes:  about ten minutes of one processor core for a base of 0.6 million parameters and 260 conversations.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

SRC_DIR = Path(__file__).resolve().parents[2] / "src"
sys.path[:0] = [str(SRC_DIR), str(SRC_DIR / "training"), str(SRC_DIR / "chat")]

RECIPES = {
    "lr 1e-3": ["--learning-rate", "1e-3"],
    "lr 3e-3": ["--learning-rate", "3e-3"],
    "lr 3e-3, 1 epoch": ["--learning-rate", "3e-3", "--epochs", "1"],
    "lr 3e-3, 6 epochs": ["--learning-rate", "3e-3", "--epochs", "6"],
    "lr 3e-3, rank 8, alpha 16": ["--learning-rate", "3e-3", "--rank", "8", "--alpha", "16"],
    "lr 3e-3, rank 64, alpha 128": ["--learning-rate", "3e-3", "--rank", "64", "--alpha", "128"],
}
SAMPLED_RECIPE = "lr 3e-3"  # the recipe whose models try every sampling
SAMPLINGS = {
    "temperature 0.5, min_p 0, penalty 1.025 (published)": (0.5, 0.0, 1.025),
    "temperature 0.5, min_p 0.05, penalty 1.025": (0.5, 0.05, 1.025),
    "temperature 0.7, min_p 0.05, penalty 1.025": (0.7, 0.05, 1.025),
    "temperature 0.7, min_p 0.05, penalty 1": (0.7, 0.05, 1.0),
    "temperature 0.7, min_p 0, penalty 1": (0.7, 0.0, 1.0),
    "temperature 1, min_p 0.05, penalty 1": (1.0, 0.05, 1.0),
}
# The default: the recipes are compared with it, and the base uses it.
DEFAULT_SAMPLING = "temperature 1, min_p 0.05, penalty 1"
SAMPLES_PER_CONTEXT = 2  # the validation set is small
FEW_DRAWS = 50  # the estimate itself needs no draws


def train(options: argparse.Namespace, name: str, seed: int) -> Path:
    """Train one recipe with one seed unless an earlier run has; return the folder."""
    folder: Path = options.work_dir / f"{name.replace(' ', '_')}_seed{seed}"
    train_into(folder, options.base_model_id, options.path_to_data, [*RECIPES[name], "--seed", str(seed)])
    return folder


def train_into(folder: Path, base: str | Path, data: str | Path, flags: Iterable[str]) -> None:
    """Run stage 2 with these flags on one thread, unless `folder` already holds a finished model."""
    import fine_tuning_model

    if not (folder / "training_settings.json").is_file():
        sys.argv = [
            "fine_tuning_model.py", "--base-model-id", str(base), "--path-to-data", str(data),
            "--saved-model-path", str(folder), "--threads", "1", *flags,
        ]  # fmt: skip
        fine_tuning_model.main()


def measure(folder: Path, names: Iterable[str], seed: int) -> dict[str, dict[str, float]]:
    """Generate replies in the validation contexts with each sampling; return the numbers of the report."""
    from saved_model_checks import check_saved_model
    from trained_model import load_trained_model
    from writing_style.held_out_replies import list_exchanges
    from writing_style.model_replies import BatchGeneration, cut_as_generated, encode_fitting, make_batches
    from writing_style.style_measuring import measure_habits
    from writing_style.writing_habits import Reply, describe_writer

    trained = load_trained_model(check_saved_model(folder), device="cpu")
    settings = json.loads((folder / "training_settings.json").read_text(encoding="utf-8"))
    split = json.loads((folder / "held_out_conversations.json").read_text(encoding="utf-8"))
    lines = Path(settings["path_to_data"]).read_text(encoding="utf-8").split("\n")
    exchanges = list_exchanges({number: json.loads(lines[number])["messages"] for number in split["validation"]})
    prompts = [
        encode_fitting(trained.tokenizer, exchange.context, 1_024, add_generation_prompt=True).input_ids
        for exchange in exchanges
    ]
    generation = BatchGeneration(trained)
    batches = list(enumerate(make_batches([len(prompt) for prompt in prompts])))

    def answer(name: str, num_samples: int) -> list[Reply]:
        temperature, min_p, penalty = SAMPLINGS[name]
        sampling = replace(
            trained.sampling, do_sample=True, temperature=temperature, min_p=min_p, top_p=1.0, top_k=0,
            repetition_penalty=penalty,
        )  # fmt: skip
        replies = []
        for sample in range(num_samples):
            for number, rows in batches:
                drawn = generation.generate([prompts[row] for row in rows], sampling, seed + 1_000 * sample + number)
                replies += [
                    Reply(exchanges[row].conversation, reply.text) for row, reply in zip(rows, drawn, strict=True)
                ]
        return replies

    with trained.model.disable_adapter():
        base = answer(DEFAULT_SAMPLING, 1)
    owner = [Reply(exchange.conversation, cut_as_generated(trained, exchange.reply)) for exchange in exchanges]
    found = {}
    for name in names:
        tuned = answer(name, SAMPLES_PER_CONTEXT)
        rows, _ = measure_habits({"owner": owner, "base": base, "tuned": tuned}, seed, num_draws=FEW_DRAWS)
        closed = [row["gap_closed"]["tuned"]["value"] for row in rows if row["is_measurable"]]
        described, real = describe_writer(tuned), describe_writer(owner)
        found[name] = {
            "gap closed": statistics.median(closed),
            "worst habit": min(closed),
            "repeated replies": described["share_repeated_replies"] - real["share_repeated_replies"],
            "laughing, minus the owner's": described["share_laughing"] - real["share_laughing"],
            "characters": described["median_chars"],
        }
    return found


def show_table(title: str, rows: dict[str, list[dict[str, float]]]) -> None:
    """Print one table: a line per choice, mean over the seeds [lowest, highest]."""
    columns = list(next(iter(rows.values()))[0])
    print(f"\n| {title} | " + " | ".join(columns) + " |\n|---|" + "---|" * len(columns))
    for name, runs in rows.items():
        cells = []
        for column in columns:
            values = [run[column] for run in runs]
            cells.append(f"{statistics.fmean(values):.2f} [{min(values):.2f}, {max(values):.2f}]")
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    """Train, generate, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-model-id", required=True)
    parser.add_argument("--path-to-data", required=True)
    parser.add_argument("--work-dir", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only-recipes", action="store_true", help="leave out the samplings")
    options = parser.parse_args()
    sampled_recipe = None if options.only_recipes else SAMPLED_RECIPE
    recipes: dict[str, list[dict[str, float]]] = {name: [] for name in RECIPES}
    samplings: dict[str, list[dict[str, float]]] = {name: [] for name in SAMPLINGS}
    for seed in range(options.seeds):
        for name in RECIPES:
            folder = train(options, name, seed)
            report = json.loads((folder / "training_report.json").read_text(encoding="utf-8"))
            tried = measure(folder, SAMPLINGS if name == sampled_recipe else [DEFAULT_SAMPLING], seed)
            recipes[name].append(
                {
                    "bits per character, base": report["validation"]["base"]["bits_per_char"],
                    "tuned": report["validation"]["tuned"]["bits_per_char"],
                    "best step": report["best_step"],
                    "of steps": report["steps"],
                    "gap closed": tried[DEFAULT_SAMPLING]["gap closed"],
                }
            )
            if name == sampled_recipe:
                for way, numbers in tried.items():
                    samplings[way].append(numbers)
        show_table(f"recipe ({seed + 1} seeds)", recipes)
        if not options.only_recipes:
            show_table(f"sampling ({seed + 1} seeds)", samplings)


if __name__ == "__main__":
    main()
