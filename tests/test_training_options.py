"""The command line of stage 2: a value that is typed counts from the current folder, even where the block says the same."""

from pathlib import Path

import pytest
from training_options import next_command, parse_options

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
