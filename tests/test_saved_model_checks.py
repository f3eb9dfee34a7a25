"""A trained folder is refused, in one line with the cure, before any model library is imported."""

import json
import os
import shutil
import struct
from pathlib import Path

import pytest
from irregular_files import make_irregular
from saved_model_checks import check_saved_model

from common.script import ScriptError, printable


@pytest.fixture
def saved_copy(tiny_saved_model_dir, tmp_path):
    """A copy of the trained folder, to be damaged."""
    return Path(shutil.copytree(tiny_saved_model_dir, tmp_path / "saved"))


@pytest.fixture
def base_copy(tiny_base_dir, tmp_path):
    """A copy of its base."""
    return Path(shutil.copytree(tiny_base_dir, tmp_path / "base"))


def change_json(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


def refusal(saved_copy, base_model_id=None):
    with pytest.raises(ScriptError) as raised:
        check_saved_model(saved_copy, base_model_id)
    message = str(raised.value)
    assert "\n" not in message and ";" in message, "one line: what is wrong; what to do"
    return message


def test_a_good_folder_is_accepted_with_its_base(saved_copy, tiny_base_dir):
    saved = check_saved_model(saved_copy)
    assert saved.base_dir == tiny_base_dir
    assert saved.generation["temperature"] == saved.sampling.temperature == 0.7


def test_a_value_out_of_range_is_named(saved_copy):
    change_json(saved_copy / "generation_config.json", temperature=-1)
    error = refusal(saved_copy)
    assert error.endswith("generation_config.json: temperature must be a number from 0.01 to 5; correct it")


@pytest.mark.parametrize("changes", [{"context": "all"}, {"context": None}, {"partners": "Ruth"}, {"partners": [{}]}])
def test_a_context_that_stage_2_does_not_write_is_damage(saved_copy, changes):
    change_json(saved_copy / "training_settings.json", **changes)
    assert "training_settings.json: is damaged" in refusal(saved_copy)


def test_no_model_yet(tmp_path):
    assert "no trained model yet; run src/training/fine_tuning_model.py" in refusal(tmp_path / "missing")
    (tmp_path / "file").touch()
    assert "is a file, not the folder of a trained model" in refusal(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    assert "holds no finished training" in refusal(tmp_path / "empty")


@pytest.mark.parametrize(
    "name",
    [
        "adapter_config.json",
        "adapter_model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "generation_config.json",
    ],
)
def test_a_missing_part_is_named(saved_copy, name):
    (saved_copy / name).unlink()
    assert name in refusal(saved_copy)


@pytest.mark.parametrize(
    "name", ["adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "training_settings.json"]
)
@pytest.mark.parametrize("damage", ["cut", "emptied", "a list"])
def test_a_damaged_part_is_named(saved_copy, name, damage):
    content = (saved_copy / name).read_bytes()
    (saved_copy / name).write_bytes({"cut": content[: len(content) // 2], "emptied": b"", "a list": b"[]"}[damage])
    assert f"{name}: is damaged; train again" in refusal(saved_copy)


def test_absurd_weights_header_is_damage(saved_copy):
    (saved_copy / "adapter_model.safetensors").write_bytes(struct.pack("<Q", 2**60) + b"{}")
    assert "is damaged" in refusal(saved_copy)


def test_another_base_is_refused_by_its_fingerprint(saved_copy, base_copy):
    assert check_saved_model(saved_copy, str(base_copy)).base_dir == base_copy  # the same one elsewhere is welcome
    change_json(base_copy / "config.json", num_hidden_layers=3)
    assert "is not the base model this was trained on" in refusal(saved_copy, str(base_copy))


def test_a_base_that_is_gone_is_named(saved_copy):
    change_json(saved_copy / "training_settings.json", base_model_id="nobody/no-such-base")
    error = refusal(saved_copy)
    assert "nobody/no-such-base: the base model this was trained on is not on this disk" in error
    assert error.endswith("or get it again: hf download nobody/no-such-base")


def test_a_folder_of_a_base_that_is_gone_is_named(saved_copy, tmp_path):
    change_json(saved_copy / "training_settings.json", base_model_id=str(tmp_path / "moved"))
    error = refusal(saved_copy)
    assert error.startswith(f"{tmp_path / 'moved'}: the base model this was trained on is not on this disk")
    assert error.endswith("give its folder with --base-model-id")
    change_json(saved_copy / "training_settings.json", base_model_id="a\0b")
    assert refusal(saved_copy).startswith("a\\x00b: the base model this was trained on is not on this disk")


def test_a_typed_base_that_is_not_there_is_not_taken_for_the_one_trained_on(saved_copy, tiny_base_dir):
    error = refusal(saved_copy, "nobody/no-such-base")
    assert error.startswith("nobody/no-such-base: this base model is not on this disk; omit --base-model-id")
    assert error.endswith(f"give the folder of {tiny_base_dir}")


def test_pickled_weights_are_never_opened(saved_copy):
    (saved_copy / "adapter_model.safetensors").rename(saved_copy / "adapter_model.bin")
    assert "adapter_model.bin could run code and is never opened" in refusal(saved_copy)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"peft_type": "PROMPT_TUNING"}, "is no LoRA adapter"),
        ({"r": 200_000_000}, "rank r must be 1 to 512"),
        ({"r": "32"}, "rank r must be 1 to 512"),
        ({"target_modules": ".*(a+)+$"}, "target_modules must be a list of names"),
        ({"target_modules": ["(a+)+$"]}, "target_modules must be a list of names"),
        ({"layer_replication": [[0, 200_000]]}, "sets layer_replication"),
        ({"auto_mapping": {"base_model_class": "X"}}, "sets auto_mapping"),
        ({"megatron_config": {"x": 1}}, "sets megatron_config"),
        ({"modules_to_save": ["lm_head"]}, "sets modules_to_save"),
        ({"something_new": "x"}, "sets something_new"),
    ],
)
def test_an_adapter_that_this_project_never_writes_is_refused(saved_copy, changes, reason):
    change_json(saved_copy / "adapter_config.json", **changes)
    assert reason in refusal(saved_copy)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("training_settings.json", {"max_length": True}),
        ("training_settings.json", {"max_length": 10**12}),
        ("training_settings.json", {"person": ["x"]}),
        ("adapter_config.json", {"lora_alpha": "16"}),
        ("adapter_config.json", {"lora_alpha": float("inf")}),
        ("adapter_config.json", {"lora_dropout": -1}),
        ("adapter_config.json", {"use_rslora": "yes"}),
        ("adapter_config.json", {"task_type": "X"}),
        ("adapter_config.json", {"r": True}),
        ("generation_config.json", {"temperature": [1]}),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused(saved_copy, name, changes):
    change_json(saved_copy / name, **changes)
    assert f"{name}: " in refusal(saved_copy)


@pytest.mark.parametrize(
    "name",
    [
        "adapter_config.json",
        "training_settings.json",
        "tokenizer.json",
        "adapter_model.safetensors",
        "chat_template.jinja",
        "special_tokens_map.json",
    ],
)
def test_a_pipe_in_the_place_of_a_file_is_refused_without_waiting(saved_copy, name):
    (saved_copy / name).unlink(missing_ok=True)
    os.mkfifo(saved_copy / name)
    assert f"{name}: " in refusal(saved_copy)


def test_a_file_larger_than_any_that_this_project_writes_is_not_read(saved_copy):
    with (saved_copy / "adapter_config.json").open("wb") as file:
        file.truncate(10**10)  # a hole: it takes no disk
    assert "adapter_config.json: is damaged" in refusal(saved_copy)


def test_foreign_code_is_refused_in_the_folder_and_in_the_base(saved_copy, base_copy):
    change_json(base_copy / "config.json", _attn_implementation="somebody/kernel")
    assert "_attn_implementation" in refusal(saved_copy, str(base_copy))
    change_json(saved_copy / "tokenizer_config.json", auto_map={"AutoTokenizer": "evil.Tokenizer"})
    assert "auto_map" in refusal(saved_copy)


def test_weights_of_another_number_type_are_damage(saved_copy):
    path = saved_copy / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes().replace(b'"dtype":"F32"', b'"dtype":"I32"'))
    assert "adapter_model.safetensors: is damaged" in refusal(saved_copy)


def test_settings_of_another_version_are_refused(saved_copy):
    change_json(saved_copy / "training_settings.json", format=2)
    assert "another version of this project" in refusal(saved_copy)


def test_the_checks_need_no_model_library(saved_copy, start_python):
    program = (
        "import sys; from pathlib import Path; from saved_model_checks import check_saved_model\n"
        "check_saved_model(Path(sys.argv[1]))\n"
        "print(sorted({'torch', 'transformers', 'peft', 'tokenizers', 'safetensors', 'numpy'} & set(sys.modules)))"
    )
    assert start_python(program, saved_copy).communicate(timeout=60) == ("[]\n", "")


HOSTILE_NAME = "x\x1b[2J\x9b1m\u202e\nscript: all is well"


@pytest.mark.parametrize("part", ["base in the settings", "typed base", "adapter key", "pickle", "shard", "config key"])
def test_no_name_from_a_file_acts_on_the_terminal_or_forges_a_line(saved_copy, base_copy, part):
    base = str(base_copy)
    if part == "base in the settings":
        change_json(saved_copy / "training_settings.json", base_model_id=HOSTILE_NAME)
        base = None
    elif part == "typed base":
        base = HOSTILE_NAME
    elif part == "adapter key":
        change_json(saved_copy / "adapter_config.json", **{HOSTILE_NAME: 1})
    elif part == "pickle":
        (saved_copy / "adapter_model.safetensors").rename(saved_copy / f"adapter_model.{HOSTILE_NAME}.bin")
    elif part == "shard":
        content = {"weight_map": {"lm_head.weight": HOSTILE_NAME}}
        (base_copy / "model.safetensors.index.json").write_text(json.dumps(content))
    else:
        change_json(base_copy / "config.json", **{f"{HOSTILE_NAME}_implementation": "somebody/kernel"})
    error = refusal(saved_copy, base)
    assert error == printable(error)
    assert "all is well" in error


def test_the_home_of_an_unknown_user_is_no_base(saved_copy):
    assert "~nosuchuser/base: no such folder" in refusal(saved_copy, "~nosuchuser/base")


@pytest.mark.parametrize("kind", ["pipe", "socket", "device"])
def test_what_is_no_file_in_a_folder_of_more_templates_is_refused_without_waiting(saved_copy, kind):
    path = saved_copy / "additional_chat_templates" / "other.jinja"
    path.parent.mkdir()
    make_irregular(path, kind)
    assert "other.jinja: is damaged" in refusal(saved_copy)
