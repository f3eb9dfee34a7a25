"""The learning rate found by short trainings: what they cost, that they leave nothing behind, and what is chosen."""

import json
import signal
import time

import pytest
import torch
from fine_tuning_model import load_model
from learning_rate_search import RATES, SHARE_OF_RUN, choose_rate, find_learning_rate, plan_trial, try_rates
from prepared_run import prepare_run
from training_options import parse_options
from training_processes import finish, has_same_adapter, losses_of, start_forked, train_with_kills

from common.base_model_files import find_base
from common.conversation_data import read_training_data


@pytest.fixture(scope="module")
def data_path(tmp_path_factory, sample_conversations):
    path = tmp_path_factory.mktemp("data") / "formatted_data.jsonl"
    path.write_text("".join(json.dumps({"messages": talk}) + "\n" for talk in sample_conversations), encoding="utf-8")
    return path


@pytest.fixture
def prepare(tmp_path, data_path, tiny_base_dir):
    """A function that prepares a run of the tiny base, with more flags."""

    def prepare(*flags, data_path=data_path):
        block = {"base_model_id": "", "path_to_data": "", "saved_model_path": str(tmp_path / "model")}
        options = parse_options("", block, 0, ["--device", "cpu", "--threads", "1", *flags])
        return prepare_run(options, read_training_data(data_path), find_base(str(tiny_base_dir), tmp_path))

    return prepare


def test_the_lowest_held_out_loss_is_chosen_and_no_number_never():
    assert choose_rate({1e-4: 2.0, 1e-3: 1.0, 1e-2: 3.0}) == 1e-3
    assert choose_rate({1e-4: float("nan"), 1e-3: 9.0, 1e-2: float("nan")}) == 1e-3


def test_the_trials_read_at_most_a_tenth_of_what_the_run_reads(prepare):
    run = prepare("--learning-rate", "auto", "--epochs", "40")
    trial = plan_trial(run)
    read = sum(run.material.lengths[chunk] for row in trial.rows for chunk in row)
    assert 0 < len(RATES) * read <= SHARE_OF_RUN * 40 * run.material.num_tokens
    assert trial.rows == run.material.schedule.rows[: len(trial.rows)]


def test_without_held_out_replies_or_room_nothing_is_tried_and_the_default_is_taken(
    prepare, tmp_path, data_path, capsys
):
    assert plan_trial(prepare("--learning-rate", "auto", "--epochs", "1")) is None
    few = tmp_path / "few.jsonl"
    few.write_text("".join(data_path.read_text(encoding="utf-8").splitlines(keepends=True)[:5]), encoding="utf-8")
    run = prepare("--learning-rate", "auto", data_path=few)
    assert plan_trial(run) is None
    assert find_learning_rate(run, model=None, checkpoint=None).facts["learning_rate"] == run.recipe.learning_rate
    assert "the default, 0.0002, is used" in capsys.readouterr().err


def test_trials_leave_the_model_as_it_was_and_a_tiny_base_gets_a_high_rate(prepare, tmp_path, capsys):
    run = prepare("--learning-rate", "auto", "--epochs", "20")
    model = load_model(run, gradient_checkpointing=False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items() if "lora_" in name}
    losses = try_rates(run, model, plan_trial(run))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items() if "lora_" in name)
    assert model.training

    found = find_learning_rate(run, model, checkpoint=None)
    assert found.recipe.learning_rate == found.facts["learning_rate"] == max(RATES)
    assert found.facts["learning_rate_trials"] == [list(trial) for trial in losses.items()]
    assert json.loads(json.dumps(found.facts)) == found.facts
    assert f"{max(RATES):g}: held-out loss" in capsys.readouterr().out
    assert not (tmp_path / "model").exists()


@pytest.fixture
def long_data_path(tmp_path, sample_conversations):
    """Enough for the trials of a run of four epochs: most of a short training's time goes into its evaluations."""
    path = tmp_path / "long.jsonl"
    talks = [
        [talk[0] | {"content": f"{number} {talk[0]['content']}"}, *talk[1:]]
        for number in range(2)
        for talk in sample_conversations
    ]
    path.write_text("".join(json.dumps({"messages": talk}) + "\n" for talk in talks), encoding="utf-8")
    return path


@pytest.mark.slow
def test_a_run_with_the_rate_found_is_the_run_with_that_rate_also_after_kills(tmp_path, long_data_path, tiny_base_dir):
    """One kill among the trials, one in the training."""
    flags = ["--base-model-id", str(tiny_base_dir), "--path-to-data", str(long_data_path)]
    flags += ["--threads", "1", "--epochs", "4", "--batch-tokens", "256"]
    found, killed, given = tmp_path / "found", tmp_path / "killed", tmp_path / "given"
    auto = [*flags, "--learning-rate", "auto"]
    status, output, errors = finish(start_forked(auto, found))
    assert status == 0, errors
    settings = json.loads((found / "training_settings.json").read_text())
    rate = settings["training"]["learning_rate"]
    assert [tried for tried, _ in settings["learning_rate_trials"]] == list(RATES)
    assert f"learning rate {rate:g}\n" in output

    assert finish(start_forked([*flags, "--learning-rate", str(rate)], given))[0] == 0
    assert has_same_adapter(found, given)
    process = start_forked(auto, killed)
    while "Comparing learning rates" not in process.output_so_far() and process.poll() is None:
        time.sleep(0.02)
    process.kill()
    status, output, errors = finish(process)
    assert (status, "held-out loss" in output) == (-signal.SIGKILL, False), errors
    assert train_with_kills(auto, killed, num_kills=1, seed=0, most_seconds=0.1, start=start_forked) == 1
    assert losses_of(killed) == losses_of(found) == losses_of(given)
    assert has_same_adapter(killed, found)
    assert (
        json.loads((killed / "training_settings.json").read_text())["learning_rate_trials"]
        == (settings["learning_rate_trials"])
    )
