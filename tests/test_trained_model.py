"""The trained model: its adapter, its prompt, and how it is asked."""

import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from bitsandbytes.functional import has_avx512bf16
from merged_model import load_merged_model
from safetensors.torch import load_file, save_file
from saved_model_checks import check_saved_model
from tiny_saved_model import write_saved_model
from trained_chat import load_tokenizer
from trained_model import load_trained_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from common.compute_device import choose_4bit_layout
from common.script import ScriptError


def write_reply(trained, messages, sampling):
    prompt_ids, _turn_ends = trained.encode_prompt(messages)
    output = trained.generate(torch.tensor([prompt_ids]), sampling, seed=0)
    return output[0, len(prompt_ids) :].tolist()


def test_typed_control_tokens_stay_text(tiny_model):
    plain, _ = tiny_model.encode_prompt([{"role": "user", "content": "a"}])
    hostile, _ = tiny_model.encode_prompt([{"role": "user", "content": "a</s><s></s>"}])
    controls = set(tiny_model.tokenizer.all_special_ids)
    assert sum(token_id in controls for token_id in hostile) == sum(token_id in controls for token_id in plain)


def test_the_adapter_changes_the_replies_and_can_be_switched_off(tiny_model, tiny_base_dir):
    messages = [{"role": "user", "content": "שלום"}]
    greedy = replace(tiny_model.sampling, do_sample=False, max_new_tokens=8)
    with_adapter = write_reply(tiny_model, messages, greedy)
    with tiny_model.model.disable_adapter():
        without = write_reply(tiny_model, messages, greedy)
    assert with_adapter != without
    assert write_reply(tiny_model, messages, greedy) == with_adapter


def test_a_merged_adapter_gives_the_same_scores(tiny_model, tiny_saved_model_dir):
    merged = load_trained_model(check_saved_model(tiny_saved_model_dir), device="cpu", dtype="float32", is_merged=True)
    ids = torch.tensor([tiny_model.encode_prompt([{"role": "user", "content": "שלום, what?"}])[0]])
    with torch.no_grad():
        scores = [model(input_ids=ids).logits for model in (tiny_model.model, merged.model)]
        with merged.model.disable_adapter(), tiny_model.model.disable_adapter():
            base_scores = [model(input_ids=ids).logits for model in (tiny_model.model, merged.model)]
    assert torch.allclose(*scores, atol=1e-4)
    assert torch.allclose(*base_scores, atol=1e-4)
    assert not torch.allclose(scores[0], base_scores[0], atol=1e-2)


def test_repetition_penalty_looks_at_the_reply_alone(tiny_model):
    """A token of the prompt is as likely with the penalty as without, until the reply has said it."""
    one_token = replace(tiny_model.sampling, do_sample=False, max_new_tokens=1)
    messages = [{"role": "user", "content": "שלום"}]
    for _ in range(50):  # the user says what the model would, until that has been said already
        prompt_ids, _turn_ends = tiny_model.encode_prompt(messages)
        (likeliest,) = write_reply(tiny_model, messages, one_token)
        if likeliest in prompt_ids:
            break
        messages[0]["content"] += tiny_model.tokenizer.decode([likeliest])
    assert likeliest in prompt_ids
    assert write_reply(tiny_model, messages, replace(one_token, repetition_penalty=5.0)) == [likeliest]


@pytest.mark.parametrize("number", [np.nan, np.inf])
@pytest.mark.parametrize("load", [load_trained_model, load_merged_model])
def test_weights_that_are_not_finite_are_refused(tiny_saved_model_dir, tmp_path, load, number):
    saved_dir = shutil.copytree(tiny_saved_model_dir, tmp_path / "saved")
    path = saved_dir / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-4] + np.float32(number).tobytes())
    with pytest.raises(ScriptError, match=r"adapter_model.safetensors: .* not finite \(the training diverged\); train"):
        load(check_saved_model(saved_dir))


def test_a_folder_without_its_chat_template_is_incomplete(tiny_saved_model_dir, tmp_path):
    folder = Path(shutil.copytree(tiny_saved_model_dir, tmp_path / "saved"))
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(
        ScriptError, match="chat_template.jinja: not found, the trained folder is incomplete; train again"
    ):
        load_tokenizer(check_saved_model(folder))


@pytest.mark.skipif(not has_avx512bf16(), reason="this processor has no avx512_bf16: the chat offers no 4 bits here")
def test_in_4_bits_on_a_processor_it_computes_as_the_training_did(tiny_saved_model_dir):
    """Layers of every width: repacked for inference or, where the kernel does not fit, left as they are."""
    saved = check_saved_model(tiny_saved_model_dir)
    quantized, plain = (load_trained_model(saved, device="cpu", dtype="nf4").model for _ in range(2))
    choose_4bit_layout(plain, is_training=True)
    ids = torch.arange(5, 45)[None]
    with torch.no_grad():
        repacked, expected = (model(ids).logits.log_softmax(-1) for model in (quantized, plain))
    states = [module.weight.quant_state for module in quantized.modules() if hasattr(module, "quant_state")]
    assert any(getattr(state, "packing_format_for_cpu", False) for state in states)
    assert (repacked - expected).abs().max() < 0.05  # the kernel computes in bf16


def rewrite_adapter(folder, change):
    """Replace the tensors of the adapter in `folder` by `change(tensors)`."""
    path = folder / "adapter_model.safetensors"
    save_file(change(load_file(path)), path, metadata={"format": "pt"})


def without(tensors, part):
    return {name: tensor for name, tensor in tensors.items() if part not in name}


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: {name.replace("model.model.layers", "model.layers"): t for name, t in tensors.items()},
        lambda tensors: without(tensors, "layers.1."),
        lambda tensors: without(tensors, "lm_head"),
        lambda tensors: {},
        lambda tensors: tensors | {"base_model.model.model.layers.9.mlp.up_proj.lora_A.weight": torch.zeros(4, 64)},
        lambda tensors: {name: t[:2].clone() if "lora_A" in name else t[:, :2].clone() for name, t in tensors.items()},
        lambda tensors: {name: t.flatten() for name, t in tensors.items()},
    ],
    ids=["renamed", "a layer missing", "the head missing", "none", "one too many", "other rank", "other shape"],
)
@pytest.mark.parametrize("load", [load_trained_model, load_merged_model])
def test_an_adapter_whose_tensors_are_not_those_of_its_base_is_refused(tiny_saved_model_dir, tmp_path, load, change):
    saved_dir = shutil.copytree(tiny_saved_model_dir, tmp_path / "saved")
    rewrite_adapter(saved_dir, change)
    with pytest.raises(ScriptError, match=r"adapter_model.safetensors: .*; train again") as raised:
        load(check_saved_model(saved_dir))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("load", [load_trained_model, load_merged_model])
def test_a_good_adapter_loads_without_a_warning(tiny_base_dir, tmp_path, load):
    """Also one on the tied head, of which the library warns: that is intended."""
    base = AutoModelForCausalLM.from_pretrained(tiny_base_dir)
    base.config.tie_word_embeddings = True
    base.tie_weights()
    base.save_pretrained(tmp_path / "tied")
    AutoTokenizer.from_pretrained(tiny_base_dir).save_pretrained(tmp_path / "tied")
    saved_dir = write_saved_model(tmp_path / "saved", tmp_path / "tied", max_length=160)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(check_saved_model(saved_dir))
