"""Several processes on this machine: the same losses as one process that accumulates, and a launcher's trap caught."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from training_processes import LIMIT_SECONDS, SCRIPT, finish, losses_of, start

pytestmark = pytest.mark.slow

SCRIPTS_DIR = Path(sys.executable).parent  # torchrun and accelerate lie beside the interpreter


@pytest.fixture(scope="module")
def flags(tmp_path_factory, tiny_base_dir, sample_conversations):
    """A run whose steps are two rows each: one process accumulates them, two take one each."""
    path = tmp_path_factory.mktemp("data") / "formatted_data.jsonl"
    path.write_text("".join(json.dumps({"messages": messages}) + "\n" for messages in sample_conversations))
    return [
        *("--base-model-id", str(tiny_base_dir), "--path-to-data", str(path), "--learning-rate", "1e-2"),
        *("--max-length", "256", "--batch-tokens", "512", "--epochs", "1"),
    ]


# The port is any free one: the default is fixed, and another program may have it.
ACCELERATE = ("accelerate", "launch", "--main_process_port", "0")


def launch(launcher, flags, model_dir):
    """Run stage 2 under a launcher, on the CPU."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ACCELERATE")}
    environment |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        [str(SCRIPTS_DIR / launcher[0]), *launcher[1:], str(SCRIPT), *flags, "--saved-model-path", str(model_dir)],
        env=environment, capture_output=True, text=True, timeout=LIMIT_SECONDS,
    )  # fmt: skip


def test_two_processes_have_the_losses_of_one_that_accumulates(flags, tmp_path):
    status, output, errors = finish(start(flags, tmp_path / "one"))
    assert status == 0, errors
    done = launch(["torchrun", "--standalone", "--nproc-per-node", "2"], flags, tmp_path / "two")
    assert done.returncode == 0, done.stderr
    assert "number of processes: 1" in output
    assert done.stdout.count("number of processes: 2") == 1  # said once, not by both
    one, two = losses_of(tmp_path / "one"), losses_of(tmp_path / "two")
    assert [step for step, _ in one] == [step for step, _ in two]
    assert [loss for _, loss in two] == pytest.approx([loss for _, loss in one], rel=1e-4)


def test_accelerate_launch_of_two_processes_works(flags, tmp_path):
    done = launch([*ACCELERATE, "--multi_gpu", "--num_processes", "2"], flags, tmp_path / "model")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("number of processes: 2") == 1
    assert (tmp_path / "model" / "training_settings.json").is_file()


def test_accelerates_silent_single_process_is_refused(flags, tmp_path):
    done = launch([*ACCELERATE, "--cpu", "--num_processes", "2"], flags, tmp_path / "model")
    assert done.returncode != 0
    assert "--cpu starts only one; use torchrun" in done.stderr
    assert not (tmp_path / "model").exists()


def test_sharding_is_refused_in_one_line(flags, tmp_path):
    settings = tmp_path / "fsdp.yaml"
    settings.write_text("distributed_type: FSDP\nnum_processes: 2\nnum_machines: 1\nfsdp_config:\n  fsdp_version: 2\n")
    done = launch([*ACCELERATE, "--config_file", str(settings)], flags, tmp_path / "model")
    assert done.returncode != 0
    assert "fine_tuning_model: accelerate launch: each process trains with the whole model" in done.stderr
    assert not (tmp_path / "model").exists()
