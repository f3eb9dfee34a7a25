"""Kill stage 1 and the chat (SIGKILL) at random moments, many times, and check what is left each time.

Run:    .venv/bin/python tests/benchmarks/kill_preparing_and_chat.py --kills 100        (kill_training.py does stage 2)
Takes:  about a second for each kill: the chats are forked from a process that has loaded the libraries once.

After a kill, stage 1's output is the old one or the whole new one. The chat's log holds every line typed that got an
answer and every bubble that was shown, in whole lines; after all kills the next run works and no temporary file is left.
"""

import argparse
import json
import multiprocessing
import os
import random
import runpy
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
ROOT = TESTS.parent
sys.path[:0] = [str(TESTS), str(ROOT / "src"), str(ROOT / "src/demo"), str(ROOT / "src/chat")]
os.environ["PYTHONPATH"] = f"{ROOT / 'src/chat'}:{ROOT / 'src'}"  # for the process that the chats are forked from
os.environ["OMP_NUM_THREADS"] = "1"

STAGE_1, STAGE_3 = ROOT / "src/data_preprocessing/load_whatsapp.py", ROOT / "src/chat/chat_bot.py"
NUM_LINES = 200  # typed to one chat: more than it can answer before it is killed


def start(script, folder, *arguments):
    """Start a script of the project in `folder`."""
    return subprocess.Popen(
        [sys.executable, str(script), *map(str, arguments)],
        cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def kill_stage_1(folder, num_kills, rng):
    """Kill stage 1 so many times; return how many kills met it at work, and how many of them while it wrote."""
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
    num_killed = num_writing = 0
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
        num_writing += any(out.glob(f".unfinished-{process.pid}-*"))
    assert start(STAGE_1, folder, *arguments, "out/formatted_data.jsonl").wait() == 0
    assert {path.name: path.read_bytes() for path in out.iterdir()} == new  # and nothing temporary
    return num_killed, num_writing


def run_chat(arguments, typed_path, shown_path):
    """Run the chat's script in this (forked) process, its lines from one file, its replies to another."""
    sys.stdin, sys.stdout = open(typed_path, encoding="utf-8"), open(shown_path, "w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    sys.argv = [str(STAGE_3), *map(str, arguments)]
    runpy.run_path(str(STAGE_3), run_name="__main__")


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
    paths = ("--saved-model-path", model_dir, "--conversation-path", log_path)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["trained_model", "chat_session", "peft", "transformers.models.mistral"])
    typed_path, shown_path = folder / "typed.txt", folder / "shown.txt"
    num_killed = num_shown = 0
    while num_killed < num_kills:
        said = [f"line {num_killed}-{number}" for number in range(NUM_LINES)]
        typed_path.write_text("\n".join(said) + "\n", encoding="utf-8")
        shown_path.write_text("", encoding="utf-8")
        arguments = (*paths, "--max-new-tokens", "12")
        chat = context.Process(target=run_chat, args=(arguments, typed_path, shown_path))
        chat.start()
        while chat.is_alive() and not shown_path.stat().st_size and rng.random() < 0.999:  # some die while they load
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.5))
        chat.kill()
        chat.join()
        num_killed += chat.exitcode < 0
        shown = shown_path.read_text(encoding="utf-8")
        bubbles = [line for line in shown.split("\n")[:-1] if line]  # a line that was cut was not shown
        num_shown += len(bubbles)
        num_answered = shown.count("\n\n")
        if not log_path.exists():
            assert not bubbles
            continue
        records = read_records(log_path.with_suffix(".jsonl"))
        last_start = max((place for place, record in enumerate(records) if record.get("event") == "start"), default=0)
        chat_records = [record for record in records[last_start:] if "role" in record] if shown else []
        told = [line for record in chat_records if record["role"] == "assistant" for line in record["text"].split("\n")]
        typed = [record["text"] for record in chat_records if record["role"] == "user"]
        assert told[: len(bubbles)] == bubbles
        assert typed[:num_answered] == said[:num_answered]
    last = start(STAGE_3, folder, *paths, "--resume", "-p", "still there")
    _, errors = last.communicate()
    assert last.returncode == 0, errors
    assert "still there" in log_path.read_text(encoding="utf-8")
    messages = read_conversation(log_path.with_suffix(".jsonl")).messages
    assert any(message["content"].endswith("still there") for message in messages[-2:])
    assert not [path for path in folder.iterdir() if path.name.startswith(".unfinished-")]
    return num_killed, num_shown


def read_records(path):
    """The whole records of the JSONL log; a kill may cut the last line of a chat, and no other."""
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
    parser.add_argument("--only", choices=("stage 1", "chat"))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for name, kill in (("stage 1", kill_stage_1), ("chat", kill_chat)):
        if options.only not in (None, name):
            continue
        started_at = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            num_killed, num_done = kill(Path(folder), options.kills, random.Random(options.seed))
        what = "of them while it wrote" if name == "stage 1" else "bubbles shown, all in the log"
        print(f"{name}: {num_killed} kills in {time.monotonic() - started_at:,.0f} s; {num_done:,} {what}", flush=True)


if __name__ == "__main__":
    main()
