"""The report's batches at fixed addresses: the library's replies, and those of one prompt at a time."""

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from saved_model_checks import check_saved_model
from static_decoding import StaticDecoder
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
def test_captured_steps_of_a_batch_give_the_logits_of_one_pass_over_each_row(tiny_saved_model_dir, prompts):
    """By logits: a card rounds a step and a pass in different ways, and near ties may fall either way."""
    trained = load_trained_model(check_saved_model(tiny_saved_model_dir), device="cuda", dtype="float32")
    decoder = StaticDecoder(trained.model, len(prompts), 256)
    drawn = torch.randint(10, 400, (len(prompts), 20), generator=torch.Generator().manual_seed(0)).tolist()
    for is_tuned in (True, False):
        with nullcontext() if is_tuned else trained.model.disable_adapter():
            decoder.rewind(0)
            decoder.read(prompts)
            for number in range(20):
                for row, (prompt, ids) in enumerate(zip(prompts, drawn, strict=True)):
                    whole = torch.tensor([[*prompt, *ids[:number]]], device="cuda")
                    with torch.no_grad():
                        expected = trained.model(input_ids=whole).logits[0, -1].float()
                    difference = (decoder.logits[row] - expected).norm() / (expected - expected.mean()).norm()
                    assert difference <= 1e-2, (is_tuned, number, row)
                decoder.step(torch.tensor([ids[number] for ids in drawn], device="cuda"))
    assert decoder.why_direct is None and len(decoder.graphs) == 2


@pytest.mark.gpu
def test_captured_batches_repeat(tiny_saved_model_dir, prompts):
    trained = load_trained_model(check_saved_model(tiny_saved_model_dir), device="cuda", dtype="float32")
    greedy = replace(trained.sampling, do_sample=False, max_new_tokens=30)
    captured = BatchGeneration(trained)
    for sampling in (greedy, replace(greedy, do_sample=True)):
        assert captured.generate(prompts, sampling, 0) == captured.generate(prompts, sampling, 0)
