"""Kill a training many times at random moments, resume each time, and compare every loss with a run without kills.

Run:    .venv/bin/python tests/benchmarks/kill_training.py --kills 100 --base-model-id .demo/small_base
        --path-to-data .demo/formatted_data.jsonl --epochs 14 --batch-tokens 512 --learning-rate 2e-4
        (the demo makes base and data; all flags but the first are for stage 2: enough steps for all kills, and a rate at
        which the training does not stop early)
Takes:  about 15 seconds per kill, most of it for the start of the next run
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from training_processes import finish, has_same_adapter, losses_of, start, train_with_kills

# More rows than between two checkpoints of the demo: most runs save one before they are killed, and few end.
MOST_ROWS, MOST_SECONDS = 25, 0.2


def main():
    """Print the result of the comparison; return 1 if anything differs."""
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
