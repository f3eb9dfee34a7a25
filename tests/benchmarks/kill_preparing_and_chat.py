"""Kill stage 1 and the chat (SIGKILL) at random moments, many times, and check what is left each time.

Run:    .venv/bin/python tests/benchmarks/kill_preparing_and_chat.py --kills 100        (kill_training.py does stage 2)
Takes:  stage 1 about a second for each kill; the chat some seconds, most of them to load its libraries again.

After a kill, stage 1's output is the old one or the whole new one. The chat's log holds every line typed that got an
answer and every bubble that was shown, in whole lines; after all kills the next run works and no temporary file is left.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
ROOT = TESTS.parent
sys.path[:0] = [str(TESTS), str(ROOT / "src/demo"), str(ROOT / "src/chat")]

STAGE_1, STAGE_3 = ROOT / "src/data_preprocessing/load_whatsapp.py", ROOT / "src/chat/chat_bot.py"
NUM_LINES = 200  # typed to one chat: more than it can answer before it is killed


def start(script, folder, *arguments):
    """Start a script of the project in `folder`."""
    return subprocess.Popen(
        [sys.executable, str(script), *map(str, arguments)], cwd=folder, env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def kill_stage_1(folder, num_kills, rng):
    """Kill stage 1 so many times; return how many kills met it at work, and at how many the new output was there."""
    from make_sample_chat import sample_export

    (folder / "chat.txt").write_text(sample_export(400, seed=1), encoding="utf-8")
    arguments = ("chat.txt", "--imitate", "Noam", "--day-first", "--path-to-data")
    started_at = time.monotonic()
    assert start(STAGE_1, folder, *arguments, "whole/formatted_data.jsonl").wait() == 0
    seconds = time.monotonic() - started_at
    names = ("formatted_data.jsonl", "dropped_messages.jsonl", "preprocessing_report.json")
    new = {name: (folder / "whole" / name).read_bytes() for name in names}
    out = folder / "out"
    out.mkdir()
    num_killed = num_new = 0
    while num_killed < num_kills:
        for name in names:
            (out / name).write_bytes(b"old\n")
        process = start(STAGE_1, folder, *arguments, "out/formatted_data.jsonl")
        time.sleep(rng.uniform(0, 1.1 * seconds))
        process.kill()
        process.communicate()
        num_killed += process.returncode < 0
        contents = {name: (out / name).read_bytes() for name in names}
        assert all(contents[name] in (b"old\n", new[name]) for name in names)
        num_new += contents[names[0]] == new[names[0]] and process.returncode < 0
    assert start(STAGE_1, folder, *arguments, "out/formatted_data.jsonl").wait() == 0
    assert {path.name: path.read_bytes() for path in out.iterdir()} == new  # and nothing temporary
    return num_killed, num_new


def kill_chat(folder, num_kills, rng):
    """Kill the chat so many times; return how many kills met it at work, and how many bubbles it had shown in all."""
    import make_small_base
    from conversation_log import read_conversation
    from tiny_saved_model import write_saved_model

    base_dir = folder / "base"
    tokenizer = make_small_base.make_tokenizer(make_small_base.neutral_texts(100, seed=0), vocab_size=512)
    make_small_base.make_model(len(tokenizer), hidden_size=64, num_layers=2, seed=0).save_pretrained(base_dir)
    tokenizer.save_pretrained(base_dir)
    model_dir = write_saved_model(folder / "model", base_dir, max_length=400, adapter_scale=0.1)
    log_path = folder / "conversation.txt"
    num_killed = num_shown = 0
    while num_killed < num_kills:
        arguments = ("--saved-model-path", model_dir, "--conversation-path", log_path, "--max-new-tokens", "12")
        process = start(STAGE_3, folder, *arguments)
        said = [f"line {num_killed}-{number}" for number in range(NUM_LINES)]
        process.stdin.write("\n".join(said) + "\n")
        process.stdin.flush()
        # Some kills come while it loads, most while it talks.
        first_shown = "" if rng.random() < 0.2 else process.stdout.readline()
        time.sleep(rng.uniform(0, 3) if not first_shown else rng.uniform(0, 1))
        process.kill()
        shown = first_shown + process.communicate()[0]
        num_killed += process.returncode < 0
        bubbles = [line for line in shown.split("\n")[:-1] if line]  # a line that was cut was not shown
        num_shown += len(bubbles)
        num_answered = shown.count("\n\n")
        if not log_path.exists():
            assert not bubbles
            continue
        records = read_records(log_path.with_suffix(".jsonl"))
        last_start = max((place for place, record in enumerate(records) if record.get("event") == "start"), default=0)
        sitting = [record for record in records[last_start:] if "role" in record] if shown else []
        told = [line for record in sitting if record["role"] == "assistant" for line in record["text"].split("\n")]
        typed = [record["text"] for record in sitting if record["role"] == "user"]
        assert told[: len(bubbles)] == bubbles
        assert typed[:num_answered] == said[:num_answered]
    last = start(
        STAGE_3,
        folder,
        "--saved-model-path",
        model_dir,
        "--conversation-path",
        log_path,
        "--resume",
        "-p",
        "still there",
    )
    _, errors = last.communicate()
    assert last.returncode == 0, errors
    assert "still there" in log_path.read_text(encoding="utf-8")
    messages = read_conversation(log_path.with_suffix(".jsonl"))
    assert any(message["content"].endswith("still there") for message in messages[-2:])
    assert not [path for path in folder.iterdir() if path.name.startswith(".unfinished-")]
    return num_killed, num_shown


def read_records(path):
    """The whole records of the log's twin; a kill may cut the last line of a sitting, and no other."""
    records = []
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            records.append(json.loads(line))
        except ValueError:
            continue
    return records


def main():
    """Kill, check, and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for name, kill in (("stage 1", kill_stage_1), ("chat", kill_chat)):
        started_at = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            num_killed, num_done = kill(Path(folder), options.kills, random.Random(options.seed))
        what = "left the new output, the others the old" if name == "stage 1" else "bubbles shown, all in the log"
        print(f"{name}: {num_killed} kills in {time.monotonic() - started_at:,.0f} s; {num_done:,} {what}", flush=True)


if __name__ == "__main__":
    main()
