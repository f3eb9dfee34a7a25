"""Fuzzing (`fuzz_stage1.py --seconds 3600` is an hour): whatever the bytes, stage 1 ends well or says why."""

import pytest
from fuzz_stage1 import Fuzz, fuzz_with_hypothesis, memory_folder

SEED = 50_000  # the same inputs in every run, so that a failure is the change's; new ones are tried by hand


@pytest.fixture
def fuzz():
    """A fuzz of stage 1 in a folder of its own."""
    with memory_folder() as folder:
        yield Fuzz(folder)


@pytest.mark.parametrize("num_inputs", [100, pytest.param(1_000, marks=pytest.mark.slow)])
def test_made_up_exports_give_whole_outputs_or_an_error_of_ours(fuzz, num_inputs):
    fuzz_with_hypothesis(fuzz, lambda: fuzz.num_inputs >= num_inputs, SEED)
    assert 0.05 < fuzz.num_converted / num_inputs < 0.95  # neither all refused at the door nor all harmless
