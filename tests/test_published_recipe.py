"""The published recipe, with which the benchmark compares: as published, padding never learnt, 12 GiB for the default base."""

from collections import Counter

import pytest
import torch
from fake_training_step import build_empty_model, make_fake, measure_step
from known_bases import find_config
from memory_estimate import GIB, estimate_memory
from model_shape import Load
from published_recipe import (
    BATCHES_PER_STEP,
    DROPOUT,
    MAX_LENGTH,
    ROWS_PER_BATCH,
    PaddedCollator,
    plan_padded_schedule,
)
from qlora_model import add_lora, enable_gradient_checkpointing
from small_runs import DEFAULT_BASE
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoConfig

from common.compute_device import Device

GPU = Device("cuda:0", torch.bfloat16, is_quantized=True)
ROWS = [
    {"input_ids": [1, 5, 6, 2], "is_supervised": [False, False, True, True]},
    {"input_ids": [1, 7, 2], "is_supervised": [True, False, True]},
]


def test_it_is_what_was_published():
    assert (MAX_LENGTH, ROWS_PER_BATCH, BATCHES_PER_STEP, DROPOUT) == (2000, 2, 4, 0.07)


def test_padded_rows_learn_what_is_supervised_and_never_padding():
    batch = PaddedCollator(pad_token_id=0, length=5)([ROWS])
    assert batch["input_ids"].tolist() == [[1, 5, 6, 2, 0], [1, 7, 2, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1, 0], [1, 1, 1, 0, 0]]
    assert batch["labels"].tolist() == [[-100, -100, 6, 2, -100], [1, -100, 2, -100, -100]]


def test_padded_plan_takes_so_many_rows_to_a_batch():
    schedule = plan_padded_schedule(21, num_epochs=1, seed=0)
    assert Counter(map(len, schedule.rows))[2] >= 8
    assert sorted(chunk for row in schedule.rows for chunk in row) == list(range(21))


@pytest.mark.slow
def test_published_recipe_needs_about_12_gib():
    """It upcasts embeddings, head and norms to fp32, pads two rows to 2,000 tokens and scores all of them."""
    config = find_config(DEFAULT_BASE)
    model = build_empty_model(AutoConfig.for_model(**config), torch.bfloat16)
    upcast_bytes = 0
    for name, parameter in model.named_parameters():
        if any(part in name for part in ("embed", "lm_head", "norm")):
            parameter.data = torch.empty(parameter.shape, device="meta", dtype=torch.float32)
            upcast_bytes += parameter.nbytes
    adapted = add_lora(model, rank=32, alpha=64, dropout=DROPOUT)
    enable_gradient_checkpointing(adapted)
    with FakeTensorMode(), torch.autocast("cpu", torch.bfloat16):
        make_fake(adapted)
        rows = torch.zeros(ROWS_PER_BATCH, MAX_LENGTH, dtype=torch.long)
        peak = measure_step(adapted, {"input_ids": rows, "labels": rows, "use_cache": False})
    fixed = estimate_memory(config, GPU, Load(row_tokens=64))[1]
    others = fixed.total - fixed.activations - fixed.weights_other
    assert (others + upcast_bytes + peak) / GIB == pytest.approx(12.0, rel=0.08)
