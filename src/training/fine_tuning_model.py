"""Stage 2: training conversations -> a LoRA adapter that makes the base model write like one person.

Reads   formatted_data.jsonl (stage 1 writes it) and a base model: a folder, or an id of the hub, downloaded once
Writes  the folder saved_model: adapter, tokenizer and chat template, generation_config.json, training_settings.json
        (last: then it is complete), training_report.json, training_log.jsonl, loss_curve.png,
        held_out_conversations.json; checkpoints/ while training
Run     python3 src/training/fine_tuning_model.py
Takes   minutes for a small base on any computer; hours for 7B on an NVIDIA GPU with 8 GB of memory or more
"""

# Fill in (the same three lines stand in load_whatsapp.py, fine_tuning_model.py and chat_bot.py):
base_model_id = "yam-peleg/Hebrew-Mistral-7B"
path_to_data = "src/data_preprocessing/final_outputs/formatted_data.jsonl"
saved_model_path = "saved_model"

import argparse
import dataclasses
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))  # for `common`

from checkpoints import find_newest_complete, list_differences, read_run_facts, read_versions, step_of
from output_folder import (
    check_folder,
    finish_folder,
    is_disk_full,
    move_aside,
    remove_if_empty,
    write_json,
)
from processes import (
    check_launch,
    is_first_process,
    is_sharded,
    local_world_size,
    say,
    warn,
    world_size,
)
from training_options import parse_options
from training_run import Run, base_errors_explained, prepare_run, shorten_to_context

from common.base_model_files import (
    BaseModel,
    check_base_folder,
    download_base,
    find_base,
    list_on_hub,
    prepare_environment,
    work_offline,
)
from common.conversation_data import TrainingData, TrainingDataError, read_training_data
from common.model_folder import CHECKPOINTS_NAME, CURVE_NAME, HELD_OUT_NAME, LOG_NAME, REPORT_NAME
from common.script import (
    PROJECT_ROOT,
    ScriptError,
    check_blocks,
    did_you_mean,
    exclusive_use,
    printable,
    read_description,
    run_script,
    shown_path,
    shown_python,
)

if TYPE_CHECKING:
    from adapter_trainer import AdapterTrainer, RunKeeper

SEED = 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, or go on training, and return the exit status; `arguments` stand for those of the command line."""
    block = {"base_model_id": base_model_id, "path_to_data": path_to_data, "saved_model_path": saved_model_path}
    options = parse_options(read_description(Path(__file__)), block, SEED, arguments)
    check_blocks(Path(__file__))
    check_launch()
    prepare_environment()
    if options.check:
        show_check(options)
        return 0
    data = read_data(options)
    check_output_folder(options)
    base = get_base(options, data)
    with output_folder_for_this_run(options) as start_writing:
        run = prepare_run(options, data, base)
        with failures_explained(options.model_dir):
            checkpoint = find_checkpoint(run) if options.resume else None
            refuse_hopeless_run(run)
            model = load_model(run, decide_to_recompute(run))
            print_plan(run, model)
            start_writing(run)
            trainer, keeper = run_training(run, model, checkpoint)
            if keeper.was_stopped:
                say(f"Saved after step {trainer.state.global_step:,}. {how_to_resume()}")
                return keeper.stop_request.exit_status
            if is_first_process():
                save_and_summarise(run, model, trainer, keeper)
    return 0


def read_data(options: argparse.Namespace) -> TrainingData:
    """Read and check the conversations, and say what was left out."""
    path: Path = options.data_path
    if not path.exists():
        raise ScriptError(f"{shown_path(path)}: no training data; run preprocess_start.sh first{did_you_mean(path)}")
    if not path.is_file():
        raise ScriptError(f"{shown_path(path)}: is no file; give the formatted_data.jsonl of preprocess_start.sh")
    try:
        data = read_training_data(path, options.skip_bad_lines)
    except TrainingDataError as error:
        raise ScriptError(f"{shown_path(path)}: {error}") from None
    say(f"Data: {shown_path(path)}, {len(data.conversations):,} conversations")
    if data.bad_lines:
        warn(f"{len(data.bad_lines):,} bad lines skipped, the first: {data.bad_lines[0]}")
    if data.num_without_reply:
        say(f"  {data.num_without_reply:,} conversations without a reply of the imitated person left out")
    return data


def show_check(options: argparse.Namespace) -> None:
    """Print what the run would take, with as much as is at hand: the base's config, then tokenizer and data."""
    from known_bases import find_config
    from run_check import check_run, guess_work, measure_work, refuse_what_takes_days

    from common.compute_device import choose_training_device

    is_typed = options.path_to_data is not path_to_data
    data = read_data(options) if is_typed or options.data_path.is_file() else None
    device = choose_training_device(options.device)
    with base_errors_explained():
        base = find_base(options.base_model_id, options.start_dir)
        work = None
        if base.folder is not None and data is not None:
            check_base_folder(base.folder)
            run = prepare_run(options, data, base)
            recipe, work = run.recipe, measure_work(run.material)
        else:
            recipe = shorten_to_context(options.recipe, find_config(base))
        keeping, resumes = options.activation_checkpointing, options.resume
        for line in check_run(base, device, recipe, work, options.model_dir, keeping, resumes):
            say(line)
        if data is not None and options.device == "auto":
            try:
                work = work or guess_work(data.conversations, recipe)
                refuse_what_takes_days(base, find_config(base), device, work, flags_without("--check", "--resume"))
            except ScriptError as error:
                say(f"  But {error}")


def check_output_folder(options: argparse.Namespace) -> None:
    """Refuse a folder that cannot be written to, before anything takes long."""
    folder: Path = options.model_dir
    if is_first_process():
        with exclusive_use(folder, "training") if folder.is_dir() else nullcontext():
            check_folder(folder, options.resume, options.overwrite)


def get_base(options: argparse.Namespace, data: TrainingData) -> BaseModel:
    """Find the base model on disk, or announce and do its download; from then on nothing is asked of the network."""
    with base_errors_explained():
        base = find_base(options.base_model_id, options.start_dir)
        if base.folder is None:
            refuse_hopeless_download(options, data, base)
            listing = list_on_hub(base.name)
            say(f"Downloading {base.name}: {listing.total_bytes / 1e9:.1f} GB, once")
            base = download_base(listing)
        assert base.folder is not None
        check_base_folder(base.folder)
    work_offline()
    return base


def refuse_hopeless_download(options: argparse.Namespace, data: TrainingData, base: BaseModel) -> None:
    """Stop before a base is fetched that this machine could not train within a day."""
    from known_bases import find_config
    from run_check import guess_work, refuse_what_takes_days

    from common.compute_device import choose_training_device

    if options.device == "auto":
        config = find_config(base)
        work = guess_work(data.conversations, shorten_to_context(options.recipe, config))
        refuse_what_takes_days(base, config, choose_training_device(), work, flags_without("--resume"))


def refuse_hopeless_run(run: Run) -> None:
    """Stop before a base is loaded that this machine could not train within a day, or save nowhere."""
    from known_bases import find_config
    from run_check import measure_work, refuse_what_takes_days

    from common.compute_device import unused_gpu_notice

    notice = unused_gpu_notice()
    if notice:
        warn(notice)
    if run.options.device == "auto":
        work, flags = measure_work(run.material), flags_without("--resume")
        refuse_what_takes_days(run.base, find_config(run.base), run.device, work, flags)


@contextmanager
def output_folder_for_this_run(options: argparse.Namespace) -> Iterator[Callable[[Run], None]]:
    """Hold the output folder for this run; give the function that begins to write into it.

    A run that is refused before that leaves nothing behind; an older model moves aside only then.
    """
    folder: Path = options.model_dir
    if not is_first_process():
        yield lambda _run: None
        return
    with ExitStack() as stack:
        stack.callback(remove_if_empty, folder)
        stack.enter_context(exclusive_use(folder, "training"))
        is_taken = check_folder(folder, options.resume, options.overwrite)  # again: now nobody else can change it

        def start_writing(run: Run) -> None:
            if is_taken:
                say(f"What was in {shown_path(folder)} is now in {shown_path(move_aside(folder))}")
                stack.enter_context(exclusive_use(folder, "training"))
            facts = {"data_sha256": run.data.sha256, "num_conversations": len(run.data.conversations)}
            write_json(folder / HELD_OUT_NAME, facts | dataclasses.asdict(run.held_out))

        yield start_writing


def find_checkpoint(run: Run) -> Path | None:
    """Return the newest complete checkpoint of this very run; None when it stopped before the first."""
    from accelerate import PartialState
    from finished_model import library_versions

    # One after the other: the first process sets broken ones aside, then all find the same.
    with PartialState(cpu=run.device.kind == "cpu").main_process_first():
        checkpoint, problems = find_newest_complete(run.options.model_dir / CHECKPOINTS_NAME)
    for problem in problems:
        warn(f"a checkpoint was set aside, {problem}")
    if checkpoint is None:
        say("No complete checkpoint yet: starting from the beginning")
        return None
    differences = list_differences(read_run_facts(checkpoint), run.facts)
    if differences:
        raise ScriptError(
            f"{shown_path(checkpoint)}: is of another run; give the same data, base and settings, or pass --overwrite"
            + "".join(f"\n  {difference}" for difference in differences)
        )
    for difference in list_differences(read_versions(checkpoint), library_versions()):
        warn(f"other versions may compute other last digits: {difference}")
    say(f"Going on after step {step_of(checkpoint):,}")
    return checkpoint


def decide_to_recompute(run: Run) -> bool:
    """Decide whether activations are computed again in the backward pass or, where there is room, kept; and say so."""
    from memory_estimate import shown_gib
    from qlora_model import read_model_config
    from run_check import available_bytes, load_of, measure_work, plan_memory, refuse_what_does_not_fit, shown_keeping

    checkpointing = run.options.activation_checkpointing
    if is_sharded():  # the estimate is of a whole model
        return bool(checkpointing != "off")
    assert run.base.folder is not None
    config, load = read_model_config(run.base.folder), load_of(run.recipe, measure_work(run.material))
    available = available_bytes(run.device)
    load, _count, training, _chat = plan_memory(config, run.device, load, available, checkpointing)
    say(
        f"Memory: about {shown_gib(training.total)}, {shown_gib(available)} are free on {run.device.name}\n"
        f"  {shown_keeping(load)}"
    )
    refuse_what_does_not_fit(run.base, config, run.device, load, training, available)
    return load.recomputes


def load_model(run: Run, recomputes: bool) -> Any:
    """Load the base in 4 bits, put LoRA on it, and prove on it that packed conversations do not see each other."""
    import torch
    from head_loss import compute_loss_in_blocks
    from packing_check import choose_attention
    from qlora_model import add_lora, count_parameters, load_quantized_base, recompute_activations
    from run_check import refuse_full_disk
    from segment_attention import register_segment_attention
    from transformers import set_seed
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    if not sys.stderr.isatty():
        transformers_logging.disable_progress_bar()
    say(f"Loading {run.base.name} ...")
    assert run.base.folder is not None
    base_model = load_quantized_base(run.base.folder, run.device)
    set_seed(run.options.seed)  # the adapter's first weights are drawn next
    recipe = run.recipe
    adapter_dtype = getattr(torch, recipe.adapter_dtype)
    model = add_lora(base_model, recipe.rank, recipe.alpha, recipe.dropout, adapter_dtype, run.base)
    refuse_full_disk(run.options.model_dir, count_parameters(model), run.options.resume)
    if recomputes:
        recompute_activations(model)
    if run.is_packed:
        register_segment_attention()
        if not is_sharded():  # the loss takes the head's weights themselves, and those are in parts then
            compute_loss_in_blocks(base_model)
        longest = sorted(range(len(run.material.lengths)), key=run.material.lengths.__getitem__)[-2:]
        fault = choose_attention(model, [run.material.pieces[number] for number in longest])
        if fault:
            raise ScriptError(f"{run.base.name}: {fault}; choose another base model")
    return model


def print_plan(run: Run, model: Any) -> None:
    """Say what is about to happen, before it does."""
    from qlora_model import count_parameters

    material, schedule, held_out = run.material, run.material.schedule, run.held_out
    count = count_parameters(model)
    supervised_percent = 100 * material.num_supervised_tokens / material.num_tokens
    step_tokens = material.num_tokens * run.recipe.epochs // schedule.num_steps
    say(
        "Plan\n"
        f"  device    {run.device.name}, {run.device.dtype_name}, number of processes: {world_size()}\n"
        f"  model     {count.total:,} parameters, {count.trainable:,} of them trained ({count.trainable_percent:.4f} %)\n"
        f"  held out  {len(held_out.validation):,} conversations to stop by; {len(held_out.spread):,} spread and "
        f"{len(held_out.latest):,} latest for the style report\n"
        f"  tokens    {material.num_tokens:,} an epoch, {material.num_supervised_tokens:,} learnt from "
        f"({supervised_percent:.0f} %), rows {100 * material.fill:.0f} % full\n"
        f"  training  number of epochs: up to {run.recipe.epochs}; {schedule.num_steps:,} steps of about {step_tokens:,} tokens, "
        f"learning rate {run.recipe.learning_rate:g}"
    )
    if material.num_cut:
        longer = f"longer than {run.recipe.max_length:,} tokens"
        say(
            f"  {material.num_cut:,} exchanges {longer} had to be cut inside"
            if run.is_packed
            else f"  {material.num_cut:,} conversations {longer} lose their end, as published"
        )


def run_training(run: Run, model: Any, checkpoint: Path | None) -> "tuple[AdapterTrainer, RunKeeper]":
    """Train from `checkpoint` or from the start, until the end, an early stop or a signal."""
    from adapter_trainer import AdapterTrainer, RunKeeper, make_training_arguments
    from finished_model import make_generation_config
    from held_out_evaluation import SampleReplies, measure_reply_loss
    from packing import PaddedCollator, ScheduledPieces, collate_pack
    from training_progress import TrainingLog

    model_dir, schedule, packs = run.options.model_dir, run.material.schedule, run.material.held_out
    generation_config = make_generation_config(run.tokenizer)
    keeper = RunKeeper(
        schedule=schedule,
        lengths=run.material.lengths,
        log=TrainingLog(model_dir / LOG_NAME, step_of(checkpoint) if checkpoint else 0) if is_first_process() else None,
        samples=SampleReplies(model, run.tokenizer, run.held_out_conversations, generation_config, run.options.seed),
        checkpoints_dir=model_dir / CHECKPOINTS_NAME,
        run_facts=run.facts,
    )
    pad_id = run.tokenizer.unk_token_id if run.tokenizer.unk_token_id is not None else generation_config["pad_token_id"]
    trainer = AdapterTrainer(
        measure_held_out=None if packs is None else lambda: measure_reply_loss(model, packs),
        model=model,
        args=make_training_arguments(
            run.recipe,
            run.device,
            schedule,
            model_dir / CHECKPOINTS_NAME,
            has_held_out=packs is not None,
            measures_base=packs is not None and checkpoint is None,
            seed=run.options.seed,
        ),
        train_dataset=ScheduledPieces(run.material.pieces, schedule.packs),
        data_collator=collate_pack if run.is_packed else PaddedCollator(pad_id, run.recipe.max_length),
        callbacks=[keeper],
    )
    if checkpoint and trainer.restore_if_stopped_early(checkpoint):
        return trainer, keeper
    with keeper.stop_request:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    return trainer, keeper


@contextmanager
def failures_explained(model_dir: Path) -> Iterator[None]:
    """Turn a full memory and a full disk, whichever library reports it, into one line that says what to change."""
    from safetensors import SafetensorError

    try:
        yield
    except (MemoryError, RuntimeError, SafetensorError, OSError) as error:
        if is_memory_full(error):
            raise ScriptError(
                "out of memory: pass --activation-checkpointing on if it was off, halve --max-length, or choose a smaller base "
                "(--check shows what each takes); checkpoints are intact"
            ) from None
        if is_disk_full(error):
            raise ScriptError(
                f"{shown_path(model_dir)}: disk full while saving; free some space, then run again with --resume"
            ) from None
        raise


def is_memory_full(error: Exception) -> bool:
    """Tell whether `error` says that the memory of a GPU or of the computer is used up."""
    import torch

    # Outside CUDA's own allocator it is a plain RuntimeError or OSError, in each system's words.
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(
        words in str(error)
        for words in ("out of memory", "t allocate memory", "not allocate memory", "not enough memory")
    )


def save_and_summarise(run: Run, model: Any, trainer: "AdapterTrainer", keeper: "RunKeeper") -> None:
    """Write the finished model, settings last, and say how well it went and what to do next."""
    from finished_model import make_generation_config, make_report, make_settings
    from training_progress import draw_loss_curve, shown_bytes, shown_seconds

    model_dir = run.options.model_dir
    assert keeper.log is not None
    report = make_report(run, model, trainer.state, keeper.log.rows)
    draw_loss_curve(model_dir / CURVE_NAME, keeper.log.rows, report["best_step"])
    write_json(model_dir / REPORT_NAME, report)
    generation_config = make_generation_config(run.tokenizer)
    num_bytes = finish_folder(model_dir, model, run.tokenizer, generation_config, make_settings(run, model))
    say(f"\nDone: {shown_path(model_dir)}")
    if "validation" in report:
        bits = {name: row["bits_per_char"] for name, row in report["validation"].items()}
        say(f"  best step  {report['best_step']:,} of {report['steps']:,}")
        say(f"  held-out replies  {bits['base']:.3f} bits a character with the base model, {bits['tuned']:.3f} tuned")
        if bits["tuned"] >= bits["base"]:
            warn("the tuned model is no better than the base: give it more data, or a higher --learning-rate")
    say(
        f"  time in steps and evaluations {shown_seconds(report['seconds'])}, {report['tokens_per_second']:,.0f} tokens/s, "
        f"peak memory {shown_bytes(report['peak_memory_bytes'])}, adapter {shown_bytes(num_bytes)}\n"
        f"Next:\n  {next_command(run.options)}"
    )


def how_to_resume() -> str:
    """Say by which command this run goes on."""
    if is_sharded() or world_size() > local_world_size():
        return "To go on, start all processes as before, with --resume"
    flags = flags_without("--overwrite", "--resume")
    several = ["-m", "torch.distributed.run", "--nproc-per-node", str(local_world_size())]
    launcher = several if world_size() > 1 else []
    return "To go on:\n  " + printable(shlex.join([shown_python(), *launcher, sys.argv[0], *flags, "--resume"]))


def flags_without(*unwanted: str) -> list[str]:
    """Return the flags that were given, but for the unwanted ones."""
    return [flag for flag in sys.argv[1:] if flag not in unwanted]


def next_command(options: argparse.Namespace) -> str:
    """Return the command of stage 3 for this model."""
    flags = [] if options.saved_model_path is saved_model_path else ["--saved-model-path", options.saved_model_path]
    return printable(shlex.join([shown_python(), shown_path(PROJECT_ROOT / "src/chat/chat_bot.py"), *flags]))


if __name__ == "__main__":
    run_script(main)
