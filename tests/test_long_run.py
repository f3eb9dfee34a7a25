"""Before more than an hour on a processor, the user is asked; without a terminal the run is refused."""

import argparse
import io
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
from known_bases import find_config, known_bases
from long_run import announce_before_download, announce_time
from recipes import DEFAULT_RECIPE
from small_runs import CPU, DEFAULT_BASE, WORK
from training_time import Speed

from common.base_model_files import BaseModel
from common.conversation_data import Conversation, TrainingData
from common.script import ScriptError

LAPTOP_SPEED = Speed(operations_per_second=1e11, bytes_per_second=1e10, call_seconds=2e-6)


@pytest.fixture(autouse=True)
def laptop(monkeypatch):
    """A command on a machine of known speed, with 16 GiB of free memory and without a terminal."""
    monkeypatch.setattr(sys, "argv", ["fine_tuning_model.py", "--epochs", "2"])
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=16 * 2**30))
    monkeypatch.setattr("long_run.measure_speed", lambda _device, _weights: LAPTOP_SPEED)


@pytest.fixture
def terminal(monkeypatch):
    """A function after which standard input and output are a terminal that answers with these lines."""

    def answer(text):
        stdin = io.StringIO(text)
        stdin.isatty = lambda: True
        monkeypatch.setattr(sys, "stdin", stdin)
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)

    return answer


def options_of(device="auto"):
    return argparse.Namespace(
        device=device,
        recipe=DEFAULT_RECIPE,
        activation_checkpointing="auto",
        model_dir=Path("saved_model"),
        resume=False,
    )


def announce(options=None, base=DEFAULT_BASE):
    options = options_of() if options is None else options
    announce_time(options, base, find_config(base), CPU, WORK, True, known_bases(), download="15.0 GB")


def test_without_a_terminal_it_is_refused_with_hours_download_bases_and_the_command():
    with pytest.raises(ScriptError) as refusal:
        announce()
    lines = str(refusal.value).splitlines()
    assert lines[0].startswith("yam-peleg/Hebrew-Mistral-7B: training would take about ")
    assert "after a download of 15.0 GB" in lines[0]
    named = [line.split(":")[0].strip() for line in lines if ": about " in line]
    assert len(named) == 3
    assert any("SmolLM2-135M: about " in line and ", 0.3 GB to download; languages: English" in line for line in lines)
    assert set(named) <= {known.name for known in known_bases()} - {DEFAULT_BASE.name}
    assert lines[-1].endswith("fine_tuning_model.py --epochs 2 --device cpu")


def test_the_command_starts_as_many_processes_again(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(ScriptError, match=r"--nproc-per-node 2 fine_tuning_model.py --epochs 2 --device cpu\Z"):
        announce()


@pytest.mark.parametrize(
    ("answer", "trains"), [("y\n", True), ("yes\n", True), ("\n", False), ("", False), ("n\n", False)]
)
def test_at_a_terminal_it_asks(terminal, capsys, answer, trains):
    terminal(answer)
    if trains:
        announce()
    else:
        with pytest.raises(ScriptError, match="nothing was downloaded or written"):
            announce()
    assert "15.0 GB" in capsys.readouterr().out


def test_after_the_download_nobody_is_asked_again(terminal):
    options = options_of()
    terminal("y\n")
    announce(options)
    announce(options)  # with no second answer to read


def test_the_device_chosen_by_flag_skips_the_question(capsys):
    announce(options_of("cpu"))
    assert "Time: training takes " in capsys.readouterr().out


def test_a_short_run_is_not_asked_about(tiny_base_dir, capsys):
    announce(base=BaseModel("tiny", tiny_base_dir))
    assert "Time: training takes " in capsys.readouterr().out


class TestBeforeTheDownload:
    """What is known without the base is said before its gigabytes are fetched."""

    TALK = ({"role": "user", "content": "מה נשמע? " * 9}, {"role": "assistant", "content": "סבבה " * 9})
    DATA = TrainingData([Conversation(0, list(TALK) * 600, "")], "", 0, [])

    @pytest.fixture(autouse=True)
    def little_memory(self, monkeypatch):
        """The same machine without a GPU and with 2 GiB of free memory."""
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
        monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=2 * 2**30))

    def test_a_base_that_does_not_fit_into_memory_is_refused(self):
        with pytest.raises(
            ScriptError, match="Hebrew-Mistral-7B: does not fit; training takes .* GiB. Pass --base-model-id"
        ):
            announce_before_download(options_of("cpu"), self.DATA, DEFAULT_BASE, 15_000_000_000)

    def test_hours_and_memory_are_said_together_with_bases_that_fit(self):
        with pytest.raises(ScriptError) as refusal:
            announce_before_download(options_of(), self.DATA, DEFAULT_BASE, 15_000_000_000)
        lines = str(refusal.value).splitlines()
        assert "after a download of 15.0 GB" in lines[0]
        assert lines[-1].startswith("  it does not fit either: training takes ") and lines[-1].endswith(
            "1.21 GiB are free"
        )
        assert not any("SmolLM2" in line for line in lines), "the chat is in Hebrew"
        assert not any("Qwen3-4B" in line or "--device cpu" in line for line in lines)
