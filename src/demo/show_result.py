"""Compare tuned model and base: bits per character of the imitated person's held-out replies (lower is better).

Reads the training_report.json of stage 2, which measured both on conversations not used for training. Writes nothing.
Run:    python3 src/demo/show_result.py .demo/saved_model/training_report.json
Exit status: 0 when the tuned model is clearly better, 1 when it is not or the report has no measurement.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))  # for `common`

from common.command_line import make_parser
from common.script import ScriptError, run_script, shown_path

CLEARLY_BELOW = 0.8  # of the base's bits; with so few conversations a smaller gain could be chance


def main() -> int:
    """Print and compare the two numbers of the report named on the command line."""
    parser = make_parser((__doc__ or "").splitlines()[0])
    parser.add_argument("report_path", type=Path, metavar="FILE", help="the training_report.json of stage 2")
    report_path = parser.parse_args().report_path
    try:
        validation = json.loads(report_path.read_text(encoding="utf-8"))["validation"]
        base, tuned = validation["base"]["bits_per_char"], validation["tuned"]["bits_per_char"]
    except (OSError, ValueError, KeyError, TypeError):
        raise ScriptError(f"{shown_path(report_path)}: has no measurement; run stage 2 first") from None
    print("Bits per character of held-out replies (lower is better):")
    print(f"  base model   {base:.3f}")
    print(f"  tuned model  {tuned:.3f}   {tuned / base:.0%} of the base's")
    if tuned > CLEARLY_BELOW * base:
        raise ScriptError(
            f"{shown_path(report_path)}: the tuned model is not clearly better; see the output of stage 2 above"
        )
    return 0


if __name__ == "__main__":
    run_script(main)
