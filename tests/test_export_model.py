"""The exported folder is an ordinary model: it answers as the adapter did, in plain transformers and through a server."""

import copy
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path

import openai
import pytest
import torch
from export_model import check_disk, check_gguf_name, check_place, export_gguf
from forked_scripts import run_forked
from full_disk import full_disk
from merged_model import (
    PROBE_TEXTS,
    add_names_of_transformers_4,
    fill_up_vocabulary,
    refuse_shared_layers,
    write_merged_model,
)
from modelfile import OWN_LINE
from peft import LoraConfig, get_peft_model
from saved_model_checks import check_saved_model
from tiny_saved_model import DIALOGUE, write_saved_model
from trained_model import load_trained_model
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, LlamaConfig

from common.script import ScriptError

SCRIPT = Path(__file__).resolve().parents[1] / "src" / "chat" / "export_model.py"
QUESTION = [{"role": "user", "content": "שלום, מה נשמע?"}]


@pytest.fixture(scope="module")
def saved_dir(tmp_path_factory, tiny_base_dir):
    # A large random adapter: replies then differ from the base's, so that a lost adapter shows.
    return write_saved_model(tmp_path_factory.mktemp("trained") / "saved", tiny_base_dir, 256, adapter_scale=0.5)


@pytest.fixture(scope="module")
def exported_dir(tmp_path_factory, saved_dir):
    folder = tmp_path_factory.mktemp("export") / "exported"
    write_merged_model(check_saved_model(saved_dir), folder)
    return folder


def plain_greedy_reply(folder, messages):
    """What a tool that knows nothing of this project generates."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    output = model.generate(**prompt, do_sample=False, max_new_tokens=24)
    return tokenizer.decode(output[0][prompt["input_ids"].shape[1] :], skip_special_tokens=True)


def test_plain_transformers_gives_the_greedy_reply_of_the_chat(saved_dir, exported_dir):
    trained = load_trained_model(check_saved_model(saved_dir), device="cpu", dtype="float32")
    prompt_ids, _ = trained.encode_prompt(QUESTION)
    output = trained.model.generate(
        input_ids=torch.tensor([prompt_ids]), do_sample=False, max_new_tokens=24, eos_token_id=sorted(trained.end_ids)
    )
    before = trained.tokenizer.decode(output[0][len(prompt_ids) :], skip_special_tokens=True)
    with trained.model.disable_adapter():
        base_output = trained.model.generate(
            input_ids=torch.tensor([prompt_ids]),
            do_sample=False,
            max_new_tokens=24,
            eos_token_id=sorted(trained.end_ids),
        )
    assert output.tolist() != base_output.tolist()
    assert plain_greedy_reply(exported_dir, QUESTION) == before


def test_what_the_folder_holds(exported_dir):
    names = {path.name for path in exported_dir.iterdir()}
    assert names == {
        "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja",
        "generation_config.json", "Modelfile",
    }  # fmt: skip
    generation = json.loads((exported_dir / "generation_config.json").read_text())
    assert (generation["do_sample"], generation["temperature"], generation["min_p"]) == (True, 0.7, 0.05)


def test_the_files_have_the_names_by_which_transformers_4_finds_them(exported_dir):
    """Read by 4.57.6 itself once, outside this suite; here are the keys that it needs, as published folders have them."""
    config = json.loads((exported_dir / "config.json").read_text())
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"]
    assert "rope_scaling" not in config
    settings = json.loads((exported_dir / "tokenizer_config.json").read_text())
    assert settings["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert all((exported_dir / name).stat().st_mode & 0o077 == 0 for name in ("config.json", "tokenizer_config.json"))


def test_scaled_positions_and_special_tokens_are_named_for_transformers_4_too(tmp_path):
    scaling = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    scaling["original_max_position_embeddings"] = 16
    LlamaConfig(rope_parameters=scaling | {"rope_theta": 500_000.0}).save_pretrained(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "Qwen2Tokenizer", "extra_special_tokens": ["<a>"]}'
    )
    before = AutoConfig.from_pretrained(tmp_path).rope_parameters
    add_names_of_transformers_4(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["rope_theta"], config["rope_scaling"]) == (500_000.0, scaling)
    assert AutoConfig.from_pretrained(tmp_path).rope_parameters == before
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert settings == {"tokenizer_class": "Qwen2Tokenizer", "additional_special_tokens": ["<a>"]}


def test_a_base_without_rotary_positions_needs_no_name_for_them(tmp_path):
    (tmp_path / "config.json").write_text('{"rope_parameters": null}')
    (tmp_path / "tokenizer_config.json").write_text("{}")
    add_names_of_transformers_4(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text()) == {"rope_parameters": None}


def test_rendered_prompts_encode_as_the_chat_encodes_them(saved_dir, exported_dir):
    trained = load_trained_model(check_saved_model(saved_dir), device="cpu", dtype="float32")
    exported = AutoTokenizer.from_pretrained(exported_dir)
    for text in PROBE_TEXTS:
        messages = [{"role": "user", "content": text}]
        plain = exported.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        assert plain == trained.encode_prompt(messages)[0]


def test_an_adapter_on_a_tied_head_leaves_the_embeddings_alone(tmp_path, tiny_base_dir):
    base = AutoModelForCausalLM.from_pretrained(tiny_base_dir)
    base.config.tie_word_embeddings = True
    base.tie_weights()
    tied_dir = tmp_path / "tied_base"
    base.save_pretrained(tied_dir)
    AutoTokenizer.from_pretrained(tiny_base_dir).save_pretrained(tied_dir)
    saved_dir = write_saved_model(tmp_path / "saved", tied_dir, 256, adapter_scale=0.5)
    write_merged_model(check_saved_model(saved_dir), tmp_path / "exported")

    trained = load_trained_model(check_saved_model(saved_dir), device="cpu", dtype="float32")
    ids = torch.tensor([trained.encode_prompt(QUESTION)[0]])
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "exported")
    with torch.no_grad():
        difference = (merged(ids).logits - trained.model(input_ids=ids).logits).abs().max()
    assert difference < 1e-3
    assert not merged.config.tie_word_embeddings


def test_rows_without_a_token_get_a_name(tiny_base_dir):
    tokenizer = AutoTokenizer.from_pretrained(tiny_base_dir)
    num_tokens = len(tokenizer)
    fill_up_vocabulary(tokenizer, num_tokens + 3, tiny_base_dir)
    assert len(tokenizer) == num_tokens + 3
    with pytest.raises(ScriptError, match="only"):
        fill_up_vocabulary(tokenizer, num_tokens, tiny_base_dir)


def export(*arguments):
    return subprocess.run([sys.executable, SCRIPT, *map(str, arguments)], capture_output=True, text=True)


def test_a_taken_folder_is_refused_and_untouched(tmp_path, saved_dir):
    (tmp_path / "taken").mkdir()
    done = export("--saved-model-path", saved_dir, "--export-path", tmp_path / "taken")
    assert done.returncode == 1
    assert "exists already" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.rglob("*")) == [tmp_path / "taken"]


def test_a_template_that_refuses_is_one_line(tmp_path, saved_dir):
    own_dir = shutil.copytree(saved_dir, tmp_path / "saved")
    (own_dir / "chat_template.jinja").write_text("{{ raise_exception('no\x1b[2J\\nall is well') }}", encoding="utf-8")
    with pytest.raises(ScriptError, match=r"the chat template refuses a conversation \(no\\x1b\[2J all is well\)"):
        write_merged_model(check_saved_model(own_dir), tmp_path / "exported")


@pytest.fixture
def places(tmp_path):
    """A folder of places where no export can be."""
    (tmp_path / "file").write_text("mine")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe")
    return tmp_path


@pytest.mark.parametrize("name", ["file/sub", "file/a/b", "dangling/sub", "loop/sub", "pipe/sub", "new/.."])
def test_a_place_where_nothing_can_be_made_is_refused_before_the_model_loads(places, saved_dir, name):
    before = sorted(places.rglob("*"))
    with pytest.raises(ScriptError, match="choose another --export-path"):
        check_place(places / name, check_saved_model(saved_dir))
    with pytest.raises(ScriptError, match="choose another --export-path"):
        check_gguf_name(places / f"{name}.gguf" if name != "new/.." else places / name)
    assert sorted(places.rglob("*")) == before


@pytest.mark.slow
def test_the_script_leaves_one_private_folder(tmp_path, saved_dir):
    done = run_forked(SCRIPT, "--saved-model-path", saved_dir, "--export-path", tmp_path / "exported")
    assert done.returncode == 0, done.stderr
    assert "as in training" not in done.stdout  # trained without a header
    assert [path.name for path in tmp_path.iterdir()] == ["exported"]
    assert all(path.stat().st_mode & 0o077 == 0 for path in tmp_path.rglob("*"))


@pytest.mark.slow
def test_a_server_answers_with_the_greedy_reply_and_streams_it(tmp_path, talking_model_dir):
    # A base that talks: what random weights write is no valid text, and servers hold back the letters it leaves open.
    exported_dir = tmp_path / "exported"
    write_merged_model(check_saved_model(talking_model_dir), exported_dir)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [Path(sys.executable).with_name("transformers"), "serve", exported_dir, "--port", str(port), "--device", "cpu"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )
    try:
        wait_for_port(port, server)
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="unused", timeout=120)
        question = [{"role": "user", "content": DIALOGUE[0][0]}]
        request = {"model": str(exported_dir), "messages": question, "temperature": 0, "max_tokens": 24}
        whole = client.chat.completions.create(**request).choices[0].message.content
        pieces = [
            chunk.choices[0].delta.content or "" for chunk in client.chat.completions.create(**request, stream=True)
        ]
    finally:
        server.terminate()
        server.wait(timeout=20)
    assert whole == plain_greedy_reply(exported_dir, question)
    assert "".join(pieces) == whole
    assert len([piece for piece in pieces if piece]) > 1


def wait_for_port(port, server, seconds=120):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert server.poll() is None, "the server ended"
        with socket.socket() as connection:
            if connection.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise AssertionError("the server did not start")


@pytest.mark.parametrize("flag", ["--adapter-only", "--base-only", "--check-only"])
def test_flags_of_gguf_files_need_a_type(flag):
    done = export(flag)
    assert done.returncode == 2
    assert "need --gguf TYPE" in done.stderr


def test_a_gguf_file_is_never_overwritten_and_has_a_name_of_its_own(tmp_path, saved_dir):
    (tmp_path / "mine.gguf").write_bytes(b"mine")
    for path, words in [("mine.gguf", "exists already"), (".", "is a folder"), ("model.bin", "ends in .gguf")]:
        done = export("--saved-model-path", saved_dir, "--gguf", "f32", "--export-path", tmp_path / path)
        assert done.returncode == 1
        assert words in done.stderr
        assert done.stderr.count("\n") == 1
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"mine"]


def test_a_disk_that_is_too_small_is_said_before_writing(tmp_path):
    with pytest.raises(ScriptError, match=r"takes 931322574\.6 GiB of disk"):
        check_disk(tmp_path / "not/yet/model.gguf", 10**18)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_gguf_files_lie_in_the_trained_folder_with_a_modelfile(tmp_path, saved_dir):
    own_dir = shutil.copytree(saved_dir, tmp_path / "saved")
    settings = json.loads((own_dir / "training_settings.json").read_text(encoding="utf-8"))
    settings |= {"context": "who", "partners": [{"name": "Ruth"}]}
    (own_dir / "training_settings.json").write_text(json.dumps(settings), encoding="utf-8")
    modelfile_path = own_dir / "gguf/Modelfile"
    modelfile_path.parent.mkdir(mode=0o700)
    modelfile_path.write_text("FROM llama3\n")  # the user's own, left alone until it is replaced below
    printed = {}
    for flags in (["--base-only"], ["--adapter-only"], [], ["--check-only"]):
        done = run_forked(SCRIPT, "--saved-model-path", own_dir, "--gguf", "f32", *flags)
        assert (done.returncode, done.stderr) == (0, "")
        printed[" ".join(flags)] = done.stdout
        if flags == ["--adapter-only"]:
            assert modelfile_path.read_text() == "FROM llama3\n"
            modelfile_path.write_text(f"{OWN_LINE}\n")
    assert "Not written" in printed["--adapter-only"] and "Next, " in printed["--adapter-only"]
    assert printed[""].endswith(f"chat_bot.py --saved-model-path {own_dir}\n")
    assert "Next, " not in printed["--base-only"]
    told = [name for name, text in printed.items() if "with whom and when, as in training: Ruth\n" in text]
    assert told == ["--adapter-only", ""]
    assert {path.name for path in (own_dir / "gguf").iterdir()} == {
        "base-f32.gguf", "adapter-f32.gguf", "model-f32.gguf", "Modelfile",
    }  # fmt: skip
    assert all(path.stat().st_mode & 0o077 == 0 for path in (own_dir / "gguf").rglob("*"))
    assert "FROM ./model-f32.gguf" in (own_dir / "gguf/Modelfile").read_text()
    assert "the earlier one was replaced" in printed[""]
    assert all("the same token ids in 20 probes" in text for text in printed.values())
    assert "Written" not in printed["--check-only"]


def test_a_full_disk_leaves_no_gguf_file(tmp_path, saved_dir):
    options = Namespace(gguf="f32", adapter_only=False, base_only=False, export_path=tmp_path / "a/b.gguf")
    with full_disk(200_000), pytest.raises(OSError, match="File too large"):
        export_gguf(check_saved_model(saved_dir), options)
    assert list(tmp_path.iterdir()) == []


def test_layers_that_share_their_weight_cannot_be_merged(tiny_base_dir):
    """Zamba 2: the adapters of both would be added to the one weight."""
    base = AutoModelForCausalLM.from_pretrained(tiny_base_dir)
    settings = LoraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM")
    refuse_shared_layers(get_peft_model(copy.deepcopy(base), settings), "mine")
    first, second = (layer.self_attn.q_proj for layer in base.model.layers)
    second.weight = first.weight
    with pytest.raises(
        ScriptError, match="^mine: shares weights between its layers, .*; load base and adapter with peft"
    ):
        refuse_shared_layers(get_peft_model(base, settings), "mine")
