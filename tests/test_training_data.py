"""Reading the JSONL: every broken line is named and never quoted; what other tools write is taken or refused by name."""

import gzip
import json

import pytest
from held_out_sets import hold_out, overlapping_lines

from common.conversation_data import Conversation, TrainingDataError, read_training_data

SECRET = "the secret words"


def line_of(*turns, **more):
    """One line of the data; a turn is (role, content)."""
    messages = [{"role": role, "content": content} for role, content in turns]
    return json.dumps({"messages": messages, **more}, ensure_ascii=False)


GOOD = line_of(("user", "hi"), ("assistant", SECRET))


@pytest.fixture
def read(tmp_path):
    """Write lines (or bytes) to a file and read it."""

    def write_and_read(content, **options):
        path = tmp_path / "data.jsonl"
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
        return read_training_data(path, **options)

    return write_and_read


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "empty"),
        (b"\n \n\n", "empty"),
        (b"\xef\xbb\xbf", "empty"),
        (b"\x89PNG\r\n\x1a\n\0\0\0", "PNG picture"),
        (gzip.compress(GOOD.encode(), mtime=0), "gzip"),
        (b"PK\x03\x04....", "zip"),
        (GOOD.encode("utf-16"), "UTF-16"),
        ("[12/03/2024, 10:15:02] Ruth: " + SECRET, "chat export"),
        ("3.3.2024, 08:49 - Ruth: " + SECRET, "chat export"),
        ("[" + GOOD + "]", "one JSON array"),
    ],
)
def test_a_file_of_another_kind_is_named(read, content, what):
    with pytest.raises(TrainingDataError, match=what) as caught:
        read(content)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("bad_line", "what"),
    [
        (GOOD[:-9], "not a whole JSON value"),
        (GOOD[:20] + "\0\0" + GOOD[20:], "NUL"),
        (GOOD + GOOD, "second value"),
        (GOOD.replace('"', "'"), "not a whole JSON value"),
        ("null", "not an object"),
        ("7", "not an object"),
        ('["a"]', "not an object"),
        ('"text"', "not an object"),
        ("{}", 'no key "messages"'),
        ('{"conversations": [{"from": "human", "value": "x"}]}', "ShareGPT"),
        ('{"instruction": "x", "output": "y"}', "Alpaca"),
        ('{"messages": "x"}', '"messages" is not a list'),
        ('{"messages": ["x"]}', "message 1 is not an object"),
        ('{"messages": [{"content": "x"}]}', 'message 1 has no key "role"'),
        ('{"messages": [{"role": "user"}]}', 'message 1 has no key "content"'),
        (line_of(("human", "x")), '"role" is neither'),
        ('{"messages": [{"role": ["user"], "content": "x"}]}', '"role" is neither'),
        (line_of(("user", 7)), '"content" is not text'),
        ('{"messages": [{"role": "user", "content": "\\ud83d"}]}', "half of a character"),
        ('{"messages": [], "messages": []}', "key twice"),
        ('{"messages": [], "n": NaN}', "NaN"),
        ('{"messages": [], "n": ' + "9" * 5000 + "}", "too long"),
        ('{"messages": ' + "[" * 100_000, "nested too deeply"),
    ],
)
def test_a_bad_line_is_named_by_its_number_and_not_quoted(read, bad_line, what):
    with pytest.raises(TrainingDataError, match="line 2: ") as caught:
        read(f"{GOOD}\n{bad_line}\n{GOOD}\n")
    assert what in str(caught.value).split("\n")[0]
    assert SECRET not in str(caught.value)


def test_bytes_that_are_not_utf8_are_a_bad_line(read):
    with pytest.raises(TrainingDataError, match="line 1: is not UTF-8"):
        read(GOOD.encode()[:-5] + b"\xff" + GOOD.encode()[-5:])


def test_bad_lines_are_counted_together_and_the_first_five_named(read):
    with pytest.raises(TrainingDataError) as caught:
        read(GOOD + "\n" + "{}\n" * 8)
    first, total, *named = str(caught.value).split("\n")
    assert first.startswith("line 2: ")
    assert total == "  8 bad lines in all:"
    assert [line.split(":")[0] for line in named] == [f"  line {number}" for number in range(2, 7)]


def test_bad_lines_are_skipped_and_counted_on_request_only(read):
    data = read(f"{GOOD}\n{{}}\nnull\n{GOOD}\n", skip_bad_lines=True)
    assert [conversation.line_number for conversation in data.conversations] == [0, 3]
    assert len(data.bad_lines) == 2


@pytest.mark.parametrize(
    "line", [line_of(("user", "hi")), line_of(("user", "hi"), ("assistant", " \n ")), '{"messages": []}']
)
def test_no_reply_anywhere_is_refused(read, line):
    with pytest.raises(TrainingDataError, match="no reply of the person"):
        read(line + "\n")


def test_conversations_without_a_reply_are_skipped_and_counted(read):
    data = read(f"{line_of(('user', 'hi'))}\n{GOOD}\n")
    assert (len(data.conversations), data.num_without_reply) == (1, 1)


def test_turns_of_one_role_are_joined_blank_ones_and_the_unanswered_end_left_out(read):
    line = line_of(
        ("assistant", "a"), ("assistant", " "), ("assistant", "b"), ("user", "c"), ("assistant", "d"), ("user", "e")
    )
    (conversation,) = read(line).conversations
    assert conversation.messages == [
        {"role": "assistant", "content": "a\nb"},
        {"role": "user", "content": "c"},
        {"role": "assistant", "content": "d"},
    ]


def test_byte_order_mark_crlf_blank_lines_raw_separators_and_extra_fields_are_fine(read):
    odd = line_of(("user", "a\u2028b\u0085c"), ("assistant", "d"), chat="x", extra={"y": [1]})
    data = read(f"\ufeff{GOOD}\r\n\r\n{odd}\r\n")
    assert [conversation.line_number for conversation in data.conversations] == [0, 2]
    assert data.conversations[1].messages[0]["content"] == "a\u2028b\u0085c"


def test_six_thousand_turns_are_one_conversation(read):
    turns = [("user", "x"), ("assistant", "y")] * 3000
    assert read(line_of(*turns)).conversations[0].num_replies == 3000


def make_conversations(number):
    messages = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}] * 3
    return [Conversation(line, messages, f"{2000 + line:04}") for line in range(number)]


@pytest.mark.parametrize("number", [10, 57, 450, 5000])
def test_held_out_sets_are_whole_disjoint_and_small(number):
    held_out = hold_out(make_conversations(number))
    lines = [*held_out.validation, *held_out.spread, *held_out.latest]
    assert len(set(lines)) == len(lines)
    assert held_out.latest == list(range(number - len(held_out.latest), number))
    assert held_out.validation and held_out.spread and held_out.latest
    assert len(lines) <= 0.35 * number + 3


def test_spread_conversations_cover_the_whole_period():
    held_out = hold_out(make_conversations(1000))
    quarters = [sum(start <= line < start + 250 for line in held_out.spread) for start in range(0, 1000, 250)]
    assert min(quarters) >= 0.15 * len(held_out.spread)


def test_latest_is_the_last_in_time_not_in_the_file():
    conversations = [
        Conversation(talk.line_number, talk.messages, f"{9999 - talk.line_number}") for talk in make_conversations(100)
    ]
    assert hold_out(conversations).latest == [0, 1, 2, 3, 4]


def test_too_few_conversations_are_all_trained_on():
    assert len(hold_out(make_conversations(9))) == 0


def test_held_out_conversations_that_occur_in_training_are_found():
    conversations = make_conversations(40)  # all identical
    held_out = hold_out(conversations)
    assert len(overlapping_lines(conversations, held_out)) == len(held_out)


def test_a_reply_of_a_hundred_megabytes_is_named_by_its_line(tmp_path):
    path = tmp_path / "data.jsonl"
    talk = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "x" * 100_000_000}]
    path.write_text('{"messages": []}\n' + json.dumps({"messages": talk}) + "\n", encoding="utf-8")
    with pytest.raises(TrainingDataError, match='line 2: message 2: "content" is longer than 4,000,000 characters'):
        read_training_data(path)
