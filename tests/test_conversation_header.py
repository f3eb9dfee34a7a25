"""Who and when as one line: what it says, of whom, and what is said where the data say less."""

from datetime import datetime

import pytest

from common.conversation_data import Conversation
from common.conversation_header import (
    Partner,
    context_from_settings,
    find_partners,
    headers_by_line,
    part_of_day,
    partners_from_settings,
    partners_to_json,
    render_header,
    usable_context,
)

TURNS = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hey"}]


def talk(line, partners, chat="", started_at="2024-12-13T09:30:00", num_exchanges=1):
    return Conversation(line, TURNS * num_exchanges, started_at, chat, tuple(partners))


FAMILY = [
    talk(0, ["Adi", "Boaz"], "family"),
    talk(1, ["Boaz"], "family", num_exchanges=3),
    talk(2, [], "family"),
    talk(3, ["Ruth"], "_chat", num_exchanges=2),
    talk(4, [], "_chat"),
]


@pytest.mark.parametrize(
    ("hour", "part"),
    [(0, "night"), (4, "night"), (5, "morning"), (10, "morning"), (11, "noon"), (15, "afternoon"), (18, "evening"), (22, "night")],
)  # fmt: skip
def test_the_day_has_five_parts(hour, part):
    assert part_of_day(hour) == part


def test_each_context_tells_so_much():
    moment = datetime(2024, 12, 1, 23, 5)
    lines = [render_header(context, "Ruth", moment) for context in ("none", "who", "who,when")]
    assert lines == ["", "Ruth", "Ruth · Sunday, night"]


@pytest.mark.parametrize("name", ["Ru\nth", "  Ru   th ", "Ru\u2028th", "\x1bRu th\u202e", "Ru th" + "\n" * 9])
def test_a_name_of_any_kind_is_one_line(name):
    assert len(render_header("who", name, None).splitlines()) == 1
    assert len(render_header("who", name * 500, None)) <= 100


def test_one_person_is_called_by_name_and_a_group_by_its_title():
    assert headers_by_line(FAMILY, "who") == {0: "family", 1: "family", 2: "family", 3: "Ruth", 4: "Ruth"}
    assert headers_by_line([talk(0, ["Ruth"])], "who,when") == {0: "Ruth · Friday, morning"}
    assert headers_by_line([talk(0, ["Ruth"], started_at="2024-12-13")], "who,when") == {0: "Ruth"}


def test_conversations_without_a_title_are_no_chat():
    assert headers_by_line([talk(0, ["Ruth"]), talk(1, ["Koby"])], "who") == {0: "Ruth", 1: "Koby"}


def test_who_wrote_most_comes_first_and_the_members_of_a_group_are_known():
    # Of the family: one turn, three and one; of Ruth two and one.
    assert find_partners(FAMILY) == [Partner("family", ("Boaz", "Adi")), Partner("Ruth")]
    assert partners_from_settings({"partners": partners_to_json(find_partners(FAMILY))}) == find_partners(FAMILY)


@pytest.mark.parametrize(
    ("talks", "usable"),
    [
        ([talk(0, ["Ruth"])], "who,when"),
        ([talk(0, ["Ruth"], started_at="")], "who"),
        ([talk(0, [], "Ruth")], "who,when"),  # written by an earlier version: the title alone
        ([talk(0, [], started_at="2024-12-13T09:30:00")], "none"),
        ([talk(0, []), talk(1, ["Ruth"])], "who,when"),
    ],
)
def test_no_more_is_told_than_the_data_say(talks, usable):
    assert usable_context("who,when", talks) == usable
    assert usable_context("none", talks) == "none"


def test_a_folder_of_an_earlier_version_has_no_header():
    assert context_from_settings({}) == "none"
    assert partners_from_settings({}) == []


@pytest.mark.parametrize(
    "partners",
    ["Ruth", [["Ruth"]], [{"members": []}], [{"name": "x", "members": "y"}], [{"name": "x", "members": [1]}]],
)
def test_settings_of_another_form_are_refused(partners):
    with pytest.raises(ValueError):
        partners_from_settings({"partners": partners})
    with pytest.raises(ValueError):
        context_from_settings({"context": "everything"})
