"""How fast and how large stage 1 is as a whole (a zip in, conversations and ledger out), and the digest, against a floor F, in one run.

F is what no parser can do without: stream the file, match one `re` header per line, yield tuples. Every measurement is a
process of its own, and all run in turn, several rounds: on a machine that others use as well, only the ratio to the F of
the same round means something. The parser alone and its peers are measured by `benchmark_parsing.py`.

    .venv/bin/python tests/benchmarks/benchmark_preprocessing.py --sizes 200000 1000000
"""

from __future__ import annotations

import argparse
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

STAGE_DIR = Path(__file__).resolve().parents[2] / "src/data_preprocessing"
PEOPLE = ("רות לוי", "Dan Cohen")
IMITATED = PEOPLE[0]
HEBREW_WORDS = [
    "שלום",
    "מה",
    "קורה",
    "איתך",
    "היום",
    "אני",
    "בדרך",
    "הביתה",
    "אולי",
    "נלך",
    "לסרט",
    "בערב",
    "או",
    "נשאר",
    "בבית",
    "סבבה",
    "יאללה",
    "חחחח",
    "תגידי",
    "מתי",
]
ENGLISH_WORDS = [
    "hello",
    "how",
    "are",
    "you",
    "doing",
    "today",
    "maybe",
    "we",
    "go",
    "out",
    "later",
    "fine",
    "ok",
    "see",
    "you",
    "at",
    "the",
    "place",
    "tomorrow",
]
EMOJI = ("😂", "❤️", "👍🏽", "👨‍👩‍👧", "🙈😂😂")
PAUSES_SECONDS = (5, 10, 20, 60, 90, 300, 4000)

FLOOR_RE = {
    "Android": re.compile(r"(\d{1,2})\.(\d{1,2})\.(\d{4}), (\d{1,2}):(\d{2}) - (?:([^:]+): )?(.*)"),
    "iOS": re.compile(r"\u200e?\[(\d{1,2})\.(\d{1,2})\.(\d{4}), (\d{1,2}):(\d{2}):(\d{2})\] (?:([^:]+): )?(.*)"),
}

PEER_CODE = {
    "whatstk": "import sys; from whatstk import WhatsAppChat; print(len(WhatsAppChat.from_source(sys.argv[1]).df))",
    "chat-miner": "import sys; from chatminer.chatparsers import WhatsAppParser as P; p = P(sys.argv[1]); p.parse_file(); "
    "print(len(p.parsed_messages.get_df()))",
}
NODE_CODE = (
    "const {parseString} = require('whatsapp-chat-parser');"
    "console.log(parseString(require('fs').readFileSync(process.argv[1], 'utf8')).length)"
)


# ---- Made-up exports ----


def write_export(path: Path, family: str, num_messages: int) -> None:
    """Write a chat of two made-up people: Hebrew, English, emoji, 10 % of several lines, 6 % media, links, numbers."""
    rng = random.Random(0)
    sent_at = datetime(2015, 3, 1, 9, 0)
    with path.open("w", encoding="utf-8", newline="") as file:
        for _ in range(num_messages):
            sent_at += timedelta(seconds=rng.choice(PAUSES_SECONDS))
            sender, text = rng.choice(PEOPLE), make_text(rng, family)
            if family == "Android":
                file.write(f"{sent_at.day}.{sent_at.month}.{sent_at.year}, {sent_at:%H:%M} - {sender}: {text}\n")
            else:
                mark = "\u200e" if text.startswith("\u200e") else ""
                file.write(
                    f"{mark}[{sent_at.day}.{sent_at.month}.{sent_at.year}, {sent_at:%H:%M:%S}] {sender}: {text}\r\n"
                )


def make_text(rng: random.Random, family: str) -> str:
    """Return one message."""
    kind = rng.random()
    if kind < 0.06:
        return "<המדיה לא נכללה>" if family == "Android" else "\u200eהתמונה הושמטה"
    if kind < 0.07:
        return "https://example.com/a/b?c=d"
    if kind < 0.08:
        return "see https://example.com it is good"
    if kind < 0.09:
        return f"התקשרי ל 05{rng.randrange(10)}-{rng.randrange(1000000, 9999999)}"
    if kind < 0.10:
        return "10:30 - 12:00: x"  # looks a little like a header
    words = HEBREW_WORDS if rng.random() < 0.75 else ENGLISH_WORDS
    lines = [" ".join(rng.choices(words, k=rng.randint(1, 14))) for _ in range(1 if kind < 0.9 else rng.randint(2, 4))]
    return "\n".join(lines) + (f" {rng.choice(EMOJI)}" if rng.random() < 0.2 else "")


# ---- What is measured, each in its own process ----


def floor(path: Path) -> Iterator[tuple[datetime, str | None, str]]:
    """Yield (sent_at, sender, text) with the least work that can be called parsing."""
    family = "iOS" if path.name.startswith("iOS") else "Android"
    match_header = FLOOR_RE[family].match
    message: tuple[datetime, str | None, str] | None = None
    with path.open(encoding="utf-8", newline="\n") as file:
        for line in file:
            match = match_header(line)
            if match is None:
                if message is not None:
                    message = (message[0], message[1], message[2] + "\n" + line.rstrip("\r\n"))
                continue
            if message is not None:
                yield message
            day, month, year, *time, sender, text = match.groups()
            message = (datetime(int(year), int(month), int(day), *map(int, time)), sender, text)
    if message is not None:
        yield message


def parse(path: Path) -> Iterator[object]:
    """Parse with the project's own parser."""
    sys.path[:0] = [str(STAGE_DIR), str(STAGE_DIR.parent)]
    from whatsapp_export import parse_export

    return iter(parse_export(path))


WORKERS: dict[str, Callable[[Path], Iterator[object]]] = {"floor": floor, "parse": parse}


def run_once(command: list[str]) -> tuple[float, float]:
    """Return CPU seconds and peak MiB of a command, which must succeed."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise RuntimeError(f"{command} failed with {process.returncode}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main() -> None:
    """Print one table: medians over the rounds, each of which runs everything in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[200_000, 1_000_000])
    parser.add_argument("--families", nargs="+", default=list(FLOOR_RE), choices=FLOOR_RE)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        print(sum(1 for _ in WORKERS[arguments.worker[0]](Path(arguments.worker[1]))))
        return
    stage = [sys.executable, str(STAGE_DIR / "load_whatsapp.py")]
    print("| export | what | x F | CPU s | messages / CPU s | peak MiB |\n|---|---|---|---|---|---|")
    for family in arguments.families:
        for size in arguments.sizes:
            with tempfile.TemporaryDirectory() as name:
                export, archive = Path(name, f"{family}.txt"), Path(name, f"{family}.zip")
                write_export(export, family, size)
                with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
                    file.write(export, "_chat.txt")
                whole = [
                    *stage,
                    str(archive),
                    "--imitate",
                    IMITATED,
                    "--path-to-data",
                    f"{name}/out/formatted_data.jsonl",
                ]
                compared = {
                    "F": [sys.executable, __file__, "--worker", "floor", str(export)],
                    "zip to JSONL and ledger": whole,
                    "the same, `--no-redaction`": [*whole, "--no-redaction"],
                    "zip to digest": [
                        sys.executable,
                        str(STAGE_DIR / "chat_digest.py"),
                        str(archive),
                        "--me",
                        IMITATED,
                    ],
                }
                rounds = [
                    {what: run_once(command) for what, command in compared.items()} for _ in range(arguments.rounds)
                ]
            for what in compared:
                seconds = statistics.median(results[what][0] for results in rounds)
                ratio = statistics.median(results[what][0] / results["F"][0] for results in rounds)
                peak = max(results[what][1] for results in rounds)
                print(
                    f"| {family} {size:,} | {what} | {ratio:.2f} | {seconds:.2f} | {size / seconds:,.0f} | {peak:.0f} |",
                    flush=True,
                )
    seconds, peak = min(run_once([*stage, "--help"]) for _ in range(arguments.rounds))
    print(f"| | `--help` | | {seconds:.2f} | | {peak:.0f} |")


if __name__ == "__main__":
    main()
