"""Let both engines of the chat answer the same lines, and print how many tokens a second each of them writes.

Reads   the user's lines from stdin
Run     python3 src/demo/compare_engines.py python3 src/chat/chat_bot.py ... < lines.txt
        what follows the name of this script is the command of the chat
Writes  what the chat writes: give it a log of its own
Exit status: 0, or 1 when an engine gives no reply.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))  # for `common`

from common.command_line import make_parser
from common.script import ScriptError, run_script

ENGINES = ("transformers", "llama.cpp")
# So small a model does not show what llama.cpp is for. Measured on one core with AVX2 (tests/benchmarks/RESULTS.md).
OF_LARGER_MODELS = (
    "The demo's model is too small for this to say much. With 155 million parameters, llama.cpp wrote 3.0 (q8_0) to 4.6 (q4_0)\n"
    "times as many tokens a second as transformers, in a quarter of its memory."
)
# 37 new tokens, 101.5 tokens/s, ending: complete
STATS_RE = re.compile(r"(?P<num_tokens>[\d,]+) new tokens, (?P<rate>[\d.,]+) tokens/s")


def main() -> int:
    """Run the chat once for each engine; return the exit status."""
    parser = make_parser((__doc__ or "").splitlines()[0])
    parser.add_argument("chat", nargs=argparse.REMAINDER, help="the command of the chat, with its flags")
    chat = parser.parse_args().chat
    if not chat:
        parser.error("the command of the chat is missing")
    lines = "".join(f"{line}\n/stats\n" for line in sys.stdin.read().splitlines())
    rates = {}
    for engine in ENGINES:
        command = [*chat, "--engine", engine]
        finished = subprocess.run(command, input=lines, capture_output=True, text=True, check=False)
        rates[engine] = tokens_per_second(finished.stderr)
        if finished.returncode or not rates[engine]:
            raise ScriptError(f"{engine}: no reply\n  {finished.stderr.strip()[-500:]}")
    print("Tokens a second while a reply is written, on this computer:")
    for engine, rate in rates.items():
        print(f"  {engine:<13} {rate:6.0f}")
    print(OF_LARGER_MODELS)
    return 0


def tokens_per_second(told: str) -> float:
    """Return the rate over all replies that the chat's /stats told of.

    >>> tokens_per_second("10 new tokens, 5.0 tokens/s, ending: complete\\n30 new tokens, 15.0 tokens/s, ending: limit")
    10.0
    """
    replies = [
        (float(match["num_tokens"].replace(",", "")), float(match["rate"].replace(",", "")))
        for match in STATS_RE.finditer(told)
    ]
    seconds = sum(num_tokens / rate for num_tokens, rate in replies if rate)
    return sum(num_tokens for num_tokens, rate in replies if rate) / seconds if seconds else 0.0


if __name__ == "__main__":
    run_script(main)
