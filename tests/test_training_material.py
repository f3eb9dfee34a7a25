"""What a run reads, counted: how full the rows are, and whose words are learnt."""

import dataclasses

import pytest
from held_out_sets import HeldOut
from recipes import DEFAULT_RECIPE
from training_material import load_tokenizer, prepare_material

from common.conversation_data import Conversation

NOTHING_HELD_OUT = HeldOut([], [], [])


@pytest.fixture(scope="module")
def prepare(tiny_base_dir, sample_conversations):
    """Prepare the forty conversations, or others, by a recipe."""
    tokenizer = load_tokenizer(tiny_base_dir, "tiny")
    talks = [Conversation(number, messages, "") for number, messages in enumerate(sample_conversations)]

    def prepare(recipe, talks=talks, num_processes=1):
        return prepare_material(tokenizer, talks, NOTHING_HELD_OUT, recipe, num_processes, seed=0)

    return prepare


def test_rows_are_never_more_than_full(prepare):
    talk = [{"role": "user", "content": "where? " * 200}, {"role": "assistant", "content": "here " * 300}]
    recipe = dataclasses.replace(DEFAULT_RECIPE, step_tokens=512)
    assert prepare(recipe, [Conversation(0, talk, "")]).fill == 1
    assert 0.5 < prepare(recipe).fill < 1


def test_whose_words_are_learnt_is_a_flag(prepare):
    everyone, person = (
        prepare(dataclasses.replace(DEFAULT_RECIPE, train_on=whose)).num_supervised_tokens
        for whose in ("everyone", "person")
    )
    assert person < 0.8 * everyone
