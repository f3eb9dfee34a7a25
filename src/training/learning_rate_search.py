"""A learning rate for this base and this data: short trainings at several rates, compared by their held-out loss.

The adapter is restored after each, and no file is kept. The training itself is left to `adapter_trainer`.
"""

from __future__ import annotations

import dataclasses
import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from adapter_trainer import AdapterTrainer, make_training_arguments
from checkpoints import read_run_facts
from held_out_evaluation import measure_reply_loss
from packing import PackedRows, Schedule, collate_row
from prepared_run import FOUND_FACTS, Run, with_found_rate
from processes import say, warn, world_size
from transformers.trainer_utils import SaveStrategy

RATES = (2e-4, 6e-4, 2e-3)  # the default, what takes more, and what suits a small base
# Each is tried at this multiple: over a few steps a higher rate looks better than it is over hundreds. With a small base
# the best rate of 7 steps was 1e-2, of 14 steps 5e-3, of a whole training 1e-3 to 2e-3.
TRIAL_FACTOR = 3
MIN_TRIAL_STEPS = 3  # so few still told the rates apart; fewer were not tried
SHARE_OF_RUN = 0.1  # of the tokens of all epochs, for all trials and their evaluations
EVALUATION_COST = 1 / 3  # of a token that is evaluated, without a backward pass, against one that is trained on


def find_learning_rate(run: Run, model: Any, checkpoint: Path | None) -> Run:
    """Return `run` with the rate of its checkpoint, or with the best of the short trainings; print which."""
    if checkpoint is not None:
        saved = read_run_facts(checkpoint)
        return with_found_rate(run, {name: saved.get(name) for name in FOUND_FACTS})
    trial = plan_trial(run)
    if trial is None:
        warn(
            "--learning-rate auto: there is too little data to compare rates; "
            f"the default, {run.recipe.learning_rate:g}, is used"
        )
        return with_found_rate(run, {"learning_rate": run.recipe.learning_rate, "learning_rate_trials": []})
    say(f"Comparing learning rates, {trial.num_steps:,} steps each ...")
    losses = try_rates(run, model, trial)
    rate = choose_rate(losses)
    for tried, loss in losses.items():
        say(f"  {tried:g}: held-out loss {loss:.3f}{'  chosen' if tried == rate else ''}")
    trials = [list(pair) for pair in losses.items()]
    return with_found_rate(run, {"learning_rate": rate, "learning_rate_trials": trials})


def plan_trial(run: Run) -> Schedule | None:
    """Return the first steps of the run's schedule, as many as one trial has; None if there is no room for it."""
    material, schedule = run.material, run.material.schedule
    if material.held_out is None:
        return None
    held_out_tokens = sum(len(ids) for ids in material.held_out.chunks["input_ids"])
    run_tokens = len(schedule.epoch_ends) * material.num_tokens
    trial_tokens = SHARE_OF_RUN * run_tokens / len(RATES) - EVALUATION_COST * held_out_tokens
    num_steps = int(trial_tokens * schedule.num_steps / run_tokens)
    if num_steps < MIN_TRIAL_STEPS:
        return None
    return Schedule(schedule.rows[: num_steps * schedule.rows_per_step], schedule.rows_per_step, [num_steps])


def try_rates(run: Run, model: Any, schedule: Schedule) -> dict[float, float]:
    """Return the held-out loss (nats per token) after the trial of each of the RATES; `model` is left as it was."""
    weights = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    untrained = {name: parameter.detach().to("cpu", copy=True) for name, parameter in weights.items()}
    losses = {}
    for rate in RATES:
        losses[rate] = _try_rate(run, model, schedule, TRIAL_FACTOR * rate)
        with torch.no_grad():
            for name, parameter in weights.items():
                parameter.copy_(untrained[name])
    return losses


def _try_rate(run: Run, model: Any, schedule: Schedule, rate: float) -> float:
    recipe = dataclasses.replace(run.recipe, learning_rate=rate)
    assert run.material.held_out is not None
    with tempfile.TemporaryDirectory() as folder:  # the Trainer creates its output folder; nothing is written into it
        arguments = make_training_arguments(
            recipe,
            run.device,
            schedule,
            Path(folder),
            has_held_out=False,
            measures_base=False,
            seed=run.options.seed,
            optimizer=run.optimizer,
        )
        arguments.save_strategy = SaveStrategy.NO
        trainer = AdapterTrainer(
            measure_held_out=None,
            model=model,
            args=arguments,
            train_dataset=PackedRows(run.material.chunks, schedule.rows),
            data_collator=collate_row,
        )
        trainer.train()
        # With 16-bit numbers the library wraps the forward pass; the next trainer would wrap it again.
        trainer.accelerator.unwrap_model(trainer.model_wrapped, keep_fp32_wrapper=False)
    loss = torch.tensor(measure_reply_loss(model, run.material.held_out).per_token, device=run.device.name)
    if world_size() > 1:
        torch.distributed.broadcast(loss, src=0)  # the last bit may differ, and all must choose the same rate
    return float(loss)


def choose_rate(losses: Mapping[float, float]) -> float:
    """Return the rate with the lowest held-out loss; a loss that is not a number never wins.

    >>> choose_rate({2e-4: 3.1, 6e-4: 2.9, 2e-3: float("nan")})
    0.0006
    """
    return min(losses, key=lambda rate: (math.isnan(losses[rate]), losses[rate]))
