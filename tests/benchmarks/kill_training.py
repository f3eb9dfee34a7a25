"""Kill a training many times at random moments, resume each time, and compare every loss with a run without kills.

Run:    .venv/bin/python tests/benchmarks/kill_training.py --kills 100 --base-model-id .demo/small_base
        --path-to-data .demo/formatted_data.jsonl --epochs 14 --batch-tokens 512 --learning-rate 2e-4
        (after the demo has made these two; every flag but the first goes to stage 2: steps enough for all the kills, and a
        rate at which it does not stop early)
Takes:  about a quarter of a minute for each kill, most of it to start again.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from training_processes import finish, has_same_adapter, losses_of, start, train_with_kills

# A little more than lies between two checkpoints of the demo: most runs get further, and few far enough to end.
MOST_ROWS, MOST_SECONDS = 25, 0.2


def main():
    """Print what was compared; return 1 when anything differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    options, flags = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        straight, killed = Path(folder) / "straight", Path(folder) / "killed"
        status, _, errors = finish(start(flags, straight))
        assert status == 0, errors
        started_at = time.monotonic()
        num_kills = train_with_kills(flags, killed, options.kills, 0, MOST_ROWS, MOST_SECONDS)
        seconds = time.monotonic() - started_at
        is_same = losses_of(straight) == losses_of(killed) and has_same_adapter(straight, killed)
        print(f"{num_kills} kills in {seconds:,.0f} s, {len(losses_of(straight))} losses compared")
        print(f"losses and adapter {'the same to the last bit' if is_same else 'DIFFER'}")
    return 0 if is_same else 1


if __name__ == "__main__":
    sys.exit(main())
