"""Fixtures shared by the suite: a tokenizer, a random tiny base model, made-up conversations."""

import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import chat_grammar
import make_small_base
import pytest

PROJECT_ROOT = Path(__file__).resolve().parents[1]


def pytest_configure():
    """Let the programs under test hear signals as at a terminal, even where nohup or a background job started the suite."""
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


def pytest_runtest_setup(item):
    """Skip a test marked `gpu` where torch finds no CUDA card."""
    if item.get_closest_marker("gpu") is not None:
        import torch  # here and below: torch loads only for the tests that need it

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA card")


@pytest.fixture(scope="session")
def tiny_tokenizer():
    """A byte-level BPE tokenizer with <s>, </s> and no chat template, as a base model's."""
    return make_small_base.make_tokenizer(make_small_base.neutral_texts(100, seed=0), vocab_size=512)


@pytest.fixture(scope="session")
def tiny_base_dir(tmp_path_factory, tiny_tokenizer):
    """A folder with a MistralForCausalLM of random weights (hidden 64, 2 layers) and its tokenizer. Do not change it."""
    folder = tmp_path_factory.mktemp("tiny_base")
    model = make_small_base.make_model(len(tiny_tokenizer), hidden_size=64, num_layers=2, seed=0)
    model.save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def sample_conversations():
    """Forty made-up conversations in `messages` form, each ending with a reply: Noam is the imitated person."""
    rng = random.Random(0)
    conversations = []
    while len(conversations) < 40:
        messages = []
        for name, lines in chat_grammar.write_conversation((chat_grammar.NOAM, chat_grammar.RUTH), rng):
            role = "assistant" if name == "Noam" else "user"
            if messages and messages[-1]["role"] == role:
                messages[-1]["content"] += "\n" + "\n".join(lines)
            else:
                messages.append({"role": role, "content": "\n".join(lines)})
        while messages and messages[-1]["role"] == "user":
            messages.pop()
        if messages:
            conversations.append(messages)
    return conversations


@pytest.fixture
def small_base(tiny_base_dir):
    """The tiny base as stage 2 names it."""
    from common.base_model_files import BaseModel

    return BaseModel("tiny", tiny_base_dir)


@pytest.fixture
def small_run(tmp_path, small_base, sample_conversations):
    """A prepared run of the tiny base on this processor, into `tmp_path / "model"`."""
    from prepared_run import prepare_run
    from training_options import parse_options

    from common.conversation_data import read_training_data

    data_path = tmp_path / "data.jsonl"
    data_path.write_text("".join(json.dumps({"messages": talk}) + "\n" for talk in sample_conversations[:8]))
    block = {"base_model_id": "", "path_to_data": "", "saved_model_path": str(tmp_path / "model")}
    options = parse_options("", block, 0, ["--device", "cpu", "--threads", "1"])
    return prepare_run(options, read_training_data(data_path), small_base)


@pytest.fixture
def project_copy(tmp_path):
    """A copy of what a user has after cloning, without data, models or environment."""
    root = tmp_path / "project"
    shutil.copytree(PROJECT_ROOT / "src", root / "src", ignore=shutil.ignore_patterns("__pycache__", "final_outputs"))
    shutil.copy2(PROJECT_ROOT / "preprocess_start.sh", root)
    return root


@pytest.fixture
def run_command():
    """A function that runs a command as typed at a prompt, with this interpreter as `python3`."""

    def run(command, folder, stdin=""):
        environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        return subprocess.run(
            shlex.split(command), cwd=folder, input=stdin, env=environment, capture_output=True, text=True, timeout=600
        )

    return run


@pytest.fixture(scope="session")
def module_environment(pytestconfig):
    """The environment of a program that imports the project's modules, as the tests themselves do."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(map(str, pytestconfig.getini("pythonpath")))}


@pytest.fixture(scope="session")
def start_python(module_environment):
    """A function that starts the text of such a program, with its output in pipes."""

    def start(program, *arguments, env=None, **options):
        command = [sys.executable, "-c", program, *map(str, arguments)]
        options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, env=module_environment | (env or {}), **options)

    return start


@pytest.fixture(scope="session")
def tiny_saved_model_dir(tmp_path_factory, tiny_base_dir):
    """A finished training of the tiny base as stage 2 leaves it, with a random adapter. Do not change it."""
    from tiny_saved_model import write_saved_model

    return write_saved_model(
        tmp_path_factory.mktemp("tiny_saved_model"), tiny_base_dir, max_length=160, adapter_scale=0.1
    )


@pytest.fixture(scope="session")
def tiny_model(tiny_saved_model_dir):
    """That folder as the chat loads it. Do not change it: each conversation keeps its own messages."""
    from saved_model_checks import check_saved_model
    from trained_model import load_trained_model

    return load_trained_model(check_saved_model(tiny_saved_model_dir), device="cpu", dtype="float32")


@pytest.fixture
def conversation(tiny_model):
    """A conversation with that model, greedy, of at most 12 tokens a reply."""
    from live_conversation import Conversation

    greedy = replace(tiny_model.sampling, do_sample=False, max_new_tokens=12)
    return Conversation(tiny_model, seed=0, sampling=greedy)


@pytest.fixture(scope="session")
def talking_model_dir(tmp_path_factory, tiny_base_dir):
    """A finished training whose base knows the dialogue of `tiny_saved_model` by heart. Do not change it."""
    from tiny_saved_model import teach_dialogue, write_saved_model

    base_dir = teach_dialogue(tiny_base_dir, tmp_path_factory.mktemp("talking_base"))
    return write_saved_model(tmp_path_factory.mktemp("talking_model"), base_dir, max_length=600, adapter_scale=1e-3)


def pytest_terminal_summary(terminalreporter):
    """Say how long the everyday tests (at most 2 minutes) and the slow ones (15) took."""
    seconds = {"everyday": 0.0, "slow": 0.0}
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                seconds["slow" if "slow" in report.keywords else "everyday"] += report.duration
    terminalreporter.write_line(", ".join(f"{kind} tests: {spent:.0f} s" for kind, spent in seconds.items()))
