"""What a finished training tells its owner."""

from types import SimpleNamespace

from held_out_evaluation import ComparedReply
from held_out_sets import HeldOut
from recipes import DEFAULT_RECIPE
from training_summary import describe_replies, describe_result

from common.conversation_data import Conversation

EXCHANGE = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hey"}]
REPORT = {"epochs": 3.0, "best_step": 20, "steps": 30}


def run_of(num_conversations, held_out, num_corrections=None):
    corrected = [Conversation(number, EXCHANGE, "") for number in range(num_corrections or 0)]
    return SimpleNamespace(
        corrections=None if num_corrections is None else SimpleNamespace(conversations=corrected),
        data=SimpleNamespace(
            conversations=[Conversation(number, EXCHANGE * 2, "") for number in range(num_conversations)]
        ),
        held_out=held_out,
        recipe=DEFAULT_RECIPE,
        material=SimpleNamespace(num_tokens=1_234),
    )


def test_counts_what_was_trained_on_without_what_was_held_out():
    lines = describe_result(run_of(12, HeldOut([1], [2, 3], [11])), REPORT)
    assert lines == ["  learnt from 8 conversations with 16 replies, 1,234 tokens; read 3.0 times"]


def test_says_how_many_corrections_were_learnt_and_how_often():
    lines = describe_result(run_of(12, HeldOut([1], [2, 3], [11]), num_corrections=2), REPORT)
    assert lines == [
        "  learnt from 8 conversations with 16 replies and 2 corrections (each as often as 10 replies), 1,234 tokens; "
        "read 3.0 times"
    ]


def test_bits_are_shown_where_they_were_measured():
    validation = {"base": {"bits_per_char": 2.718}, "tuned": {"bits_per_char": 1.147}}
    lines = describe_result(run_of(2, HeldOut([], [], [])), REPORT | {"validation": validation})
    assert lines[1:] == [
        "  best step  20 of 30",
        "  bits per character of held-out replies  base 2.718, tuned 1.147 (lower is better)",
    ]


def test_replies_stand_under_each_other_by_who_wrote_them():
    pair = ComparedReply("בא לך פיצה?", "יאללה", "בטח")
    assert describe_replies([pair, pair], "No\x1bam") == [
        "Replies in conversations that were not trained on:",
        "  they wrote         בא לך פיצה?",
        "  No\\x1bam replied   יאללה",
        "  the model replies  בטח",
        "",
        "  they wrote         בא לך פיצה?",
        "  No\\x1bam replied   יאללה",
        "  the model replies  בטח",
    ]
    assert describe_replies([], None) == []
