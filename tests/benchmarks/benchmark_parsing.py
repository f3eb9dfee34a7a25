"""How fast and how large the parser is, against a floor F and against the known parsers, in one run.

The exports and F are those of `benchmark_preprocessing.py`. All programs run in turn, several rounds: on a machine that
others use as well, only the ratio to the F of the same round means something. Times are CPU seconds of whole processes.

    .venv/bin/python tests/benchmarks/benchmark_parsing.py
    ... --peer-python ENV/bin/python (has tests/benchmarks/requirements.txt)   --node-modules DIR (has whatsapp-chat-parser)
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from benchmark_preprocessing import FLOOR_RE, NODE_CODE, PEER_CODE, write_export

WORKER = [sys.executable, str(Path(__file__).with_name("benchmark_preprocessing.py")), "--worker"]
LARGEST_FOR_PEERS = 200_000  # whatstk and chat-miner hold everything in memory, and take minutes for more


def run_once(command: list[str], node_modules: str | None) -> tuple[float, float, str]:
    """Return CPU seconds, peak MiB and the last word printed: the number of messages found."""
    with tempfile.TemporaryFile() as output:
        env = os.environ | {"NODE_PATH": node_modules or ""}
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.DEVNULL, env=env)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        printed = output.read().decode("utf-8").split() or ["nothing"]
    found = printed[-1] if process.returncode == 0 else f"failed ({process.returncode})"
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, found


def commands(export: Path, archive: Path, size: int, arguments: argparse.Namespace) -> dict[str, list[str]]:
    """Return what is compared, by its name in the table; F first."""
    compared = {
        "F": [*WORKER, "floor", str(export)],
        "`parse_export`, .txt": [*WORKER, "parse", str(export)],
        "`parse_export`, .zip": [*WORKER, "parse", str(archive)],
    }
    if arguments.node_modules and shutil.which("node"):
        compared["whatsapp-chat-parser (node)"] = ["node", "-e", NODE_CODE, str(export)]
    if arguments.peer_python and size <= LARGEST_FOR_PEERS:
        compared |= {name: [arguments.peer_python, "-c", code, str(export)] for name, code in PEER_CODE.items()}
    return compared


def main() -> None:
    """Print one table: medians over the rounds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[200_000, 1_000_000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer-python")
    parser.add_argument("--node-modules")
    arguments = parser.parse_args()
    print(
        "| export | what | x F | CPU s | messages / CPU s | peak MiB | messages found |\n|---|---|---|---|---|---|---|"
    )
    for family in FLOOR_RE:
        for size in arguments.sizes:
            with tempfile.TemporaryDirectory() as folder:
                export, archive = Path(folder, f"{family}.txt"), Path(folder, f"{family}.zip")
                write_export(export, family, size)
                with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
                    file.write(export, "_chat.txt")
                compared = commands(export, archive, size, arguments)
                rounds = [
                    {name: run_once(command, arguments.node_modules) for name, command in compared.items()}
                    for _ in range(arguments.rounds)
                ]
            for name in compared:
                seconds = statistics.median(results[name][0] for results in rounds)
                ratio = statistics.median(results[name][0] / results["F"][0] for results in rounds)
                peak, found = max(results[name][1] for results in rounds), rounds[0][name][2]
                print(
                    f"| {family} {size:,} | {name} | {ratio:.2f} | {seconds:.2f} | {size / seconds:,.0f} | {peak:.0f} | {found} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
