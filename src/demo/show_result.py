"""Compare tuned model and base: bits per character of the imitated person's held-out replies (lower is better).

Reads the training_report.json of stage 2, which measured both on conversations not used for training. Writes nothing.
Run:    python3 src/demo/show_result.py .demo/saved_model/training_report.json
Exit status: 0 when the tuned model is clearly better, 1 when it is not or the report has no measurement.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

CLEARLY_BELOW = 0.8  # of the base's bits; with so few conversations a smaller gain could be chance


def main() -> int:
    """Print and compare the two numbers of the report named on the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("report_path", type=Path, metavar="FILE", help="the training_report.json of stage 2")
    report_path = parser.parse_args().report_path
    try:
        validation = json.loads(report_path.read_text(encoding="utf-8"))["validation"]
        base, tuned = validation["base"]["bits_per_char"], validation["tuned"]["bits_per_char"]
    except (OSError, ValueError, KeyError) as error:
        print(f"show_result: {report_path}: has no measurement ({error!r}); run stage 2 first", file=sys.stderr)
        return 1
    print("Bits per character of held-out replies (lower is better):")
    print(f"  base model   {base:.3f}")
    print(f"  tuned model  {tuned:.3f}   {tuned / base:.0%} of the base's")
    if tuned > CLEARLY_BELOW * base:
        print(
            f"show_result: {report_path}: the tuned model is not clearly better; see the output of stage 2 above",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
