"""Messages kept for a second reading are those that parsing again would give, or none are kept."""

from argparse import Namespace
from datetime import datetime
from pathlib import Path

import pytest
from given_exports import survey_exports
from packed_messages import BLOCK_MESSAGES, PackedMessages
from whatsapp_export import Message

EXPORTS = sorted(Path(__file__).with_name("cases").glob("0*/*.txt"))
FLAGS = Namespace(day_first=None, encoding=None, chat=None)
SENT_AT = datetime(2024, 12, 17, 9, 30, 59)
TEXTS = ["", "words", "מילים", "👨\u200d👩\u200d👧 emoji", "lone \ud83d half", "\0", "two\nlines", "long " * 1_000]
MESSAGES = [
    Message(SENT_AT.replace(second=number % 60), "Ruth" if number % 3 else None, TEXTS[number % len(TEXTS)])
    for number in range(BLOCK_MESSAGES + 10)
]


def test_every_message_comes_back():
    packed = PackedMessages(1_000_000)
    assert list(packed.keep(MESSAGES)) == MESSAGES
    assert packed.is_complete
    for _ in range(2):
        again = list(packed)
        assert again == MESSAGES
        assert {type(message) for message in again} == {Message}


@pytest.mark.parametrize("export_path", EXPORTS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_second_reading_gives_what_parsing_again_gives(export_path):
    (survey,) = survey_exports([export_path], FLAGS, max_kept_bytes=1_000_000)
    assert survey.packed is not None
    assert list(survey.read()) == list(survey.export.again())


def test_exports_share_the_memory():
    paths = EXPORTS[:2]
    both = survey_exports(paths, FLAGS, max_kept_bytes=1_000_000)
    num_bytes = [survey.packed.num_bytes for survey in both]
    first, second = survey_exports(paths, FLAGS, max_kept_bytes=sum(num_bytes) - 1)
    assert first.packed is not None
    assert second.packed is None
    assert list(second.read()) == list(second.export.again())


def test_too_many_messages_are_not_kept_and_parsed_again():
    packed = PackedMessages(max_bytes=1_000)
    assert list(packed.keep(MESSAGES)) == MESSAGES
    assert not packed.is_complete
    assert list(packed) == []


def test_messages_of_a_reading_that_was_broken_off_are_not_complete():
    packed = PackedMessages(1_000_000)
    next(packed.keep(MESSAGES))
    assert not packed.is_complete
