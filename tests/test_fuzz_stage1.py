"""Fuzzing (`fuzz_stage1.py --seconds 3600` is an hour): whatever the bytes, stage 1 ends well or says why."""

import os
import tempfile
from pathlib import Path

import pytest
from fuzz_stage1 import Fuzz, fuzz_with_hypothesis

SEED = 50_000  # the same inputs in every run, so that a failure is the change's; new ones are tried by hand


@pytest.fixture
def fuzz():
    """A fuzz of stage 1 in a folder in memory where there is one: flushing to a real disk would take most of the time."""
    memory_disk = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory_disk if os.access(memory_disk, os.W_OK) else None) as folder:
        yield Fuzz(Path(folder))


def test_made_up_exports_give_whole_outputs_or_an_error_of_ours(fuzz):
    fuzz_with_hypothesis(fuzz, seconds=2, seed=SEED)
    assert fuzz.num_converted > 0


@pytest.mark.slow
def test_a_minute_of_made_up_exports_gives_whole_outputs_or_an_error_of_ours(fuzz, capsys):
    fuzz_with_hypothesis(fuzz, seconds=60, seed=SEED)
    with capsys.disabled():
        print(f"\n{fuzz.num_inputs:,} inputs tried, {fuzz.num_converted:,} converted")
    assert fuzz.num_inputs > 100
    assert 0.05 < fuzz.num_converted / fuzz.num_inputs < 0.95  # neither all refused at the door nor all harmless
