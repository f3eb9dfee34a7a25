"""Checkpoints: complete or set aside, of this run or refused, rotated by step, never by a clock."""

import json
import os

import pytest
from checkpoints import (
    FORMER_FACTS,
    MANIFEST_NAME,
    complete_checkpoint,
    find_newest_complete,
    list_checkpoints,
    list_differences,
    read_run_facts,
    read_versions,
    remove_old_checkpoints,
)

FACTS = {"data_sha256": "a" * 64, "rank": 32}
VERSIONS = {"torch": "2.13.0"}


@pytest.fixture
def checkpoints_dir(tmp_path):
    """Three complete checkpoints, of steps 5, 10 and 100."""
    for step in (5, 10, 100):
        checkpoint = tmp_path / f"checkpoint-{step}"
        checkpoint.mkdir()
        for name in ("adapter_model.safetensors", "optimizer.pt", "rng_state.pth", "trainer_state.json"):
            (checkpoint / name).write_bytes(f"{name} {step}".encode() * 50)
        complete_checkpoint(checkpoint, FACTS, VERSIONS)
    return tmp_path


def test_newest_is_the_one_of_the_highest_step(checkpoints_dir):
    os.utime(checkpoints_dir / "checkpoint-100", (0, 0))  # a clock that was set back
    newest, problems = find_newest_complete(checkpoints_dir)
    assert (newest.name, problems) == ("checkpoint-100", [])
    assert (read_run_facts(newest), read_versions(newest)) == (FACTS, VERSIONS)


def cut(path):
    path.write_bytes(path.read_bytes()[:-7])


def zero(path):
    path.write_bytes(b"\0" * path.stat().st_size)


@pytest.mark.parametrize("damage", [cut, zero, os.unlink, lambda path: path.write_bytes(b"")])
@pytest.mark.parametrize("name", ["adapter_model.safetensors", "optimizer.pt", "trainer_state.json", MANIFEST_NAME])
def test_a_damaged_checkpoint_is_set_aside_and_the_older_one_taken(checkpoints_dir, name, damage):
    damage(checkpoints_dir / "checkpoint-100" / name)
    newest, problems = find_newest_complete(checkpoints_dir)
    assert newest.name == "checkpoint-10"
    assert len(problems) == 1
    assert (checkpoints_dir / "checkpoint-100.broken").is_dir()
    assert find_newest_complete(checkpoints_dir) == (newest, [])  # not stumbled over again


def test_a_folder_left_by_a_kill_while_saving_is_set_aside(checkpoints_dir):
    (checkpoints_dir / "checkpoint-101").mkdir()
    newest, (problem,) = find_newest_complete(checkpoints_dir)
    assert newest.name == "checkpoint-100"
    assert "not saved completely" in problem


def test_all_broken_or_none_there_gives_none(checkpoints_dir, tmp_path_factory):
    for path in list_checkpoints(checkpoints_dir):
        (path / MANIFEST_NAME).unlink()
    newest, problems = find_newest_complete(checkpoints_dir)
    assert newest is None
    assert len(problems) == 3
    assert find_newest_complete(tmp_path_factory.mktemp("empty") / "missing") == (None, [])


def test_the_best_and_the_two_newest_are_kept(checkpoints_dir):
    for step in (200, 300):
        checkpoint = checkpoints_dir / f"checkpoint-{step}"
        checkpoint.mkdir()
        complete_checkpoint(checkpoint, FACTS, VERSIONS)
    remove_old_checkpoints(checkpoints_dir, best_step=10)
    assert [path.name for path in list_checkpoints(checkpoints_dir)] == [
        "checkpoint-10",
        "checkpoint-200",
        "checkpoint-300",
    ]


def test_the_empty_model_card_does_not_stay(tmp_path):
    checkpoint = tmp_path / "checkpoint-1"
    checkpoint.mkdir()
    (checkpoint / "README.md").write_bytes(b"x")
    complete_checkpoint(checkpoint, FACTS, VERSIONS)
    assert [path.name for path in checkpoint.iterdir()] == [MANIFEST_NAME]


def test_differences_are_named_with_both_values():
    differences = list_differences(FACTS, {"data_sha256": "b" * 64, "rank": 16, "seed": 1})
    assert differences == [
        "data_sha256: aaaaaaaaaaaa... in the checkpoint, bbbbbbbbbbbb... now",
        "rank: 32 in the checkpoint, 16 now",
        "seed: None in the checkpoint, 1 now",
    ]
    assert list_differences(FACTS, dict(FACTS)) == []


def test_a_checkpoint_of_an_earlier_version_is_of_this_run_unless_of_the_published_recipe():
    saved = FACTS | {"name": "default", "padded_rows_per_batch": None, "padded_batches_per_step": 1}
    assert list_differences(FORMER_FACTS | saved, FORMER_FACTS | FACTS) == []
    published = saved | {"name": "published", "padded_rows_per_batch": 2}
    assert len(list_differences(FORMER_FACTS | published, FORMER_FACTS | FACTS)) == 2


def test_facts_with_lists_survive_the_way_through_json():
    facts = {"step_tokens": [2048, 4]}
    assert list_differences(json.loads(json.dumps(facts)), facts) == []
