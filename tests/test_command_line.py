"""What the command lines of the scripts share: the warning about other blocks, typed paths, numbers."""

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from common.command_line import add_trained_model, check_folder_of, make_parser, typed_path, whole_number
from common.script import ScriptError

SCRIPTS = ("chat_bot", "style_report", "export_model")


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_warns_of_other_blocks_and_names_the_missing_model_before_a_library_loads(project_copy, script):
    other = project_copy / "src/training/fine_tuning_model.py"
    text = other.read_text(encoding="utf-8")
    assert 'saved_model_path = "saved_model"' in text
    other.write_text(text.replace('saved_model_path = "saved_model"', 'saved_model_path = "mine"'), encoding="utf-8")
    # -S leaves the installed libraries out.
    command = [sys.executable, "-S", project_copy / f"src/chat/{script}.py"]
    done = subprocess.run(command, cwd=project_copy, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        'warning: saved_model_path is "saved_model" in chat_bot.py but "mine" in src/training/fine_tuning_model.py; '
        "make them the same",
        f"{script}: saved_model: no trained model yet; run src/training/fine_tuning_model.py first",
    ]
    assert not [path for path in project_copy.iterdir() if path.name not in ("src", "preprocess_start.sh")]


def test_the_blocks_folder_counts_from_the_project_and_a_typed_one_from_here():
    parser = make_parser("", "")
    add_trained_model(parser, "block_model")
    assert parser.parse_args([]).saved_model_path == Path(__file__).resolve().parents[1] / "block_model"
    assert parser.parse_args(["--saved-model-path", "typed"]).saved_model_path == Path("typed")


def test_a_tilde_is_the_home_folder_and_that_of_nobody_a_name(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert typed_path("~/me") == tmp_path / "me"
    assert typed_path("~nobody-of-this-name/me") == Path("~nobody-of-this-name/me")


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "many", "١", "9" * 19, "9" * 10_000])
def test_what_is_no_number_of_the_range_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="must be a whole number from 1, not"):
        whole_number(1)(text)


def test_a_folder_that_is_not_there_is_not_created(tmp_path):
    with pytest.raises(ScriptError, match="mistyped: no such folder; make it, or choose another place"):
        check_folder_of(tmp_path / "mistyped" / "log.txt")
    assert not (tmp_path / "mistyped").exists()
