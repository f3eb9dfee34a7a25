"""Measure how closely the tuned model writes like its owner, the imitated person, on held-out conversations.

Reads   the trained folder saved_model, its base model, and the JSONL it was trained on; with --engine llama.cpp also its
        GGUF file
Writes  into that folder: style_report.json, style_report.html and style_report.png (numbers only, safe to share),
        style_replies.jsonl (private; an interrupted run continues from it), and on request style_examples.html
        (--show-replies), style_quiz.html and style_quiz_key.json (--quiz): private, they quote the chat
Run     python3 src/chat/style_report.py
Takes   about three minutes for a small base on a processor, a quarter of an hour for a 7B on a GPU

Exit status: 0 measured, whatever the verdict, or not enough data; 1 when nothing could be measured;
2 wrong usage; 129, 130, 143 when stopped.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))  # for `common`

import chat_bot
from chat_engine import ENGINES, choose_engine, command_to_export, has_cuda
from gguf_header import hash_file
from saved_model_checks import SavedModel, check_saved_model
from writing_style.canaries import plant_into_file, read_canaries

from common.base_model_files import prepare_environment, work_offline
from common.command_line import add_device, add_trained_model, check_folder_of, make_parser, typed_path, whole_number
from common.conversation_header import context_from_settings
from common.fill_in_block import block_path, check_blocks
from common.model_folder import ADAPTER_NAME
from common.private_files import exclusive_use, remove_abandoned_files, replacing
from common.script import PROJECT_ROOT, ScriptError, counted, run_script, shown_path

if TYPE_CHECKING:
    from gguf_header import ModelFiles
    from llama_cpp_model import LlamaCppModel
    from tqdm import tqdm
    from trained_model import TrainedModel
    from writing_style.held_out_replies import HeldOutData, HeldOutSet
    from writing_style.model_replies import SampledReply

NUM_PROMPTS = 300  # 200 replies separate base and owner in all 11 habits; the emoji rates need more
SEED = 0
SHUFFLE_DISTANCES = (0.25, 0.5, 0.75)  # each reply is scored in three other contexts: one is a matter of luck
REPORT_FORMAT = 2
LIBRARIES = ("torch", "transformers", "peft", "scikit-learn", "emoji", "numpy")

REPORT_NAME = "style_report.json"
PAGE_NAME = "style_report.html"
PICTURE_NAME = "style_report.png"
EXAMPLES_NAME = "style_examples.html"
REPLIES_NAME = "style_replies.jsonl"

EXAMPLES = """examples:
  python3 src/chat/style_report.py
  python3 src/chat/style_report.py --show-replies 20
      also write a page with real, base and tuned replies side by side
  python3 src/chat/style_report.py --quiz 20
      also write a blind test for people who know the owner: which reply is real?
  python3 src/chat/style_report.py --score-quiz ABBA_A...
      score their answers
  python3 src/chat/style_report.py --engine llama.cpp
      measure the exported GGUF file, and what quantising costs
  python3 src/chat/style_report.py --leak-probe
      also measure what a stranger with access to the bot could extract
  python3 src/chat/style_report.py --plant-canaries planted.jsonl
      write data with invented secrets: train on it, then probe that model for them
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
    model_files = None
    if options.engine == "llama.cpp":
        export_command = command_to_export(saved, chat_bot.saved_model_path, options.base_model_id)
        model_files = choose_engine(options.engine, saved, None, True, export_command).model_files
    with exclusive_use(saved.folder), ExitStack() as running:
        remove_abandoned_files(saved.folder)
        data, sets = choose_sets(options, saved)
        trained = load_model(options, saved, sets)
        exported = load_exported(model_files, saved, running) if trained is not None else None
        settings = describe_settings(options, saved, data, trained, exported)
        measured, replies = measure_sets(options, saved, data, sets, trained, exported, settings)
        report = {
            "format": REPORT_FORMAT,
            "verdict": measured[sets[0].name]["verdict"],
            "settings": {"headline_set": sets[0].name, **settings},
            "sets": measured,
        }
        if options.leak_probe and trained is not None:
            report["leak_probe"] = measure_leaks(options, saved, trained, data, sets[0])
        write_report(saved.folder, report)
        write_private_pages(options, saved.folder, sets[0], replies.get(sets[0].name), trained)
        print_verdict(saved.folder, report)
    return 0


def parse_arguments() -> argparse.Namespace:
    """Read the command line; typed paths count from the current folder."""
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
        help="measure one set only (default: both; spread, which covers the whole period, decides the verdict)",
    )
    parser.add_argument(
        "--show-replies",
        type=whole_number(1),
        metavar="N",
        help="also write N contexts with real, base and tuned replies",
    )
    parser.add_argument("--quiz", type=whole_number(1), metavar="N", help="also write a blind test of N pairs")
    parser.add_argument("--score-quiz", metavar="LETTERS", help="score answers to the blind test, then exit")
    parser.add_argument("--leak-probe", action="store_true", help="also measure what a stranger could extract")
    parser.add_argument(
        "--plant-canaries",
        type=typed_path,
        metavar="FILE",
        help="write a copy of --path-to-data with invented secrets for a trial training, then exit",
    )
    parser.add_argument(
        "--seed", type=whole_number(0), default=SEED, metavar="N", help="same seed, same numbers (%(default)s)"
    )
    add_device(parser)
    parser.add_argument(
        "--engine",
        choices=ENGINES[1:],
        default=ENGINES[1],
        help="llama.cpp: measure the newest GGUF file in the trained folder as the tuned model, and what exporting costs",
    )
    options = parser.parse_args()
    if options.engine == "llama.cpp" and options.leak_probe:
        parser.error("--leak-probe measures the adapter in transformers; leave out --engine")
    return options


def choose_sets(options: argparse.Namespace, saved: SavedModel) -> tuple[HeldOutData, list[HeldOutSet]]:
    """Return the data and the held-out sets to measure; the first set decides the verdict."""
    from writing_style.held_out_replies import SET_NAMES, choose_set, read_held_out_data

    context = context_from_settings(saved.settings)
    data = read_held_out_data(saved.folder, data_path_of(options, saved), context)
    return data, [choose_set(data, name, options.prompts) for name in ([options.set] if options.set else SET_NAMES)]


def data_path_of(options: argparse.Namespace, saved: SavedModel) -> Path:
    """Return the JSONL: the one typed, else the one the model was trained on."""
    typed: Path | None = options.path_to_data
    return typed or PROJECT_ROOT / str(saved.settings.get("path_to_data", ""))


def load_model(options: argparse.Namespace, saved: SavedModel, sets: Sequence[HeldOutSet]) -> TrainedModel | None:
    """Load base and adapter, or return None when no set is large enough and the leak probe is off."""
    if not options.leak_probe and not any(held_out.is_enough for held_out in sets):
        return None
    print("loading the model", file=sys.stderr)
    from trained_model import load_trained_model

    # Beside an exported model, the reference is unquantised also on a card.
    has_card = options.device in ("auto", "cuda") and has_cuda()
    dtype = "auto" if options.engine == "transformers" else "bfloat16" if has_card else "float32"
    return load_trained_model(saved, device=options.device, dtype=dtype)


def load_exported(model_files: ModelFiles | None, saved: SavedModel, running: ExitStack) -> LlamaCppModel | None:
    """Return the exported model in llama.cpp, which `running` stops at the end; None without `model_files`."""
    if model_files is None:
        return None
    from llama_cpp_model import run_llama_cpp_model

    return running.enter_context(run_llama_cpp_model(saved, model_files))


def describe_settings(
    options: argparse.Namespace,
    saved: SavedModel,
    data: HeldOutData,
    trained: TrainedModel | None,
    exported: LlamaCppModel | None,
) -> dict[str, Any]:
    """Return what the numbers depend on; no personal name and no path of this disk."""
    settings: dict[str, Any] = {
        "base_model": Path(saved.base.name).name if saved.base.revision is None else saved.base.name,
        "base_fingerprint": saved.settings["base_fingerprint"],
        "adapter_sha256": hash_file(saved.folder / ADAPTER_NAME),
        "data_sha256": data.sha256,
        "split_sha256": data.split_sha256,
        "context": context_from_settings(saved.settings),
        "prompts": options.prompts,
        "seed": options.seed,
        "versions": {name: version(name) for name in LIBRARIES},
    }
    if trained is not None:
        settings["sampling"] = asdict(trained.sampling)
        settings["device"] = trained.device.kind
        settings["dtype"] = trained.device.dtype_name
    if exported is not None:
        settings["tuned_model"] = exported.computed_on
    return settings


def measure_sets(
    options: argparse.Namespace,
    saved: SavedModel,
    data: HeldOutData,
    sets: Sequence[HeldOutSet],
    trained: TrainedModel | None,
    exported: LlamaCppModel | None,
    settings: Mapping[str, Any],
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, list[SampledReply]]]]:
    """Return each set's numbers and verdict, and the models' replies for each set that is large enough."""
    from writing_style.style_verdict import not_enough_data

    measured: dict[str, dict[str, Any]] = {
        held_out.name: {
            "num_replies": len(held_out.owner),
            "num_conversations": held_out.num_conversations,
            **not_enough_data(len(held_out.owner), held_out.num_conversations),
        }
        for held_out in sets
    }
    measurable = [held_out for held_out in sets if held_out.is_enough]
    if trained is None or not measurable:
        return measured, {}
    from writing_style.exported_model import generate_exported
    from writing_style.model_replies import RepliesFile, cut_as_generated, sample_replies
    from writing_style.openers import has_enough, list_openers, measure_openers

    write_tuned = partial(generate_exported, exported) if exported is not None else None
    replies_file = RepliesFile(saved.folder / REPLIES_NAME, settings)
    replies = {}
    for held_out in measurable:
        with progress_bar(f"{held_out.name}: replies", 2 * len(held_out.owner)) as bar:
            sampled = sample_replies(trained, held_out.owner, options.seed, replies_file, bar.update, write_tuned)
        replies[held_out.name] = sampled
        measured[held_out.name] = measure(trained, exported, held_out, sampled, data, options.seed)
        openers, texts = list_openers(data, held_out.name), {}
        if has_enough(openers):
            with progress_bar(f"{held_out.name}: openers", 2 * len(openers)) as bar:
                sampled = sample_replies(trained, openers, options.seed, replies_file, bar.update, write_tuned)
            texts = {name: [reply.text for reply in rows] for name, rows in sampled.items()}
            texts["owner"] = [cut_as_generated(trained, opener.reply) for opener in openers]
        measured[held_out.name]["openers"] = measure_openers(openers, texts, data, options.seed)
    return measured, replies


def measure(
    trained: TrainedModel,
    exported: LlamaCppModel | None,
    held_out: HeldOutSet,
    sampled: Mapping[str, Sequence[SampledReply]],
    data: HeldOutData,
    seed: int,
) -> dict[str, Any]:
    """Score the real replies, compare the models' replies with them, and return the set's numbers and verdict."""
    from writing_style.held_out_replies import list_exchanges, take_evenly
    from writing_style.member_names import without_names
    from writing_style.model_replies import cut_as_generated, score_replies, with_shuffled_contexts
    from writing_style.situations import MAX_TRAINING_REPLIES, situate
    from writing_style.style_measuring import TrainingReplies, measure_bits, measure_set
    from writing_style.style_verdict import reach_verdict

    shuffled = [with_shuffled_contexts(held_out.owner, distance) for distance in SHUFFLE_DISTANCES]
    groups = {"owner": held_out.owner, "shuffled": list(chain(*shuffled)), "other": held_out.other}
    with progress_bar(f"{held_out.name}: bits per character", sum(map(len, groups.values()))) as bar:
        scored = {
            name: score_replies(trained.model, trained.tokenizer, exchanges, trained.context_tokens, bar.update)
            for name, exchanges in groups.items()
            if exchanges
        }
    cost = None
    if exported is not None:
        from writing_style.exported_model import measure_cost, score_exported

        unquantised = scored["owner"]
        with progress_bar(f"{held_out.name}: bits of the exported model", sum(map(len, groups.values()))) as bar:
            scored = {name: score_exported(exported, groups[name], rows, bar.update) for name, rows in scored.items()}
        cost = measure_cost(exported, unquantised, scored["owner"], seed)
    print(f"{held_out.name}: comparing habits", file=sys.stderr)
    texts = {
        "owner": [cut_as_generated(trained, exchange.reply) for exchange in held_out.owner],
        "other": [cut_as_generated(trained, exchange.reply) for exchange in held_out.other],
        **{name: [without_names(reply.text, data.members) for reply in replies] for name, replies in sampled.items()},
    }
    writers = {
        name: [
            situate(exchange, text, data)
            for exchange, text in zip(held_out.other if name == "other" else held_out.owner, rows, strict=True)
        ]
        for name, rows in texts.items()
    }
    training = TrainingReplies(
        owner=data.training_replies("assistant"),
        other=data.training_replies("user"),
        answers=[
            situate(exchange, exchange.reply, data)
            for exchange in take_evenly(list_exchanges(data.training), MAX_TRAINING_REPLIES)
        ],
    )
    endings = {name: [reply.ending for reply in replies] for name, replies in sampled.items()}
    context = context_from_settings(trained.settings)
    measured = measure_set(writers, endings, training, measure_bits(scored, seed), seed, context)
    measured["num_real_replies_cut"] = sum(
        exchange.reply != text for exchange, text in zip(held_out.owner, texts["owner"], strict=True)
    )
    measured["num_with_a_members_name"] = sum(
        reply.text != text for reply, text in zip(sampled["tuned"], texts["tuned"], strict=True)
    )
    if cost is not None:
        measured["cost_of_exporting"] = cost
    return {**reach_verdict(measured), **measured}


def measure_leaks(
    options: argparse.Namespace, saved: SavedModel, trained: TrainedModel, data: HeldOutData, held_out: HeldOutSet
) -> dict[str, Any]:
    """Measure what can be extracted from the tuned model."""
    from writing_style.held_out_replies import list_exchanges, take_evenly
    from writing_style.leak_probe import probe_leaks

    canaries = read_canaries(data_path_of(options, saved))
    trained_on = take_evenly(list_exchanges(data.training, data.headers), options.prompts)
    with progress_bar("leak probe", len(trained_on) + len(held_out.owner) + len(canaries)) as bar:
        return probe_leaks(
            trained,
            data.training_replies("assistant") + data.training_replies("user"),
            trained_on,
            held_out.owner,
            canaries,
            options.seed,
            bar.update,
        )


def progress_bar(title: str, num_replies: int) -> tqdm[Any]:
    """Return a progress bar on stderr, shown only at a terminal."""
    from tqdm import tqdm

    return tqdm(total=num_replies, unit="reply", desc=title, disable=None)


def write_report(folder: Path, report: Mapping[str, Any]) -> None:
    """Write the three files that hold only numbers."""
    from writing_style.style_page import make_report_page
    from writing_style.style_picture import draw_picture, draw_words, to_png, to_svg

    measured = report["sets"][report["settings"]["headline_set"]]
    title = f"Does it write like its owner? {report['verdict'].capitalize()}"
    figure = draw_picture(measured, title) if "bits" in measured else draw_words(title, measured["sentence"])
    with replacing(folder / PICTURE_NAME, "wb") as picture:
        picture.write(to_png(figure))
    with replacing(folder / PAGE_NAME) as page:
        page.write(make_report_page(report, to_svg(figure) if "bits" in measured else None))
    with replacing(folder / REPORT_NAME) as file:
        file.write(json.dumps(report, ensure_ascii=False, indent=1) + "\n")


def write_private_pages(
    options: argparse.Namespace,
    folder: Path,
    held_out: HeldOutSet,
    replies: Mapping[str, Sequence[SampledReply]] | None,
    trained: TrainedModel | None,
) -> None:
    """Write the pages that quote the chat, if asked for; `replies` are the models' replies in these contexts."""
    if options.show_replies is None and options.quiz is None:
        return
    if replies is None or trained is None:
        print("no page of replies: too little data, so no replies were generated", file=sys.stderr)
        return
    from writing_style.blind_quiz import write_quiz
    from writing_style.model_replies import cut_as_generated
    from writing_style.style_page import choose_examples, make_examples_page
    from writing_style.writing_habits import find_key_words

    base, tuned = ([reply.text for reply in replies[writer]] for writer in ("base", "tuned"))
    if options.show_replies is not None:
        examples = choose_examples(held_out.owner, base, tuned, options.show_replies)
        key_words = find_key_words(tuned, [exchange.reply for exchange in held_out.owner])
        with replacing(folder / EXAMPLES_NAME) as page:
            page.write(make_examples_page(examples, key_words))
        print(f"private, quotes the chat: {shown_path(folder / EXAMPLES_NAME)}")
    if options.quiz is not None:
        pairs = zip(held_out.owner, tuned, strict=True)
        # A real reply longer than any generated one can be would be easy to spot.
        fair = [
            (exchange, text) for exchange, text in pairs if exchange.reply == cut_as_generated(trained, exchange.reply)
        ]
        path, num_pairs = write_quiz(
            folder, [exchange for exchange, _ in fair], [text for _, text in fair], options.quiz, options.seed
        )
        print(f"blind test of {counted(num_pairs, 'pair')} (private): {shown_path(path)}")


def print_verdict(folder: Path, report: Mapping[str, Any]) -> None:
    """Print the verdict, its reasons and the files written."""
    from writing_style.style_page import describe_cost

    decisive = report["sets"][report["settings"]["headline_set"]]
    print(f"verdict: {report['verdict']}")
    print(decisive["sentence"])
    for reason in decisive["reasons"]:
        needed = f" (needed: {reason['needed']})" if reason["state"] != "yes" else ""
        print(f"  {reason['state']:4}  {reason['text']}{needed}")
    if not decisive["is_trustworthy"]:
        failed = "; ".join(check["text"] for check in decisive["checks"] if not check["holds"])
        print(f"do not trust this page: a check of the measurement failed: {failed}")
    for name, measured in report["sets"].items():
        if name != report["settings"]["headline_set"]:
            print(f"on the {name} conversations: {measured['verdict']}")
        if "cost_of_exporting" in measured:
            print(f"{name}: {describe_cost(measured['cost_of_exporting'])}")
    if decisive["summary"]:
        print(decisive["summary"][-1])
    for warning in decisive["warnings"]:
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
        print("guessing could explain this result; use more pairs or ask more people")
    return 0


def plant_canaries(options: argparse.Namespace) -> int:
    """Write a copy of the data with invented secrets, for a trial training that `--leak-probe` measures."""
    source = options.path_to_data or block_path(chat_bot.path_to_data)
    target = options.plant_canaries
    check_folder_of(target)
    num_planted = plant_into_file(source, target, options.seed)
    print(f"copy with {num_planted} invented secrets: {shown_path(target)}")
    print("train on the copy into a separate folder, run the leak probe on that folder, then delete both:")
    planted = shlex.quote(shown_path(target))
    print(f"  python3 src/training/fine_tuning_model.py --path-to-data {planted} --saved-model-path canary_model")
    print("  python3 src/chat/style_report.py --leak-probe --saved-model-path canary_model")
    return 0


if __name__ == "__main__":
    run_script(main)
