"""Damage the trained folder and the base at random: each loads, or is refused in one line; never another exception.

Run as a program, it tries more:

    PYTHONPATH=src:src/training:src/chat python tests/fuzz_loading.py SAVED_MODEL BASE NUM_MUTATIONS SEED
"""

import collections
import json
import random
import shutil
import sys
import tempfile
import traceback
from datetime import date
from pathlib import Path

import torch
from fake_training_step import build_empty_model
from prepared_run import load_tokenizer, refuse_tokens_without_rows
from qlora_model import load_quantized_base, read_model_config
from saved_model_checks import check_saved_model
from small_runs import CPU
from trained_model import load_trained_model

from common.base_model_files import check_base_folder
from common.script import ScriptError

SAVED_NAMES = (
    "training_settings.json", "adapter_config.json", "generation_config.json", "tokenizer_config.json", "tokenizer.json",
    "adapter_model.safetensors", "chat_template.jinja",
)  # fmt: skip
BASE_NAMES = ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors")
VALUES = (
    None, True, False, 0, -1, 1, 3, 7, 2**31, 10**12, 10**400, 0.5, -0.5, 1e308, "", "x", "\0", "a/b", "../..", "ת" * 300,
    [], [1], ["x"], [[]], {}, {"x": 1}, {"": {"": None}},
)  # fmt: skip


def places_in(value, path=()):
    """Every place of a JSON value, as the keys that lead to it."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places_in(inner, (*path, key))


def mutate_json(content, rng):
    """Replace, remove or add one value at a random place; the upper levels as often as the many lower ones."""
    value = json.loads(content)
    depth = rng.randint(1, 4)
    places = [path for path in places_in(value) if 1 <= len(path) <= depth]
    if not places:
        return content[: len(content) // 2]
    *leading, last = rng.choice(places)
    holder = value
    for key in leading:
        holder = holder[key]
    action = rng.random()
    if action < 0.2:
        del holder[last]
    elif action < 0.3 and isinstance(holder, dict):
        holder[rng.choice([*holder, "new"]) + rng.choice(["", "x"])] = rng.choice(VALUES)
    else:
        holder[last] = rng.choice(VALUES)
    return json.dumps(value).encode()


def mutate_bytes(content, rng):
    """Change, cut, repeat or insert a few bytes, in the first kilobyte as often as elsewhere."""
    changed = bytearray(content)
    place = rng.randrange(min(len(content), 1000 if rng.random() < 0.5 else len(content)) or 1)
    action = rng.randrange(4)
    if action == 0:
        changed[place : place + 1] = bytes([rng.randrange(256)])
    elif action == 1:
        del changed[place:]
    elif action == 2:
        del changed[place : place + rng.randint(1, 40)]
    else:
        changed[place:place] = changed[place : place + 20] or b"{"
    return bytes(changed)


def load_saved(folder):
    """Load the trained folder as the chat does, and encode a prompt."""
    trained = load_trained_model(check_saved_model(folder), device="cpu", dtype="float32")
    trained.encode_prompt([{"role": "user", "content": "hi"}])


def load_base(folder):
    """Load the base as stage 2 does, up to the first forward pass."""
    check_base_folder(folder)
    config = read_model_config(folder)
    tokenizer = load_tokenizer(folder, "base", date.today())
    refuse_tokens_without_rows(tokenizer, config, "base")
    build_empty_model(config, torch.float32)
    load_quantized_base(folder, CPU)


def try_mutations(source_dir, names, load, num_mutations, seed):
    """Return what happened how often, and the traceback of each mutation that was neither loaded nor refused."""
    rng = random.Random(seed)
    counts = collections.Counter()
    failures = []
    for number in range(num_mutations):
        name = rng.choice([name for name in names if (source_dir / name).is_file()])
        with tempfile.TemporaryDirectory() as parent:
            folder = shutil.copytree(source_dir, Path(parent) / "copy")
            content = (folder / name).read_bytes()
            mutate = mutate_json if name.endswith(".json") and rng.random() < 0.7 else mutate_bytes
            (folder / name).write_bytes(mutate(content, rng))
            try:
                load(folder)
                counts["loaded"] += 1
            except ScriptError as error:
                counts["refused"] += 1
                if "\n" in str(error) or ";" not in str(error):
                    failures.append(f"{number} {name}: {error}")
            except BaseException:
                failures.append(f"{number} {name}: {traceback.format_exc()}")
    return counts, failures


if __name__ == "__main__":
    for source, its_names, its_load in ((sys.argv[1], SAVED_NAMES, load_saved), (sys.argv[2], BASE_NAMES, load_base)):
        found, wrong = try_mutations(Path(source), its_names, its_load, int(sys.argv[3]), seed=int(sys.argv[4]))
        print(source, dict(found), len(wrong), "failures", *wrong, sep="\n")
