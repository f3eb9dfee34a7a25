"""The chat on a processor: transformers in float32 beside llama.cpp with q8_0 and q4_0, in one run.

Reads   nothing: builds the random model of 155 M parameters of benchmark_chat.py and exports it. With the path of a
        trained folder, that one is measured: its base must be on this disk
Writes  nothing; prints the tables that stand in RESULTS.md
Run     OMP_NUM_THREADS=1 python3 tests/benchmarks/benchmark_engines.py [saved_model]
Needs   Linux
Takes   some minutes, 3 GB of memory and 2 GB of disk. Each engine runs in a process of its own, for its memory; the
        engines take turns, and the best of three turns counts. Times are seconds of the processor, so that other programs
        hardly matter; with more than one thread they are sums over the threads
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

PROJECT_ROOT = Path(__file__).resolve().parents[2]
for folder in ("src", "src/chat", "src/demo", "tests", "tests/benchmarks"):
    sys.path.insert(0, str(PROJECT_ROOT / folder))

STARTED_AT = time.perf_counter()
ENGINES = ("transformers", "q8_0", "q4_0")
NUM_TURNS = 3
REPLY_TOKENS = 64
LONG_HISTORIES = (1_000, 3_000)
MARGIN_TOKENS = 200  # of the context: for the lines that are timed


def main() -> None:
    """Build or copy the model, measure the engines in turn, print the table."""
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(measure(sys.argv[2], Path(sys.argv[3]))))
        return
    with tempfile.TemporaryDirectory() as folder:
        saved_dir = prepare(Path(folder), Path(sys.argv[1]) if sys.argv[1:] else None)
        turns: dict[str, list[dict[str, Any]]] = {engine: [] for engine in ENGINES}
        for number in range(NUM_TURNS):
            for engine in ENGINES:
                turns[engine].append(measure_in_process(engine, saved_dir))
                print(f"turn {number + 1}, {engine}: {turns[engine][-1]}", file=sys.stderr, flush=True)
    print_table({engine: best_of(results) for engine, results in turns.items()})


def prepare(folder: Path, own_dir: Path | None) -> Path:
    """Return a trained folder with its GGUF files, in `folder`."""
    from benchmark_chat import write_random_model
    from gguf_file import GgufExport
    from saved_model_checks import check_saved_model

    if own_dir is None:
        saved_dir = write_random_model(folder)
    else:
        saved_dir = shutil.copytree(own_dir, folder / "saved", ignore=shutil.ignore_patterns("gguf", "checkpoints"))
    saved = check_saved_model(saved_dir)
    (saved_dir / "gguf").mkdir()
    for type_name in ENGINES[1:]:
        GgufExport(saved, "model", type_name).write(saved_dir / f"gguf/model-{type_name}.gguf")
    return saved_dir


def measure_in_process(engine: str, saved_dir: Path) -> dict[str, Any]:
    """Measure in a process of its own."""
    command = [sys.executable, __file__, "--one", engine, str(saved_dir)]
    finished = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(finished.stdout.splitlines()[-1])
    return result


def measure(engine: str, saved_dir: Path) -> dict[str, float]:
    """Load the model as the chat does, and return what it takes."""
    from chat_engine import work_without_torch

    from common.base_model_files import prepare_environment, work_offline

    prepare_environment()
    work_offline()
    with ExitStack() as running:
        cache: Any
        trained: Any
        if engine == "transformers":
            from saved_model_checks import check_saved_model
            from trained_model import load_trained_model

            started_at = time.perf_counter()
            trained = load_trained_model(check_saved_model(saved_dir), device="cpu", dtype="float32", is_merged=True)
            cache = None
        else:
            work_without_torch()
            from gguf_header import ModelFiles, read_header
            from llama_cpp_model import run_llama_cpp_model
            from saved_model_checks import check_trained_folder
            from transformers import AutoTokenizer  # noqa: F401 - imported in `run_llama_cpp_model`

            started_at = time.perf_counter()
            path = saved_dir / f"gguf/model-{engine}.gguf"
            files = ModelFiles(path, None, read_header(path))
            trained = running.enter_context(run_llama_cpp_model(check_trained_folder(saved_dir), files))
            cache = trained.open_cache()
        now = time.perf_counter()
        result = {"load_seconds": now - started_at, "import_and_load_seconds": now - STARTED_AT}
        from timed_conversation import first_token_times

        result["tokens_per_second"] = writing_rate(trained, cache)
        result["short_peak_mb"] = peak_mb()
        for num_tokens in LONG_HISTORIES:
            if num_tokens <= trained.context_tokens - MARGIN_TOKENS:
                times = first_token_times(trained, num_tokens, is_reusing=True, cache=cache)
                result[f"first_token_seconds_{num_tokens}"] = min(times)
        result["peak_mb"] = peak_mb()
    return result


def writing_rate(trained: Any, cache: Any) -> float:
    """Return the new tokens a second of processor time, of the longest reply to a few lines."""
    from live_conversation import Conversation

    sampling = replace(trained.sampling, max_new_tokens=REPLY_TOKENS, max_bubbles=100, temperature=2.0, min_p=0.0)
    conversation = Conversation(trained, seed=0, sampling=sampling, cache=cache)
    rates = []
    for line in ("hello", "and you?", "what now?"):
        before = time.process_time()
        conversation.add(line)
        reply = conversation.answer()
        if reply.num_new_tokens >= REPLY_TOKENS // 2:
            rates.append(reply.num_new_tokens / (time.process_time() - before))
    return max(rates)


def peak_mb() -> float:
    """Return the largest memory of this process so far."""
    # Not `ru_maxrss`: on Linux it begins with what the process that started this one had in use.
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def best_of(results: list[dict[str, Any]]) -> dict[str, float]:
    """Return the largest rate and the smallest of everything else."""
    return {
        name: (max if name == "tokens_per_second" else min)(result[name] for result in results) for name in results[0]
    }


def print_table(best: dict[str, dict[str, float]]) -> None:
    """Print a row for each number, with its ratio to transformers'."""
    print(f"| | {' | '.join(ENGINES)} |\n|{'---|' * (len(ENGINES) + 1)}")
    for name, reference in best["transformers"].items():
        cells = [f"{best[engine][name]:.3g} ({best[engine][name] / reference:.2f})" for engine in ENGINES]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
