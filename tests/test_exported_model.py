"""The style report on the exported model: its bits and its replies are those of the tuned model."""

import shutil

import pytest
from gguf_file import GgufExport
from gguf_header import find_model_files
from llama_cpp_model import run_llama_cpp_model
from saved_model_checks import check_saved_model
from writing_style.exported_model import generate_exported, measure_cost, score_exported
from writing_style.held_out_replies import list_exchanges, take_evenly
from writing_style.model_replies import encode_fitting, score_replies
from writing_style.style_page import describe_cost


@pytest.fixture(scope="module", params=["f32", "q8_0"])
def exported(request, tmp_path_factory, tiny_saved_model_dir):
    folder = shutil.copytree(tiny_saved_model_dir, tmp_path_factory.mktemp("exported") / "saved")
    saved = check_saved_model(folder)
    (folder / "gguf").mkdir()
    GgufExport(saved, "model", request.param).write(folder / f"gguf/model-{request.param}.gguf")
    with run_llama_cpp_model(saved, find_model_files(saved)) as model:
        yield model


@pytest.fixture(scope="module")
def exchanges(sample_conversations):
    return take_evenly(list_exchanges(dict(enumerate(sample_conversations))), 12)


def test_bits_are_those_of_the_unquantised_adapter(tiny_model, exported, exchanges):
    unquantised = score_replies(tiny_model.model, tiny_model.tokenizer, exchanges, tiny_model.context_tokens)
    scored = score_exported(exported, exchanges, unquantised)
    is_exact = exported.computed_on.endswith("f32")
    for before, after in zip(unquantised, scored, strict=True):
        assert after.tuned_bits == pytest.approx(before.tuned_bits, rel=1e-4 if is_exact else 0.1)
        assert (after.base_bits, after.num_chars) == (before.base_bits, before.num_chars)
    cost = measure_cost(exported, unquantised, scored, seed=0)
    total_before, total_after = (sum(reply.tuned_bits for reply in replies) for replies in (unquantised, scored))
    num_chars = sum(reply.num_chars for reply in scored)
    assert cost["difference"]["value"] == pytest.approx((total_after - total_before) / num_chars, abs=1e-9)
    assert cost["difference"]["low"] <= cost["difference"]["value"] <= cost["difference"]["high"]
    if not is_exact:
        assert abs(cost["difference"]["value"]) > 1e-6  # a quantised file that costs nothing was not measured
    assert f"the exported model (cpu, llama.cpp, {exported.type_name})" in describe_cost(cost)


def test_replies_repeat_with_the_seed(exported, exchanges):
    prompts = [
        encode_fitting(exported.tokenizer, exchange.context, 100, add_generation_prompt=True).input_ids[-100:]
        for exchange in exchanges[:4]
    ]
    first, again, other = (generate_exported(exported, prompts, exported.sampling, seed) for seed in (3, 3, 4))
    assert first == again != other
    assert all(reply.text or reply.ending for reply in first)
