"""The report's batches at fixed addresses: the library's replies, and those of one prompt at a time."""

from dataclasses import replace

import pytest
from saved_model_checks import check_saved_model
from trained_model import load_trained_model
from writing_style.model_replies import BatchGeneration

PROMPTS = [
    [{"role": "user", "content": text}]
    for text in ("שלום", "ok what now? where are you going today", "five", "yes! ביי", "😂", "see you", "hm", "hello")
]


@pytest.fixture
def prompts(tiny_model):
    return [tiny_model.encode_prompt(messages)[0] for messages in PROMPTS]


@pytest.mark.parametrize("do_sample", [False, True])
def test_a_batch_is_what_the_library_draws_with_the_same_seed(tiny_model, prompts, do_sample):
    sampling = replace(tiny_model.sampling, do_sample=do_sample, max_new_tokens=30, repetition_penalty=1.2)
    static, library = (BatchGeneration(tiny_model, is_static) for is_static in (True, False))
    for seed, batch in enumerate((prompts, prompts[:3], prompts[::-1])):
        replies = static.generate(batch, sampling, seed)
        assert replies == library.generate(batch, sampling, seed)
        assert len({reply.text for reply in replies}) > 1


def test_a_greedy_batch_is_what_one_prompt_at_a_time_gives(tiny_model, prompts):
    greedy = replace(tiny_model.sampling, do_sample=False, max_new_tokens=30)
    generation = BatchGeneration(tiny_model, is_static=True)
    alone = [generation.generate([prompt], greedy, 0)[0] for prompt in prompts[:6]]
    assert generation.generate(prompts[:6], greedy, 0) == alone  # six prompts: two rows of the eight are unused


def test_the_base_is_another_writer_on_the_same_decoder(tiny_model, prompts):
    greedy = replace(tiny_model.sampling, do_sample=False, max_new_tokens=30)
    static, library = (BatchGeneration(tiny_model, is_static) for is_static in (True, False))
    tuned = static.generate(prompts, greedy, 0)
    with tiny_model.model.disable_adapter():
        base = static.generate(prompts, greedy, 0)
        assert base == library.generate(prompts, greedy, 0)
    assert tuned != base
    assert static.generate(prompts, greedy, 0) == tuned


@pytest.mark.gpu
@pytest.mark.parametrize("do_sample", [False, True])
def test_a_captured_batch_is_what_the_library_draws(tiny_saved_model_dir, prompts, do_sample):
    trained = load_trained_model(check_saved_model(tiny_saved_model_dir), device="cuda", dtype="float32")
    sampling = replace(trained.sampling, do_sample=do_sample, max_new_tokens=30)
    captured, library = BatchGeneration(trained), BatchGeneration(trained, is_static=False)
    for seed in range(3):
        assert captured.generate(prompts, sampling, seed) == library.generate(prompts, sampling, seed)
    with trained.model.disable_adapter():
        assert captured.generate(prompts, sampling, 0) == library.generate(prompts, sampling, 0)
    assert captured._decoder.why_direct is None and len(captured._decoder.graphs) == 2
