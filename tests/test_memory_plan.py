"""What is chosen by the free memory, and that a refusal of what does not fit names the cure."""

import dataclasses
from dataclasses import replace

import pytest
import torch
from checkpoints import complete_checkpoint
from known_bases import find_config
from memory_estimate import estimate_memory
from memory_plan import advise_on_memory, choose_by_memory, load_of, plan_memory, refuse_what_does_not_fit
from model_shape import Load
from prepared_run import find_checkpoint, with_optimizer
from recipes import DEFAULT_RECIPE, FUSED_OPTIMIZER, PAGED_OPTIMIZER
from small_runs import CPU, DEFAULT_BASE, WORK

from common.compute_device import Device
from common.script import ScriptError

GPU = Device("cuda:0", torch.bfloat16, is_quantized=True)


def test_the_optimizer_is_paged_only_where_its_states_have_no_room():
    config = find_config(DEFAULT_BASE)
    load = load_of(DEFAULT_RECIPE, None, GPU)
    assert load.is_captured and load.optimizer == PAGED_OPTIMIZER
    paged = estimate_memory(config, GPU, load)[1].total
    fused = estimate_memory(config, GPU, replace(load, optimizer=FUSED_OPTIMIZER))[1].total
    for available, expected in ((fused / 0.9 + 1e7, FUSED_OPTIMIZER), (fused / 0.9 - 1e7, PAGED_OPTIMIZER)):
        planned, _count, training, _chat = plan_memory(config, GPU, load, int(available))
        assert (planned.optimizer, planned.gradient_checkpointing) == (expected, True)
        assert training.total == (fused if expected == FUSED_OPTIMIZER else paged)
    assert plan_memory(config, GPU, load, int(1e12), optimizer=PAGED_OPTIMIZER)[0].optimizer == PAGED_OPTIMIZER


@pytest.mark.parametrize("optimizer", [PAGED_OPTIMIZER, None])
def test_a_resumed_run_keeps_the_optimizer_of_its_checkpoint(tmp_path, small_run, optimizer):
    """Checkpoints of earlier versions do not name it: those of a processor have the fused one."""
    assert choose_by_memory(small_run, None)[1] == FUSED_OPTIMIZER
    checkpoint = tmp_path / "model/checkpoints/checkpoint-3"
    checkpoint.mkdir(parents=True)
    complete_checkpoint(checkpoint, (with_optimizer(small_run, optimizer) if optimizer else small_run).facts, {})
    assert find_checkpoint(small_run) == checkpoint
    assert choose_by_memory(small_run, checkpoint)[1] == (optimizer or FUSED_OPTIMIZER)


def test_says_what_to_change_when_it_does_not_fit(small_base):
    config = find_config(small_base)
    whole = estimate_memory(config, CPU, Load())[1].total
    half = estimate_memory(config, CPU, Load(row_tokens=1024))[1].total
    assert advise_on_memory(config, CPU, Load(), available=(whole + half) // 2).startswith("Pass --max-length 1024 ")
    assert advise_on_memory(config, CPU, Load(), available=1).startswith("No base of the README fits")


def test_a_run_that_does_not_fit_is_refused_unless_the_estimate_may_be_too_high(small_base):
    config = find_config(small_base)
    training = estimate_memory(config, CPU, Load())[1]
    needed = training.total - training.libraries  # those are loaded already
    refuse_what_does_not_fit(small_base, config, CPU, Load(), training, round(0.95 * needed))
    with pytest.raises(
        ScriptError, match=r"^tiny: does not fit; training takes .* GiB\. No base of the README fits; free some"
    ):
        refuse_what_does_not_fit(small_base, config, CPU, Load(), training, round(0.8 * needed))


def test_activations_are_kept_only_where_they_easily_fit(small_base):
    config = find_config(small_base)
    low, high = (
        estimate_memory(config, CPU, Load(row_tokens=512, gradient_checkpointing=gradient_checkpointing))[1].total
        for gradient_checkpointing in (True, False)
    )
    assert low < high
    for checkpointing, available, gradient_checkpointing in (
        ("auto", 3 * high, False),
        ("auto", high, True),
        ("on", 3 * high, True),
        ("off", low, False),
    ):
        load, _count, training, _chat = plan_memory(config, CPU, Load(row_tokens=512), available, checkpointing)
        assert load.gradient_checkpointing == gradient_checkpointing
        assert training.total == (low if gradient_checkpointing else high)


def test_a_forced_choice_that_does_not_fit_is_the_first_to_be_changed(small_base):
    config = find_config(small_base)
    needed = estimate_memory(config, CPU, Load())[1].total
    assert "Leave out --activation-checkpointing off" in advise_on_memory(
        config, CPU, Load(gradient_checkpointing=False), needed
    )


def test_load_follows_recipe_and_data():
    assert load_of(DEFAULT_RECIPE, None, GPU).row_tokens == 2048
    assert load_of(DEFAULT_RECIPE, WORK, GPU).supervised_share == 0.5
    several = dataclasses.replace(WORK, rows_per_step=4)
    assert [load_of(DEFAULT_RECIPE, work, CPU).accumulates for work in (WORK, several)] == [False, True]
