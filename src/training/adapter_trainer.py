"""The Trainer of stage 2: the library's loop, with our own evaluation, checkpoints, log and stopping.

The model computes the loss on the batches of `packing`. Only evaluating and saving are replaced: the library's evaluation
depends on the batch size, and its checkpoints would contain the base's head.
"""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from checkpoints import complete_checkpoint, find_problem, library_versions, remove_old_checkpoints
from held_out_evaluation import ReplyLoss, SampleReplies
from packing import Schedule
from processes import is_first_process, warn, world_size
from recipes import EVALUATIONS_PER_EPOCH, MAX_GRADIENT_NORM, PATIENCE_EVALUATIONS, Recipe
from training_progress import ProgressBar, TrainingLog
from transformers import (
    EarlyStoppingCallback,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from common.compute_device import Device
from common.script import ScriptError

# A base that knows the language has 1 to 2 bits per character, the demo's small one 2.7.
MAX_BASE_BITS = 4.0


def make_training_arguments(
    recipe: Recipe,
    device: Device,
    schedule: Schedule,
    checkpoints_dir: Path,
    has_held_out: bool,
    measures_base: bool,
    seed: int,
    optimizer: str,
) -> TrainingArguments:
    """Translate a recipe into the library's arguments; a batch is one row, and the whole schedule is one epoch.

    `measures_base`: evaluate before the first step, while the adapter changes nothing.
    """
    steps_between_evaluations = math.ceil(schedule.epoch_ends[0] / EVALUATIONS_PER_EPOCH)
    return TrainingArguments(
        output_dir=str(checkpoints_dir),
        num_train_epochs=1,  # the schedule holds all epochs, each packed anew
        per_device_train_batch_size=1,
        gradient_accumulation_steps=schedule.rows_per_step // world_size(),
        train_sampling_strategy="sequential",
        learning_rate=recipe.learning_rate,
        lr_scheduler_type=recipe.lr_scheduler,
        # Rounded down: the first step of a warm-up has rate 0, a waste in a run of few steps.
        warmup_steps=int(recipe.warmup_share * schedule.num_steps),
        max_grad_norm=MAX_GRADIENT_NORM,
        optim=optimizer,
        bf16=device.dtype == torch.bfloat16,
        fp16=device.dtype == torch.float16,
        use_cpu=device.kind == "cpu",
        seed=seed,
        logging_steps=1,
        logging_nan_inf_filter=False,  # a loss that is not finite must stop the run
        eval_strategy="steps" if has_held_out else "no",
        eval_on_start=measures_base,
        eval_steps=steps_between_evaluations,
        save_strategy="steps",
        save_steps=steps_between_evaluations,
        save_total_limit=None,  # `checkpoints` deletes old ones by step; the library goes by the clock
        load_best_model_at_end=has_held_out,
        metric_for_best_model="eval_loss" if has_held_out else None,
        greater_is_better=False if has_held_out else None,
        restore_callback_states_from_checkpoint=True,  # the count towards early stopping
        remove_unused_columns=False,
        dataloader_pin_memory=device.kind == "cuda",
        ddp_find_unused_parameters=False,
        disable_tqdm=True,
        report_to="none",
        push_to_hub=False,
    )


class AdapterTrainer(Trainer):
    """`transformers.Trainer` with two things replaced: how it evaluates and how it saves the adapter."""

    def __init__(self, measure_held_out: Callable[[], ReplyLoss] | None, **arguments: Any) -> None:
        """`measure_held_out` replaces the library's evaluation loop."""
        super().__init__(eval_dataset=[] if measure_held_out else None, **arguments)
        self._measure_held_out = measure_held_out
        self.remove_callback(PrinterCallback)
        if measure_held_out is not None:
            self.add_callback(EarlyStoppingCallback(PATIENCE_EVALUATIONS))

    def evaluate(self, *_args: Any, **_kwargs: Any) -> dict[str, float]:
        """Measure the loss of the held-out replies: summed over tokens, divided once."""
        assert self._measure_held_out is not None
        started_at = time.monotonic()
        with self.compute_loss_context_manager():
            measured = self._measure_held_out()
        losses = torch.tensor([measured.per_token, measured.bits_per_char], device=self.args.device)
        if world_size() > 1:
            torch.distributed.broadcast(losses, src=0)  # the last bit may differ, but all must stop at the same step
        metrics = dict(zip(("eval_loss", "eval_bits_per_char"), losses.tolist(), strict=True))
        self.log(metrics | {"eval_seconds": time.monotonic() - started_at})
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def restore_if_stopped_early(self, checkpoint_dir: Path) -> bool:
        """Return whether the run of this checkpoint had stopped early; if so, load its best adapter.

        The library would train until the next evaluation.
        """
        state = TrainerState.load_from_json(str(checkpoint_dir / "trainer_state.json"))
        early_stopping = state.stateful_callbacks.get("EarlyStoppingCallback", {"attributes": {}})
        counter = early_stopping["attributes"].get("early_stopping_patience_counter", 0)
        if counter < PATIENCE_EVALUATIONS:
            return False
        find_best_again(state, checkpoint_dir.parent)
        if state.best_model_checkpoint is None:
            return False
        self.state = state
        self._load_best_model()
        return True

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Save the adapter alone, without the base's head and without pickled arguments."""
        if self.args.should_save:
            model: Any = self.model
            model.save_pretrained(output_dir, state_dict=state_dict, save_embedding_layers=False)


def find_best_again(state: TrainerState, checkpoints_dir: Path) -> None:
    """Set `state`'s path of the best checkpoint to where it lies now, or to None if it is damaged.

    The library stores an absolute path; after the folder is moved, it would silently load nothing.
    """
    if state.best_global_step:
        best_dir = checkpoints_dir / f"checkpoint-{state.best_global_step}"
        if find_problem(best_dir) is None:
            state.best_model_checkpoint = str(best_dir)
        else:
            state.best_model_checkpoint = state.best_metric = state.best_global_step = None


class StopRequest:
    """Ctrl-C, SIGTERM and SIGHUP during training: the first stops after the step, the second exits at once."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self) -> None:
        """Start without a request."""
        self.signal_number: int | None = None

    def __enter__(self) -> StopRequest:
        """Handle the signals, except those that are ignored already (nohup)."""
        self._previous = {
            number: signal.signal(number, self._remember)
            for number in self.SIGNALS
            if signal.getsignal(number) is not signal.SIG_IGN
        }
        return self

    def __exit__(self, *_exception: object) -> None:
        """Restore the previous handlers."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _remember(self, signal_number: int, _frame: FrameType | None) -> None:
        if self.signal_number is not None:
            raise SystemExit(128 + signal_number)
        self.signal_number = signal_number
        # Not print: the signal may have interrupted one.
        os.write(2, b"\nstopping after this step, then saving (again: at once)\n")

    @property
    def exit_status(self) -> int:
        """128 and the signal's number, as shells report it."""
        return 128 + (self.signal_number or 0)

    def is_wanted_anywhere(self, device: torch.device) -> bool:
        """Return whether any process was asked to stop: all must stop after the same step."""
        wanted = self.signal_number is not None
        if world_size() == 1:
            return wanted
        flag = torch.tensor([float(wanted)], device=device)
        torch.distributed.all_reduce(flag)
        return bool(flag.item())


class TrainingCallback(TrainerCallback):
    """What happens between steps: progress bar, log, sample replies, checkpoints, stopping."""

    def __init__(
        self,
        schedule: Schedule,
        lengths: Sequence[int],
        log: TrainingLog | None,
        samples: SampleReplies,
        checkpoints_dir: Path,
        run_facts: Mapping[str, Any],
    ) -> None:
        """`lengths`: the tokens of each chunk; `log`: None in all processes but the first."""
        self.log = log
        self.samples = samples
        self.stop_request = StopRequest()
        self.was_stopped = False
        self._schedule = schedule
        self._lengths = lengths
        self._checkpoints_dir = checkpoints_dir
        self._run_facts = run_facts
        self._bar = ProgressBar(schedule.num_steps, 0, is_shown=False)  # until the training begins

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_kwargs: Any
    ) -> None:
        """Start the progress bar; find the best checkpoint of an interrupted run."""
        find_best_again(state, self._checkpoints_dir)
        self._bar = ProgressBar(self._schedule.num_steps, state.global_step, is_shown=is_first_process())

    def close(self) -> None:
        """End the progress bar's line."""
        self._bar.close()

    def on_step_begin(self, *_args: Any, **_kwargs: Any) -> None:
        """Start timing: a step does not include the evaluation and the checkpoint before it."""
        self._bar.begin_step()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_kwargs: Any,
    ) -> None:
        """Log and show the step; stop if its loss is not finite, before it is saved."""
        logs = logs or {}
        if "loss" in logs:
            # In fp16 the scaler skips a step with an infinite gradient and lowers its scale.
            self._refuse_no_number(state.global_step, logs["loss"], 0.0 if args.fp16 else logs.get("grad_norm", 0.0))
            self._log_step(state.global_step, logs)
        elif "eval_loss" in logs:
            self._log_evaluation(state, logs)

    def _refuse_no_number(self, step: int, *values: float) -> None:
        if all(map(math.isfinite, values)):
            return
        raise ScriptError(
            f"step {step:,}: the loss or its gradient is no longer a number; start again with --overwrite and a lower "
            "--learning-rate (the earlier checkpoints are kept until then)"
        )

    def _log_step(self, step: int, logs: dict[str, float]) -> None:
        epoch = self._schedule.epoch_at(step)
        num_tokens = sum(self._lengths[number] for number in self._schedule.chunks_of_step(step))
        self._bar.advance(epoch, logs["loss"], num_tokens)
        if self.log is not None:
            row = {"step": step, "epoch": round(epoch, 4), "loss": logs["loss"], "grad_norm": logs.get("grad_norm")}
            row |= {"learning_rate": logs["learning_rate"], "tokens": num_tokens}
            self.log.add(row | {"seconds": round(self._bar.step_seconds, 4)})

    def _log_evaluation(self, state: TrainerState, logs: dict[str, float]) -> None:
        step = state.global_step
        self._refuse_no_number(step, logs["eval_loss"])
        row = {"step": step, "held_out_loss": logs["eval_loss"], "held_out_bits_per_char": logs["eval_bits_per_char"]}
        row["seconds"] = round(logs["eval_seconds"], 4)
        is_best = state.best_metric is None or logs["eval_loss"] < state.best_metric
        self._bar.clear()
        if is_first_process():
            best = "  best so far" if is_best and step else ""
            print(f"step {step:,}: held-out replies {logs['eval_bits_per_char']:.3f} bits per character{best}")
            self.samples.show(is_base=step == 0)
            if step == 0 and logs["eval_bits_per_char"] > MAX_BASE_BITS:
                warn(
                    f"the base needs {logs['eval_bits_per_char']:.1f} bits per character for held-out replies: it can hardly "
                    "write their language; choose a base model that was trained on it (the README's table names languages)"
                )
        if self.log is not None:
            self.log.add(row)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_kwargs: Any
    ) -> None:
        """Save and stop on request."""
        if self.stop_request.is_wanted_anywhere(args.device) and state.global_step < state.max_steps:
            self.was_stopped = control.should_save = control.should_training_stop = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_kwargs: Any) -> None:
        """Complete the checkpoint with its manifest, then delete old ones."""
        if world_size() > 1:
            torch.distributed.barrier()  # every process writes its random state into it
        if is_first_process():
            checkpoint_dir = self._checkpoints_dir / f"checkpoint-{state.global_step}"
            complete_checkpoint(checkpoint_dir, self._run_facts, library_versions())
            remove_old_checkpoints(self._checkpoints_dir, state.best_global_step)
