"""Put models and replies of known worth before the style report: which verdict does each get, and which must it get?

Each control is an adapter that stage 2 trained on data prepared for it (the wrong person's, replies dealt out to other
questions, turns of either person), or a set of replies written without a model beside the owner's own adapter (a parrot,
the commonest reply, a fresh draw from the owner's generator). All are measured on the same held-out conversations of people of
`made_up_people`. Prints a Markdown table; `--store FILE` also writes the measurements on which the suite runs the verdict.
Run:    python3 tests/benchmarks/control_table.py --work-dir DIR --store tests/cases/control_measurements.json
Takes:  about a quarter of an hour of one processor core for each person; what DIR already holds is not measured again.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

from choose_epochs import SRC_DIR, make_base, train

sys.path[:0] = [str(SRC_DIR / "chat"), str(SRC_DIR.parent / "tests")]

from made_up_people import PEOPLE, as_conversations, write_chat  # noqa: E402

# The person of each row, and the stranger whose model is the wrong one.
STRANGERS = {"Tamar": "Daniel", "Daniel": "Noa", "Noa": "Tamar", "Avner": "Tamar"}
NUM_REPLIES = 1_300  # of which the report holds out about 270
NUM_PROMPTS = 220
SEED = 0
FRESH_DRAW = 1
NUM_PARROTED = 30
NUM_EPOCHS = 8
FEW_EPOCHS = 4  # of what must be refused
SIGNIFICANT_DIGITS = 4
FEW_DRAWS = 20  # for the classifier that separates two writers, the slowest part: rougher intervals in half of the time

CLOSER = ("closer than the base", "as close as the owner to themselves")
REFUSED = ("no closer than the base",)
OPEN = ("cannot tell",)
# The verdicts that are right.
EXPECTED = {
    "own model": CLOSER,
    "fresh draw": (*CLOSER, *OPEN),  # never a no
    "twins": OPEN,
    "untouched base": REFUSED,
    "base tuned on the other": REFUSED,
    "wrong person": REFUSED,
    "shuffled": REFUSED,
    "shuffled replies": REFUSED,
    "half-swapped": REFUSED,
    "half-group": REFUSED,
    "parrot": REFUSED,
    "commonest reply": REFUSED,
}
Record = dict[str, Any]


def write_records(person: str) -> tuple[list[Record], list[Record]]:
    """Return the records of a chat, in the order of time, and those of another draw of the person's words."""
    first, second = (
        as_conversations(write_chat(person, NUM_REPLIES, SEED, own_seed=own), person) for own in (SEED, FRESH_DRAW)
    )
    pairs, num_replies = [], 0
    for pair in sorted(zip(first, second, strict=True), key=lambda pair: str(pair[0]["started_at"])):
        num_replies += len(replies_of([pair[0]]))
        if num_replies <= NUM_REPLIES:
            pairs.append(pair)
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def replies_of(records: Iterable[Record]) -> list[str]:
    """Return the assistant's turns."""
    return [turn["content"] for record in records for turn in record["messages"] if turn["role"] == "assistant"]


def without_group_names(records: Iterable[Record]) -> list[Record]:
    """Return the records without the names before the members' messages, so that a model may learn to write as they do."""
    from writing_style.member_names import without_names

    members = [member for person in PEOPLE.values() for member in person.partners if person.group_name]
    found = deepcopy(list(records))
    for record in found:
        for turn in record["messages"]:
            turn["content"] = without_names(turn["content"], members)
    return found


def with_roles_swapped(records: Iterable[Record]) -> list[Record]:
    """Return the records with the others in the assistant's place; conversations without a reply are left out."""
    swapped = without_group_names(records)
    for record in swapped:
        for turn in record["messages"]:
            turn["role"] = {"user": "assistant", "assistant": "user"}[turn["role"]]
        while record["messages"] and record["messages"][-1]["role"] == "user":
            record["messages"].pop()
    return [record for record in swapped if record["messages"]]


def with_replies_dealt_out(records: Iterable[Record]) -> list[Record]:
    """Return the records with all replies shuffled over all places."""
    dealt = deepcopy(list(records))
    replies = replies_of(dealt)
    random.Random(SEED).shuffle(replies)
    for record in dealt:
        for turn in record["messages"]:
            if turn["role"] == "assistant":
                turn["content"] = replies.pop()
    return dealt


def with_turns_mixed(records: Iterable[Record]) -> list[Record]:
    """Return the records with the texts of each conversation shuffled over its turns."""
    mixed, rng = without_group_names(records), random.Random(SEED)
    for record in mixed:
        texts = [turn["content"] for turn in record["messages"]]
        rng.shuffle(texts)
        record["messages"] = [turn | {"content": text} for turn, text in zip(record["messages"], texts, strict=True)]
    return mixed


def with_half_as_a_member_would(person: str, records: Iterable[Record]) -> list[Record]:
    """Return the records with every second reply, at random, as another member would have written it there."""
    own, plain = (
        as_conversations(write_chat(person, NUM_REPLIES, SEED, own_seed=SEED, is_plain=is_plain), person)
        for is_plain in (False, True)
    )
    as_member = {record["started_at"]: replies_of([other]) for record, other in zip(own, plain, strict=True)}
    mixed, rng = deepcopy(list(records)), random.Random(SEED)
    for record in mixed:
        replies = [turn for turn in record["messages"] if turn["role"] == "assistant"]
        for turn, text in zip(replies, as_member[record["started_at"]], strict=True):
            if rng.random() < 0.5:
                turn["content"] = text
    return mixed


def list_trainings(person: str) -> dict[str, list[Record]]:
    """Return the training data of each control that needs an adapter of its own."""
    records, _ = write_records(person)
    trainings = {
        "own model": records,
        "base tuned on the other": with_roles_swapped(records),
        "shuffled": with_replies_dealt_out(records),
        "half-swapped": with_turns_mixed(records),
    }
    if PEOPLE[person].group_name:
        trainings["half-group"] = with_half_as_a_member_would(person, records)
    return trainings


def model_dir(work_dir: Path, person: str, control: str) -> Path:
    """Return the folder of a control's adapter; its data lies beside it."""
    return work_dir / f"{person}_{control.replace(' ', '_')}"


def data_path_of(folder: Path) -> Path:
    """Return the path of the data that the adapter in `folder` was trained on."""
    return folder.with_suffix(".jsonl")


def train_control(folder: Path, base: Path, records: Iterable[Record], num_epochs: int = NUM_EPOCHS) -> None:
    """Train stage 2 on `records`, unless an earlier run has."""
    if (folder / "training_settings.json").is_file():
        return
    shutil.rmtree(folder, ignore_errors=True)
    text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    data_path_of(folder).write_text(text, encoding="utf-8")
    flags = ["--learning-rate", "1e-3", "--epochs", str(num_epochs), "--seed", str(SEED)]
    train(folder, base, data_path_of(folder), flags, "cosine")


def untrain(folder: Path, target: Path) -> None:
    """Copy the model in `folder` with an adapter that changes nothing."""
    import torch
    from safetensors.torch import load_file, save_file

    if target.exists():
        return
    shutil.copytree(folder, target)
    path = target / "adapter_model.safetensors"
    weights = load_file(path)
    save_file({name: torch.zeros_like(tensor) for name, tensor in weights.items()}, path, metadata={"format": "pt"})


def measure_person(work_dir: Path, base: Path, person: str, controls: Iterable[str]) -> None:
    """Train and measure what is missing of `controls`; each measurement becomes a file in `work_dir`."""
    wanted = [name for name in controls if not measurement_path(work_dir, person, name).exists()]
    if not wanted:
        return
    for control, records in list_trainings(person).items():
        num_epochs = FEW_EPOCHS if EXPECTED[control] == REFUSED else NUM_EPOCHS
        train_control(model_dir(work_dir, person, control), base, records, num_epochs)
    own = model_dir(work_dir, person, "own model")
    untrain(own, model_dir(work_dir, person, "untouched base"))
    stranger = model_dir(work_dir, STRANGERS[person], "own model")
    train_control(stranger, base, write_records(STRANGERS[person])[0])
    for control in wanted:
        if control == "half-group" and not PEOPLE[person].group_name:
            continue
        adapter = stranger if control == "wrong person" else model_dir(work_dir, person, control)
        measured = measure_control(own, adapter if adapter.is_dir() else own, person, control)
        path = measurement_path(work_dir, person, control)
        path.write_text(json.dumps(measured, ensure_ascii=False), encoding="utf-8")
        print(f"{person}, {control}: {measured['verdict']}", flush=True)


def measurement_path(work_dir: Path, person: str, control: str) -> Path:
    """Return the path of a finished measurement."""
    return work_dir / f"measured_{person}_{control.replace(' ', '_')}.json"


def measure_control(own: Path, adapter: Path, person: str, control: str) -> dict[str, Any]:
    """Measure one control on the held-out conversations of the model in `own`."""
    import torch
    from saved_model_checks import check_saved_model
    from style_report import measure
    from trained_model import load_trained_model
    from writing_style import author_classifier
    from writing_style.held_out_replies import choose_set, read_held_out_data
    from writing_style.model_replies import RepliesFile, SampledReply, sample_replies

    torch.set_num_threads(1)
    data = read_held_out_data(own, data_path_of(own))
    held_out = choose_set(data, "spread", NUM_PROMPTS)
    trained = load_trained_model(check_saved_model(adapter), device="cpu")
    base_file = RepliesFile(own / "control_replies.jsonl", {"seed": SEED})
    own_replies = sample_replies(
        load_trained_model(check_saved_model(own), device="cpu"), held_out.owner, SEED, base_file
    )
    if adapter == own:
        sampled = dict(own_replies)
    else:
        replies_file = RepliesFile(adapter / f"replies_to_{own.name}.jsonl", {"seed": SEED + 1})
        if replies_file.find("base", held_out.owner[0]) is None:
            replies_file.add("base", held_out.owner, own_replies["base"])
        sampled = sample_replies(trained, held_out.owner, SEED + 1, replies_file)
    if control == "twins":
        return measure_twins(trained, held_out, sampled, data, person)
    if control != "own model" and adapter == own:
        texts = write_replies(control, data.training_replies("assistant"), held_out, person)
        sampled["tuned"] = [SampledReply(text, "complete") for text in texts]
    with mock.patch.object(author_classifier, "SEPARATION_DRAWS", FEW_DRAWS):
        return dict(measure(trained, held_out, sampled, data, SEED))


def measure_twins(trained: Any, held_out: Any, sampled: Any, data: Any, person: str) -> dict[str, Any]:
    """Measure the own model where another person writes exactly like the owner: a fresh draw of the owner's words."""
    from style_report import measure
    from writing_style import author_classifier
    from writing_style.held_out_replies import HeldOutData, list_exchanges

    fresh = {number: record["messages"] for number, record in enumerate(write_records(person)[1])}
    places = {(exchange.conversation, exchange.number) for exchange in held_out.owner}
    twin = [found for found in list_exchanges(fresh) if (found.conversation, found.number) in places]
    known = {
        "assistant": data.training_replies("assistant"),
        "user": [found.reply for found in list_exchanges(fresh) if found.conversation in data.training],
    }
    with (
        mock.patch.object(author_classifier, "SEPARATION_DRAWS", FEW_DRAWS),
        mock.patch.object(HeldOutData, "training_replies", lambda self, role: known[role]),
    ):
        return dict(measure(trained, replace(held_out, other=twin), sampled, data, SEED))


def write_replies(control: str, known: list[str], held_out: Any, person: str) -> list[str]:
    """Return the replies of a control that needs no adapter, in the order of the held-out ones."""
    rng = random.Random(SEED)
    real = [exchange.reply for exchange in held_out.owner]
    if control == "parrot":
        repertoire = rng.sample(sorted(set(known)), NUM_PARROTED)
        return [rng.choice(repertoire) for _ in real]
    if control == "commonest reply":
        return [Counter(known).most_common(1)[0][0]] * len(real)
    _, fresh = write_records(person)
    texts = [fresh[exchange.conversation]["messages"][exchange.number]["content"] for exchange in held_out.owner]
    if control == "shuffled replies":
        rng.shuffle(texts)
    return texts


def stored_form(measured: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the verdict reads, rounded: small enough to be kept."""
    names = (
        "num_replies", "num_conversations", "bits", "position", "excess", "side_of_the_owner", "controls", "endings",
        "num_with_a_members_name",
    )  # fmt: skip
    kept = {name: measured[name] for name in names}
    kept["habits"] = [
        {key: value for key, value in row.items() if isinstance(value, str | bool) or row["name"] == "telling_apart"}
        for row in measured["habits"]
    ]
    situations = measured["situations"]
    flags = [{key: value for key, value in row.items() if isinstance(value, str | bool)} for row in situations["rows"]]
    kept["situations"] = {**situations, "rows": flags}
    kept["writers"] = {"tuned": measured["writers"]["tuned"], "other": {}}
    rounded: dict[str, Any] = _rounded(kept)
    return rounded


def _rounded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _rounded(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_rounded(part) for part in value]
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}") if isinstance(value, float) else value


def show_table(rows: Iterable[Mapping[str, Any]]) -> None:
    """Print a line for each measurement, with the verdict that its rules reach now."""
    from writing_style.style_verdict import reach_verdict

    columns = ("person", "control", "gain, bits", "median habit", "relevance, bits", "situation kept", "copies, repeats",
               "side", "verdict", "because of")  # fmt: skip
    print("\n| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
    for row in rows:
        measured = row["measured"]
        judged = reach_verdict(measured)
        bits, excess = measured["bits"], {found["name"]: found["tuned"]["value"] for found in measured["excess"]}
        cells = [
            row["person"], row["control"], shown(bits["owner_drop"]), shown(measured["position"]),
            shown(bits["relevance"]), shown(measured["situations"]["kept"]),
            f"{excess['copies']:.0%}, {excess['repeats']:.0%}", shown(measured["side_of_the_owner"]),
            judged["verdict"] + ("" if judged["verdict"] in row["expected"] else " (WRONG)"),
            ", ".join(f"{found['name']}" for found in judged["reasons"] if found["state"] == "no")
            or ", ".join(f"{found['name']}?" for found in judged["reasons"] if found["state"] == "open")
            or ("a failed check" if not judged["is_trustworthy"] else ""),
        ]  # fmt: skip
        print("| " + " | ".join(cells) + " |")


def shown(interval: Mapping[str, float] | None) -> str:
    """Return an interval as the table shows it."""
    return "-" if interval is None else f"{interval['value']:.2f} [{interval['low']:.2f}, {interval['high']:.2f}]"


def main() -> None:
    """Measure what is missing, print the table, and store the measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work-dir", type=Path, required=True)
    parser.add_argument("--people", nargs="+", choices=list(STRANGERS), default=list(STRANGERS)[:3])
    parser.add_argument("--controls", nargs="+", choices=list(EXPECTED), default=list(EXPECTED))
    parser.add_argument("--store", type=Path, help="write the measurements to this file")
    parser.add_argument("--table", action="store_true", help="measure nothing, print what is there")
    options = parser.parse_args()
    options.work_dir.mkdir(parents=True, exist_ok=True)
    base = options.work_dir / "knowing_base"
    if not options.table:
        if not base.exists():
            make_base(base)
        for person in options.people:
            measure_person(options.work_dir, base, person, options.controls)
    rows = [
        {
            "person": person,
            "control": control,
            "expected": list(EXPECTED[control]),
            "measured": stored_form(json.loads(path.read_text(encoding="utf-8"))),
        }
        for person in options.people
        for control in options.controls
        if (path := measurement_path(options.work_dir, person, control)).exists()
    ]
    show_table(rows)
    if options.store:
        lines = ",\n".join(json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in rows)
        options.store.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
