"""Stage 2 as a whole: what it leaves behind, what it refuses, and that no kill, signal or full disk loses or bends a run."""

import json
import math
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import killing_disk
import pytest
import torch
from checkpoints import find_newest_complete
from fine_tuning_model import failures_explained, main
from forked_scripts import ForkedScript
from peft import PeftModel
from safetensors.torch import load_file
from training_processes import (
    SCRIPT,
    finish,
    has_same_adapter,
    losses_of,
    read_rows,
    start,
    start_forked,
    train_with_kills,
    wait_for_rows,
)
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from common.chat_format import encode_conversation
from common.compute_device import choose_4bit_layout
from common.script import PROJECT_ROOT, ScriptError

MARKER = "unmistakable marker"  # stands in the data: may be found in the data alone

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data_path(tmp_path_factory, sample_conversations):
    """Forty made-up conversations as stage 1 writes them."""
    path = tmp_path_factory.mktemp("data") / "formatted_data.jsonl"
    lines = [
        json.dumps(
            {
                "messages": messages,
                "chat": "Ruth",
                "started_at": f"2024-03-{1 + number // 2:02}",
                "with": ["Ruth"],
            }
        )
        for number, messages in enumerate(sample_conversations)
    ]
    lines[20] = lines[20].replace('"content": "', f'"content": "{MARKER} ', 1)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def flags(tiny_base_dir, data_path):
    """Flags of a short run: forty steps, a few seconds; less would be over before a signal arrives."""
    return [
        "--base-model-id",
        str(tiny_base_dir),
        "--path-to-data",
        str(data_path),
        "--learning-rate",
        "2e-3",
        "--epochs",
        "5",
        "--context",
        "who",
        "--threads",
        "1",
    ]


@pytest.fixture(scope="module")
def homes(tmp_path_factory):
    """Folders in which libraries like to leave things."""
    return {name: str(tmp_path_factory.mktemp(name)) for name in ("HOME", "TMPDIR", "HF_HOME")}


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory, flags, homes):
    """A model trained without interruption, and what was printed."""
    model_dir = tmp_path_factory.mktemp("trained") / "model"
    status, output, errors = finish(start(flags, model_dir, env=homes))
    assert status == 0, errors
    return model_dir, output, errors


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU would not take days")
def test_check_says_when_a_run_would_be_asked_about(tmp_path, capsys, monkeypatch):
    conversation = {"messages": [{"role": "user", "content": "x" * 600}, {"role": "assistant", "content": "y" * 600}]}
    (tmp_path / "data.jsonl").write_text((json.dumps(conversation) + "\n") * 400)
    flags = ["--base-model-id", "yam-peleg/Hebrew-Mistral-7B", "--path-to-data", str(tmp_path / "data.jsonl")]
    monkeypatch.setattr(
        sys, "argv", ["fine_tuning_model.py", "--check", *flags]
    )  # it suggests a command like the one typed
    assert main() == 0
    output = capsys.readouterr().out
    assert "  It takes long: about " in output
    assert "bases that take less" in output


def test_leaves_exactly_these_files_private(finished_run):
    model_dir, _, _ = finished_run
    assert sorted(path.name for path in model_dir.iterdir()) == sorted(
        [
            "adapter_config.json", "adapter_model.safetensors", "chat_template.jinja", "generation_config.json",
            "held_out_conversations.json", "loss_curve.png", "tokenizer.json", "tokenizer_config.json",
            "training_log.jsonl", "training_report.json", "training_settings.json",
        ]
    )  # fmt: skip
    assert all(path.stat().st_mode & 0o077 == 0 for path in (model_dir, *model_dir.iterdir()))


def test_learns_and_reports_the_best_step(finished_run):
    model_dir, output, _ = finished_run
    report = json.loads((model_dir / "training_report.json").read_text())
    measured = {row["step"]: row["held_out_loss"] for row in read_rows(model_dir) if "held_out_loss" in row}
    assert report["best_step"] == min(measured, key=measured.get)
    assert report["validation"]["tuned"]["bits_per_char"] < report["validation"]["base"]["bits_per_char"] - 0.5
    assert f"best step  {report['best_step']:,} of {report['steps']:,}" in output
    assert re.search(r"learnt from \d+ conversations with \d+ replies, [\d,]+ tokens; read \d+\.\d times", output)
    assert "\N{REPLACEMENT CHARACTER}" not in output, "a sample reply ends in half a character"
    script, *arguments = shlex.split(output.splitlines()[-1])[1:]
    assert (PROJECT_ROOT / "src/chat/chat_bot.py").samefile(script)
    assert arguments == ["--saved-model-path", str(model_dir)]


def test_shows_real_replies_beside_the_models_in_held_out_conversations(finished_run, data_path):
    model_dir, output, _ = finished_run
    shown = output.partition("Replies in conversations that were not trained on:\n")[2]
    asked = re.findall(r"  they wrote +(.*)\n  you replied +(.*)\n  the model replies  (.+)\n", shown)
    lines = data_path.read_text(encoding="utf-8").splitlines()
    held_out = json.loads((model_dir / "held_out_conversations.json").read_text())["validation"]
    pairs = {
        tuple(" / ".join(message["content"].splitlines())[:100] for message in messages[place : place + 2])
        for messages in (json.loads(lines[line])["messages"] for line in held_out)
        for place in (0, 1)
    }
    assert 1 <= len(asked) <= 3
    assert {(message, real) for message, real, _ in asked} <= pairs


def test_the_best_adapter_is_the_one_saved_and_plain_peft_gives_its_loss(finished_run, tiny_base_dir, data_path):
    model_dir, _, _ = finished_run
    held_out = json.loads((model_dir / "held_out_conversations.json").read_text())
    lines = data_path.read_text(encoding="utf-8").splitlines()
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    quantization = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.float32
    )  # fmt: skip
    base = AutoModelForCausalLM.from_pretrained(tiny_base_dir, quantization_config=quantization, dtype=torch.float32)
    choose_4bit_layout(base, is_training=True)  # bitsandbytes repacks only layers whose width is a multiple of 64
    model = PeftModel.from_pretrained(base, model_dir).eval()
    nats = num_tokens = num_chars = 0
    for line in held_out["validation"]:
        messages = json.loads(lines[line])["messages"]
        encoded = encode_conversation(tokenizer, messages, header="Ruth")
        ids = torch.tensor([encoded.input_ids])
        with torch.no_grad():
            log_probabilities = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
        chosen = log_probabilities.gather(1, ids[0, 1:, None])[:, 0]
        supervised = torch.tensor(encoded.is_supervised[1:])
        nats -= chosen[supervised].sum().item()
        num_tokens += supervised.sum().item()
        num_chars += sum(len(message["content"]) for message in messages if message["role"] == "assistant")
    reported = json.loads((model_dir / "training_report.json").read_text())["validation"]["tuned"]
    assert nats / num_tokens == pytest.approx(reported["loss"], rel=1e-4)
    assert nats / math.log(2) / num_chars == pytest.approx(reported["bits_per_char"], rel=1e-4)


def test_the_settings_say_with_whom_the_conversations_are(finished_run):
    model_dir, output, _ = finished_run
    settings = json.loads((model_dir / "training_settings.json").read_text())
    assert settings["context"] == settings["training"]["context"] == "who"
    assert "context   who: a line before each conversation, such as Ruth (--context)\n" in output
    assert settings["partners"] == [{"name": "Ruth"}]


def test_the_adapter_does_not_drag_the_head_along(finished_run):
    model_dir, _, _ = finished_run
    names = list(load_file(model_dir / "adapter_model.safetensors"))
    assert all(".lora_" in name for name in names)
    assert any("lm_head" in name for name in names)


def test_only_what_names_the_base_holds_a_path_of_this_machine(finished_run, tiny_base_dir):
    model_dir, _, _ = finished_run
    with_path = [
        path.name for path in model_dir.glob("*.json*") if str(tiny_base_dir.parent) in path.read_text("utf-8")
    ]
    assert sorted(with_path) == ["adapter_config.json", "training_settings.json"]


def test_the_lines_of_the_readme_load_a_copy_of_the_adapter_in_plain_peft(finished_run, tmp_path, monkeypatch, capsys):
    shutil.copytree(finished_run[0], tmp_path / "saved_model")
    readme = (PROJECT_ROOT / "README.md").read_text(encoding="utf-8")
    (lines,) = [block for block in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "AutoPeftModel" in block]
    assert len([line for line in lines.splitlines() if line]) == 6
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(lines, names)
    assert capsys.readouterr().out.strip()
    model, ids = names["model"], names["ids"]
    assert isinstance(model, PeftModel)
    ours = encode_conversation(names["tokenizer"], [{"role": "user", "content": "hi"}], add_generation_prompt=True)
    assert ids["input_ids"].tolist() == [ours.input_ids]  # as it was trained, and as the chat asks
    with torch.no_grad():
        tuned = model(**ids).logits
        with model.disable_adapter():
            assert not torch.equal(model(**ids).logits, tuned)


def test_no_word_of_the_chat_is_left_outside_the_model_folder(finished_run, homes):
    left = [path for home in homes.values() for path in Path(home).rglob("*") if path.is_file()]
    assert not [path for path in left if MARKER.encode() in path.read_bytes()]


def test_generation_stops_at_the_end_of_a_turn(finished_run):
    model_dir, _, _ = finished_run
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    config = json.loads((model_dir / "generation_config.json").read_text())
    assert config["eos_token_id"] == tokenizer.convert_tokens_to_ids("</s>")
    assert (config["temperature"], config["repetition_penalty"], config["do_sample"]) == (1.0, 1.0, True)


def test_the_plan_is_shown_before_the_first_step(finished_run):
    _, output, errors = finished_run
    assert output.index("Plan") < output.index("step 0: held-out replies")
    assert "parameters" in output
    assert "Traceback" not in errors


def test_a_finished_model_is_refused_at_once(finished_run, flags):
    model_dir, _, _ = finished_run
    before = (model_dir / "adapter_model.safetensors").read_bytes()
    # -S: without the installed libraries, so none was needed for the refusal.
    command = [sys.executable, "-S", str(SCRIPT), *flags, "--saved-model-path", str(model_dir)]
    refused = subprocess.run(command, capture_output=True, text=True)
    assert refused.returncode == 1
    assert "--overwrite" in refused.stderr
    assert (model_dir / "adapter_model.safetensors").read_bytes() == before


def test_losses_after_kills_are_those_of_a_run_without(finished_run, flags, tmp_path):
    """Five real kills at random moments; `tests/benchmarks/kill_training.py` does a hundred."""
    model_dir = tmp_path / "model"
    kills = train_with_kills(flags, model_dir, num_kills=5, seed=0, most_seconds=0.3, start=start_forked)
    assert kills >= 3  # it may be faster than a kill
    assert losses_of(model_dir) == losses_of(finished_run[0])
    assert has_same_adapter(model_dir, finished_run[0])


@pytest.mark.gpu
@pytest.mark.parametrize("activations", ["on", "off"])
def test_on_a_card_a_resumed_run_goes_on_as_one_without_an_end(flags, tmp_path, activations):
    """Sums in the attention's gradient come in any order there, so losses differ in their last digits."""
    flags = [*flags, "--activation-checkpointing", activations]
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    status, _, errors = finish(start(flags, straight))
    assert status == 0, errors
    assert "cannot be captured" not in errors
    process = start(flags, stopped)
    wait_for_rows(process, stopped, 12)
    process.send_signal(signal.SIGINT)
    assert finish(process)[0] == 128 + signal.SIGINT
    status, _, errors = finish(start(flags, stopped, "--resume"))
    assert status == 0, errors
    losses, expected = dict(losses_of(stopped)), dict(losses_of(straight))
    common = losses.keys() & expected.keys()  # one of them may stop early
    assert max(common) > 12
    assert [losses[step] for step in common] == pytest.approx([expected[step] for step in common], rel=0.05)


def test_a_run_that_had_stopped_early_is_not_trained_further(flags, tmp_path):
    """So high a rate stops early; the kill comes after the last checkpoint, before the model is written."""
    high = [*flags, "--learning-rate", "1e-2", "--epochs", "12"]
    straight, killed, moved = tmp_path / "straight", tmp_path / "killed", tmp_path / "moved"
    status, output, errors = finish(start_forked(high, straight))
    assert status == 0, errors
    steps = json.loads((straight / "training_report.json").read_text())["steps"]
    assert steps < int(re.search(r"(\d+) steps of about", output)[1])
    killing = ["replace", "training_report.json", SCRIPT, *high, "--saved-model-path", killed]
    process = ForkedScript(killing_disk.__file__, killing)
    assert finish(process)[0] == -signal.SIGKILL
    assert (killed / f"checkpoints/checkpoint-{steps}/COMPLETE.json").exists()
    killed.rename(moved)  # what the library remembers of the best checkpoint is a path
    status, _, errors = finish(start_forked(high, moved, "--resume"))
    assert status == 0, errors
    assert losses_of(moved) == losses_of(straight)
    assert has_same_adapter(moved, straight)


def test_signals_save_and_resume_goes_on_as_if_nothing_had_happened(finished_run, flags, tmp_path):
    model_dir = tmp_path / "model"
    process = start_forked(flags, model_dir)
    wait_for_rows(process, model_dir, 4)
    process.send_signal(signal.SIGINT)
    status, output, errors = finish(process)
    assert (status, "Traceback" in errors) == (130, False), errors
    assert output.rstrip().endswith("--resume")
    assert not (model_dir / "training_settings.json").exists()

    status, _, errors = finish(start_forked(flags, model_dir))
    assert status == 1
    assert "--resume" in errors

    status, _, errors = finish(start_forked(flags, model_dir, "--resume", "--rank", "8", "--seed", "3"))
    assert status == 1
    assert "\n  rank: 32 in the checkpoint, 8 now" in errors
    assert "\n  seed: 0 in the checkpoint, 3 now" in errors

    process = start_forked(flags, model_dir, "--resume")
    wait_for_rows(process, model_dir, len(read_rows(model_dir)) + 3)
    process.send_signal(signal.SIGTERM)
    assert finish(process)[0] == 143

    for manifest in model_dir.glob("checkpoints/*/COMPLETE.json"):
        manifest.write_text(manifest.read_text().replace(f'"torch": "{torch.__version__}"', '"torch": "2.0.0"'))
    status, _, errors = finish(start_forked(flags, model_dir, "--resume", "--activation-checkpointing", "on"))
    assert status == 0, errors
    assert f"torch: 2.0.0 in the checkpoint, {torch.__version__} now" in errors
    assert losses_of(model_dir) == losses_of(finished_run[0])


def test_a_second_run_in_the_same_folder_is_refused(flags, tmp_path):
    model_dir = tmp_path / "model"
    process = start_forked(flags, model_dir)
    wait_for_rows(process, model_dir, 1)
    process.send_signal(signal.SIGSTOP)  # on a busy machine it would be done before the second begins
    status, _, errors = finish(start_forked(flags, model_dir))
    process.kill()
    process.communicate()
    assert status == 1
    assert "is in use by another run" in errors


def test_a_full_disk_is_one_line_and_leaves_no_half_model(flags, tmp_path):
    def limit_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))  # the adapter has 360 kB

    status, _, errors = finish(start(flags, tmp_path / "model", preexec_fn=limit_files))
    assert status == 1
    assert "disk full" in errors
    assert "Traceback" not in errors
    assert not (tmp_path / "model" / "training_settings.json").exists()


def test_a_loss_that_is_no_number_stops_the_run_and_leaves_the_last_good_checkpoint(flags, tmp_path):
    # After a first step of warming up, which is saved.
    too_much = ["--learning-rate", "1e30", "--batch-tokens", "1024", "--epochs", "12"]
    with pytest.raises(ScriptError, match="no longer a number.*--learning-rate"):
        main([*flags, *too_much, "--saved-model-path", str(tmp_path / "model")])
    assert not (tmp_path / "model" / "training_settings.json").exists()
    checkpoint, problems = find_newest_complete(tmp_path / "model" / "checkpoints")
    assert checkpoint is not None
    assert not problems
    weights = load_file(checkpoint / "adapter_model.safetensors")
    assert all(tensor.isfinite().all() for tensor in weights.values())


def test_a_full_memory_is_one_line(tmp_path):
    """The messages of torch itself, of this system's processor and of a GPU."""
    with pytest.raises(ScriptError, match="^out of memory: .*halve --max-length"), failures_explained(tmp_path):
        torch.empty(2**50)
    with pytest.raises(ScriptError, match="^out of memory: "), failures_explained(tmp_path):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    for words in ("MPS backend out of memory (MPS allocated: 1 GB)", "[Errno 12] Cannot allocate memory"):
        with pytest.raises(ScriptError, match="^out of memory: "), failures_explained(tmp_path):
            raise RuntimeError(words)
    with pytest.raises(RuntimeError, match="another"), failures_explained(tmp_path):
        raise RuntimeError("another")


def test_a_run_of_one_step_learns(flags, tmp_path, data_path):
    data = tmp_path / "three.jsonl"
    data.write_text("".join(data_path.read_text(encoding="utf-8").splitlines(keepends=True)[:3]), encoding="utf-8")
    main([*flags, "--path-to-data", str(data), "--saved-model-path", str(tmp_path / "model"), "--epochs", "1"])
    assert len(losses_of(tmp_path / "model")) == 1
    weights = load_file(tmp_path / "model" / "adapter_model.safetensors")
    assert any(tensor.abs().max() > 0 for name, tensor in weights.items() if "lora_B" in name)


def test_check_names_the_data_that_was_typed_and_is_not_there(flags, tmp_path):
    with pytest.raises(ScriptError, match="typo.jsonl: no training data"):
        main([*flags, "--path-to-data", str(tmp_path / "typo.jsonl"), "--check"])


def test_one_conversation_is_enough_to_train_on(flags, tmp_path, data_path, capsys):
    single = tmp_path / "one.jsonl"
    single.write_text(data_path.read_text(encoding="utf-8").splitlines()[0] + "\n", encoding="utf-8")
    assert main([*flags, "--path-to-data", str(single), "--saved-model-path", str(tmp_path / "model")]) == 0
    assert "too few conversations to hold some out" in capsys.readouterr().err
    report = json.loads((tmp_path / "model" / "training_report.json").read_text())
    assert report["best_step"] is None
    assert "validation" not in report


def test_check_shows_the_plan_and_writes_nothing(flags, tmp_path, capsys):
    assert main([*flags, "--check", "--saved-model-path", str(tmp_path / "model")]) == 0
    output = capsys.readouterr().out
    assert "It fits." in output
    assert "steps" in output
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("flag", "problem"),
    [("--resume", "there is no training to resume here"), ("--overwrite", "has files that this script did not write")],
)
def test_a_refused_run_leaves_nothing_behind(flags, tmp_path, flag, problem):
    foreign = tmp_path / "model"
    foreign.mkdir()
    (foreign / "thesis.docx").touch()
    with pytest.raises(ScriptError, match=f"model: {problem}"):
        main([*flags, flag, "--saved-model-path", str(foreign)])
    assert [path.name for path in foreign.iterdir()] == ["thesis.docx"]
