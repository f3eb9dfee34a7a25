"""The demo fails when the numbers say so: its last line is read from a measurement, not written by hand."""

import json
import re
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


@pytest.mark.parametrize("script", ["make_sample_chat.py --output", "make_small_base.py --output-dir"])
def test_a_place_that_cannot_be_written_is_one_line_before_the_work(run_command, tmp_path, script):
    (tmp_path / "file").touch()
    # -S leaves the installed libraries out.
    result = run_command(f"python3 -S {shlex.quote(str(SCRIPT.parent))}/{script} file/demo", tmp_path)
    assert result.returncode == 1
    assert re.match(rf"{script.split('.')[0]}: file.*; .*\n\Z", result.stderr)


CHAT = """import sys
engine = sys.argv[sys.argv.index("--engine") + 1]
lines = sys.stdin.read().splitlines()
assert lines == ["hello", "/stats", "bye", "/stats"], lines
for rate in (10.0, 30.0) if engine == "transformers" else (100.0, 300.0):
    print(f"first token after 0.10 s; prompt: 20 tokens\\n30 new tokens, {rate} tokens/s, ending: complete", file=sys.stderr)
sys.exit("--fail" in sys.argv)
"""


def compare(run_command, folder, *flags):
    (folder / "chat.py").write_text(CHAT)
    script = SCRIPT.with_name("compare_engines.py")
    command = shlex.join(["python3", str(script), "python3", "chat.py", *flags])
    return run_command(command, folder, stdin="hello\nbye\n")


def test_both_engines_answer_the_same_lines_and_are_compared(run_command, tmp_path):
    result = compare(run_command, tmp_path)
    assert result.returncode == 0, result.stderr
    assert [line.split() for line in result.stdout.splitlines()[1:3]] == [
        ["transformers", "15"],  # 60 tokens in 3 + 1 seconds
        ["llama.cpp", "150"],
    ]
    assert "too small for this to say much" in result.stdout


def test_an_engine_that_fails_is_named(run_command, tmp_path):
    result = compare(run_command, tmp_path, "--fail")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("compare_engines: transformers: no reply")
