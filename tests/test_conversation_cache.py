"""Both caches give the same replies: the library's own, and the one at fixed addresses that a CUDA card captures."""

from dataclasses import replace

import base_families
import pytest
import torch
from conversation_cache import GrowingCache, StaticCache, open_cache
from conversing import regenerate, say
from live_conversation import Conversation
from saved_model_checks import check_saved_model
from static_decoding import CHUNK_TOKENS, MOST_CHUNKED_TOKENS, NotStatic, StaticDecoder
from torch.utils._python_dispatch import TorchDispatchMode
from trained_model import TrainedModel, load_trained_model
from transformers import AutoModelForCausalLM

from common.compute_device import Device
from common.model_folder import Sampling

END_ID = 2
HOT = Sampling(temperature=1.3, min_p=0.02, top_p=0.9, top_k=60, repetition_penalty=1.3, max_new_tokens=20)
SAMPLINGS = {
    "greedy": replace(HOT, do_sample=False),
    "hot": HOT,
    "plain": Sampling(temperature=1.0, min_p=0.0, max_new_tokens=20),
}


class Ids:
    """Takes a reply's ids as a ReplyStream does; only the end token ends it."""

    def __init__(self, num_prompt_tokens):
        self.num_prompt_tokens = num_prompt_tokens

    def take(self, token_id):
        return token_id == END_ID

    def __call__(self, input_ids, scores, **_kwargs):
        return torch.zeros(1, dtype=torch.bool, device=input_ids.device)


def reply_ids(cache, prompt_ids, sampling, seed=0):
    """Return the ids of one reply, and how many of the prompt's were taken from the cache."""
    num_reused = cache.rewind(prompt_ids)
    return cache.generate(prompt_ids, sampling, seed, Ids(len(prompt_ids)))[len(prompt_ids) :], num_reused


@pytest.fixture(params=base_families.FAMILIES)
def family_model(request):
    """A random base of one family, ready to generate; windows of 12 tokens where the family has any."""
    torch.manual_seed(0)
    config = base_families.make_config(request.param)
    if getattr(config, "sliding_window", None):
        config.sliding_window = 12
    config.tie_word_embeddings = False
    model = AutoModelForCausalLM.from_config(config).eval()
    torch.nn.init.normal_(model.get_output_embeddings().weight, std=0.5)  # or one token would follow again and again
    return TrainedModel(
        model=model,
        tokenizer=None,
        settings={},
        sampling=Sampling(),
        end_ids=frozenset({END_ID}),
        context_tokens=128,
        device=Device("cpu", torch.float32, False),
    )


@pytest.mark.parametrize("name", ["hot", *(pytest.param(name, marks=pytest.mark.slow) for name in ("greedy", "plain"))])
def test_every_family_draws_the_same_ids(family_model, name):
    growing, static = GrowingCache(family_model), StaticCache(family_model)
    texts = torch.randint(3, 99, (5, 40), generator=torch.Generator().manual_seed(1)).tolist()
    prompts = {
        "new": lambda last: texts[0],
        "regenerated": lambda last: texts[0],
        "edited": lambda last: texts[0][:20] + texts[1][:15],
        "continued": lambda last: [*last, *texts[3]],
        "another": lambda last: texts[2],
    }
    last, num_different = [], 0
    for number, (change, make_prompt) in enumerate(prompts.items()):
        prompt_ids = make_prompt(last)
        outcomes = [reply_ids(cache, prompt_ids, SAMPLINGS[name], seed=number) for cache in (growing, static)]
        (found, num_reused), (static_found, static_num_reused) = outcomes
        assert static_found == found, change
        assert num_reused == {"regenerated": 39, "edited": 20, "continued": len(last) - 1}.get(change, 0)
        assert static_num_reused - num_reused in (0, 1)  # it may hold the reply's last token, too
        num_different += len(set(found))
        last = prompt_ids + found
    assert num_different > 10  # or all caches would look the same


def test_a_base_that_keeps_one_state_reads_each_prompt_from_its_beginning():
    """Short convolutions keep the last tokens alone: their state cannot be cut back to an earlier one."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(base_families.make_config("lfm2")).eval()
    greedy = SAMPLINGS["greedy"]
    trained = TrainedModel(
        model=model, tokenizer=None, settings={}, sampling=greedy, end_ids=frozenset({END_ID}), context_tokens=128,
        device=Device("cpu", torch.float32, False),
    )  # fmt: skip
    cache = GrowingCache(trained)
    first, _ = reply_ids(cache, [5, 6, 7, 8], greedy)
    for prompt_ids in ([5, 6, 7, 8, *first, 9], [5, 6, 30], [40, 41]):
        expected = trained.generate(torch.tensor([prompt_ids]), greedy, seed=0)[0, len(prompt_ids) :].tolist()
        assert reply_ids(cache, prompt_ids, greedy) == (expected, 0)


def test_a_prompt_too_long_for_chunks_draws_the_same_ids(tiny_model):
    long_model = replace(tiny_model, context_tokens=400)
    prompt_ids = torch.randint(
        10, 400, (MOST_CHUNKED_TOKENS + 20,), generator=torch.Generator().manual_seed(0)
    ).tolist()
    growing, static = GrowingCache(long_model), StaticCache(long_model)
    assert reply_ids(static, prompt_ids, SAMPLINGS["hot"]) == reply_ids(growing, prompt_ids, SAMPLINGS["hot"])


def test_sampled_conversations_are_the_same(tiny_model):
    replies = []
    for kind in (GrowingCache, StaticCache):
        conversation = Conversation(tiny_model, seed=3, sampling=replace(HOT, max_bubbles=2), cache=kind(tiny_model))
        said = [say(conversation, "שלום מה נשמע"), say(conversation, "ok"), regenerate(conversation)]
        replies.append([(reply.text, reply.ending, reply.num_new_tokens) for reply in said])
    assert replies[0] == replies[1]


@pytest.mark.parametrize("rope_type", ["dynamic", "longrope"])
def test_positions_that_depend_on_the_length_are_refused_by_name(tiny_model, rope_type):
    config = tiny_model.model.config
    before = config.rope_parameters
    try:
        config.rope_parameters = {**before, "rope_type": rope_type}
        with pytest.raises(NotStatic, match="rotary positions depend on the length"):
            StaticCache(tiny_model)
    finally:
        config.rope_parameters = before


class WronglyMasked(StaticDecoder):
    """Sees one place too many: its own future."""

    def _make_masks(self, places, num_visible):
        return super()._make_masks(places + 1, num_visible)


class WronglyPlaced(StaticDecoder):
    """Forgets the padding before a row."""

    def _positions(self, places):
        return places[None].expand(self.num_rows, -1) if len(places) == 1 else super()._positions(places)


@pytest.mark.parametrize(("wrong", "num_rows"), [(WronglyMasked, 1), (WronglyMasked, 3), (WronglyPlaced, 3)])
def test_a_step_that_differs_from_the_library_s_pass_is_refused(tiny_model, wrong, num_rows):
    StaticDecoder(tiny_model.model, num_rows, 64)
    with pytest.raises(NotStatic, match="differs from one pass"):
        wrong(tiny_model.model, num_rows, 64)


def test_a_processor_keeps_the_library_s_way(tiny_model):
    cache = open_cache(tiny_model)
    assert isinstance(cache, GrowingCache) and cache.why_direct is None


@pytest.mark.gpu
def test_the_captured_step_equals_the_plain_one(tiny_saved_model_dir):
    trained = load_trained_model(check_saved_model(tiny_saved_model_dir), device="cuda", dtype="float32")
    captured, direct, growing = StaticCache(trained), StaticCache(trained), GrowingCache(trained)
    direct.decoder.why_direct = "not captured, to compare"
    prompt_ids = torch.randint(10, 400, (60,), generator=torch.Generator().manual_seed(0)).tolist()
    for name, sampling in SAMPLINGS.items():
        for number, length in enumerate((60, 60, 30)):
            expected, _num_reused = reply_ids(growing, prompt_ids[:length], sampling, seed=number)
            assert reply_ids(direct, prompt_ids[:length], sampling, seed=number)[0] == expected, name
            assert reply_ids(captured, prompt_ids[:length], sampling, seed=number)[0] == expected, name
            difference = (captured.decoder.logits - direct.decoder.logits).abs().max()
            assert difference <= 1e-4 * direct.decoder.logits.std()
    assert captured.why_direct is None and len(captured.decoder.graphs) == 2
    assert isinstance(open_cache(trained), StaticCache)


class NotedOperations(TorchDispatchMode):
    """Notes the name of each operation."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, operation, types, arguments=(), options=None):
        self.names.add(operation.overloadpacket.__name__)
        return operation(*arguments, **(options or {}))


@pytest.mark.parametrize("num_rows", [1, 3])
def test_no_step_waits_for_a_value_or_brings_one_from_python(family_model, num_rows):
    decoder = StaticDecoder(family_model.model, num_rows, 64)
    addresses = [layer.keys.data_ptr() for layer in decoder._cache.layers] + [decoder.logits.data_ptr()]
    with torch.no_grad(), NotedOperations() as noted:
        for width in (1, CHUNK_TOKENS):
            decoder._compute(width, 64)
    # `item`, `torch.tensor`, a shape that depends on values: a CUDA graph can capture none of them.
    forbidden = {"_local_scalar_dense", "lift_fresh", "lift_fresh_copy", "nonzero", "masked_select", "where", "unique"}
    assert not noted.names & forbidden
    assert addresses == [layer.keys.data_ptr() for layer in decoder._cache.layers] + [decoder.logits.data_ptr()]
