"""The Trainer of stage 2: how often a run is measured and saved."""

import pytest
from adapter_trainer import TrainingCallback, make_training_arguments
from packing import Schedule
from recipes import DEFAULT_RECIPE, FUSED_OPTIMIZER
from small_runs import CPU
from transformers import TrainerControl, TrainerState


def arguments_for(tmp_path, epoch_steps, num_epochs=3, has_held_out=True):
    """The library's arguments for a run whose epochs have so many steps."""
    epoch_ends = [epoch_steps * epoch for epoch in range(1, num_epochs + 1)]
    schedule = Schedule(rows=[[0]] * epoch_ends[-1], rows_per_step=1, epoch_ends=epoch_ends)
    return make_training_arguments(
        DEFAULT_RECIPE, CPU, schedule, tmp_path, has_held_out, has_held_out, 0, FUSED_OPTIMIZER
    )


@pytest.mark.parametrize("epoch_steps", [1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 15, 16, 17, 100, 1_001])
def test_each_epoch_is_measured_evenly_two_to_four_times_unless_it_has_fewer_steps(tmp_path, epoch_steps):
    """The library measures the very last step besides, wherever it falls."""
    arguments = arguments_for(tmp_path, epoch_steps)
    measured = [step for step in range(1, 3 * epoch_steps + 1) if step % arguments.eval_steps == 0]
    for epoch in range(3):
        times = sum(epoch * epoch_steps < step <= (epoch + 1) * epoch_steps for step in measured)
        assert min(epoch_steps, 2) <= times <= 4
    if epoch_steps % 4 == 0:
        assert len(measured) == 4 * 3


@pytest.mark.parametrize("has_held_out", [True, False])
def test_what_is_measured_is_saved_so_that_the_best_can_come_back(tmp_path, has_held_out):
    arguments = arguments_for(tmp_path, 20, has_held_out=has_held_out)
    assert arguments.save_steps == arguments.eval_steps == 5
    assert arguments.load_best_model_at_end == arguments.eval_on_start == has_held_out
    assert (arguments.eval_strategy == "steps") == has_held_out
    assert arguments.save_strategy == "steps"


class NoSamples:
    def show(self, is_base):
        pass


@pytest.mark.parametrize(
    ("bits", "step", "is_warned"), [(2.7, 0, False), (4.0, 0, False), (7.7, 0, True), (7.7, 5, False)]
)
def test_a_base_that_cannot_write_the_language_is_said_to_be_one(tmp_path, capsys, bits, step, is_warned):
    schedule = Schedule(rows=[[0]] * 10, rows_per_step=1, epoch_ends=[10])
    callback = TrainingCallback(schedule, [8], None, NoSamples(), tmp_path, {})
    logs = {"eval_loss": 2.0, "eval_bits_per_char": bits, "eval_seconds": 1.0}
    callback.on_log(None, TrainerState(global_step=step), TrainerControl(), logs)
    printed = "".join(capsys.readouterr())
    assert ("7.7 bits per character for held-out replies" in printed) == is_warned
    assert ("; choose a base model that was trained on it" in printed) == is_warned
