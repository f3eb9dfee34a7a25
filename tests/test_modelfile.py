"""The Modelfile says what Ollama cannot find in the GGUF file: the template, the sampling values, where a reply stops."""

import base_families
import pytest
from modelfile import is_own_modelfile, write_modelfile
from transformers import AutoTokenizer


@pytest.fixture
def modelfile_lines(tmp_path):
    """A function that returns the lines of a Modelfile written for a tokenizer."""

    def write(tokenizer, generation=None, *names):
        write_modelfile(tmp_path / "Modelfile", tokenizer, generation or {}, *(names or ["model-q8_0.gguf"]))
        return (tmp_path / "Modelfile").read_text(encoding="utf-8").splitlines()

    return write


def test_it_speaks_the_template(modelfile_lines, tiny_saved_model_dir):
    tokenizer = AutoTokenizer.from_pretrained(tiny_saved_model_dir)
    lines = modelfile_lines(tokenizer, {"temperature": 0.7, "repetition_penalty": 1.0})
    assert "FROM ./model-q8_0.gguf" in lines
    assert "PARAMETER temperature 0.7" in lines
    assert "PARAMETER repeat_penalty 1.0" in lines
    assert [line for line in lines if "stop" in line] == ['PARAMETER stop "</s>"']
    # The GGUF file adds no token by itself, so the first one stands in the template.
    assert any(line.startswith('TEMPLATE """<s>{{') and "<person2>" in line and "</s>" in line for line in lines)


def test_a_template_of_the_base_is_left_to_the_gguf_file(modelfile_lines, sample_conversations):
    lines = modelfile_lines(base_families.make_tokenizer("qwen3", [sample_conversations[0][0]["content"]]))
    assert not any(line.startswith("TEMPLATE") for line in lines)


@pytest.mark.parametrize(("family", "end_of_turn"), [("qwen3", "<|im_end|>"), ("gemma2", "<end_of_turn>")])
def test_it_stops_where_training_stopped(modelfile_lines, family, end_of_turn):
    # Reported of other tools: a reply went on because its end is not the tokenizer's end of a text.
    tokenizer = base_families.make_tokenizer(family, ["some words"])
    stops = [line for line in modelfile_lines(tokenizer) if "stop" in line]
    assert stops == [f'PARAMETER stop "{end_of_turn}"', f'PARAMETER stop "{tokenizer.eos_token}"']


def test_an_adapter_lies_on_its_base(modelfile_lines, tiny_saved_model_dir):
    tokenizer = AutoTokenizer.from_pretrained(tiny_saved_model_dir)
    lines = modelfile_lines(tokenizer, {}, "base-q8_0.gguf", "adapter-q8_0.gguf")
    assert lines[1:3] == ["FROM ./base-q8_0.gguf", "ADAPTER ./adapter-q8_0.gguf"]


def test_nothing_in_a_trained_folder_becomes_a_line_of_its_own(modelfile_lines, tiny_saved_model_dir):
    tokenizer = AutoTokenizer.from_pretrained(tiny_saved_model_dir)
    number_of_lines = len(modelfile_lines(tokenizer, {"temperature": 0.7, "top_k": 10}))
    lines = modelfile_lines(tokenizer, {"temperature": "0.7\n", "top_k": "1_0"}, "base-x\nFROM evil.gguf")
    assert len(lines) == number_of_lines
    assert {"PARAMETER temperature 0.7", "PARAMETER top_k 10"} <= set(lines)
    tokenizer.add_special_tokens({"eos_token": 'x"""\nFROM evil\nTEMPLATE """'})
    lines = modelfile_lines(tokenizer)
    assert [line for line in lines if line.startswith(("FROM", "TEMPLATE"))] == ["FROM ./model-q8_0.gguf"]


def test_a_modelfile_of_others_is_told_from_one_written_here(modelfile_lines, tmp_path, tiny_saved_model_dir):
    modelfile_lines(AutoTokenizer.from_pretrained(tiny_saved_model_dir))
    assert is_own_modelfile(tmp_path / "Modelfile")
    (tmp_path / "Modelfile").write_text("FROM llama3\n")
    assert not is_own_modelfile(tmp_path / "Modelfile")
    assert not is_own_modelfile(tmp_path)
