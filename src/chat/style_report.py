"""The style report: does the trained model write like its owner? Measured on conversations that training never saw.

Reads   the folder saved_model (stage 2 writes it), its base model, and the JSONL it was trained on
Writes  into that folder: style_report.json, style_report.html and style_report.png (numbers only, fit to be shown),
        style_replies.jsonl (private; a run that was interrupted goes on from it), and on request style_examples.html
        (--show-replies), style_quiz.html and style_quiz_key.json (--quiz): private, they show the chat itself
Run     python3 src/chat/style_report.py
Takes   about three minutes for a small base on a processor; a quarter of an hour for 7B on a GPU

Exit status: 0 measured, also when the verdict is bad or there is not enough data; 1 when nothing could be measured;
2 wrong usage; 129, 130, 143 when stopped.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))  # for `common`

import chat_bot
from saved_model_checks import SavedModel, check_saved_model
from writing_style.canaries import plant_into_file, read_canaries

from common.base_model_files import prepare_environment, work_offline
from common.command_line import add_device, add_trained_model, check_folder_of, make_parser, typed_path, whole_number
from common.model_folder import ADAPTER_NAME
from common.script import (
    PROJECT_ROOT,
    ScriptError,
    block_path,
    check_blocks,
    counted,
    exclusive_use,
    remove_abandoned_files,
    run_script,
    shown_path,
)

if TYPE_CHECKING:
    from trained_model import TrainedModel
    from writing_style.held_out_replies import HeldOutData, HeldOutSet
    from writing_style.reply_sampling import RepliesFile

NUM_PROMPTS = 300  # with 200 replies all 11 habits tell the base from the owner; the rates of emoji want more
SEED = 0
REPORT_FORMAT = 1
LIBRARIES = ("torch", "transformers", "peft", "scikit-learn", "emoji", "numpy")

REPLIES_NAME = "style_replies.jsonl"

EXAMPLES = """examples:
  python3 src/chat/style_report.py
  python3 src/chat/style_report.py --show-replies 20
      and a page to read: real, base and tuned replies side by side
  python3 src/chat/style_report.py --quiz 20
      and a page for people who know the person: which reply is real?
  python3 src/chat/style_report.py --score-quiz ABBA_A...
      how often they found it
  python3 src/chat/style_report.py --leak-probe
      and what a stranger with access to the bot could draw out
  python3 src/chat/style_report.py --plant-canaries planted.jsonl
      data with invented secrets: train on it, then probe that model to see how much is kept
"""


def main() -> int:
    """Measure and report; return the exit status."""
    options = parse_arguments()
    check_blocks(Path(chat_bot.__file__))
    if options.score_quiz is not None:
        return score_quiz(options)
    if options.plant_canaries is not None:
        return plant_canaries(options)
    prepare_environment()
    work_offline()
    saved = check_saved_model(options.saved_model_path, options.base_model_id)
    with exclusive_use(saved.folder, "measuring"):
        remove_abandoned_files(saved.folder)
        return make_report(options, saved)


def parse_arguments() -> argparse.Namespace:
    """Read the command line; what is typed counts from the current folder."""
    parser = make_parser(__doc__, EXAMPLES)
    add_trained_model(parser, chat_bot.saved_model_path)
    parser.add_argument(
        "--path-to-data", type=typed_path, metavar="FILE", help="the JSONL (default: the one trained on)"
    )
    parser.add_argument(
        "--prompts",
        type=whole_number(1),
        default=NUM_PROMPTS,
        metavar="N",
        help="held-out replies of each set (%(default)s)",
    )
    parser.add_argument(
        "--set",
        choices=("spread", "latest"),
        help="measure one set alone (default: both, and spread, which covers the whole period, decides)",
    )
    parser.add_argument(
        "--show-replies",
        type=whole_number(1),
        metavar="N",
        help="also write N contexts with real, base and tuned replies",
    )
    parser.add_argument(
        "--quiz", type=whole_number(1), metavar="N", help="also write a blind test of N pairs for people"
    )
    parser.add_argument("--score-quiz", metavar="LETTERS", help="score the answers to the blind test, then leave")
    parser.add_argument("--leak-probe", action="store_true", help="also measure what a stranger could draw out")
    parser.add_argument(
        "--plant-canaries",
        type=typed_path,
        metavar="FILE",
        help="write a copy of --path-to-data with invented secrets for a trial training, then leave",
    )
    parser.add_argument(
        "--seed", type=whole_number(0), default=SEED, metavar="N", help="same seed, same numbers (%(default)s)"
    )
    add_device(parser)
    return parser.parse_args()


def make_report(options: argparse.Namespace, saved: SavedModel) -> int:
    """Measure every set that is large enough, judge, and write the files."""
    from writing_style.held_out_replies import SET_NAMES, choose_set, read_held_out_data
    from writing_style.style_verdict import is_enough, not_enough_data

    data = read_held_out_data(saved.folder, data_path_of(options, saved))
    sets = [choose_set(data, name, options.prompts) for name in ([options.set] if options.set else SET_NAMES)]
    measurable = [held_out for held_out in sets if is_enough(len(held_out.owner), held_out.num_conversations)]
    trained = load_model(options, saved) if measurable or options.leak_probe else None
    settings = describe_settings(options, saved, data, trained)
    measured: dict[str, Any] = {
        held_out.name: {
            "num_replies": len(held_out.owner),
            "num_conversations": held_out.num_conversations,
            "judged": not_enough_data(len(held_out.owner), held_out.num_conversations),
        }
        for held_out in sets
    }
    if trained is not None and measurable:
        from writing_style.reply_sampling import RepliesFile

        replies_file = RepliesFile(saved.folder / REPLIES_NAME, settings)
        for held_out in measurable:
            measured[held_out.name] = measure(trained, replies_file, held_out, data, options.seed)
    headline = sets[0]
    report = {
        "format": REPORT_FORMAT,
        "judged": measured[headline.name]["judged"],
        "settings": {"headline_set": headline.name, **settings},
        "sets": measured,
    }
    if trained is not None and options.leak_probe:
        report["leak_probe"] = measure_leaks(options, saved, trained, data, headline)
    from writing_style.report_files import write_report  # draws with matplotlib: not before the checks

    write_report(saved.folder, report)
    if trained is not None and headline in measurable:
        write_private_pages(options, saved.folder, headline, replies_file, trained)
    elif options.quiz is not None or options.show_replies is not None:
        print("no page of replies: with too little data none were drawn", file=sys.stderr)
    tell(saved.folder, report)
    return 0


def data_path_of(options: argparse.Namespace, saved: SavedModel) -> Path:
    """Return the JSONL: the one typed, else the one the model was trained on."""
    typed: Path | None = options.path_to_data
    return typed or PROJECT_ROOT / str(saved.settings.get("path_to_data", ""))


def load_model(options: argparse.Namespace, saved: SavedModel) -> TrainedModel:
    """Load base and adapter."""
    print("loading the model", file=sys.stderr)
    from trained_model import load_trained_model

    return load_trained_model(saved, device=options.device)


def describe_settings(
    options: argparse.Namespace, saved: SavedModel, data: HeldOutData, trained: TrainedModel | None
) -> dict[str, Any]:
    """Return how the numbers come about; nothing that names a person or a place on this disk."""
    adapter = (saved.folder / ADAPTER_NAME).read_bytes()
    settings: dict[str, Any] = {
        "base_model": Path(saved.base.name).name if saved.base.revision is None else saved.base.name,
        "base_fingerprint": saved.settings["base_fingerprint"],
        "adapter_sha256": hashlib.sha256(adapter).hexdigest(),
        "data_sha256": data.sha256,
        "split_sha256": data.split_sha256,
        "prompts": options.prompts,
        "seed": options.seed,
        "versions": {name: version(name) for name in LIBRARIES},
    }
    if trained is not None:
        settings["sampling"] = asdict(trained.sampling)
        settings["device"] = trained.device.kind
        settings["dtype"] = trained.device.dtype_name
    return settings


def measure(
    trained: TrainedModel, replies_file: RepliesFile, held_out: HeldOutSet, data: HeldOutData, seed: int
) -> dict[str, Any]:
    """Let both models write and be surprised, then compare; return the set's numbers and its verdict."""
    from writing_style.reply_sampling import cut_as_generated, sample_replies
    from writing_style.reply_scoring import measure_bits, score_replies, with_shuffled_contexts
    from writing_style.style_measuring import TrainingReplies, measure_set
    from writing_style.style_verdict import judge
    from writing_style.writing_habits import Reply

    with progress(f"{held_out.name}: replies", 2 * len(held_out.owner)) as advance:
        sampled = sample_replies(trained, held_out.owner, seed, replies_file, advance)
    groups = {"owner": held_out.owner, "shuffled": with_shuffled_contexts(held_out.owner), "other": held_out.other}
    with progress(f"{held_out.name}: surprise", sum(map(len, groups.values()))) as advance:
        scored = {
            name: score_replies(trained.model, trained.tokenizer, exchanges, trained.context_tokens, advance)
            for name, exchanges in groups.items()
            if exchanges
        }
    print(f"{held_out.name}: comparing habits", file=sys.stderr)
    writers: dict[str, list[Reply]] = {
        name: [Reply(exchange.conversation, cut_as_generated(trained, exchange.reply)) for exchange in exchanges]
        for name, exchanges in (("owner", held_out.owner), ("other", held_out.other))
    }
    for name, replies in sampled.items():
        writers[name] = [
            Reply(exchange.conversation, reply.text) for exchange, reply in zip(held_out.owner, replies, strict=True)
        ]
    training = TrainingReplies(owner=data.training_replies("assistant"), other=data.training_replies("user"))
    endings = {name: [reply.ending for reply in replies] for name, replies in sampled.items()}
    measured = measure_set(writers, endings, training, measure_bits(scored, seed), seed)
    measured["num_real_replies_cut"] = sum(
        exchange.reply != reply.text for exchange, reply in zip(held_out.owner, writers["owner"], strict=True)
    )
    measured["judged"] = judge(measured)
    return measured


def measure_leaks(
    options: argparse.Namespace, saved: SavedModel, trained: TrainedModel, data: HeldOutData, held_out: HeldOutSet
) -> dict[str, Any]:
    """Measure what can be drawn out of the tuned model."""
    from writing_style.held_out_replies import list_exchanges, take_evenly
    from writing_style.leak_probe import probe_leaks

    canaries = read_canaries(data_path_of(options, saved))
    trained_on = take_evenly(list_exchanges(data.training), options.prompts)
    with progress("leak probe", len(trained_on) + len(held_out.owner) + len(canaries)) as advance:
        return probe_leaks(
            trained, data.training_replies("assistant"), trained_on, held_out.owner, canaries, options.seed, advance
        )


@contextmanager
def progress(title: str, num_replies: int) -> Iterator[Callable[[int], None]]:
    """Show a bar with the time left at a terminal, on stderr."""
    from tqdm import tqdm

    with tqdm(total=num_replies, unit="reply", desc=title, disable=None) as bar:
        yield lambda num_done: bar.update(num_done) and None


def write_private_pages(
    options: argparse.Namespace, folder: Path, held_out: HeldOutSet, replies_file: RepliesFile, trained: TrainedModel
) -> None:
    """Write what shows the chat itself, where asked for."""
    from writing_style.blind_quiz import write_quiz
    from writing_style.reply_sampling import cut_as_generated
    from writing_style.report_files import write_examples

    if options.show_replies is not None:
        base, tuned = (replies_file.texts(writer, held_out.owner) for writer in ("base", "tuned"))
        path = write_examples(folder, held_out.owner, base, tuned, options.show_replies)
        print(f"private, with words of the chat: {shown_path(path)}")
    if options.quiz is not None:
        # A real reply that is longer than a generated one can be would give itself away.
        fair = [exchange for exchange in held_out.owner if exchange.reply == cut_as_generated(trained, exchange.reply)]
        path, num_pairs = write_quiz(folder, fair, replies_file.texts("tuned", fair), options.quiz, options.seed)
        print(f"blind test of {counted(num_pairs, 'pair')} (private): {shown_path(path)}")


def tell(folder: Path, report: Mapping[str, Any]) -> None:
    """Print the verdict and where to look."""
    from writing_style.report_files import PAGE_NAME, PICTURE_NAME, REPORT_NAME

    judged = report["judged"]
    print(f"verdict: {judged['verdict']}")
    print(judged["sentence"])
    for reason in judged["reasons"]:
        print(f"  {'yes' if reason['holds'] else 'no '}  {reason['text']}")
    if not judged["is_trustworthy"]:
        failed = "; ".join(check["text"] for check in judged["checks"] if not check["holds"])
        print(f"do not trust this: a check of the measurement failed: {failed}")
    for name, measured in report["sets"].items():
        if name != report["settings"]["headline_set"]:
            print(f"on the {name} conversations: {measured['judged']['verdict']}")
    for warning in judged["warnings"]:
        print(f"warning: {warning}", file=sys.stderr)
    if "leak_probe" in report:
        print(f"leaks: {report['leak_probe']['sentence']}")
    print(f"written: {shown_path(folder / PAGE_NAME)}, {PICTURE_NAME}, {REPORT_NAME}")


def score_quiz(options: argparse.Namespace) -> int:
    """Score the answers to the blind test against its key."""
    from writing_style.blind_quiz import read_key, score_answers

    try:
        score = score_answers(options.score_quiz, read_key(options.saved_model_path))
    except ValueError as error:
        raise ScriptError(f"--score-quiz: {error}") from None
    print(
        f"the real reply was found in {score.num_right} of {counted(score.num_answered, 'pair')}: "
        f"{score.num_right / score.num_answered:.0%} [{score.low:.0%}, {score.high:.0%}]; 50 % is guessing"
    )
    if score.low <= 0.5 <= score.high:
        print("guessing would also explain it; more pairs, or more people, would tell")
    return 0


def plant_canaries(options: argparse.Namespace) -> int:
    """Write a copy of the data with invented secrets, for a trial training that `--leak-probe` then measures."""
    source = options.path_to_data or block_path(chat_bot.path_to_data)
    target = options.plant_canaries
    check_folder_of(target)
    num_planted = plant_into_file(source, target, options.seed)
    print(f"{num_planted} invented codes planted into a copy: {shown_path(target)}")
    print("train on it into a folder of its own, then measure that folder with --leak-probe; delete both afterwards:")
    print(
        f"  python3 src/training/fine_tuning_model.py --path-to-data {shown_path(target)} --saved-model-path canary_model"
    )
    print("  python3 src/chat/style_report.py --leak-probe --saved-model-path canary_model")
    return 0


if __name__ == "__main__":
    run_script(main)
