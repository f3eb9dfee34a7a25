"""Stage 2 is killed at every rename and removal around a training: a command leads on, and nothing finished is lost."""

import itertools
import json
import shutil
import signal
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace

import pytest
from checkpoints import complete_checkpoint, find_newest_complete
from held_out_sets import HeldOut
from killing_disk import run_killed
from output_folder import check_folder, finish_folder, hold_output_folder, write_json
from saved_model_checks import check_trained_folder
from training_processes import LIMIT_SECONDS, SCRIPT

from common.model_folder import (
    ADAPTER_NAME,
    CHECKPOINTS_NAME,
    CURVE_NAME,
    GENERATION_NAME,
    HELD_OUT_NAME,
    LOG_NAME,
    REPORT_NAME,
    SETTINGS_NAME,
)
from common.script import ScriptError

pytestmark = pytest.mark.slow

NEVER = 1_000_000
COMMANDS = {"plain": {}, "--resume": {"resume": True}, "--overwrite": {"overwrite": True}}


def command_that_leads_on(folder):
    """The first command that is not refused."""
    for name, flags in COMMANDS.items():
        try:
            check_folder(folder, **{"resume": False, "overwrite": False} | flags)
        except ScriptError:
            continue
        return name
    raise AssertionError(f"no way on from {sorted(path.name for path in folder.iterdir())}")


def is_finished_model(folder):
    try:
        check_trained_folder(folder)
    except ScriptError:
        return False
    return True


@pytest.fixture
def trained_dir(tmp_path):
    """A folder after the last step of a training, before its model is written."""
    folder = tmp_path / "trained"
    checkpoint_dir = folder / CHECKPOINTS_NAME / "checkpoint-2"
    checkpoint_dir.mkdir(parents=True)
    (checkpoint_dir / ADAPTER_NAME).write_bytes(b"weights")
    complete_checkpoint(checkpoint_dir, {}, {})
    for name in (HELD_OUT_NAME, LOG_NAME, REPORT_NAME, CURVE_NAME):
        (folder / name).write_text("{}")
    return folder


def test_killed_anywhere_while_the_model_is_written_it_resumes_or_is_finished(
    tmp_path, trained_dir, tiny_model, tiny_saved_model_dir
):
    settings = json.loads((tiny_saved_model_dir / SETTINGS_NAME).read_text(encoding="utf-8"))
    generation = json.loads((tiny_saved_model_dir / GENERATION_NAME).read_text(encoding="utf-8"))

    def finish(folder, number):
        return run_killed(
            lambda: finish_folder(folder, tiny_model.model, tiny_model.tokenizer, generation, settings), number
        )

    whole = shutil.copytree(trained_dir, tmp_path / "whole")
    assert not finish(whole, NEVER)
    names_when_finished = {path.name for path in whole.iterdir()}
    assert CHECKPOINTS_NAME not in names_when_finished

    endings = []
    for number in itertools.count(1):
        folder = shutil.copytree(trained_dir, tmp_path / f"{number}")
        if not finish(folder, number):
            break
        if (folder / SETTINGS_NAME).exists():
            assert is_finished_model(folder), number
            endings.append(command_that_leads_on(folder))  # the refused ones before it tidy up
        else:
            endings.append(command_that_leads_on(folder))
            assert find_newest_complete(folder / CHECKPOINTS_NAME)[0].name == "checkpoint-2", number
            assert not finish(folder, NEVER), number  # what a resumed run does after its last step
            assert is_finished_model(folder), number
        assert {path.name for path in folder.iterdir()} == names_when_finished, number
    assert set(endings) == {"--resume", "--overwrite"}
    assert endings == sorted(endings, reverse=True)  # unfinished until some moment, finished from there on


@pytest.mark.parametrize("before", ["nothing", "a finished model", "an unfinished training", "a link to a model"])
def test_killed_anywhere_while_a_training_begins_a_command_leads_on(
    tmp_path, before, trained_dir, tiny_saved_model_dir
):
    run = SimpleNamespace(data=SimpleNamespace(sha256="", conversations=[]), held_out=HeldOut([], [], []))

    def begin(folder, command):
        options = Namespace(model_dir=folder, **{"resume": False, "overwrite": False} | COMMANDS[command])
        with hold_output_folder(options) as start_writing:
            start_writing(run)

    for number in itertools.count(1):
        root = tmp_path / f"{number}"
        root.mkdir()
        folder = root / "model"
        if before == "a finished model":
            shutil.copytree(tiny_saved_model_dir, folder)
        elif before == "an unfinished training":
            shutil.copytree(trained_dir, folder)
        elif before == "a link to a model":
            folder.symlink_to(shutil.copytree(tiny_saved_model_dir, root / "disk" / "model"))
        command = "plain" if before == "nothing" else "--overwrite"
        if not run_killed(lambda folder=folder, command=command: begin(folder, command), number):
            break
        if "model" in before.split():
            assert sum(map(is_finished_model, [*root.rglob("model"), *root.rglob("model.old-*")])) >= 1, number
        if folder.is_symlink() and not folder.exists():
            folder.resolve().mkdir()  # the error names the broken link
        begin(folder, command_that_leads_on(folder))
        assert (folder / HELD_OUT_NAME).is_file(), number
        assert not list(folder.glob(".unfinished-*")), number
        assert folder.is_symlink() == (before == "a link to a model")
    assert number > 1


def test_a_training_that_was_killed_at_its_first_rename_and_then_at_its_last_removal_is_finished(
    tmp_path, tiny_base_dir, sample_conversations
):
    data_path, model_dir = tmp_path / "data.jsonl", tmp_path / "model"
    lines = [json.dumps({"messages": messages}, ensure_ascii=False) for messages in sample_conversations[:4]]
    data_path.write_text("\n".join(lines), encoding="utf-8")
    flags = ["--base-model-id", tiny_base_dir, "--path-to-data", data_path, "--saved-model-path", model_dir]
    flags += ["--device", "cpu", "--epochs", 1, "--rank", 2, "--max-length", 128]
    killer = Path(__file__).with_name("killing_disk.py")

    def train(*before, more=()):
        command = [sys.executable, *map(str, [*before, SCRIPT, *flags, *more])]
        return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_SECONDS)

    model_dir.mkdir()
    (model_dir / f".unfinished-{dead_process_id()}-x").touch()  # what the first kill leaves
    assert train(killer, "rmdir", CHECKPOINTS_NAME).returncode == -signal.SIGKILL
    assert is_finished_model(model_dir) and (model_dir / CHECKPOINTS_NAME).is_dir()
    resumed = train(more=["--resume"])
    assert resumed.returncode == 1
    assert "this model is finished, there is nothing to resume" in resumed.stderr
    assert is_finished_model(model_dir) and not (model_dir / CHECKPOINTS_NAME).exists()
    assert not list(model_dir.glob(".unfinished-*"))


def dead_process_id():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_taken_name_of_an_old_model_is_no_obstacle(tmp_path, monkeypatch):
    monkeypatch.setattr("time.strftime", lambda _form: "20240101-120000")
    for number in range(3):
        folder = tmp_path / "model"
        folder.mkdir()
        write_json(folder / HELD_OUT_NAME, {"number": number})
        options = Namespace(model_dir=folder, resume=False, overwrite=True)
        with hold_output_folder(options) as start_writing:
            start_writing(
                SimpleNamespace(data=SimpleNamespace(sha256="", conversations=[]), held_out=HeldOut([], [], []))
            )
        shutil.rmtree(folder)
    olds = sorted(tmp_path.glob("model.old-*"))
    assert [json.loads((old / HELD_OUT_NAME).read_text())["number"] for old in olds] == [0, 1, 2]
