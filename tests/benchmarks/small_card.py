"""Stage 2 and the chat on a card of 8 GB, played on a larger one: torch may not take more than such a card has.

Trains one epoch of full rows with gradient checkpointing, then answers one message, each in a process of its own whose
allocator stops at the card's size less 5 % and less what CUDA itself takes. Prints a line of JSON for each: its exit status,
the peak in GiB that its tensors took (loading included), and what the allocator had reserved.

Run     python3 tests/benchmarks/small_card.py --base DIR
        python3 tests/benchmarks/small_card.py --base DIR --gib 6 --row-tokens 1024
Needs   a base on disk. Without a card it runs on the processor, which has no such limit: good for testing it with a tiny base.
"""

# ruff: noqa: E402  the project's folders are named first
from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

PROJECT_ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(PROJECT_ROOT / "src"), str(PROJECT_ROOT / "src/training")]

from known_bases import USABLE_SHARE
from memory_estimate import CUDA_CONTEXT_BYTES, GIB

CARD_GIB = 8.0
ROW_TOKENS = 2_048
NUM_TURNS = 1_600  # of one long conversation, about 25 rows; with fewer than 10 conversations none is held out
WORDS = [
    "tomorrow",
    "coffee",
    "really",
    "meeting",
    "where",
    "train",
    "maybe",
    "later",
    "thanks",
    "evening",
    "photo",
    "ticket",
    "works",
    "never",
]
LAST_LINES = 12

# Runs a script of ours under the limit, then writes what it took to a file: {"allocated": bytes, "reserved": bytes}.
CAPPED_PROGRAM = """
import json, runpy, sys, torch
from pathlib import Path
limit, result_path, script, *arguments = sys.argv[1:]
has_card = torch.cuda.is_available()
if has_card:
    torch.cuda.set_per_process_memory_fraction(int(limit) / torch.cuda.get_device_properties(0).total_memory, 0)
sys.argv = [script, *arguments]
sys.path.insert(0, str(Path(script).parent))
try:
    runpy.run_path(script, run_name="__main__")
finally:
    took = (torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()) if has_card else (0, 0)
    Path(result_path).write_text(json.dumps(dict(zip(("allocated", "reserved"), took))), encoding="utf-8")
"""


def write_conversation(path: Path, num_turns: int) -> None:
    """Write one made-up conversation of so many turns, as stage 1 writes it."""
    rng = random.Random(0)
    messages = [
        {"role": ("user", "assistant")[number % 2], "content": " ".join(rng.choices(WORDS, k=rng.randint(3, 16)))}
        for number in range(num_turns)
    ]
    path.write_text(json.dumps({"messages": messages}) + "\n", encoding="utf-8")


def run_capped(script: str, arguments: list[str], limit_bytes: int, typed: str = "") -> dict[str, object]:
    """Run a script under the limit; return its exit status, its peaks and the end of what it printed."""
    with tempfile.TemporaryDirectory() as folder:
        result_path = Path(folder) / "took.json"
        command = [sys.executable, "-c", CAPPED_PROGRAM, str(limit_bytes), str(result_path), str(PROJECT_ROOT / script)]
        finished = subprocess.run([*command, *arguments], input=typed, capture_output=True, text=True, check=False)
        took = json.loads(result_path.read_text(encoding="utf-8")) if result_path.is_file() else {}
    lines = (finished.stdout + finished.stderr).strip().splitlines()
    peaks = {f"{name}_gib": round(num_bytes / GIB, 2) for name, num_bytes in took.items()}
    return {"script": script, "status": finished.returncode, **peaks, "last_lines": lines[-LAST_LINES:]}


def main() -> int:
    """Train and chat under the limit; return 0 if both went through."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, required=True, metavar="DIR", help="a base on disk")
    parser.add_argument("--gib", type=float, default=CARD_GIB, metavar="N", help="size of the card (%(default)s)")
    parser.add_argument("--row-tokens", type=int, default=ROW_TOKENS, metavar="N", help="default: %(default)s")
    parser.add_argument("--turns", type=int, default=NUM_TURNS, metavar="N", help="default: %(default)s")
    options = parser.parse_args()
    limit_bytes = int(USABLE_SHARE * options.gib * GIB) - CUDA_CONTEXT_BYTES
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_conversation(folder / "data.jsonl", options.turns)
        where = ["--base-model-id", str(options.base), "--saved-model-path", str(folder / "saved_model")]
        row = str(options.row_tokens)
        training = ["--path-to-data", str(folder / "data.jsonl"), "--epochs", "1", "--max-length", row]
        training += ["--batch-tokens", row, "--activation-checkpointing", "on"]
        trained = run_capped("src/training/fine_tuning_model.py", [*where, *training], limit_bytes)
        print(json.dumps(trained | {"limit_gib": round(limit_bytes / GIB, 2)}), flush=True)
        if trained["status"]:
            return 1
        chat = [*where, "--conversation-path", str(folder / "conversation.txt")]
        chatted = run_capped("src/chat/chat_bot.py", chat, limit_bytes, typed="where are you?\nexit\n")
        print(json.dumps(chatted, ensure_ascii=False), flush=True)
        return int(bool(chatted["status"]))


if __name__ == "__main__":
    sys.exit(main())
