"""A reply as it streams: whole characters, bubbles at line breaks, nothing that acts on a terminal, no role marker."""

import threading

import pytest
import torch
from reply_stream import ReplyStream, is_looping


class Listener:
    """Feeds texts to a stream token by token, as `generate` does, and notes what it tells."""

    def __init__(self, tokenizer, max_bubbles=5):
        self.pieces, self.bubbles, self.stop = [], [], threading.Event()
        self.tokenizer = tokenizer
        self.ids = [0, 5, 6]  # the prompt
        end_ids = set(tokenizer.all_special_ids)
        self.stream = ReplyStream(
            tokenizer,
            3,
            end_ids,
            max_bubbles,
            self.pieces.append,
            lambda *bubble: self.bubbles.append(bubble),
            self.stop,
        )

    def hear(self, text, ending="limit"):
        """Feed `text` until the stream wants to stop, then finish; return the number of tokens taken."""
        for token_id in self.tokenizer(text, add_special_tokens=False)["input_ids"]:
            self.ids.append(token_id)
            if self.stream(torch.tensor([self.ids]), None).item():
                break
        self.stream.finish(ending)
        return len(self.ids) - 3


@pytest.fixture
def listener(tiny_tokenizer):
    return Listener(tiny_tokenizer)


def test_streams_whole_characters_and_bubbles(listener):
    text = "היי 👨\u200d👩\u200d👧\n\n  מה נשמע? ❤\ufe0f\n"
    listener.hear(text + "</s>")
    assert listener.bubbles == [("היי 👨\u200d👩\u200d👧", None), ("מה נשמע? ❤\ufe0f", None)]
    assert "\N{REPLACEMENT CHARACTER}" not in "".join(listener.pieces)
    assert len(listener.pieces) > 5
    assert listener.stream.ending == "complete"


def test_the_pieces_say_what_the_bubbles_say(listener):
    listener.hear("one two\nthree</s>")
    assert "".join(listener.pieces) == "".join(text for text, _cut in listener.bubbles) == "one twothree"


def test_stops_after_the_allowed_bubbles(tiny_tokenizer):
    listener = Listener(tiny_tokenizer, max_bubbles=2)
    listener.hear("one\ntwo\nthree\nfour")
    assert listener.bubbles == [("one", None), ("two", None)]
    assert listener.stream.ending == "bubbles"


@pytest.mark.parametrize("marker", ["<person1>", "<person2>"])
def test_stops_before_it_speaks_for_somebody(listener, marker):
    listener.hear(f"sure{marker}and then you say")
    assert listener.bubbles == [("sure", None)]
    assert "".join(listener.pieces) == "sure"
    assert listener.stream.ending == "marker"


@pytest.mark.parametrize("text", ["a < b", "a <3", "a <person", "i <per se>"])
def test_what_only_begins_like_a_marker_is_shown(listener, text):
    listener.hear(f"{text}</s>")
    assert listener.bubbles == [(text, None)]
    assert "".join(listener.pieces) == text


def test_stops_a_loop_and_says_so(listener):
    num_taken = listener.hear("ok my friend, " * 20)
    assert listener.stream.ending == "loop"
    assert listener.bubbles[-1][1] == "loop"
    assert num_taken < len(listener.tokenizer("ok my friend, " * 6)["input_ids"])


def test_an_interruption_ends_it_after_the_current_token(listener):
    listener.stop.set()
    assert listener.hear("one two three four") == 1
    assert listener.bubbles[0][1] == "interrupted"


def test_escapes_never_come_through(listener):
    listener.hear("a\x1b[2Jb\x9bc\u202ed</s>")
    assert listener.bubbles == [("a[2Jbcd", None)]
    assert "".join(listener.pieces) == "a[2Jbcd"


def test_half_a_character_in_the_middle_is_left_out(listener, tiny_tokenizer):
    bird = tiny_tokenizer("🦩", add_special_tokens=False)["input_ids"]
    rest = tiny_tokenizer(" hi", add_special_tokens=False)["input_ids"]
    for token_id in [*rest, *bird[:-1], *rest]:
        listener.ids.append(token_id)
        listener.stream(torch.tensor([listener.ids]), None)
    listener.stream.finish("complete")
    assert listener.bubbles == [("hi hi", None)]


def test_half_a_character_at_the_end_is_not_shown(listener, tiny_tokenizer):
    ids = tiny_tokenizer("hi 🦩", add_special_tokens=False)["input_ids"][:-1]
    for token_id in ids:
        listener.ids.append(token_id)
        listener.stream(torch.tensor([listener.ids]), None)
    listener.stream.finish("limit")
    assert listener.bubbles == [("hi", "limit")]


def looks_looping(text):
    """Judge `text` as if every letter were one token."""
    return is_looping([ord(letter) for letter in text], lambda ids: "".join(map(chr, ids)))


@pytest.mark.parametrize("block", ["אני באה ", "ok ok", "what?", "a long block of 20 le"[:20]])
def test_a_block_four_times_in_a_row_is_a_loop(block):
    assert not looks_looping(f"well {block * 3}")
    assert looks_looping(f"well {block * 4}")


def test_a_loop_is_noticed_although_it_does_not_end_with_a_whole_block():
    assert looks_looping("abcdefabcdefabcdefabcdefab")


@pytest.mark.parametrize(
    "laughter", ["חחחחחחחחחחחחחחחחחחחח", "hahahahahahahahahaha", "😂😂😂😂😂😂😂😂😂😂😂😂😂😂😂😂😂😂"]
)
def test_laughter_is_no_loop_up_to_25_letters(laughter):
    assert not looks_looping(laughter)
    assert looks_looping(laughter * 3)


def test_laughter_after_words_counts_for_itself():
    assert not looks_looping("זה ממש מצחיק אותי עכשיו " + "ח" * 20)


def test_different_talk_is_no_loop():
    assert not looks_looping("one two three four five six seven eight nine ten eleven twelve")
