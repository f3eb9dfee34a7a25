"""Room on the disk: for the checkpoints of a run, before its first step, and for the download of a base."""

import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from disk_space import describe_disk, refuse_full_disk, refuse_large_download
from fine_tuning_model import load_model
from model_shape import ParameterCount
from recipes import DEFAULT_RECIPE
from run_check import check_run

from common.base_model_files import BaseModel, HubListing
from common.compute_device import Device
from common.script import ScriptError

CPU = Device("cpu", torch.float32, is_quantized=True)
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


def test_the_disk_of_an_adapter_follows_its_number_type(tmp_path):
    shown = [describe_disk(BaseModel("x", None), COUNT, tmp_path, dtype) for dtype in (torch.float32, torch.bfloat16)]
    assert [re.search(r"adapter (\S+ \S+),", line)[1] for line in shown] == ["328.3 MiB", "164.2 MiB"]


def test_the_run_is_refused_before_its_first_step(disk, tmp_path, small_run):
    disk(tmp_path, 1_000_000)
    with pytest.raises(ScriptError, match="checkpoints need .* of disk space"):
        load_model(small_run, gradient_checkpointing=False)
    assert not (tmp_path / "model").exists()


def test_a_download_for_which_there_is_no_room_is_refused_with_both_sizes(disk, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    listing = HubListing("owner/name", "0123", {"model.safetensors": 15_000_000_000})
    disk(tmp_path, 15_000_000_000)
    refuse_large_download(listing)
    disk(tmp_path, 14_200_000_000)
    with pytest.raises(
        ScriptError, match=r"owner/name: the download takes 15\.0 GB, 14\.2 GB are free in .*hub; free some"
    ):
        refuse_large_download(listing)
    begun = tmp_path / "hub/models--owner--name/blobs/abc.incomplete"
    begun.parent.mkdir(parents=True)
    with begun.open("wb") as file:
        file.truncate(800_000_000)
    disk(tmp_path / "hub", 14_200_000_000)
    refuse_large_download(listing)  # an interrupted download goes on
