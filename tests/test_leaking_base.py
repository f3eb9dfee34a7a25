"""A base that mixes packed conversations in every way of attending is refused before the training, in one line."""

import json

import pytest
import torch
from fine_tuning_model import load_model
from head_loss import compute_loss_in_blocks
from packed_attention import SEGMENT_ATTENTION, choose_attention, find_packing_fault, register_segment_attention
from prepared_run import prepare_run
from qlora_model import add_lora
from training_options import parse_options
from transformers import AutoModelForCausalLM, GPT2Config, Lfm2Config

from common.base_model_files import find_base
from common.conversation_data import read_training_data
from common.script import ScriptError

register_segment_attention()


def make_leaking_base(vocab_size):
    """A model with short convolutions besides attention: they know nothing of borders, however attention goes."""
    torch.manual_seed(0)
    config = Lfm2Config(
        vocab_size=vocab_size, hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, layer_types=["conv", "full_attention"], bos_token_id=0, eos_token_id=1, pad_token_id=1,
        initializer_range=0.3,  # a new model's small weights hardly tell one token from another
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def test_a_base_with_dropout_of_its_own_is_no_reason_to_refuse_it():
    base = AutoModelForCausalLM.from_config(GPT2Config(vocab_size=99, n_embd=32, n_layer=2, n_head=2, resid_pdrop=0.5))
    compute_loss_in_blocks(base)
    model = add_lora(base, rank=4, alpha=8, dropout=0.0)
    assert model.training
    chunks = [{"input_ids": [0, *range(5, end)], "is_supervised": [True] * (end - 4)} for end in (45, 66)]
    assert choose_attention(model, chunks) is None


def test_when_every_way_of_attending_leaks_the_last_ones_fault_is_told():
    model = add_lora(make_leaking_base(vocab_size=99), rank=4, alpha=8, dropout=0.0).eval()
    chunks = [{"input_ids": [0, *range(5, end)], "is_supervised": [True] * (end - 4)} for end in (45, 66)]
    faults = []
    for attention in (SEGMENT_ATTENTION, "sdpa", "eager"):
        model.get_base_model().set_attn_implementation(attention)
        faults.append(find_packing_fault(model, chunks))
    assert all("packed in one row see each other" in fault for fault in faults)
    assert choose_attention(model, chunks) == faults[-1]


@pytest.fixture
def run(tmp_path, tiny_tokenizer, sample_conversations):
    """A run of that base, up to where the model is loaded."""
    base_dir, data_path = tmp_path / "base", tmp_path / "data.jsonl"
    make_leaking_base(len(tiny_tokenizer)).save_pretrained(base_dir)
    tiny_tokenizer.save_pretrained(base_dir)
    data_path.write_text("".join(json.dumps({"messages": talk}) + "\n" for talk in sample_conversations))
    block = {
        "base_model_id": str(base_dir),
        "path_to_data": str(data_path),
        "saved_model_path": str(tmp_path / "model"),
    }
    options = parse_options("", block, 0, ["--device", "cpu", "--threads", "1"])
    return prepare_run(options, read_training_data(data_path), find_base(str(base_dir), tmp_path))


def test_the_script_refuses_it_in_one_line_with_the_cure(run):
    with pytest.raises(ScriptError) as refusal:
        load_model(run, gradient_checkpointing=False)
    message = str(refusal.value)
    assert message.startswith(f"{run.base.name}: conversations packed in one row see each other (loss changes by ")
    assert message.endswith("; choose another base model")
    assert "\n" not in message
