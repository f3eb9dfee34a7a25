"""An exported GGUF file is the trained model: llama.cpp itself reads prompts and writes replies as transformers does."""

import json
import re
import shutil
import sys
from types import SimpleNamespace

import base_families
import gguf
import numpy as np
import pytest
import torch
from gguf_check import check_gguf, read_conversations
from gguf_families import KINDS, write_trained_folder
from gguf_file import GgufExport
from gguf_header import ADAPTER_KEY, FORMAT_KEY, check_header, find_base_beside, hash_file
from gguf_tokenizer import normalizes_text
from llama_cpp_server import start_llama_cpp
from merged_model import probe_conversations
from saved_model_checks import check_saved_model
from trained_model import load_trained_model
from transformers import AutoTokenizer

from common.base_model_files import base_fingerprint
from common.chat_format import PERSON_TEMPLATE
from common.script import ScriptError


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


def check(saved, content, type_name):
    path = export(saved, content, type_name)
    return check_gguf(saved, content, path, path, "the command", type_name)


def assert_same_ids_in_all(compared):
    assert "the same token ids in 20 probes and 40 conversations" in compared[0]


def largest_difference(compared):
    """Return the largest difference of a log-probability, as it is printed."""
    return float(re.search(r"at most (\S+) from transformers", compared[1])[1])


def test_merged_model_in_f32_is_the_trained_one(saved):
    compared = check(saved, "model", "f32")
    assert_same_ids_in_all(compared)
    assert largest_difference(compared) < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("type_name", ["f16", "q8_0", "q4_0"])
def test_smaller_number_types_read_the_same_ids(saved, type_name):
    compared = check(saved, "model", type_name)
    assert_same_ids_in_all(compared)
    # Random weights of this size lose much more than trained ones; a wrong block would be off by 10 and more.
    assert largest_difference(compared) < {"f16": 0.05, "q8_0": 1.0, "q4_0": 5.0}[type_name]


@pytest.mark.slow
def test_base_alone_is_the_base(saved):
    assert largest_difference(check(saved, "base", "f32")) < 1e-3


def test_adapter_beside_the_base_is_the_trained_model(saved):
    export(saved, "base", "f32")
    compared = check(saved, "adapter", "f32")
    assert_same_ids_in_all(compared)
    assert largest_difference(compared) < 1e-3


@pytest.mark.slow
def test_greedy_replies_are_those_of_transformers(saved):
    trained = load_trained_model(saved, device="cpu", dtype="float32")
    prompt_ids = trained.encode_prompt(probe_conversations()[1])[0]
    output = trained.model.generate(
        input_ids=torch.tensor([prompt_ids]), do_sample=False, max_new_tokens=20, min_new_tokens=20, eos_token_id=None
    )
    expected = output[0].tolist()
    model, base, adapter = (export(saved, content, "f32") for content in ("model", "base", "adapter"))
    replies = []
    for paths in ((model,), (base, adapter)):
        with start_llama_cpp(*paths, is_exact=True) as server:
            ids = list(prompt_ids)
            while len(ids) < len(expected):
                ids.append(server.draw_token(ids, temperature=0.0, samplers=["temperature"]))
            replies.append(ids)
    assert replies == [expected] * 2


@pytest.fixture(scope="module")
def tiny_saved(tiny_saved_model_dir):
    return check_saved_model(tiny_saved_model_dir)


@pytest.fixture(scope="module")
def tiny_gguf(tmp_path_factory, tiny_saved):
    """The bytes of its f32 file."""
    path = tmp_path_factory.mktemp("tiny_gguf") / "model-f32.gguf"
    export, written = GgufExport(tiny_saved, "model", "f32"), []
    export.write(path, written.append)
    assert sum(written) == export.tensor_bytes < path.stat().st_size < export.num_bytes  # a progress bar ends at 100 %
    return path.read_bytes()


@pytest.fixture
def check_bytes(tmp_path, tiny_saved):
    """A function that checks a file of these bytes as the tiny model's."""

    def check(content):
        path = tmp_path / "model-f32.gguf"
        path.write_bytes(content)
        return check_gguf(tiny_saved, "model", path, path, "the command", "f32")

    return check


@pytest.mark.parametrize("context", ["none", "who"])
def test_conversations_with_an_opener_are_compared_without_it(tmp_path, context):
    """Mistral's template, rendered by llama.cpp and transformers, lets only the user begin."""
    user, reply = {"role": "user", "content": "ok?"}, {"role": "assistant", "content": "yes"}
    data_path = tmp_path / "data.jsonl"
    talks = [[user, reply], [reply], [reply, user, reply]]
    data_path.write_text("".join(json.dumps({"messages": talk, "with": ["Ruth"]}) + "\n" for talk in talks))
    settings = {"path_to_data": str(data_path), "data_sha256": hash_file(data_path), "context": context}
    tokenizer = base_families.make_tokenizer("mistral", ["ok? yes Ruth"])
    read = read_conversations(SimpleNamespace(settings=settings), tokenizer)
    prompts = [tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) for messages in read]
    assert [prompt.count("ok?") for prompt in prompts] == [1, 1]
    assert [prompt.count("Ruth") for prompt in prompts] == [1 if context == "who" else 0] * 2


def test_a_wrong_rule_for_spaces_is_found_out(tmp_path, sample_conversations):
    saved = check_saved_model(write_trained_folder("Llama type, first", tmp_path, sample_conversations))
    path = tmp_path / "model.gguf"
    GgufExport(saved, "model", "f32").write(path)
    rule = b"tokenizer.ggml.add_space_prefix" + gguf.GGUFValueType.BOOL.to_bytes(4, "little")
    content = path.read_bytes()
    assert content.count(rule + b"\0") == 1
    path.write_bytes(content.replace(rule + b"\0", rule + b"\1"))
    with pytest.raises(ScriptError, match="encodes a probe to other token ids than transformers"):
        check_gguf(saved, "model", path, path, "the command", "f32")


def test_another_template_is_found_out(check_bytes, tiny_gguf):
    assert tiny_gguf.count(b"'<person2>'") == 1
    with pytest.raises(ScriptError, match="renders the chat template differently"):
        check_bytes(tiny_gguf.replace(b"'<person2>'", b"'<person3>'"))


def test_rows_in_another_order_are_found_out(check_bytes, tiny_gguf, tmp_path):
    path = tmp_path / "changed.gguf"
    path.write_bytes(tiny_gguf)
    reader = gguf.GGUFReader(path, "r+")
    (queries,) = (tensor for tensor in reader.tensors if tensor.name == "blk.0.attn_q.weight")
    queries.data[:] = queries.data[::-1].copy()
    reader.data.flush()
    with pytest.raises(ScriptError, match="log-probabilities differ by"):
        check_bytes(path.read_bytes())


@pytest.mark.parametrize("num_bytes", [0, 3, 20, 5_000, 100_000, -1_000, -1])
def test_a_cut_file_is_refused(check_bytes, tiny_gguf, num_bytes):
    with pytest.raises(ScriptError, match="cut or damaged; remove it and export again"):
        check_bytes(tiny_gguf[:num_bytes])


def test_files_of_others_and_of_other_versions_are_refused(check_bytes, tiny_gguf):
    with pytest.raises(ScriptError, match="cut or damaged"):
        check_bytes(b"PK\x03\x04" + bytes(1_000))
    with pytest.raises(ScriptError, match="cut or damaged"):
        check_bytes(tiny_gguf[:4] + b"\x63" + tiny_gguf[5:])  # GGUF version 99
    with pytest.raises(ScriptError, match="not written by this project"):
        check_bytes(tiny_gguf.replace(FORMAT_KEY.encode(), FORMAT_KEY.encode().swapcase()))
    version = FORMAT_KEY.encode() + (4).to_bytes(4, "little")
    with pytest.raises(ScriptError, match="another version of this project"):
        check_bytes(tiny_gguf.replace(version + b"\x01", version + b"\x02"))


def test_a_file_of_another_training_is_refused(tiny_saved, tiny_gguf, tmp_path, check_bytes):
    sha256 = hash_file(tiny_saved.folder / "adapter_model.safetensors").encode()
    assert tiny_gguf.count(sha256) == 1
    with pytest.raises(ScriptError, match="is of another training than"):
        check_bytes(tiny_gguf.replace(sha256, b"0" * 64))
    path = tmp_path / "base-f32.gguf"
    GgufExport(tiny_saved, "base", "f32").write(path)
    with pytest.raises(ScriptError, match="is of another training than"):  # a base is no merged model
        check_header(tiny_saved, "model", path, path)


def test_characters_are_composed_where_one_of_several_normalizers_does(tmp_path):
    for normalizer, is_composed in [
        (None, False),
        ({"type": "NFC"}, True),
        ({"type": "Sequence", "normalizers": [{"type": "NFC"}]}, True),
    ]:
        (tmp_path / "tokenizer.json").write_text(json.dumps({"normalizer": normalizer}))
        assert normalizes_text(tmp_path) is is_composed


def test_without_llama_cpp_the_file_is_said_to_be_unchecked(monkeypatch, check_bytes, tiny_gguf):
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    assert check_bytes(tiny_gguf) == ["Not checked in llama.cpp. To check it: pip install xllamacpp, then the command"]


def test_an_adapter_is_checked_on_a_base_of_its_training_alone(tiny_saved, tmp_path):
    path = tmp_path / "adapter-f32.gguf"
    GgufExport(tiny_saved, "adapter", "f32").write(path)
    (tmp_path / "base-q8_0.gguf").write_bytes(b"GGUF")  # cut
    assert check_gguf(tiny_saved, "adapter", path, path, "the command", "f32") == [
        "Not checked in llama.cpp: no base lies beside it. Write one with --base-only, then run the command"
    ]
    GgufExport(tiny_saved, "base", "q4_0").write(tmp_path / "base-q4_0.gguf")
    assert find_base_beside(tiny_saved, path) == tmp_path / "base-q4_0.gguf"


def test_what_the_file_says_of_itself(tiny_saved, tiny_gguf, tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(tiny_gguf)
    fields = {name: field.contents() for name, field in gguf.GGUFReader(path).fields.items()}
    assert fields[ADAPTER_KEY] == hash_file(tiny_saved.folder / "adapter_model.safetensors")
    assert fields["tokenizer.chat_template"] == PERSON_TEMPLATE
    assert (fields["tokenizer.ggml.eos_token_id"], fields["tokenizer.ggml.eot_token_id"]) == (1, 1)
    assert fields["general.sampling.temp"] == pytest.approx(0.7)
    assert fields["general.sampling.min_p"] == pytest.approx(0.05)
    assert fields["general.sampling.sequence"] == "penalties;temperature;top_k;top_p;min_p"


def test_the_end_of_a_turn_is_in_the_file_when_it_is_not_the_end_of_a_text(tmp_path, sample_conversations):
    saved = check_saved_model(write_trained_folder("Qwen2, tied", tmp_path, sample_conversations))
    path = tmp_path / "model.gguf"
    GgufExport(saved, "model", "q8_0").write(path)
    fields = {name: field.contents() for name, field in gguf.GGUFReader(path).fields.items()}
    tokens = fields["tokenizer.ggml.tokens"]
    assert tokens[fields["tokenizer.ggml.eot_token_id"]] == "<|im_end|>"
    assert tokens[fields["tokenizer.ggml.eos_token_id"]] == "<|endoftext|>"


def test_quantised_weights_are_within_half_a_step(tiny_saved, tmp_path):
    exact, small = tmp_path / "exact.gguf", tmp_path / "small.gguf"
    GgufExport(tiny_saved, "model", "f32").write(exact)
    GgufExport(tiny_saved, "model", "q4_0").write(small)
    pairs = list(zip(gguf.GGUFReader(exact).tensors, gguf.GGUFReader(small).tensors, strict=True))
    kinds = {after.name: after.tensor_type.name for _, after in pairs}
    assert (kinds["output.weight"], kinds["blk.0.ffn_up.weight"], kinds["output_norm.weight"]) == (
        "Q8_0",
        "Q4_0",
        "F32",
    )
    for before, after in pairs:
        error = np.abs(gguf.dequantize(after.data, after.tensor_type) - before.data).max()
        step = {"Q8_0": 1 / 127, "Q4_0": 1 / 8, "F32": 0}[after.tensor_type.name]
        assert error <= 1.01 * step * np.abs(before.data).max()


def change_json(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.fixture
def own_copy(tmp_path, tiny_saved_model_dir, tiny_base_dir):
    """The tiny trained folder with its base beside it, both to be changed."""
    shutil.copytree(tiny_base_dir, tmp_path / "base")
    shutil.copytree(tiny_saved_model_dir, tmp_path / "saved")
    change_json(tmp_path / "saved/training_settings.json", base_model_id=str(tmp_path / "base"))
    return tmp_path


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_type": "gemma2"}, "is of the family gemma2; GGUF is written for Llama, Mistral, Qwen2 and Qwen3 only"),
        ({"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 10_000.0}}, "RoPE linear"),
        ({"hidden_act": "gelu"}, "computes with gelu"),
    ],
)
def test_bases_that_llama_cpp_would_compute_differently_are_refused_by_name(own_copy, change, words):
    change_json(own_copy / "base/config.json", **change)
    change_json(own_copy / "saved/training_settings.json", base_fingerprint=base_fingerprint(own_copy / "base"))
    with pytest.raises(ScriptError, match=words):
        GgufExport(check_saved_model(own_copy / "saved"), "model", "q8_0")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"pre_tokenizer": {"type": "BertPreTokenizer"}}, "neither a byte-level tokenizer nor one of the Llama type"),
        (
            {
                "pre_tokenizer": {
                    "type": "Sequence",
                    "pretokenizers": [
                        {"type": "Split", "pattern": {"Regex": "x"}, "behavior": "Isolated", "invert": False},
                        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
                    ],
                }
            },
            "a pre-tokenizer that llama.cpp has no known name for",
        ),
        ({"normalizer": {"type": "Lowercase"}}, "a byte-level tokenizer that changes the text first"),
    ],
)
def test_tokenizers_that_llama_cpp_does_not_know_are_refused_in_words(own_copy, change, words):
    change_json(own_copy / "saved/tokenizer.json", **change)
    with pytest.raises(ScriptError, match=words):
        GgufExport(check_saved_model(own_copy / "saved"), "model", "q8_0").write(own_copy / "model.gguf")


def test_a_tokenizer_longer_than_the_rows_is_refused(own_copy):
    tokenizer = AutoTokenizer.from_pretrained(own_copy / "saved")
    tokenizer.add_tokens(["a new word"])
    tokenizer.save_pretrained(own_copy / "saved")
    with pytest.raises(ScriptError, match="has 513 tokens, the base model only 512 rows"):
        GgufExport(check_saved_model(own_copy / "saved"), "model", "q8_0").write(own_copy / "model.gguf")
