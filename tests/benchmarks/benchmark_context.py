"""Does a header that says who writes, and when, make first replies fit the person and the hour?

Trains stage 2 with each `--context` on people of `made_up_people`, over seeds: Daniel is formal to one person and slangy to
another, Maya greets by the hour, Tamar, Avner and Noa (in a group) have no such habit. Measures the first replies of new chats, dated two years
after the training: the share in the wrong register, the share whose greeting fits the hour, the share that hold a piece of
a header, and the bits per character. Controls: the same model told the other person or another hour, or nothing as by
a tool that writes no header, and a model trained with headers dealt out to other conversations.
Prints a Markdown table, shares with Wilson intervals (95 %) over people's seeds together, bits with the spread of seeds.
Results are kept in WORK_DIR/results.jsonl, the first replies in WORK_DIR/first_replies.jsonl; a second call only adds what is
missing.
Run:    python3 tests/benchmarks/benchmark_context.py --work-dir DIR
        --hidden-size 256 --layers 4, --base-times 4 and --first-lines make bases that know more
Takes:  about a minute of one processor core for a training and its measurement, six with `--hidden-size 256 --layers 4
        --size 2000`; two to seven for the base.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import random
import re
import shutil
import statistics
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from choose_epochs import FRESH_SEED, make_base, train
from made_up_people import GREETINGS, PEOPLE, as_conversations, write_chat, write_jsonl

from common.conversation_data import Conversation
from common.conversation_header import DAYS, PARTS_OF_DAY, headers_by_line, part_of_day, render_header

CONDITIONS = ("none", "who", "who,when", "dealt out")
DEALT_OUT = "dealt out"  # trained on who,when with the headers of other conversations
TESTED_PEOPLE = ("Daniel", "Maya", "Tamar", "Avner", "Noa")
NUM_REPLIES = 800
NUM_FRESH_CONVERSATIONS = 120
MAX_SCORED = 150  # replies for the bits
YEARS_LATER = timedelta(days=728)  # the dates of a chat are never those of the training
LATER = timedelta(hours=9)  # another part of the day for every hour at which conversations begin
Z_95 = 1.96

FORMAL_RE = re.compile("אורנה|בברכה|תודה מראש|לשירותך|אציין כי|בהמשך לשיחתנו")
SLANG_RE = re.compile(r"\b(?:אחי|וואלה|גבר|שומע)\b|חחח|😂|🔥|יאללה|או מה|[?][?]|([^\W\d])\1\1")
REGISTERS = {"Orna": (FORMAL_RE, SLANG_RE), "Koby": (SLANG_RE, FORMAL_RE)}
HEADER_RE = re.compile(
    rf"·|{'|'.join(DAYS)}|\b(?:{'|'.join(name for _, name in PARTS_OF_DAY)})\b|\d{{1,2}}\.\d{{1,2}}\.\d{{4}}"
)


# Names of nobody in `made_up_people`, for a base that has read first lines.
OTHER_NAMES = (
    "Ruth", "Amir", "Yael", "Gadi", "Ilana", "Uri", "Keren", "Oded", "Osnat", "Levi", "Tzvi", "Hagit", "Rami", "Orit", "Koren",
    "Shira", "Shmuel", "Merav", "Nadav", "Pnina", "Eli", "Edna", "Doron", "Batya", "Zohar", "Vered", "Lior", "Ofra", "Itai", "Galit",
)  # fmt: skip


def with_first_line(talk: list[dict[str, str]], rng: random.Random) -> list[dict[str, str]]:
    """Return the conversation as it is, or with a header that its first reply addresses: "Ruth, ..." or "good morning, ...".

    Large bases have read letters and mails, where a line above a text decides how the text begins; this one has not.
    """
    if rng.random() < 0.5:
        return talk
    name = rng.choice(OTHER_NAMES)
    moment = datetime(2023, 1, 1) + timedelta(hours=rng.randrange(24 * 7))
    header = render_header(rng.choice(("who", "who,when", "who,when")), name, moment)
    part = f"good {part_of_day(moment.hour)}"
    opening = rng.choice((name, name, "")) if part[5:] not in header else rng.choice((name, part, f"{part} {name}", ""))
    talk = [dict(turn) for turn in talk]
    if opening:
        first = next(turn for turn in talk if turn["role"] == "assistant")
        first["content"] = f"{opening}, {first['content']}"
    if talk[0]["role"] == "user":
        return [talk[0] | {"content": f"{header}\n{talk[0]['content']}"}, *talk[1:]]
    return [{"role": "user", "content": header}, *talk]


def wilson(num_hits: int, num_all: int) -> tuple[float, float, float]:
    """Return the share and the ends of its interval.

    >>> [round(value, 3) for value in wilson(0, 30)]
    [0.0, 0.0, 0.114]
    """
    if not num_all:
        return math.nan, 0.0, 1.0
    share = num_hits / num_all
    centre = (share + Z_95**2 / (2 * num_all)) / (1 + Z_95**2 / num_all)
    half = Z_95 / (1 + Z_95**2 / num_all) * math.sqrt(share * (1 - share) / num_all + Z_95**2 / (4 * num_all**2))
    return share, max(0.0, centre - half), min(1.0, centre + half)


def is_wrong_register(reply: str, partner: str) -> bool:
    """Tell whether Daniel's reply has marks of the other register."""
    return bool(REGISTERS[partner][1].search(reply))


def is_right_register(reply: str, partner: str) -> bool:
    """Tell whether Daniel's reply has marks of the register of this partner, and none of the other."""
    return bool(REGISTERS[partner][0].search(reply)) and not is_wrong_register(reply, partner)


def greets_by_the_hour(reply: str, hour: int) -> bool:
    """Tell whether Maya's reply has the greeting of this hour, and no other."""
    begun = [greeting for start, greeting, _ in GREETINGS if hour >= start]
    wanted = begun[-1] if begun else GREETINGS[-1][1]  # before the first of a day it is still night
    return [greeting for _, greeting, _ in GREETINGS if greeting in reply] == [wanted]


def names_what_was_asked(reply: str, message: str) -> bool:
    """Tell whether a reply has a word of the message, one-letter prefixes aside: whether the writer reads back at all.

    >>> names_what_was_asked("התור לרופא בשלוש", "מתי התור אצל הרופא?"), names_what_was_asked("אולי מחר", "מתי התור?")
    (True, False)
    """

    def words(text: str) -> set[str]:
        return {word.lstrip("הבלמושכ") for word in re.findall(r"\w{3,}", text)} - {""}

    return bool(words(reply) & words(message))


def deal_out(data: Path, target: Path, seed: int) -> None:
    """Write the conversations of `data` with who and when of other conversations."""
    records = [json.loads(line) for line in data.read_text(encoding="utf-8").splitlines()]
    about = [{name: record[name] for name in ("chat", "started_at", "with")} for record in records]
    random.Random(seed).shuffle(about)
    lines = [json.dumps(record | other, ensure_ascii=False) for record, other in zip(records, about, strict=True)]
    target.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def fresh_conversations(person: str, seed: int) -> list[Conversation]:
    """Return conversations of a new chat of the person, two years after those of the training."""
    records = as_conversations(write_chat(person, NUM_FRESH_CONVERSATIONS, FRESH_SEED + seed), person)
    return [
        Conversation(
            line_number=number,
            messages=record["messages"],
            started_at=(datetime.fromisoformat(record["started_at"]) + YEARS_LATER).isoformat(),
            chat=record["chat"],
            partners=tuple(record["with"]),
        )
        for number, record in enumerate(records)
    ]


def told_otherwise(person: str, talk: Conversation) -> Conversation:
    """Return a conversation as with the person's other partner, or at another part of the day."""
    others = [name for name in PEOPLE[person].partners if name not in talk.partners]
    moved = datetime.fromisoformat(talk.started_at) + LATER
    return Conversation(
        line_number=talk.line_number,
        messages=talk.messages,
        started_at=moved.isoformat(),
        chat=others[0] if others else talk.chat,
        partners=tuple(others[:1]) or talk.partners,
    )


def measure(folder: Path, person: str, seed: int) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """Measure the model in `folder` on a new chat of the person; return the row, and the first replies with their headers."""
    import torch
    from saved_model_checks import check_saved_model
    from trained_model import load_trained_model
    from writing_style.held_out_replies import list_exchanges, take_evenly
    from writing_style.model_replies import BatchGeneration, encode_fitting, make_batches, score_replies

    torch.set_num_threads(1)
    trained = load_trained_model(check_saved_model(folder), device="cpu")
    talks = fresh_conversations(person, seed)
    context = str(trained.settings["context"])
    messages_of = {talk.line_number: talk.messages for talk in talks}
    exchanges = list_exchanges(messages_of, headers_by_line(talks, context))
    firsts = [
        exchange for exchange in exchanges if not any(message["role"] == "assistant" for message in exchange.context)
    ]
    generation = BatchGeneration(trained)

    def bits_per_char(told: str) -> float:
        asked = take_evenly(list_exchanges(messages_of, headers_by_line(talks, told)), MAX_SCORED)
        scored = score_replies(trained.model, trained.tokenizer, asked, trained.context_tokens)
        return sum(reply.tuned_bits for reply in scored) / sum(reply.num_chars for reply in scored)

    def write_firsts(said_of: Sequence[Conversation], told: str = context) -> list[str]:
        headers = headers_by_line(said_of, told)
        prompts = [
            encode_fitting(trained.tokenizer, exchange.context, 1_024, True, headers[exchange.conversation]).input_ids
            for exchange in firsts
        ]
        replies = [""] * len(prompts)
        for number, rows in enumerate(make_batches([len(prompt) for prompt in prompts])):
            written = generation.generate([prompts[row] for row in rows], trained.sampling, seed + number)
            for row, reply in zip(rows, written, strict=True):
                replies[row] = reply.text
        return replies

    replies, owner = write_firsts(talks), [exchange.reply for exchange in firsts]
    messages = [exchange.context[-1]["content"] for exchange in firsts]
    otherwise = [told_otherwise(person, talk) for talk in talks]
    told = write_firsts(otherwise) if context != "none" else []
    untold = write_firsts(talks, "none") if context != "none" else []
    row: dict[str, Any] = {
        "bits_per_char": bits_per_char(context),
        "untold_bits_per_char": bits_per_char("none"),
        "header_pieces": _count(replies, lambda reply, _: bool(HEADER_RE.search(reply)), replies),
        "owner_header_pieces": _count(owner, lambda reply, _: bool(HEADER_RE.search(reply)), owner),
        "names_asked": _count(replies, names_what_was_asked, messages),
        "owner_names_asked": _count(owner, names_what_was_asked, messages),
    }
    tests: dict[str, tuple[Callable[[str, Any], bool], Callable[[Conversation], Any]]] = {}
    if person == "Daniel":
        tests["wrong_register"] = (is_wrong_register, lambda talk: talk.partners[0])
        tests["right_register"] = (is_right_register, lambda talk: talk.partners[0])
    if person == "Maya":
        tests["fits_the_hour"] = (greets_by_the_hour, lambda talk: int(talk.started_at[11:13]))
    for name, (test, about) in tests.items():
        real = [about(talks[exchange.conversation]) for exchange in firsts]
        row[name] = _count(replies, test, real)
        row[f"owner_{name}"] = _count(owner, test, real)
        row[f"untold_{name}"] = _count(untold, test, real)
        # Told otherwise, and judged by what it was told.
        row[f"told_{name}"] = _count(told, test, [about(otherwise[exchange.conversation]) for exchange in firsts])
    shown_headers = headers_by_line(talks, "who,when")
    written = [
        {
            "header": shown_headers[exchange.conversation],
            "message": message,
            "reply": reply,
            "owner": exchange.reply,
        }
        for exchange, message, reply in zip(firsts, messages, replies, strict=True)
    ]
    return row, written


def _count(replies: Sequence[str], test: Callable[[str, Any], bool], about: Sequence[Any]) -> tuple[int, int]:
    """Return how many replies pass `test`, and how many there are."""
    return sum(test(reply, what) for reply, what in zip(replies, about, strict=False)), len(replies)


def run(work_dir: Path, base: Path, case: dict[str, Any]) -> dict[str, Any]:
    """Train and measure one case; return its row."""
    data = work_dir / f"{case['person']}_{case['size']}_{case['seed']}.jsonl"
    if not data.exists():
        write_jsonl(data, case["person"], case["size"], case["seed"])
    if case["condition"] == DEALT_OUT:
        dealt = data.with_name(f"dealt_{data.name}")
        deal_out(data, dealt, case["seed"])
        data = dealt
    folder = work_dir / "model"
    shutil.rmtree(folder, ignore_errors=True)
    context = "who,when" if case["condition"] == DEALT_OUT else case["condition"]
    flags = ["--context", context, "--epochs", str(case["epochs"]), "--learning-rate", case["rate"]]
    flags += ["--seed", str(case["seed"])]
    seconds = train(folder, base, data, flags, "cosine")
    report = json.loads((folder / "training_report.json").read_text(encoding="utf-8"))
    row, replies = measure(folder, case["person"], case["seed"])
    with (work_dir / "first_replies.jsonl").open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(case | reply, ensure_ascii=False) + "\n" for reply in replies)
    return {
        **case,
        "validation": report["validation"]["tuned"]["bits_per_char"],
        "tokens": report["tokens_per_epoch"],
        "epochs_run": report["epochs"],
        "cpu_seconds": round(seconds, 1),
        **row,
    }


SHOWN = {
    "wrong_register": "wrong register",
    "right_register": "right register",
    "fits_the_hour": "greeting fits the hour",
    "names_asked": "names what was asked",
    "header_pieces": "pieces of a header",
}


def show_table(rows: Sequence[dict[str, Any]]) -> None:
    """Print a line for each person, condition and measure."""
    print(
        "\n| person | header | seeds | bits/char | told nothing | measure | model | told otherwise | told nothing | the owner |"
        "\n|" + "---|" * 10
    )

    def key(row: dict[str, Any]) -> tuple[int, int]:
        return TESTED_PEOPLE.index(row["person"]), CONDITIONS.index(row["condition"])

    def shown_spread(bits: Sequence[float]) -> str:
        return f"{statistics.fmean(bits):.3f} [{min(bits):.3f}, {max(bits):.3f}]"

    def share(group: Sequence[dict[str, Any]], name: str) -> str:
        num_hits, num_all = (sum(row[name][place] for row in group if name in row) for place in (0, 1))
        if not num_all:
            return ""
        value, low, high = wilson(num_hits, num_all)
        return f"{value:.1%} [{low:.1%}, {high:.1%}]"

    for (person, condition), found in itertools.groupby(
        sorted(rows, key=key), lambda row: (row["person"], row["condition"])
    ):
        group = list(found)
        shown_bits = [shown_spread([row[name] for row in group]) for name in ("bits_per_char", "untold_bits_per_char")]
        for name, label in SHOWN.items():
            if name in group[0]:
                cells = [person, condition, str(len(group)), *shown_bits, label]
                cells += [share(group, f"{told}{name}") for told in ("", "told_", "untold_", "owner_")]
                print("| " + " | ".join(cells) + " |")


def main() -> None:
    """Train and measure what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work-dir", type=Path, required=True)
    parser.add_argument("--people", nargs="+", default=list(TESTED_PEOPLE), choices=TESTED_PEOPLE)
    parser.add_argument("--conditions", nargs="+", default=list(CONDITIONS), choices=CONDITIONS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--size", type=int, default=NUM_REPLIES, help="replies to train on (%(default)s)")
    parser.add_argument("--hidden-size", type=int, default=128, help="of the base made here (%(default)s)")
    parser.add_argument("--layers", type=int, default=2, help="of the base made here (%(default)s)")
    parser.add_argument("--base-times", type=int, default=1, help="times the texts and steps of the base (%(default)s)")
    parser.add_argument("--first-lines", action="store_true", help="the base has read headers of other people")
    parser.add_argument("--epochs", type=int, default=8, help="(%(default)s)")
    parser.add_argument(
        "--rate", default="3e-3", help="learning rate (%(default)s): with 1e-3 this base learns no header"
    )
    parser.add_argument("--table", action="store_true", help="train nothing, print what is there")
    options = parser.parse_args()
    options.work_dir.mkdir(parents=True, exist_ok=True)
    name = f"knowing_base_{options.hidden_size}x{options.layers}_{options.base_times}{'_lines' * options.first_lines}"
    base = options.work_dir / name
    if not options.table and not base.exists():
        change = {"change_talk": with_first_line} if options.first_lines else {}
        make_base(base, options.hidden_size, options.layers, options.base_times, **change)
    results = options.work_dir / "results.jsonl"
    rows = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    settings = {"base": base.name, "size": options.size, "epochs": options.epochs, "rate": options.rate}
    cases = [
        settings | {"person": person, "condition": condition, "seed": seed}
        for seed, condition, person in itertools.product(options.seeds, options.conditions, options.people)
    ]
    for case in [] if options.table else cases:
        if not any(case.items() <= row.items() for row in rows):
            rows.append(run(options.work_dir, base, case))
            with results.open("a") as file:
                file.write(json.dumps(rows[-1]) + "\n")
            print(json.dumps(rows[-1]), flush=True)
    show_table([row for row in rows if settings.items() <= row.items()])


if __name__ == "__main__":
    main()
