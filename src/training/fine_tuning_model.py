"""Stage 2: training conversations -> a LoRA adapter with which the base model writes like the imitated person.

Reads   formatted_data.jsonl of stage 1, and a base model: a folder, or a hub id (downloaded once); with --corrections
        also the corrections.jsonl of the chat
Writes  the folder saved_model: adapter, tokenizer and chat template, generation_config.json, training_report.json,
        training_log.jsonl, loss_curve.png, held_out_conversations.json, and last training_settings.json;
        checkpoints/ while training
Run     python3 src/training/fine_tuning_model.py
Takes   minutes for the small base of the demo on any computer, hours for a 7B on an NVIDIA GPU of 8 GB or more: see --check
"""

# Fill in (the same three lines stand in load_whatsapp.py, fine_tuning_model.py and chat_bot.py):
base_model_id = "yam-peleg/Hebrew-Mistral-7B"
path_to_data = "src/data_preprocessing/final_outputs/formatted_data.jsonl"
saved_model_path = "saved_model"

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))  # for `common`

from checkpoints import step_of
from corrected_replies import read_corrections
from output_folder import check_output_folder, finish_folder, hold_output_folder, is_disk_full, write_json
from processes import check_launch, is_first_process, say, warn, world_size
from training_options import how_to_resume, next_command, parse_options

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
from common.conversation_header import NO_CONTEXT, headers_by_line
from common.fill_in_block import check_blocks
from common.model_folder import CHECKPOINTS_NAME, CURVE_NAME, LOG_NAME, REPORT_NAME
from common.script import (
    ScriptError,
    counted,
    did_you_mean,
    is_memory_full,
    printable,
    read_description,
    run_script,
    shown_path,
)

if TYPE_CHECKING:
    from adapter_trainer import AdapterTrainer, TrainingCallback
    from prepared_run import Run

SEED = 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Train or resume, and return the exit status; `arguments` replace those of the command line."""
    block = {"base_model_id": base_model_id, "path_to_data": path_to_data, "saved_model_path": saved_model_path}
    options = parse_options(read_description(Path(__file__)), block, SEED, arguments)
    check_blocks(Path(__file__))
    check_launch()
    prepare_environment()
    if options.check:
        show_check(options)
        return 0
    data = read_data(options)
    corrections = read_corrections(options.corrections, options.skip_bad_lines)
    check_output_folder(options)
    base = get_base(options, data, corrections)
    with hold_output_folder(options) as start_writing:
        # The heavy libraries load here: what can be refused without them has been refused.
        from captured_decoder import capture_decoder, choose_shape
        from learning_rate_search import find_learning_rate
        from long_run import announce_run
        from memory_plan import choose_by_memory
        from prepared_run import find_checkpoint, prepare_run, with_optimizer
        from training_progress import begin_peak_of_training

        run = prepare_run(options, data, base, corrections)
        with failures_explained(options.model_dir):
            checkpoint = find_checkpoint(run) if options.resume else None
            gradient_checkpointing, optimizer = choose_by_memory(run, checkpoint)
            announce_run(run, gradient_checkpointing)
            run = with_optimizer(run, optimizer)
            model = load_model(run, gradient_checkpointing)
            loading_bytes = begin_peak_of_training()
            material = run.material
            capture_decoder(model, choose_shape(material.lengths, material.schedule.rows, material.row_tokens))
            if run.recipe.finds_learning_rate:
                run = find_learning_rate(run, model, checkpoint)
            print_plan(run, model)
            start_writing(run)
            trainer, callback = run_training(run, model, checkpoint)
            if callback.was_stopped:
                say(f"Saved after step {trainer.state.global_step:,}. {how_to_resume()}")
                return callback.stop_request.exit_status
            if is_first_process():
                save_and_summarise(run, model, trainer, callback, loading_bytes)
    return 0


def read_data(options: argparse.Namespace) -> TrainingData:
    """Read and check the conversations; print what was left out."""
    path: Path = options.data_path
    if not path.exists():
        raise ScriptError(f"{shown_path(path)}: no training data; run preprocess_start.sh first{did_you_mean(path)}")
    if not path.is_file():
        raise ScriptError(f"{shown_path(path)}: is not a file; give the formatted_data.jsonl of preprocess_start.sh")
    try:
        data = read_training_data(path, options.skip_bad_lines)
    except TrainingDataError as error:
        raise ScriptError(f"{shown_path(path)}: {error}") from None
    say(f"Data: {shown_path(path)}, {counted(len(data.conversations), 'conversation')}")
    if data.bad_lines:
        warn(f"{counted(len(data.bad_lines), 'bad line')} skipped, the first: {data.bad_lines[0]}")
    if data.num_without_reply:
        say(f"  {counted(data.num_without_reply, 'conversation')} without a reply of the imitated person left out")
    return data


def show_check(options: argparse.Namespace) -> None:
    """Print what the run needs, as far as it is known."""
    from run_check import check_options

    is_wanted = "path_to_data" in options.typed or options.data_path.is_file()
    data = read_data(options) if is_wanted else None
    corrections = read_corrections(options.corrections, options.skip_bad_lines)
    for line in check_options(options, data, corrections):
        say(line)


def get_base(options: argparse.Namespace, data: TrainingData, corrections: TrainingData | None) -> BaseModel:
    """Find the base model on disk, or download it; from then on the network is not used."""
    base = find_base(options.base_model_id, options.start_dir)
    if base.folder is None:
        listing = list_on_hub(base.name)  # before the heavy imports: without a network, it says so at once
        from disk_space import refuse_large_download, shown_download
        from long_run import announce_before_download

        refuse_large_download(listing)
        announce_before_download(options, data, base, listing.total_bytes, corrections)
        say(f"Downloading {base.name}: {shown_download(listing.total_bytes)}, once")
        base = download_base(listing)
    assert base.folder is not None
    check_base_folder(base.folder)
    work_offline()
    return base


def load_model(run: "Run", gradient_checkpointing: bool) -> Any:
    """Load the base in 4 bits, add LoRA, and check that packed conversations do not see each other."""
    import torch
    from disk_space import refuse_full_disk
    from head_loss import compute_loss_in_blocks
    from packed_attention import choose_attention, register_segment_attention
    from qlora_model import add_lora, count_parameters, enable_gradient_checkpointing, load_quantized_base
    from transformers import set_seed
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    if not sys.stderr.isatty():
        transformers_logging.disable_progress_bar()
    say(f"Loading {run.base.name} ...")
    assert run.base.folder is not None
    base_model = load_quantized_base(run.base.folder, run.device)
    set_seed(run.options.seed)  # for the initial weights of the adapter
    recipe = run.recipe
    adapter_dtype = getattr(torch, recipe.adapter_dtype)
    model = add_lora(base_model, recipe.rank, recipe.alpha, recipe.dropout, adapter_dtype, run.base)
    refuse_full_disk(run.options.model_dir, count_parameters(model), run.options.resume)
    if gradient_checkpointing:
        enable_gradient_checkpointing(model)
    register_segment_attention()
    compute_loss_in_blocks(base_model)
    if run.device.kind == "cuda":
        from fused_lora import fuse_lora
        from liger_kernels import apply_liger_kernels, has_liger

        from common.fused_layers import fuse_norms

        fuse_lora(model)
        fault = apply_liger_kernels(base_model) if has_liger() else None
        if fault:
            warn(f"{fault}; training without them is slower")
        fuse_norms(base_model)
    longest = sorted(range(len(run.material.lengths)), key=run.material.lengths.__getitem__)[-2:]
    fault = choose_attention(model, [run.material.chunks[number] for number in longest])
    if fault:
        raise ScriptError(f"{run.base.name}: {fault}; choose another base model")
    return model


def print_plan(run: "Run", model: Any) -> None:
    """Print what the training will do."""
    from qlora_model import count_parameters

    material, schedule, held_out = run.material, run.material.schedule, run.held_out
    count = count_parameters(model)
    supervised_percent = 100 * material.num_supervised_tokens / material.num_tokens
    num_epochs = len(schedule.epoch_ends)
    step_tokens = material.num_tokens * num_epochs // schedule.num_steps
    say(
        "Plan\n"
        f"  device    {run.device.name}, {run.device.dtype_name}; number of processes: {world_size()}\n"
        f"  model     {count.total:,} parameters; trained: {count.trainable:,} ({count.trainable_percent:.4f} %)\n"
        f"  held out  conversations for early stopping: {len(held_out.validation):,}; for the style report: "
        f"{len(held_out.spread):,} spread over time, the {len(held_out.latest):,} latest\n"
        f"  tokens    {material.num_tokens:,} per epoch, {material.num_supervised_tokens:,} of them supervised "
        f"({supervised_percent:.0f} %); rows are {100 * material.fill:.0f} % full\n"
        f"  training  number of epochs: up to {num_epochs}; {schedule.num_steps:,} steps of about {step_tokens:,} tokens; "
        f"learning rate {run.recipe.learning_rate:g}"
    )
    if material.context != NO_CONTEXT:
        header = next(filter(None, headers_by_line(run.data.conversations, material.context).values()))
        say(f"  context   {material.context}: a line before each conversation, such as {printable(header)} (--context)")
    if material.num_cut:
        say(f"  cut       {counted(material.num_cut, 'exchange')} longer than {run.recipe.max_length:,} tokens")


def run_training(run: "Run", model: Any, checkpoint: Path | None) -> "tuple[AdapterTrainer, TrainingCallback]":
    """Train from `checkpoint` or from the start until the last step, an early stop or a signal."""
    from adapter_trainer import AdapterTrainer, TrainingCallback, make_training_arguments
    from held_out_evaluation import SampleReplies, measure_reply_loss
    from output_folder import make_generation_config
    from packing import PackedRows, collate_row
    from training_progress import TrainingLog

    model_dir, schedule, rows = run.options.model_dir, run.material.schedule, run.material.held_out
    generation_config = make_generation_config(run.tokenizer)
    callback = TrainingCallback(
        schedule=schedule,
        lengths=run.material.lengths,
        log=TrainingLog(model_dir / LOG_NAME, step_of(checkpoint) if checkpoint else 0) if is_first_process() else None,
        samples=SampleReplies(model, run.tokenizer, run.held_out_conversations, generation_config, run.options.seed),
        checkpoints_dir=model_dir / CHECKPOINTS_NAME,
        run_facts=run.facts,
    )
    trainer = AdapterTrainer(
        measure_held_out=None if rows is None else lambda: measure_reply_loss(model, rows),
        model=model,
        args=make_training_arguments(
            run.recipe,
            run.device,
            schedule,
            model_dir / CHECKPOINTS_NAME,
            has_held_out=rows is not None,
            measures_base=rows is not None and checkpoint is None,
            seed=run.options.seed,
            optimizer=run.optimizer,
        ),
        train_dataset=PackedRows(run.material.chunks, schedule.rows),
        data_collator=collate_row,
        callbacks=[callback],
    )
    if checkpoint and trainer.restore_if_stopped_early(checkpoint):
        return trainer, callback
    with callback.stop_request, closing(callback):
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    return trainer, callback


@contextmanager
def failures_explained(model_dir: Path) -> Iterator[None]:
    """Report a full memory or disk in one line that says what to change, whichever library found it."""
    from safetensors import SafetensorError

    try:
        yield
    except (MemoryError, RuntimeError, SafetensorError, OSError) as error:
        if is_memory_full(error):
            raise ScriptError(
                "out of memory: pass --activation-checkpointing on if it was off, halve --max-length, or choose a smaller base "
                "(--check shows what each needs); the checkpoints are intact"
            ) from None
        if is_disk_full(error):
            raise ScriptError(
                f"{shown_path(model_dir)}: disk full while saving; free some space, then run again with --resume"
            ) from None
        raise


def save_and_summarise(
    run: "Run", model: Any, trainer: "AdapterTrainer", callback: "TrainingCallback", loading_bytes: int | None
) -> None:
    """Write the finished model, settings last; print the result and the next command.

    `loading_bytes`: the GPU's peak while the base was loaded.
    """
    from output_folder import make_generation_config, make_report, make_settings
    from tqdm import tqdm
    from training_progress import draw_loss_curve, shown_bytes
    from training_summary import describe_replies, describe_result

    model_dir = run.options.model_dir
    assert callback.log is not None
    report = make_report(run, model, trainer.state, callback.log.rows, loading_bytes)
    draw_loss_curve(model_dir / CURVE_NAME, callback.log.rows, report["best_step"])
    write_json(model_dir / REPORT_NAME, report)
    generation_config = make_generation_config(run.tokenizer)
    settings = make_settings(run, model)
    num_bytes = finish_folder(model_dir, model, run.tokenizer, generation_config, settings)
    say(f"\nDone: {shown_path(model_dir)}")
    for line in describe_result(run, report):
        say(line)
    if "validation" in report:
        bits = {name: row["bits_per_char"] for name, row in report["validation"].items()}
        if bits["tuned"] >= bits["base"]:
            warn("the tuned model is no better than the base; give it more data, or pass a higher --learning-rate")
    loading = "" if loading_bytes is None else f" (while loading {shown_bytes(loading_bytes)})"
    say(
        f"  time of steps and evaluations {tqdm.format_interval(report['seconds'])}, {report['tokens_per_second']:,.0f} tokens/s, "
        f"peak memory {shown_bytes(report['peak_memory_bytes'])}{loading}, adapter {shown_bytes(num_bytes)}"
    )
    replies = describe_replies(callback.samples.compare(), settings["person"])
    if replies:
        say("\n".join(["", *replies]))
    say(f"\nNext, chat with it:\n  {next_command(run.options)}")


if __name__ == "__main__":
    run_script(main)
