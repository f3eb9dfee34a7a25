"""A minute of fuzzing (`fuzz_stage1.py --seconds 3600` is an hour): whatever the bytes, stage 1 ends well or says why."""

import os
import tempfile
from pathlib import Path

import pytest
from fuzz_stage1 import Fuzz, fuzz_with_hypothesis

SEED = 50_000  # the same inputs in every run, so that a failure is the change's; new ones are tried by hand


@pytest.mark.slow
def test_a_minute_of_made_up_exports_gives_whole_outputs_or_an_error_of_ours(capsys):
    memory_disk = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory_disk if os.access(memory_disk, os.W_OK) else None) as folder:
        fuzz = Fuzz(Path(folder))
        fuzz_with_hypothesis(fuzz, seconds=60, seed=SEED)
    with capsys.disabled():
        print(f"\n{fuzz.num_inputs:,} inputs tried, {fuzz.num_converted:,} converted")
    assert fuzz.num_inputs > 100
    assert 0.05 < fuzz.num_converted / fuzz.num_inputs < 0.95  # neither all refused at the door nor all harmless
