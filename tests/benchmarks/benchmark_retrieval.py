"""Do similar past exchanges in the prompt help? Three arms: none, random ones, similar ones (character n-grams, TF-IDF).

Writes a person's conversations once for each arm, with past exchanges as text in the first user turn of the training rows
(dropped from half of them at random), trains stage 2 on each, and measures on held-out conversations: bits per character
of the real replies, copies, whether a fact comes out right, and what a stranger can extract. A past exchange is always
from an earlier conversation that is neither held out nor the same one. Nothing of this is in `src/`.
Run:    python3 tests/benchmarks/benchmark_retrieval.py --work-dir DIR
Takes:  about ten minutes of one processor core; what DIR already holds is not made again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from choose_epochs import SRC_DIR, train
from control_table import replies_of, write_records

sys.path[:0] = [str(SRC_DIR / "chat"), str(SRC_DIR / "training"), str(SRC_DIR / "demo"), str(SRC_DIR.parent / "tests")]

from made_up_facts import ASKED, Told, copying_talks, recall_talks, write_facts  # noqa: E402
from made_up_people import plain_conversations  # noqa: E402

ARMS = ("none", "random", "similar")
FACTS = "Shira"  # the person who answers from facts
RUNS = ((FACTS, 0), (FACTS, 1), ("Daniel", 0))

SEED = 0  # of the intervals
NUM_PAST = 3
DROPPED_SHARE = 0.5  # of the training rows, so that the model can answer without past exchanges, too
BEFORE, NOW = "מקודם:", "עכשיו:"
NUM_EPOCHS, LEARNING_RATE = 5, 2e-3
MIN_RUN_WORDS = 4  # in a row from a past exchange: a copy of it

# Secrets that are told so many times by the owner or the other person; 12 times: the probe's control.
PLANTED = (("word", "owner", (0, 1, 4, 12)), ("word", "other", (1,)), ("address", "owner", (1,)))
# Who told a secret, at least and at most how often.
LEVELS = {
    "never told": (("owner", "other"), 0, 0),
    "by the owner once": (("owner",), 1, 1),
    "by the other once": (("other",), 1, 1),
    "2 to 4 times": (("owner",), 2, 4),
    "5 to 12 times": (("owner",), 5, 12),
}
NUM_FISHED = 2  # replies to each of the leak probe's questions

NUM_RECALL_TALKS = 7_000
NUM_COPYING_TALKS = 9_000
NUM_PLAIN_TALKS = 1_000
BASE_VOCAB, BASE_HIDDEN, BASE_LAYERS = 1_200, 128, 3
BASE_STEPS = 1_400
BASE_BLOCK_TOKENS, BASE_BLOCKS = 192, 6  # so that a question and what stands beside it are read together
MAX_OWN_REPLIES = 700  # of a person without facts

Record = dict[str, Any]
Turns = list[dict[str, str]]


class Scored(NamedTuple):
    """The bits of a real reply under an adapter, and under the base with the same prompt."""

    conversation: int
    number: int  # of the reply in its conversation
    num_chars: int
    bits: float
    base_bits: float


class Past(NamedTuple):
    """An exchange of an earlier conversation."""

    conversation: int  # its line
    started_at: str
    told: Told


def list_past(records: Sequence[Record], held_out: Iterable[int]) -> list[Past]:
    """Return every exchange of the conversations that are not held out."""
    left_out = set(held_out)
    return [
        Past(line, str(record["started_at"]), Told(first["content"], second["content"]))
        for line, record in enumerate(records)
        if line not in left_out
        for first, second in zip(record["messages"], record["messages"][1:], strict=False)
        if first["role"] == "user"
    ]


def pick(past: Sequence[Past], line: int, started_at: str, scores: Sequence[float], num: int = NUM_PAST) -> list[Told]:
    """Return the `num` exchanges with the highest scores that began before another conversation, the highest last.

    The same words are taken once.
    """
    earlier = [
        place for place, found in enumerate(past) if found.conversation != line and found.started_at < started_at
    ]
    best = dict.fromkeys(past[place].told for place in sorted(earlier, key=lambda place: -scores[place]))
    return list(best)[:num][::-1]


def with_past(turns: Turns, chosen: Sequence[Told]) -> Turns:
    """Return the turns with past exchanges before the words of the first one; the person's own opening stays alone."""
    if not chosen or turns[0]["role"] != "user":
        return turns
    lines = [f"{told.heard} > {told.reply}".replace("\n", " ") for told in chosen]
    return [{"role": "user", "content": "\n".join([BEFORE, *lines, NOW, turns[0]["content"]])}, *turns[1:]]


@dataclass
class Chooser:
    """Chooses past exchanges for a first turn, in the way of each arm."""

    past: list[Past]
    seed: int

    def __post_init__(self) -> None:
        """Index the past exchanges by their character n-grams."""
        from sklearn.feature_extraction.text import TfidfVectorizer

        self._vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True)
        self._matrix = self._vectorizer.fit_transform([f"{found.told.heard} {found.told.reply}" for found in self.past])

    def choose(self, arm: str, line: int, started_at: str, turns: Turns) -> list[Told]:
        """Return the exchanges for the conversation of this line, an empty list where its person wrote first."""
        if arm == "none" or turns[0]["role"] != "user":
            return []
        if arm == "random":
            rng = random.Random(f"{self.seed} {line}")
            scores = [rng.random() for _ in self.past]
        else:
            query = self._vectorizer.transform([turns[0]["content"]])
            scores = (self._matrix @ query.T).toarray()[:, 0].tolist()
        return pick(self.past, line, started_at, scores)


def is_dropped(seed: int, line: int) -> bool:
    """Tell whether the training row of this line has no past exchanges; the same lines in each arm."""
    return random.Random(f"dropped {seed} {line}").random() < DROPPED_SHARE


def make_base(folder: Path, copying_steps: int) -> None:
    """Make a small base that knows the language, and read it texts in which copying from the prompt pays.

    `copying_steps` more are of texts without language, in which all of a reply can be copied.
    """
    import make_small_base
    from make_small_base import BOS, EOS, make_model, make_tokenizer, train_on_texts

    recalled = [with_past(talk.turns, talk.past) for talk in recall_talks(NUM_RECALL_TALKS, seed=0, num_past=NUM_PAST)]
    plain = [record["messages"] for record in plain_conversations(NUM_PLAIN_TALKS, seed=0, every=2)]
    copied = [with_past(talk.turns, talk.past) for talk in copying_talks(NUM_COPYING_TALKS, seed=0, num_past=NUM_PAST)]

    def mix(*parts: list[Turns]) -> list[str]:
        talks = [talk for part in parts for talk in part]
        random.Random(0).shuffle(talks)
        return [
            BOS + "".join(f"<person{1 if turn['role'] == 'assistant' else 2}>{turn['content']}{EOS}" for turn in talk)
            for talk in talks
        ]

    texts = mix(plain, recalled)
    tokenizer = make_tokenizer(texts, vocab_size=BASE_VOCAB)
    model = make_model(len(tokenizer), hidden_size=BASE_HIDDEN, num_layers=BASE_LAYERS, seed=0)

    def show_step(step: int, loss: float) -> None:
        if step % 100 == 0:
            print(f"base: step {step}, loss {loss:.2f}, {time.process_time():.0f} s", flush=True)

    with mock.patch.multiple(make_small_base, BLOCK_TOKENS=BASE_BLOCK_TOKENS, BLOCKS_PER_STEP=BASE_BLOCKS):
        train_on_texts(model, tokenizer, texts, BASE_STEPS, seed=0, show_step=show_step)
        if copying_steps:
            train_on_texts(model, tokenizer, mix(copied, recalled), copying_steps, seed=1, show_step=show_step)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def write_person(person: str, seed: int) -> tuple[list[Record], list[Any]]:
    """Return the records of a person, and the secrets planted among those of the one with facts."""
    from writing_style.canaries import invent_canaries

    if person != FACTS:
        totals = itertools.accumulate(len(replies_of([record])) for record in write_records(person)[0])
        pairs = zip(write_records(person)[0], totals, strict=True)
        return [record for record, so_far in pairs if so_far <= MAX_OWN_REPLIES], []
    records = write_facts(seed)
    canaries = invent_canaries(seed, PLANTED)
    planted = [canary for canary in canaries for _ in range(canary.num_times)]
    random.Random(seed).shuffle(planted)
    hosts = [record["started_at"] for record in records]
    for number, canary in enumerate(planted):
        moment = hosts[number * len(hosts) // len(planted)]
        records.append({"messages": canary.as_messages(), "started_at": moment, "chat": "Omer", "with": ["Omer"]})
    return records, canaries


def hold_out_lines(records: Sequence[Record]) -> dict[str, list[int]]:
    """Return the lines of each set that stage 2 will hold out; past exchanges change none of them."""
    from held_out_sets import hold_out

    from common.conversation_data import Conversation

    sets = hold_out(
        [Conversation(line, record["messages"], record["started_at"]) for line, record in enumerate(records)]
    )
    return {"validation": sets.validation, "spread": sets.spread, "latest": sets.latest}


def train_arm(folder: Path, base: Path, arm: str, records: Sequence[Record], chooser: Chooser, seed: int) -> float:
    """Train stage 2 on the rows of an arm, unless an earlier run has; return its processor seconds."""
    if (folder / "training_settings.json").is_file():
        return 0.0
    shutil.rmtree(folder, ignore_errors=True)
    data_path = folder.with_suffix(".jsonl")
    with data_path.open("w", encoding="utf-8") as file:
        for line, record in enumerate(records):
            chosen = (
                [] if is_dropped(seed, line) else chooser.choose(arm, line, record["started_at"], record["messages"])
            )
            row = record | {"messages": with_past(record["messages"], chosen)}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    flags = ["--learning-rate", str(LEARNING_RATE), "--epochs", str(NUM_EPOCHS), "--seed", str(seed)]
    return train(folder, base, data_path, flags, "cosine")


def measure_replies(
    trained: Any, arm: str, records: Sequence[Record], lines: Sequence[int], chooser: Chooser, seed: int
) -> dict[str, Any]:
    """Measure an adapter on the conversations `lines`: bits with the prompts of each arm, replies with those of its own."""
    from writing_style.held_out_replies import list_exchanges
    from writing_style.model_replies import score_replies

    chosen = {
        prompt: {
            line: chooser.choose(prompt, line, records[line]["started_at"], records[line]["messages"]) for line in lines
        }
        for prompt in ARMS
    }
    exchanges = {
        prompt: list_exchanges({line: with_past(records[line]["messages"], chosen[prompt][line]) for line in lines})
        for prompt in ARMS
    }
    bits: dict[str, list[Scored]] = {}
    for prompt in ARMS if arm == "similar" else (arm,):
        scored = score_replies(trained.model, trained.tokenizer, exchanges[prompt], trained.context_tokens)
        bits[prompt] = [
            Scored(reply.conversation, exchange.number, reply.num_chars, reply.tuned_bits, reply.base_bits)
            for exchange, reply in zip(exchanges[prompt], scored, strict=True)
        ]
    firsts = [exchange for exchange in exchanges[arm] if exchange.number == 1]
    return {"bits": bits, "replies": describe_replies(trained, firsts, records, chosen[arm], chooser.past, seed)}


def describe_replies(
    trained: Any,
    firsts: Sequence[Any],
    records: Sequence[Record],
    chosen: dict[int, list[Told]],
    past: list[Past],
    seed: int,
) -> list[dict[str, Any]]:
    """Generate the first replies; return what of each is copied and whether it has the fact, beside the real reply's."""
    from writing_style.model_replies import BatchGeneration, encode_fitting, make_batches
    from writing_style.writing_habits import TrainingPhrases

    prompts = [
        encode_fitting(trained.tokenizer, exchange.context, 1_024, add_generation_prompt=True).input_ids
        for exchange in firsts
    ]
    generation = BatchGeneration(trained)
    texts = [""] * len(firsts)
    for number, rows in enumerate(make_batches([len(prompt) for prompt in prompts])):
        replies = generation.generate([prompts[row] for row in rows], trained.sampling, seed + number)
        for row, reply in zip(rows, replies, strict=True):
            texts[row] = reply.text
    training = TrainingPhrases(found.told.reply for found in past)
    described = []
    for exchange, text in zip(firsts, texts, strict=True):
        line, fact = exchange.conversation, records[exchange.conversation].get("fact", {})
        beside = TrainingPhrases(part for told in chosen[line] for part in told)
        is_known = fact.get("act") == ASKED and any(
            fact["value"] in " ".join(found.told) and fact["key"] in " ".join(found.told)
            for found in past
            if found.started_at < records[line]["started_at"]
        )
        described.append(
            {
                "conversation": line,
                "is_asked": fact.get("act") == ASKED,
                "is_known": is_known,
                "is_beside": is_known and any(
                    fact["value"] in " ".join(told) and fact["key"] in " ".join(told) for told in chosen[line]
                ),
                "is_right": is_known and fact["value"] in text,
                "copies_training": training.is_copy(text),
                "owner_copies_training": training.is_copy(exchange.reply),
                "copies_past": is_from(beside, text),
                "owner_copies_past": is_from(beside, exchange.reply),
                "text": text,
            }
        )  # fmt: skip
    return described


def is_from(beside: Any, text: str) -> bool:
    """Tell whether a reply is a past exchange's, or has MIN_RUN_WORDS words in a row from one."""
    return bool(beside.is_copy(text) or beside.longest_run(text) >= MIN_RUN_WORDS)


def probe(
    trained: Any, records: Sequence[Record], chooser: Chooser, arm: str, canaries: list[Any], seed: int
) -> dict[str, Any]:
    """Run the leak probe with the prompts that this arm makes of a stranger's questions."""
    from writing_style.canaries import KINDS, Canary
    from writing_style.leak_probe import FISHING_PROMPTS, SecretRanker, count_secrets
    from writing_style.model_replies import BatchGeneration

    after_all = "9999"

    def prompt_of(turns: Turns) -> Turns:
        return with_past(turns, chooser.choose(arm, -1, after_all, turns))

    class Asked(Canary):
        def as_question(self) -> Turns:
            return prompt_of(super().as_question())

    told = Counter(" ".join(found.told) for found in chooser.past)
    found = []
    rankers = {name: SecretRanker(trained, KINDS[name]) for name in sorted({canary.kind for canary in canaries})}
    for canary in canaries:
        asked = Asked(canary.kind, canary.word, canary.secret, canary.num_times, canary.side)
        num_told = sum(count for text, count in told.items() if canary.word in text and canary.secret in text)
        exposure = rankers[canary.kind].exposure_bits(asked)
        found.append(
            {
                "kind": canary.kind, "side": canary.side, "num_told": num_told, "exposure": exposure, "is_first": exposure == rankers[canary.kind].most_bits,
            }
        )  # fmt: skip
    questions = [prompt_of([{"role": "user", "content": question}]) for question in FISHING_PROMPTS]
    # A stranger who knows what there is to ask for.
    questions += [prompt_of(canary.as_question()[:1]) for canary in canaries if canary.num_times]
    rows = [trained.encode_prompt(turns)[0] for turns in questions for _ in range(NUM_FISHED)]
    generation = BatchGeneration(trained)
    replies = [
        reply.text
        for start in range(0, len(rows), 16)
        for reply in generation.generate(rows[start : start + 16], trained.sampling, seed + start)
    ]
    held_out = {line for lines in hold_out_lines(records).values() for line in lines}
    training = [
        turn["content"] for line, record in enumerate(records) if line not in held_out for turn in record["messages"]
    ]
    num_blind = len(FISHING_PROMPTS) * NUM_FISHED
    return {
        "canaries": found,
        "blind": count_secrets(replies[:num_blind], training),
        "knowing": count_secrets(replies[num_blind:], training) if canaries else None,
    }


def paired(first: Sequence[Scored], second: Sequence[Scored], seed: int) -> str:
    """Return the difference, second minus first, in bits per character of the same replies, over conversations."""
    import numpy as np
    from writing_style.resampling import interval_of, resample

    rows = [
        (int(one.conversation), (one.bits, two.bits, one.num_chars)) for one, two in zip(first, second, strict=True)
    ]
    totals = resample([row[0] for row in rows], seed).total(rows)
    found = interval_of((totals[:, 1] - totals[:, 0]) / np.maximum(totals[:, 2], 1e-9))
    return f"{found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"


def bits_per_char(rows: Sequence[Scored], name: str = "bits") -> float:
    """Return the bits per character of the replies."""
    return sum(getattr(row, name) for row in rows) / sum(row.num_chars for row in rows)


def measurement_path(work_dir: Path, person: str, seed: int, arm: str) -> Path:
    """Return the path of a finished measurement."""
    return work_dir / f"measured_{person}_{seed}_{arm}.json"


def run(work_dir: Path, base: Path, person: str, seed: int, arms: Iterable[str]) -> None:
    """Train and measure those of `arms` that `work_dir` does not hold."""
    import torch
    from saved_model_checks import check_saved_model
    from trained_model import load_trained_model

    torch.set_num_threads(1)
    records, canaries = write_person(person, seed)
    sets = hold_out_lines(records)
    chooser = Chooser(list_past(records, {line for lines in sets.values() for line in lines}), seed)
    for arm in arms:
        path = measurement_path(work_dir, person, seed, arm)
        if path.exists():
            continue
        folder = work_dir / f"{person}_{seed}_{arm}"
        seconds = train_arm(folder, base, arm, records, chooser, seed)
        split = json.loads((folder / "held_out_conversations.json").read_text(encoding="utf-8"))
        assert all(split[name] == lines for name, lines in sets.items()), "stage 2 held out other conversations"
        lines = sorted([*sets["spread"], *sets["latest"]])
        # The planted conversations are for the probe alone.
        lines = [line for line in lines if person != FACTS or line < len(write_facts(seed))]
        trained = load_trained_model(check_saved_model(folder), device="cpu")
        started_at = time.process_time()
        measured = measure_replies(trained, arm, records, lines, chooser, seed) | {"training_seconds": seconds}
        measured["measuring_seconds"] = time.process_time() - started_at
        write_json(path.with_suffix(".part"), measured)  # the slow part is still to come
        measured["leaks"] = probe(trained, records, chooser, arm, canaries, seed)
        write_json(path, measured)
        print(f"{person}, seed {seed}, {arm}: {seconds:.0f} + {time.process_time() - started_at:.0f} s", flush=True)


def read_measurements(work_dir: Path, person: str, seed: int) -> dict[str, Any]:
    """Return what was measured of each arm."""
    found = {}
    for arm in ARMS:
        path = measurement_path(work_dir, person, seed, arm)
        path = path if path.exists() else path.with_suffix(".part")
        if path.exists():
            found[arm] = json.loads(path.read_text(encoding="utf-8"))
            found[arm]["bits"] = {prompt: [Scored(*row) for row in rows] for prompt, rows in found[arm]["bits"].items()}
    return found


def write_json(path: Path, value: Any) -> None:
    """Write `value` to `path`."""
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")


def show_bits(runs: Mapping[str, Mapping[str, Any]]) -> None:
    """Print the bits per character of the held-out replies in each arm, and what the similar arm gains."""
    show_line("person, seed", "replies", *ARMS, "similar - none", "similar - random", "base: none, similar",
              "the similar arm's adapter without past exchanges", "with random ones, minus with similar ones")  # fmt: skip
    print("|" + "---|" * 10)
    for name, arms in runs.items():
        described = {row["conversation"]: row for row in arms["similar"]["replies"]}

        def is_described(row: Scored, what: str, described: Mapping[int, Any] = described) -> bool:
            return row.number == 1 and bool(described.get(row.conversation, {}).get(what))

        groups: dict[str, Callable[[Scored], bool]] = {
            "all": lambda row: True,
            "first": lambda row: row.number == 1,
            "asked for a fact told before": lambda row: is_described(row, "is_known"),
            "the same, the fact beside the question": lambda row: is_described(row, "is_beside"),
        }
        for group, is_chosen in groups.items():
            own = {arm: list(filter(is_chosen, found["bits"][arm])) for arm, found in arms.items()}
            similar = {prompt: list(filter(is_chosen, rows)) for prompt, rows in arms["similar"]["bits"].items()}
            if not own["similar"]:
                continue
            show_line(
                name, f"{group} ({len(own['similar'])})",
                *(f"{bits_per_char(own[arm]):.3f}" if arm in own else "-" for arm in ARMS),
                *(paired(own[arm], own["similar"], SEED) if arm in own else "-" for arm in ARMS[:2]),
                ", ".join(f"{bits_per_char(similar[prompt], 'base_bits'):.3f}" for prompt in ("none", "similar")),
                f"{bits_per_char(similar['none']):.3f}",
                paired(similar["similar"], similar["random"], SEED),
            )  # fmt: skip


def show_replies(runs: Mapping[str, Mapping[str, Any]]) -> None:
    """Print what the adapters wrote as first replies."""
    show_line("person, seed", "arm", "facts beside the question", "answered right", "copied from training (the owner)",
              "from the past exchanges (the owner)", "CPU s")  # fmt: skip
    print("|" + "---|" * 7)
    for name, arms in runs.items():
        for arm, found in arms.items():
            rows = found["replies"]
            known = [row for row in rows if row["is_known"]]

            def count(what: str, rows: Sequence[Mapping[str, Any]] = rows) -> int:
                return sum(row[what] for row in rows)

            show_line(
                name, arm, f"{count('is_beside', known)} of {len(known)}", f"{count('is_right', known)} of {len(known)}",
                f"{count('copies_training')} of {len(rows)} ({count('owner_copies_training')})",
                f"{count('copies_past')} of {len(rows)} ({count('owner_copies_past')})",
                f"{found['training_seconds']:.0f} + {found['measuring_seconds']:.0f}",
            )  # fmt: skip


def show_leaks(runs: Mapping[str, Mapping[str, Any]]) -> None:
    """Print the exposure of planted secrets, and how many words told once came out when asked."""
    show_line("person, seed", "arm", *LEVELS, "blind questions", "questions by name")
    print("|" + "---|" * (len(LEVELS) + 4))
    for name, arms in runs.items():
        for arm, found in arms.items():
            if "leaks" not in found:
                continue
            cells = []
            for sides, low, high in LEVELS.values():
                level = [
                    row["exposure"]
                    for row in found["leaks"]["canaries"]
                    if row["side"] in sides and low <= row["num_told"] <= high
                ]
                cells.append(f"{sum(level) / len(level):.1f} ({len(level)})" if level else "-")
            for name_of_questions in ("blind", "knowing"):
                counts = found["leaks"][name_of_questions]
                cells.append(
                    "-" if counts is None
                    else f"{counts['num_with_rare_word_from_training']} of {counts['num_attempts']}"
                )  # fmt: skip
            show_line(name, arm, *cells)


def show_line(*cells: str) -> None:
    """Print a line of a table."""
    print("| " + " | ".join(cells) + " |")


def main() -> None:
    """Make what is missing, then print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work-dir", type=Path, required=True)
    parser.add_argument("--runs", nargs="+", default=[f"{person}:{seed}" for person, seed in RUNS], help="PERSON:SEED")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS), help="to train and measure")
    parser.add_argument("--copying-steps", type=int, default=0, help="of the base, at the end (default: %(default)s)")
    parser.add_argument("--table", action="store_true", help="make nothing, print what is there")
    options = parser.parse_args()
    runs = [(name.partition(":")[0], int(name.partition(":")[2])) for name in options.runs]
    options.work_dir.mkdir(parents=True, exist_ok=True)
    base = options.work_dir / "copying_base"
    if not options.table:
        if not base.exists():
            make_base(base, options.copying_steps)
        for person, seed in runs:
            run(options.work_dir, base, person, seed, options.arms)
    measured = {f"{person}, {seed}": read_measurements(options.work_dir, person, seed) for person, seed in runs}
    for show in (show_bits, show_replies, show_leaks):
        print()
        show({name: arms for name, arms in measured.items() if "similar" in arms})


if __name__ == "__main__":
    main()
