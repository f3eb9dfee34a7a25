"""`--check`: what a run needs and what the machine has, with one verdict at the end."""

import dataclasses

import pytest
from known_bases import find_config
from memory_estimate import estimate_memory
from model_shape import Load
from recipes import DEFAULT_RECIPE
from run_check import check_run
from small_runs import CPU, DEFAULT_BASE, WORK

from common.base_model_files import BaseModel


def test_says_what_is_not_known_without_data(small_base, tmp_path):
    text = "\n".join(check_run(small_base, CPU, DEFAULT_RECIPE, None, tmp_path))
    assert "tokens      not known" in text
    assert " for 1,000 replies, " in text and " for 5,000 replies, " in text
    assert "base on disk" in text
    assert text.endswith("It fits.")


def test_counts_tokens_steps_and_time_with_data(small_base, tmp_path):
    text = "\n".join(check_run(small_base, CPU, DEFAULT_RECIPE, WORK, tmp_path / "not" / "yet" / "there"))
    assert "about 300,000 per epoch, 100,000 of them supervised (33 %)" in text
    assert "about 110 in up to 3 epochs" in text
    assert "time        less than a minute for all epochs" in text


def test_a_chat_remembers_what_the_recipe_allows_however_short_the_data(small_base, tmp_path):
    short = dataclasses.replace(WORK, row_tokens=512)
    text = "\n".join(check_run(small_base, CPU, DEFAULT_RECIPE, short, tmp_path))
    assert "(training in rows of 512 tokens; a chat with a context of 2,048)" in text
    config = find_config(small_base)
    chats = [estimate_memory(config, CPU, Load(row_tokens=512, chat_tokens=n))[2].total for n in (512, 2048)]
    assert chats[0] < chats[1]


@pytest.mark.parametrize("work", [WORK, None])
def test_hours_on_a_processor_are_the_last_word_not_a_remark_beside_it_fits(tmp_path, work):
    lines = check_run(DEFAULT_BASE, CPU, DEFAULT_RECIPE, work, tmp_path)
    text = "\n".join(lines)
    assert "It fits" not in text and "But" not in text
    first = next(number for number, line in enumerate(lines) if line.startswith("  It takes long"))
    assert ("already with 1,000 replies: about" in lines[first]) == (work is None)
    assert "about" in lines[first] and "asked before training begins" in lines[first]
    assert lines[first + 1] == "  bases that take less (--base-model-id):"
    assert sum(line.startswith("    ") and " GB to download; languages: " in line for line in lines[first + 2 :]) == 3
    assert "15.0 GB to download" in text


def test_who_chose_the_processor_by_flag_hears_only_whether_it_fits(tmp_path, tiny_base_dir):
    hours = dataclasses.replace(WORK, epoch_tokens=10**9)
    text = "\n".join(
        check_run(BaseModel("tiny", tiny_base_dir), CPU, DEFAULT_RECIPE, hours, tmp_path, wanted_device="cpu")
    )
    assert text.endswith("  It fits.")
    assert "It takes long" not in text
