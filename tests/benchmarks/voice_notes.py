"""Does a model imitate acts as well as words? The rate of voice notes in a tuned model's replies, and what follows them.

Gil of `made_up_people` answers every third time with a voice note, then a word about it or nothing. Stage 1 reads the chat as
an Android phone exports it with the files, with --keep-media-marks; stage 2 trains on it; the replies to held-out messages
are compared with Gil's own to the same messages. Prints a Markdown table with 95 % intervals over conversations.
Run:    python3 tests/benchmarks/voice_notes.py --work-dir DIR
Takes:  about five minutes of one processor core for each seed, and six for the base, unless one is given.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

from choose_epochs import SRC_DIR, make_base, train

sys.path[:0] = [str(SRC_DIR / folder) for folder in ("data_preprocessing", "chat")]

from made_up_people import VOICE_NOTE, as_exports, write_chat  # noqa: E402

PERSON = "Gil"
NUM_CONVERSATIONS = 600  # about 1,300 replies
NOTE_WITH_FILE = "PTT-20230101-WA0001.opus (file attached)"
MARK = "[voice]"
NUM_SAMPLES = 4  # of each reply of a model
FLAGS = ["--learning-rate", "1e-3", "--epochs", "8"]


def prepare(work_dir: Path, seed: int) -> Path:
    """Write the chat's export and run stage 1 on it; return the path of the data."""
    import load_whatsapp

    folder = work_dir / f"data_seed{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    ((name, text),) = as_exports(write_chat(PERSON, NUM_CONVERSATIONS, seed)).items()
    (folder / name).write_text(text.replace(VOICE_NOTE, NOTE_WITH_FILE), encoding="utf-8")
    data_path = folder / "formatted_data.jsonl"
    load_whatsapp.main(
        [str(folder / name), "--imitate", PERSON, "--keep-media-marks", "--path-to-data", str(data_path)]
    )
    return data_path


def measure(model_dir: Path, data_path: Path, seed: int) -> dict[str, dict[str, tuple[float, float, float]]]:
    """Return for each writer the rates of RATES, with their intervals."""
    import torch
    from saved_model_checks import check_saved_model
    from trained_model import load_trained_model
    from writing_style.held_out_replies import SET_NAMES, list_exchanges, read_held_out_data
    from writing_style.model_replies import RepliesFile, sample_replies
    from writing_style.resampling import interval_of, resample

    torch.set_num_threads(1)
    trained = load_trained_model(check_saved_model(model_dir), device="cpu")
    data = read_held_out_data(model_dir, data_path)
    exchanges = [found for name in SET_NAMES for found in list_exchanges(data.sets[name])]
    texts = {"owner": [exchange.reply for exchange in exchanges]}
    for sample in range(NUM_SAMPLES):
        made_with = {"seed": seed + 1_000 * sample}
        replies_file = RepliesFile(model_dir / f"voice_replies_{sample}.jsonl", made_with)
        for name, replies in sample_replies(trained, exchanges, made_with["seed"], replies_file).items():
            texts.setdefault(name, []).extend(reply.text for reply in replies)
    remarks = {line for reply in data.training_replies("assistant") for line in lines_after_note(reply)}
    resamples = resample((exchange.conversation for exchange in exchanges), seed)
    measured: dict[str, dict[str, tuple[float, float, float]]] = {}
    for writer, replies in texts.items():
        measured[writer] = {"number of replies": (len(replies), len(replies), len(replies))}
        for name, count in RATES.items():
            rows = [
                (exchange.conversation, count(reply, remarks))
                for exchange, reply in zip(cycle(exchanges), replies, strict=False)
            ]
            totals = resamples.total(rows)
            measured[writer][name] = tuple(interval_of(totals[:, 0] / totals[:, 1].clip(1e-12)))
    return measured


def chance_of_note(model_dir: Path, data_path: Path) -> list[float]:
    """Return how often the owner begins a held-out reply with a note, and the model's mean probability of it.

    The second probability is that after min_p, which removes what is unlikely: many words, each of them rare, but no note.
    """
    import torch
    from saved_model_checks import check_saved_model
    from trained_model import load_trained_model
    from writing_style.held_out_replies import SET_NAMES, list_exchanges, read_held_out_data
    from writing_style.model_replies import encode_fitting, make_batches, pad_left

    trained = load_trained_model(check_saved_model(model_dir), device="cpu")
    data = read_held_out_data(model_dir, data_path)
    exchanges = [found for name in SET_NAMES for found in list_exchanges(data.sets[name])]
    prompts = [encode_fitting(trained.tokenizer, found.context, 1_024, True).input_ids for found in exchanges]
    note_id = trained.tokenizer(MARK, add_special_tokens=False)["input_ids"][0]  # "[" begins no other reply
    plain, cut = [], []
    for batch in make_batches([len(prompt) for prompt in prompts]):
        input_ids, mask = pad_left([prompts[row] for row in batch], min(trained.end_ids), "cpu")
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        with torch.inference_mode():
            logits = trained.model(
                input_ids=input_ids, attention_mask=mask, position_ids=positions, logits_to_keep=1
            ).logits
        chances = logits[:, -1].float().softmax(-1)
        plain += chances[:, note_id].tolist()
        chances[chances < trained.sampling.min_p * chances.max(-1, keepdim=True).values] = 0
        cut += (chances[:, note_id] / chances.sum(-1)).tolist()
    begun = sum(found.reply.startswith(MARK) for found in exchanges)
    return [begun / len(exchanges), sum(plain) / len(plain), sum(cut) / len(cut)]


def lines_after_note(reply: str) -> list[str]:
    """Return the messages of a reply behind its last voice note, none without a note."""
    lines = reply.split("\n")
    return lines[len(lines) - lines[::-1].index(MARK) :] if MARK in lines else []


# How many there are, and of how many; `remarks` are what Gil says of his notes.
RATES: dict[str, Callable[[str, set[str]], Sequence[float]]] = {
    "replies with a note": lambda reply, remarks: (MARK in reply.split("\n"), 1),
    "notes with a word about them": lambda reply, remarks: (
        bool(lines_after_note(reply)),
        MARK in reply.split("\n"),
    ),
    "these words known from such notes": lambda reply, remarks: (
        sum(line in remarks for line in lines_after_note(reply)),
        len(lines_after_note(reply)),
    ),
    "two notes in a reply": lambda reply, remarks: (reply.split("\n").count(MARK) > 1, 1),
}


def main() -> None:
    """Prepare, train and measure; print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work-dir", type=Path, required=True)
    parser.add_argument("--base-model-id", type=Path, help="default: a base made here, which knows the language")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    options = parser.parse_args()
    base = options.base_model_id or options.work_dir / "knowing_base"
    if not base.exists():
        make_base(base)
    rows: list[list[Any]] = []
    chances: dict[int, list[float]] = {}
    for seed in options.seeds:
        data_path = prepare(options.work_dir, seed)
        model_dir = options.work_dir / f"model_seed{seed}"
        train(model_dir, base, data_path, [*FLAGS, "--seed", str(seed)], "cosine")
        for writer, rates in measure(model_dir, data_path, seed).items():
            cells = [f"{value:.1%} [{low:.1%}, {high:.1%}]" for value, low, high in list(rates.values())[1:]]
            rows.append([seed, writer, f"{rates['number of replies'][0]:.0f}", *cells])
        chances[seed] = chance_of_note(model_dir, data_path)
    print("\n| seed | writer | replies | " + " | ".join(RATES) + " |\n|" + "---|" * (3 + len(RATES)))
    for row in rows:
        print("| " + " | ".join(map(str, row)) + " |")
    for seed, (owner, model, after) in chances.items():
        print(f"seed {seed}: the owner begins {owner:.1%} of the replies with a note; the model's probability of it is")
        print(f"  {model:.1%}, and {after:.1%} after min_p")


if __name__ == "__main__":
    main()
