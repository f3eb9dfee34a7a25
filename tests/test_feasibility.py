"""Does a run fit: disk, memory and time are checked before a weight is loaded, and refusals name the cure."""

import dataclasses
import io
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from checkpoints import complete_checkpoint
from feasibility import (
    _advice,
    announce_time,
    check_run,
    choose_by_memory,
    count_work,
    load_of,
    measure_work,
    plan_memory,
    refuse_full_disk,
    refuse_what_does_not_fit,
    work_of_replies,
)
from fine_tuning_model import load_model
from known_bases import find_config, known_bases
from memory_estimate import estimate_memory
from model_shape import Load, ParameterCount
from prepared_run import find_checkpoint, prepare_run, with_optimizer
from recipes import DEFAULT_RECIPE, FUSED_OPTIMIZER, PAGED_OPTIMIZER
from training_options import parse_options
from training_time import Work

from common.base_model_files import BaseModel
from common.compute_device import Device
from common.conversation_data import read_training_data
from common.script import ScriptError

CPU = Device("cpu", torch.float32, is_quantized=True)
GPU = Device("cuda:0", torch.bfloat16, is_quantized=True)
DEFAULT_BASE = BaseModel("yam-peleg/Hebrew-Mistral-7B", None)
WORK = Work(
    epoch_tokens=300_000,
    epoch_supervised_tokens=100_000,
    fill=0.97,
    num_steps=110,
    num_epochs=3,
    row_tokens=2048,
    supervised_share=0.5,
)
# The default base with its adapter. In fp32 this adapter takes 0.32 GiB, and as much each of two states of the optimizer;
# there are two checkpoints kept, the best one, and one being written.
COUNT = ParameterCount(86_065_184, 7_589_949_472)
NEEDED_BYTES = COUNT.trainable * 4 * (1 + 2) * (2 + 1 + 1)


@pytest.fixture
def disk(monkeypatch):
    """A function after which the disk of one folder has so many bytes free; no other may be asked."""

    def set_up(folder, free):
        folders = {folder.resolve(): SimpleNamespace(free=free)}
        monkeypatch.setattr(shutil, "disk_usage", lambda path: folders[Path(path).resolve()])

    return set_up


def test_a_disk_just_large_enough_is_enough_and_a_byte_less_is_refused(disk, tmp_path):
    disk(tmp_path, NEEDED_BYTES)
    refuse_full_disk(tmp_path, COUNT)
    disk(tmp_path, NEEDED_BYTES - 1)
    with pytest.raises(ScriptError) as refusal:
        refuse_full_disk(tmp_path, COUNT)
    message = str(refusal.value)
    assert message.startswith(f"{tmp_path}: checkpoints need 3.85 GiB of disk space, 3.85 GiB are free; ")
    assert message.endswith("; free some space, or choose another --saved-model-path")
    assert "\n" not in message


def test_checkpoints_to_resume_from_are_not_asked_for_again(disk, tmp_path):
    saved = tmp_path / "checkpoints" / "checkpoint-9" / "optimizer.pt"
    saved.parent.mkdir(parents=True)
    with saved.open("wb") as file:
        file.truncate(NEEDED_BYTES // 4)
    disk(tmp_path, NEEDED_BYTES * 3 // 4)
    broken = saved.parents[1] / "checkpoint-7.broken" / "optimizer.pt"  # stays, whatever is saved next
    broken.parent.mkdir()
    with broken.open("wb") as file:
        file.truncate(NEEDED_BYTES // 4)
    refuse_full_disk(tmp_path, COUNT, resumes=True)
    disk(tmp_path, NEEDED_BYTES * 3 // 4 - 1)
    with pytest.raises(ScriptError):
        refuse_full_disk(tmp_path, COUNT, resumes=True)
    with pytest.raises(ScriptError):
        refuse_full_disk(tmp_path, COUNT)


@pytest.mark.parametrize("folder", ["there", "there/not/yet"])
@pytest.mark.parametrize("start", ["", "absolute"])
def test_the_disk_is_that_of_the_folder_to_be_written(disk, tmp_path, monkeypatch, folder, start):
    (tmp_path / "there").mkdir()
    disk(tmp_path / "there", 2**40)
    monkeypatch.chdir(tmp_path)
    refuse_full_disk(tmp_path / folder if start else Path(folder), COUNT)
    assert not (tmp_path / "there/not").exists()


@pytest.mark.parametrize(
    ("free", "verdict"),
    [
        (2**40, "  It fits."),
        (0, "  It does not fit. checkpoints need 0.01 GiB of disk space, 0.00 GiB are free; "),
    ],
)
def test_check_judges_the_disk_by_the_same_rule(disk, tmp_path, tiny_base_dir, free, verdict):
    disk(tmp_path, free)
    lines = check_run(BaseModel("tiny", tiny_base_dir), CPU, DEFAULT_RECIPE, None, tmp_path)
    assert lines[-1].startswith(verdict)


@pytest.fixture
def run(tmp_path, tiny_base_dir, sample_conversations):
    """A prepared run of the tiny base on this processor."""
    data_path = tmp_path / "data.jsonl"
    data_path.write_text("".join(json.dumps({"messages": talk}) + "\n" for talk in sample_conversations[:8]))
    block = {"base_model_id": "", "path_to_data": "", "saved_model_path": str(tmp_path / "model")}
    options = parse_options("", block, 0, ["--device", "cpu", "--threads", "1"])
    return prepare_run(options, read_training_data(data_path), BaseModel("tiny", tiny_base_dir))


def test_the_run_is_refused_before_its_first_step(disk, tmp_path, run):
    disk(tmp_path, 1_000_000)
    with pytest.raises(ScriptError, match="checkpoints need .* of disk space"):
        load_model(run, gradient_checkpointing=False)
    assert not (tmp_path / "model").exists()


def test_the_optimizer_is_paged_only_where_its_states_have_no_room():
    config = find_config(BaseModel("yam-peleg/Hebrew-Mistral-7B", None))
    card = Device("cuda:0", torch.bfloat16, is_quantized=True)
    load = load_of(DEFAULT_RECIPE, None, card)
    assert load.is_captured and load.optimizer == PAGED_OPTIMIZER
    paged = estimate_memory(config, card, load)[1].total
    fused = estimate_memory(config, card, replace(load, optimizer=FUSED_OPTIMIZER))[1].total
    for available, expected in ((fused / 0.9 + 1e7, FUSED_OPTIMIZER), (fused / 0.9 - 1e7, PAGED_OPTIMIZER)):
        planned, _count, training, _chat = plan_memory(config, card, load, int(available))
        assert (planned.optimizer, planned.gradient_checkpointing) == (expected, True)
        assert training.total == (fused if expected == FUSED_OPTIMIZER else paged)
    assert plan_memory(config, card, load, int(1e12), optimizer=PAGED_OPTIMIZER)[0].optimizer == PAGED_OPTIMIZER


@pytest.mark.parametrize("optimizer", [PAGED_OPTIMIZER, None])
def test_a_resumed_run_keeps_the_optimizer_of_its_checkpoint(tmp_path, run, optimizer):
    """Checkpoints of earlier versions do not name it: those of a processor have the fused one."""
    assert choose_by_memory(run, None)[1] == FUSED_OPTIMIZER
    checkpoint = tmp_path / "model/checkpoints/checkpoint-3"
    checkpoint.mkdir(parents=True)
    complete_checkpoint(checkpoint, (with_optimizer(run, optimizer) if optimizer else run).facts, {})
    assert find_checkpoint(run) == checkpoint
    assert choose_by_memory(run, checkpoint)[1] == (optimizer or FUSED_OPTIMIZER)


class TestCheck:
    @pytest.fixture
    def small_base(self, tiny_base_dir):
        return BaseModel("tiny", tiny_base_dir)

    def test_says_what_is_not_known_without_data(self, small_base, tmp_path):
        text = "\n".join(check_run(small_base, CPU, DEFAULT_RECIPE, None, tmp_path))
        assert "tokens      not known" in text
        assert " for 1,000 replies, " in text and " for 5,000 replies, " in text
        assert "base on disk" in text
        assert text.endswith("It fits.")

    def test_counts_tokens_steps_and_time_with_data(self, small_base, tmp_path):
        text = "\n".join(check_run(small_base, CPU, DEFAULT_RECIPE, WORK, tmp_path / "not" / "yet" / "there"))
        assert "about 300,000 per epoch, 100,000 of them supervised (33 %)" in text
        assert "about 110 in up to 3 epochs" in text
        assert "time        about" in text

    def test_says_what_to_change_when_it_does_not_fit(self, small_base):
        config = find_config(small_base)
        whole = estimate_memory(config, CPU, Load())[1].total
        half = estimate_memory(config, CPU, Load(row_tokens=1024))[1].total
        assert _advice(config, CPU, Load(), available=(whole + half) // 2).startswith("Pass --max-length 1024 ")
        assert _advice(config, CPU, Load(), available=1).startswith("No base of the README fits")

    def test_a_run_that_does_not_fit_is_refused_unless_the_estimate_may_be_too_high(self, small_base):
        config = find_config(small_base)
        training = estimate_memory(config, CPU, Load())[1]
        needed = training.total - training.libraries  # those are loaded already
        refuse_what_does_not_fit(small_base, config, CPU, Load(), training, round(0.95 * needed))
        with pytest.raises(
            ScriptError, match=r"^tiny: does not fit; training takes .* GiB\. No base of the README fits; free some"
        ):
            refuse_what_does_not_fit(small_base, config, CPU, Load(), training, round(0.8 * needed))

    def test_a_chat_remembers_what_the_recipe_allows_however_short_the_data(self, small_base, tmp_path):
        short = dataclasses.replace(WORK, row_tokens=512)
        text = "\n".join(check_run(small_base, CPU, DEFAULT_RECIPE, short, tmp_path))
        assert "(training in rows of 512 tokens; a chat with a context of 2,048)" in text
        config = find_config(small_base)
        chats = [estimate_memory(config, CPU, Load(row_tokens=512, chat_tokens=n))[2].total for n in (512, 2048)]
        assert chats[0] < chats[1]

    def test_activations_are_kept_only_where_they_easily_fit(self, small_base):
        config = find_config(small_base)
        low, high = (
            estimate_memory(config, CPU, Load(row_tokens=512, gradient_checkpointing=gradient_checkpointing))[1].total
            for gradient_checkpointing in (True, False)
        )
        assert low < high
        for checkpointing, available, gradient_checkpointing in (
            ("auto", 3 * high, False),
            ("auto", high, True),
            ("on", 3 * high, True),
            ("off", low, False),
        ):
            load, _count, training, _chat = plan_memory(config, CPU, Load(row_tokens=512), available, checkpointing)
            assert load.gradient_checkpointing == gradient_checkpointing
            assert training.total == (low if gradient_checkpointing else high)

    def test_a_forced_choice_that_does_not_fit_is_the_first_to_be_changed(self, small_base):
        config = find_config(small_base)
        needed = estimate_memory(config, CPU, Load())[1].total
        assert "Leave out --activation-checkpointing off" in _advice(
            config, CPU, Load(gradient_checkpointing=False), needed
        )

    def test_load_follows_recipe_and_data(self):
        assert load_of(DEFAULT_RECIPE, None, GPU).row_tokens == 2048
        assert load_of(DEFAULT_RECIPE, WORK, GPU).supervised_share == 0.5
        several = dataclasses.replace(WORK, rows_per_step=4)
        assert [load_of(DEFAULT_RECIPE, work, CPU).accumulates for work in (WORK, several)] == [False, True]


class TestLongRuns:
    """Before more than an hour on a processor, the user is asked; without a terminal the run is refused."""

    @pytest.fixture(autouse=True)
    def command_line(self, monkeypatch):
        monkeypatch.setattr(sys, "argv", ["fine_tuning_model.py", "--epochs", "2"])

    @pytest.fixture
    def terminal(self, monkeypatch):
        """A function after which standard input and output are a terminal that answers with these lines."""

        def answer(text):
            stdin = io.StringIO(text)
            stdin.isatty = lambda: True
            monkeypatch.setattr(sys, "stdin", stdin)
            monkeypatch.setattr(sys.stdout, "isatty", lambda: True)

        return answer

    def announce(self, device="auto", base=DEFAULT_BASE, work=WORK):
        announce_time(base, find_config(base), CPU, work, device, "14.0 GiB")

    def test_without_a_terminal_it_is_refused_with_hours_download_bases_and_the_command(self):
        with pytest.raises(ScriptError) as refusal:
            self.announce()
        lines = str(refusal.value).splitlines()
        assert lines[0].startswith("yam-peleg/Hebrew-Mistral-7B: training would take about ")
        assert "after a download of 14.0 GiB" in lines[0]
        named = [line.split(":")[0].strip() for line in lines if ": about " in line]
        assert len(named) == 3
        assert set(named) <= {known.name for known in known_bases()} - {DEFAULT_BASE.name}
        assert lines[-1].endswith("fine_tuning_model.py --epochs 2 --device cpu")

    @pytest.mark.parametrize(
        ("answer", "trains"), [("y\n", True), ("yes\n", True), ("\n", False), ("", False), ("n\n", False)]
    )
    def test_at_a_terminal_it_asks(self, terminal, capsys, answer, trains):
        terminal(answer)
        if trains:
            self.announce()
        else:
            with pytest.raises(ScriptError, match="nothing was downloaded or written"):
                self.announce()
        assert "14.0 GiB" in capsys.readouterr().out

    def test_the_device_chosen_by_flag_skips_the_question(self, capsys):
        self.announce(device="cpu")
        assert "Time: training takes about " in capsys.readouterr().out

    def test_a_short_run_is_not_asked_about(self, tiny_base_dir, capsys):
        self.announce(base=BaseModel("tiny", tiny_base_dir))
        assert "Time: training takes about " in capsys.readouterr().out


class TestGuesses:
    def test_more_replies_are_more_tokens_in_at_most_as_many_epochs(self):
        few, many = (work_of_replies(number, DEFAULT_RECIPE) for number in (1_000, 20_000))
        assert many.epoch_tokens == 20 * few.epoch_tokens
        assert many.num_epochs <= few.num_epochs

    @pytest.mark.parametrize(("is_on_disk", "tolerance"), [(True, 0.15), (False, 0.6)])
    def test_counted_work_is_near_what_a_run_prepares(
        self, sample_conversations, tiny_base_dir, tmp_path, is_on_disk, tolerance
    ):
        data_path = tmp_path / "data.jsonl"
        data_path.write_text("".join(json.dumps({"messages": talk}) + "\n" for talk in sample_conversations))
        data = read_training_data(data_path)
        base = BaseModel("tiny", tiny_base_dir)
        options = parse_options("", {"base_model_id": "", "path_to_data": "", "saved_model_path": "x"}, 0, [])
        prepared = measure_work(prepare_run(options, data, base).material)
        counted = count_work(data.conversations, DEFAULT_RECIPE, base if is_on_disk else DEFAULT_BASE)
        assert counted.epoch_tokens == pytest.approx(prepared.epoch_tokens, rel=tolerance)
        assert counted.epoch_supervised_tokens == pytest.approx(prepared.epoch_supervised_tokens, rel=tolerance)
        assert counted.num_epochs == prepared.num_epochs
