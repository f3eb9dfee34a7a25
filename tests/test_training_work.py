"""The work of a run: guessed without data, counted near what is prepared."""

import dataclasses
import json

import pytest
from prepared_run import prepare_run
from recipes import DEFAULT_RECIPE
from training_options import parse_options
from training_work import count_work, measure_work, work_of_replies

from common.base_model_files import BaseModel
from common.conversation_data import Conversation, read_training_data

DEFAULT_BASE = BaseModel("yam-peleg/Hebrew-Mistral-7B", None)


def test_more_replies_are_more_tokens_in_at_most_as_many_epochs():
    few, many = (work_of_replies(number, DEFAULT_RECIPE) for number in (1_000, 20_000))
    assert many.epoch_tokens == 20 * few.epoch_tokens
    assert many.num_epochs <= few.num_epochs


def test_where_everyone_is_learnt_a_guess_takes_every_token():
    work = work_of_replies(1_000, dataclasses.replace(DEFAULT_RECIPE, train_on="everyone"))
    assert (work.epoch_supervised_tokens, work.supervised_share) == (work.epoch_tokens, 1.0)


@pytest.mark.parametrize(("is_on_disk", "tolerance"), [(True, 0.15), (False, 0.6)])
@pytest.mark.parametrize("num_corrections", [None, 20])
def test_counted_work_is_near_what_a_run_prepares(
    sample_conversations, tiny_base_dir, tmp_path, is_on_disk, tolerance, num_corrections
):
    data_path = tmp_path / "data.jsonl"
    data_path.write_text("".join(json.dumps({"messages": talk}) + "\n" for talk in sample_conversations))
    data = read_training_data(data_path)
    corrections = num_corrections and dataclasses.replace(data, conversations=data.conversations[:num_corrections])
    base = BaseModel("tiny", tiny_base_dir)
    options = parse_options("", {"base_model_id": "", "path_to_data": "", "saved_model_path": "x"}, 0, [])
    prepared = measure_work(prepare_run(options, data, base, corrections).material)
    corrected = corrections.conversations if corrections else []
    counted = count_work(data.conversations, DEFAULT_RECIPE, base if is_on_disk else DEFAULT_BASE, corrected)
    assert counted.epoch_tokens == pytest.approx(prepared.epoch_tokens, rel=tolerance)
    assert counted.epoch_supervised_tokens == pytest.approx(prepared.epoch_supervised_tokens, rel=tolerance)
    assert counted.num_epochs == prepared.num_epochs
    assert counted.has_held_out == prepared.has_held_out


def test_where_nothing_is_held_out_no_evaluation_is_counted(sample_conversations):
    few, many = (
        [Conversation(number, talk, "") for number, talk in enumerate(sample_conversations[:size])] for size in (8, 100)
    )
    assert not count_work(few, DEFAULT_RECIPE, DEFAULT_BASE).has_held_out
    assert count_work(many, DEFAULT_RECIPE, DEFAULT_BASE).has_held_out
