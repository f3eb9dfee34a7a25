"""The memory estimate against real tensors and the facts; what --check says; refusing what would take days."""

import dataclasses
import json

import pytest
import torch
from feasibility import (
    Work,
    check_run,
    estimate_training_seconds,
    load_of,
    measure_rate,
    plan_memory,
    refuse_what_does_not_fit,
    refuse_what_takes_days,
)
from head_loss import compute_loss_in_blocks
from known_bases import BASE_MODELS_PATH, find_config, known_bases, smallest_card_gib
from memory_estimate import (
    GIB,
    Load,
    StorageMeter,
    build_empty_model,
    estimate_memory,
)
from packed_attention import SEGMENT_ATTENTION, register_segment_attention
from packing import collate_row
from qlora_model import add_lora, enable_gradient_checkpointing, load_quantized_base, read_model_config
from recipes import DEFAULT_RECIPE
from transformers import MistralConfig

from common.base_model_files import BaseModel, BaseModelError
from common.compute_device import Device
from common.script import ScriptError

GPU = Device("cuda:0", torch.bfloat16, is_quantized=True)
CPU = Device("cpu", torch.float32, is_quantized=True)
SMALL = MistralConfig(
    vocab_size=500,
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
)
DEFAULT_BASE = BaseModel("yam-peleg/Hebrew-Mistral-7B", None)
WORK = Work(
    epoch_tokens=300_000,
    epoch_supervised_tokens=100_000,
    fill=0.97,
    num_steps=110,
    num_epochs=3,
    row_tokens=2048,
    supervised_share=0.5,
)


def test_meter_counts_what_lives_at_one_time():
    with StorageMeter() as meter:
        first = torch.zeros(1000)
        view = first[:10]  # no new storage
        del first
        assert meter.current == 4000
        del view
        torch.zeros(500)
        assert meter.current == 0
    assert meter.peak == 4000


def test_estimate_agrees_with_a_real_step_of_the_real_quantized_model(tiny_base_dir):
    """The 4-bit model, our collator and our attention, every storage counted, against the same on fake tensors."""
    register_segment_attention()
    length = 256
    load = Load(row_tokens=length, rank=8, alpha=16)
    base = load_quantized_base(tiny_base_dir, CPU, SEGMENT_ATTENTION)
    compute_loss_in_blocks(base)
    model = add_lora(base, rank=8, alpha=16, dropout=0.0)
    enable_gradient_checkpointing(model)
    model.train()
    num_supervised = round(load.supervised_share * length)
    chunk = {"input_ids": [5] * length, "is_supervised": [False] * (length - num_supervised) + [True] * num_supervised}
    batch = collate_row([[chunk]])
    with StorageMeter() as meter:
        loss = model(**batch).loss
        loss.backward()
    estimated = estimate_memory(read_model_config(tiny_base_dir), CPU, load)[1].activations
    assert estimated == pytest.approx(meter.peak, rel=0.1)


@pytest.mark.slow
def test_what_needs_more_is_estimated_to_need_more():
    plain = estimate_memory(SMALL, GPU, Load(row_tokens=512))[1]
    for change in ({"row_tokens": 1024}, {"dropout": 0.1}, {"rank": 64}):
        changed = estimate_memory(SMALL, GPU, dataclasses.replace(Load(row_tokens=512), **change))[1]
        assert changed.total > plain.total, change
    low = estimate_memory(SMALL, GPU, Load(row_tokens=512, adapter_dtype=torch.bfloat16))[1]
    assert low.total < plain.total


@pytest.mark.slow
def test_default_base_fits_an_8_gb_card_at_2048_tokens():
    config = find_config(DEFAULT_BASE)
    count, training, chat = estimate_memory(config, GPU, Load())
    assert (count.trainable, count.total) == (86_065_184, 7_589_949_472)
    assert training.weights_4bit / GIB == pytest.approx(3.353, abs=0.001)
    assert training.weights_other / GIB == pytest.approx(0.977, abs=0.001)
    assert training.activations / GIB == pytest.approx(1.20, rel=0.05)  # measured apart from this code
    assert training.total <= 6.7 * GIB
    every_token_learnt = estimate_memory(config, GPU, Load(supervised_share=1.0))[1]
    assert every_token_learnt.total == pytest.approx(training.total, rel=0.01)  # the loss is taken in blocks
    assert smallest_card_gib(training.total) == 8
    assert chat.total < training.total
    low_memory = estimate_memory(config, GPU, Load(adapter_dtype=torch.bfloat16))[1]
    assert low_memory.total <= 6.5 * GIB


def test_shipped_shapes_have_the_published_sizes():
    published = {
        "HuggingFaceTB/SmolLM2-135M": 134_515_008,
        "HuggingFaceTB/SmolLM2-360M": 361_821_120,
        "Qwen/Qwen3-0.6B-Base": 596_049_920,
        "Qwen/Qwen3-1.7B-Base": 1_720_574_976,
        "Qwen/Qwen3-4B-Base": 4_022_468_096,
        "dicta-il/dictalm2.0": 7_251_169_280,
        "yam-peleg/Hebrew-Mistral-7B": 7_503_884_288,
        "Qwen/Qwen3-8B-Base": 8_190_735_360,
    }
    sizes = {
        known.name: sum(p.numel() for p in build_empty_model(known.config, torch.bfloat16).parameters())
        for known in known_bases()
    }
    assert sizes == published


class TestCheck:
    @pytest.fixture
    def small_base(self, tiny_base_dir):
        return BaseModel("tiny", tiny_base_dir)

    def test_says_what_is_not_known_without_data(self, small_base, tmp_path):
        text = "\n".join(check_run(small_base, CPU, DEFAULT_RECIPE, None, tmp_path))
        assert "tokens      not known" in text
        assert "base on disk" in text
        assert text.endswith("It fits.")

    def test_counts_tokens_steps_and_time_with_data(self, small_base, tmp_path):
        text = "\n".join(check_run(small_base, CPU, DEFAULT_RECIPE, WORK, tmp_path / "not" / "yet" / "there"))
        assert "300,000 per epoch, 100,000 of them supervised (33 %); rows are 97 % full" in text
        assert "110 in up to 3 epochs" in text
        assert "time        about" in text

    def test_says_what_to_change_when_it_does_not_fit(self, small_base):
        from feasibility import _advice

        config = read_model_config(small_base.folder)
        whole = estimate_memory(config, CPU, Load())[1].total
        half = estimate_memory(config, CPU, Load(row_tokens=1024))[1].total
        assert _advice(config, CPU, Load(), available=(whole + half) // 2).startswith("Pass --max-length 1024 ")
        assert _advice(config, CPU, Load(), available=1).startswith("No base of the README fits")

    def test_a_run_that_does_not_fit_is_refused_unless_the_estimate_may_be_too_high(self, small_base):
        config = read_model_config(small_base.folder)
        training = estimate_memory(config, CPU, Load())[1]
        needed = training.total - training.libraries  # those are loaded already
        refuse_what_does_not_fit(small_base, config, CPU, Load(), training, round(0.95 * needed))
        with pytest.raises(
            ScriptError, match=r"^tiny: does not fit; training takes .* GiB\. No base of the README fits; free some"
        ):
            refuse_what_does_not_fit(small_base, config, CPU, Load(), training, round(0.8 * needed))

    def test_a_chat_remembers_what_the_recipe_allows_however_short_the_data(self, small_base, tmp_path):
        short = dataclasses.replace(WORK, row_tokens=512)
        text = "\n".join(check_run(small_base, CPU, DEFAULT_RECIPE, short, tmp_path))
        assert "(training in rows of 512 tokens; a chat with a context of 2,048)" in text
        config = read_model_config(small_base.folder)
        chats = [estimate_memory(config, CPU, Load(row_tokens=512, chat_tokens=n))[2].total for n in (512, 2048)]
        assert chats[0] < chats[1]

    def test_activations_are_kept_only_where_they_easily_fit(self, small_base):
        config = read_model_config(small_base.folder)
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

    def test_a_forced_choice_that_does_not_fit_is_the_first_to_be_changed(self, small_base):
        from feasibility import _advice

        config = read_model_config(small_base.folder)
        needed = estimate_memory(config, CPU, Load())[1].total
        assert "Leave out --activation-checkpointing off" in _advice(
            config, CPU, Load(gradient_checkpointing=False), needed
        )

    def test_load_follows_recipe_and_data(self):
        assert load_of(DEFAULT_RECIPE, None).row_tokens == 2048
        assert load_of(DEFAULT_RECIPE, WORK).supervised_share == 0.5


class TestConfig:
    def test_shape_of_a_known_base_needs_no_network(self, monkeypatch):
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
        assert find_config(DEFAULT_BASE).vocab_size == 64_001

    def test_unknown_base_without_network_is_one_line(self, monkeypatch):
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        with pytest.raises(BaseModelError, match="owner/unknown: .*hub cannot be reached"):
            find_config(BaseModel("owner/unknown", None))


class TestDays:
    LAPTOP = 50e9  # multiplications and additions a second: one core of a recent processor

    def test_default_base_is_refused_without_a_gpu_and_a_feasible_one_named(self):
        with pytest.raises(ScriptError) as refusal:
            refuse_what_takes_days(DEFAULT_BASE, find_config(DEFAULT_BASE), CPU, WORK, ["--epochs", "2"], self.LAPTOP)
        message = str(refusal.value)
        assert message.startswith("yam-peleg/Hebrew-Mistral-7B: would take about")
        assert "--device cpu" in message
        assert "fine_tuning_model.py --epochs 2 --base-model-id " in message
        named = message.split("--base-model-id ")[1].split()[0]
        config = next(known.config for known in known_bases() if known.name == named)
        refuse_what_takes_days(BaseModel(named, None), config, CPU, WORK, [], self.LAPTOP)  # does not

    def test_too_much_data_for_any_base_is_said(self):
        much = dataclasses.replace(WORK, epoch_tokens=10**9)
        with pytest.raises(ScriptError, match="give it less data"):
            refuse_what_takes_days(DEFAULT_BASE, find_config(DEFAULT_BASE), CPU, much, [], self.LAPTOP)

    def test_small_base_is_not_refused(self, tiny_base_dir):
        refuse_what_takes_days(BaseModel("tiny", tiny_base_dir), read_model_config(tiny_base_dir), CPU, WORK)

    def test_with_a_gpu_nothing_is_refused(self):
        refuse_what_takes_days(DEFAULT_BASE, find_config(DEFAULT_BASE), GPU, WORK)

    def test_time_grows_with_the_work(self):
        more = dataclasses.replace(WORK, epoch_tokens=30_000_000)
        assert estimate_training_seconds(SMALL, CPU, more) > 5 * estimate_training_seconds(SMALL, CPU, WORK)

    def test_rate_of_this_machine_is_plausible(self):
        assert 1e8 < measure_rate(CPU) < 1e15


def test_base_table_is_valid_json_with_sources():
    for entry in json.loads(BASE_MODELS_PATH.read_text(encoding="utf-8"))["bases"]:
        assert entry["source"].endswith(entry["id"])
        assert entry["license"]
