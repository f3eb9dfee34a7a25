"""The command line of stage 2: from where paths count, wrong usage, and the commands that a run names."""

from pathlib import Path

import pytest
from training_options import how_to_resume, next_command, parse_options

from common.script import PROJECT_ROOT

BLOCK = {"base_model_id": "owner/name", "path_to_data": "data/chat.jsonl", "saved_model_path": "saved_model"}


def parse(*arguments):
    return parse_options("", BLOCK, 0, arguments)


def test_the_blocks_values_count_from_the_project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = parse()
    assert options.typed == set()
    assert options.base_model_id == "owner/name"
    assert (options.start_dir, options.data_path, options.model_dir) == (
        PROJECT_ROOT, PROJECT_ROOT / "data/chat.jsonl", PROJECT_ROOT / "saved_model",
    )  # fmt: skip
    assert "--saved-model-path" not in next_command(options)


@pytest.mark.parametrize("as_in_block", [True, False])
def test_typed_values_count_from_here_also_when_they_are_the_blocks_own(tmp_path, monkeypatch, as_in_block):
    monkeypatch.chdir(tmp_path)
    # The very objects: what was typed must not be told by identity or by value.
    values = BLOCK if as_in_block else dict.fromkeys(BLOCK, "other")
    arguments = [part for name, value in values.items() for part in ("--" + name.replace("_", "-"), value)]
    options = parse(*arguments)
    assert options.typed == set(BLOCK)
    assert options.start_dir == Path.cwd()
    assert options.data_path == Path.cwd() / values["path_to_data"]
    assert options.model_dir == Path.cwd() / values["saved_model_path"]
    assert next_command(options).endswith(f"--saved-model-path {values['saved_model_path']}")


def test_a_percent_sign_in_the_block_does_not_break_the_help(capsys):
    with pytest.raises(SystemExit):
        parse_options("", BLOCK | {"saved_model_path": "100%"}, 0, ["--help"])
    assert "the folder to write (default: 100%)" in capsys.readouterr().out


def test_a_stopped_run_names_the_command_that_resumes_it_where_it_is_known(monkeypatch):
    monkeypatch.setattr("sys.argv", ["fine_tuning_model.py", "--overwrite", "--epochs", "2"])
    assert how_to_resume().endswith("fine_tuning_model.py --epochs 2 --resume")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert "--nproc-per-node 2 fine_tuning_model.py" in how_to_resume()
    monkeypatch.setenv("WORLD_SIZE", "4")  # two machines
    assert how_to_resume() == "To resume, start all processes as before, with --resume"


def test_a_shortened_flag_is_refused(capsys):
    """It would stand beside `--resume` in the command that resumes."""
    with pytest.raises(SystemExit):
        parse("--over")
    assert "unrecognized arguments: --over" in capsys.readouterr().err


@pytest.mark.parametrize(
    "wrong, said",
    [
        (["--seed", "-1"], "whole number from 0 to 4294967295"),
        (["--max-length", "63"], "whole number from 64"),
        (["--resume", "--overwrite"], "not allowed with"),
    ],
)
def test_wrong_usage_is_refused(capsys, wrong, said):
    with pytest.raises(SystemExit) as exit_status:
        parse(*wrong)
    assert exit_status.value.code == 2
    assert said in capsys.readouterr().err
