"""The demo fails when the numbers say so: its last line is read from a measurement, not written by hand."""

import json
import shlex
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "src/demo/show_result.py"


def show(run_command, folder, report):
    path = folder / "training_report.json"
    if report is not None:
        path.write_text(json.dumps(report), encoding="utf-8")
    return run_command(f"python3 {shlex.quote(str(SCRIPT))} training_report.json", folder)


def report_of(base, tuned):
    return {"validation": {"base": {"bits_per_char": base}, "tuned": {"bits_per_char": tuned}}}


def test_shows_both_numbers_of_the_report(run_command, tmp_path):
    result = show(run_command, tmp_path, report_of(3.817, 0.564))
    assert result.returncode == 0
    assert "3.817" in result.stdout
    assert "0.564" in result.stdout


@pytest.mark.parametrize("report", [report_of(2.0, 2.0), report_of(2.0, 1.9), report_of(2.0, 2.5), {"steps": 3}, None])
def test_fails_without_a_clear_gain(run_command, tmp_path, report):
    result = show(run_command, tmp_path, report)
    assert result.returncode == 1
    assert result.stderr.startswith("show_result: training_report.json: ")
    assert "Traceback" not in result.stderr
