"""An exported GGUF file is the trained model: llama.cpp itself reads prompts and writes replies as transformers does."""

import json

import pytest
import torch
from gguf_check import check_gguf
from gguf_families import KINDS, write_trained_folder
from gguf_file import GgufExport, hash_file
from llama_cpp_server import start_llama_cpp
from merged_model import probe_conversations
from saved_model_checks import check_saved_model
from trained_model import load_trained_model

from common.chat_format import find_end_of_turn_id


@pytest.fixture(scope="module", params=list(KINDS))
def saved(request, tmp_path_factory, sample_conversations):
    """A trained folder of each kind, its training data at hand."""
    folder = tmp_path_factory.mktemp("gguf")
    saved_dir = write_trained_folder(request.param, folder, sample_conversations)
    data_path = folder / "data.jsonl"
    data_path.write_text("".join(json.dumps({"messages": messages}) + "\n" for messages in sample_conversations))
    settings = json.loads((saved_dir / "training_settings.json").read_text())
    settings |= {"path_to_data": str(data_path), "data_sha256": hash_file(data_path)}
    (saved_dir / "training_settings.json").write_text(json.dumps(settings))
    return check_saved_model(saved_dir)


def export(saved, content, type_name):
    path = saved.folder / f"{content}-{type_name}.gguf"
    if not path.exists():
        GgufExport(saved, content, type_name).write(path)
    return path


def prove(saved, content, type_name):
    path = export(saved, content, type_name)
    return check_gguf(saved, content, path, path, "the command", type_name)


def assert_same_ids_in_all(proof):
    assert "the same token ids in 20 probes and 40 conversations" in proof.lines[0]


def test_merged_model_in_f32_is_the_trained_one(saved):
    proof = prove(saved, "model", "f32")
    assert_same_ids_in_all(proof)
    assert proof.largest_difference < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("type_name", ["f16", "q8_0", "q4_0"])
def test_smaller_number_types_read_the_same_ids(saved, type_name):
    proof = prove(saved, "model", type_name)
    assert_same_ids_in_all(proof)
    # Random weights of this size lose much more than trained ones; a wrong block would be off by 10 and more.
    assert proof.largest_difference < {"f16": 0.05, "q8_0": 1.0, "q4_0": 5.0}[type_name]


def test_base_alone_is_the_base(saved):
    assert prove(saved, "base", "f32").largest_difference < 1e-3


def test_adapter_beside_the_base_is_the_trained_model(saved):
    export(saved, "base", "f32")
    proof = prove(saved, "adapter", "f32")
    assert_same_ids_in_all(proof)
    assert proof.largest_difference < 1e-3


def test_greedy_replies_are_those_of_transformers(saved):
    trained = load_trained_model(saved, device="cpu", dtype="float32")
    prompt_ids = trained.encode_prompt(probe_conversations()[1])[0]
    output = trained.model.generate(
        input_ids=torch.tensor([prompt_ids]), do_sample=False, max_new_tokens=20, min_new_tokens=20, eos_token_id=None
    )
    expected = output[0][len(prompt_ids) :].tolist()
    model, base, adapter = (export(saved, content, "f32") for content in ("model", "base", "adapter"))
    replies = []
    for paths in ((model,), (base, adapter)):
        with start_llama_cpp(*paths, is_exact=True) as server:
            replies.append(server.greedy_reply(prompt_ids, 20))
    ends = {trained.tokenizer.eos_token_id, find_end_of_turn_id(trained.tokenizer)}
    num_until_end = next((number for number, token in enumerate(expected) if token in ends), 20)
    assert replies == [expected[:num_until_end]] * 2
    assert num_until_end > 3
