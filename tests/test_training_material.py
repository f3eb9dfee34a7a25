"""What a run reads, counted: how full the rows are, what is padding, what is cut, and how many processes share a step."""

import dataclasses

import pytest
from held_out_sets import HeldOut
from recipes import DEFAULT_RECIPE, PUBLISHED_RECIPE
from run_check import guess_work, measure_work
from training_material import load_tokenizer, prepare_material

from common.conversation_data import Conversation
from common.script import ScriptError

NOTHING_HELD_OUT = HeldOut([], [], [])
ROW = 160


@pytest.fixture(scope="module")
def prepare(tiny_base_dir, sample_conversations):
    """Prepare the forty conversations, or others, by a recipe."""
    tokenizer = load_tokenizer(tiny_base_dir, "tiny")
    talks = [Conversation(number, messages, "") for number, messages in enumerate(sample_conversations)]

    def prepare(recipe, talks=talks, num_processes=1):
        return prepare_material(tokenizer, talks, NOTHING_HELD_OUT, recipe, num_processes, seed=0)

    return prepare


def published(**changes):
    return dataclasses.replace(PUBLISHED_RECIPE, max_length=ROW, **changes)


def test_rows_are_never_more_than_full(prepare):
    talk = [{"role": "user", "content": "where? " * 200}, {"role": "assistant", "content": "here " * 300}]
    recipe = dataclasses.replace(DEFAULT_RECIPE, step_tokens=512)
    assert prepare(recipe, [Conversation(0, talk, "")]).fill == 1
    assert 0.5 < prepare(recipe).fill < 1


def test_padding_is_computed_and_counted(prepare):
    packed, padded = prepare(DEFAULT_RECIPE), prepare(published())
    assert packed.num_computed_tokens == packed.num_tokens
    assert padded.num_computed_tokens == 40 * ROW
    assert padded.fill == padded.num_tokens / (40 * ROW)
    work = measure_work(padded)
    assert work.epoch_computed_tokens == work.epoch_logits == 40 * ROW
    assert work.epoch_tokens == padded.num_tokens


def test_padding_counts_before_a_tokenizer_is_there(sample_conversations):
    talks = [Conversation(number, messages, "") for number, messages in enumerate(sample_conversations)]
    assert guess_work(talks, published()).epoch_computed_tokens == 40 * ROW
    assert guess_work(talks, DEFAULT_RECIPE).epoch_computed_tokens == guess_work(talks, DEFAULT_RECIPE).epoch_tokens


@pytest.mark.parametrize("num_processes, batches_per_step", [(1, 4), (2, 4), (3, 6), (8, 8)])
def test_each_process_gets_as_many_batches_of_the_published_recipe(prepare, num_processes, batches_per_step):
    assert prepare(published(), num_processes=num_processes).schedule.packs_per_step == batches_per_step


def test_the_published_recipe_counts_conversations_that_lose_their_end(prepare):
    lengths = prepare(dataclasses.replace(published(), max_length=2000)).lengths
    assert 0 < prepare(published()).num_cut == sum(length > ROW for length in lengths) < 40
    assert max(prepare(published()).lengths) == ROW


def test_a_row_that_loses_all_its_replies_is_left_out(prepare):
    late = [{"role": "user", "content": "and then " * 200}, {"role": "assistant", "content": "no"}]
    soon = [{"role": "user", "content": "well?"}, {"role": "assistant", "content": "no"}]
    recipe = published(train_on="person")
    assert len(prepare(recipe, [Conversation(0, late, ""), Conversation(1, soon, "")]).lengths) == 1
    with pytest.raises(ScriptError, match="no reply begins within 160 tokens"):
        prepare(recipe, [Conversation(0, late, "")])


def test_whose_words_are_learnt_is_a_flag_in_either_recipe(prepare):
    for recipe in (DEFAULT_RECIPE, published()):
        everyone, person = (
            prepare(dataclasses.replace(recipe, train_on=whose)).num_supervised_tokens
            for whose in ("everyone", "person")
        )
        assert person < 0.8 * everyone
