"""The values of generation_config.json: read, checked, changed live."""

from dataclasses import fields

import pytest

from common.model_folder import Sampling


def test_takes_known_values_and_leaves_the_rest():
    config = {
        "do_sample": False,
        "temperature": 0.5,
        "top_k": 0,
        "eos_token_id": 2,
        "no_repeat_ngram_size": 3,
        "min_p": None,
    }
    assert Sampling.from_generation_config(config) == Sampling(do_sample=False, temperature=0.5, top_k=0)


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("temperature", "0", "temperature must be a number from 0.01 to 5"),
        ("temperature", "nan", "temperature must be a number from 0.01 to 5"),
        ("temperature", "hot", "temperature must be a number from 0.01 to 5"),
        ("top_k", "1.5", "top_k must be a whole number from 0 to 1,000,000"),
        ("do_sample", "perhaps", "do_sample must be on or off"),
        ("no_repeat_ngram_size", "3", "no setting named no_repeat_ngram_size"),
    ],
)
def test_refuses_what_makes_no_sense(name, value, error):
    with pytest.raises(ValueError, match=error):
        Sampling().changed(name, value)


def test_a_change_keeps_the_other_values_and_the_original():
    before = Sampling(min_p=0.1)
    after = before.changed("temperature", "0.9")
    assert (after.temperature, after.min_p, before.temperature) == (0.9, 0.1, 1.0)


@pytest.mark.parametrize("name", [field.name for field in fields(Sampling)])
def test_each_value_can_be_set_as_it_is_shown(name):
    assert Sampling().changed(name, str(getattr(Sampling(), name))) == Sampling()
