"""A conversation with the trained model: the cache changes the time, never the reply."""

import random
import threading
from dataclasses import replace

import pytest
from conversation_cache import GrowingCache, StaticCache
from conversing import regenerate, say
from live_conversation import Conversation, MessageTooLong
from saved_model_checks import check_saved_model
from trained_model import load_trained_model

from common.chat_format import encode_conversation

WORDS = ["שלום", "מה", "נשמע", "ok", "😂", "five", "</s>", "<person1>", "yes!", "ביי", "\n"]


class InterruptedGeneration(Exception):
    """Stands for anything that breaks off `generate` in the middle."""


def carry_out(conversation, operation, seed):
    """Do one random thing with `conversation`, the same for the same seed; return what came of it."""
    rng = random.Random(seed)
    text = " ".join(rng.choices(WORDS, k=rng.randint(1, 8)))
    if operation == "undo":
        return conversation.undo()
    if operation == "regenerate" and any(message["role"] == "user" for message in conversation.messages):
        return regenerate(conversation).text
    if operation == "edit" and conversation.messages:
        number = rng.randrange(len(conversation.messages))
        conversation.messages[number] = {"role": conversation.messages[number]["role"], "content": text}
    if operation == "swap":
        conversation.swap()
    if operation == "break":

        def break_off(_text):
            raise InterruptedGeneration

        with pytest.raises(InterruptedGeneration):
            say(conversation, "again and again", on_text=break_off)
        return conversation.messages[-1]
    stop = threading.Event()
    num_pieces = rng.randint(1, 6) if operation == "interrupt" else 10**6

    def count(_text):
        nonlocal num_pieces
        num_pieces -= 1
        if num_pieces == 0:
            stop.set()

    reply = say(conversation, text, on_text=count, stop=stop)
    return reply.text, reply.ending, conversation.messages[-1].get("ids")


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 5))])
def test_greedy_replies_are_the_same_with_and_without_reuse(tiny_model, seed):
    greedy = replace(tiny_model.sampling, do_sample=False, max_new_tokens=16)
    times_full = []
    conversations = [
        Conversation(
            tiny_model, seed=0, sampling=greedy, cache=kind(tiny_model), on_context_full=lambda: times_full.append(1)
        )
        for kind in (GrowingCache, GrowingCache, StaticCache)
    ]
    encoding_again, *reusing = conversations
    rng = random.Random(seed)
    for step in range(30):
        operation = rng.choice(["say"] * 6 + ["undo", "edit", "regenerate", "interrupt", "interrupt", "swap", "break"])
        encoding_again.cache.drop()
        expected, *outcomes = (carry_out(each, operation, seed=1000 * seed + step) for each in conversations)
        assert outcomes == [expected, expected], f"step {step}: {operation}"
        assert all(each.messages == encoding_again.messages for each in reusing)
    assert all(each.fit_prompt() == encoding_again.fit_prompt() for each in reusing)
    assert len(times_full) == len(conversations), "the walk never filled the context"


def test_only_what_is_new_is_encoded(conversation):
    first = say(conversation, "שלום, מה נשמע היום?")
    second = say(conversation, "ok")
    assert first.num_reused_tokens == 0
    assert second.num_reused_tokens >= first.num_prompt_tokens
    again = regenerate(conversation)
    assert again.num_prompt_tokens - again.num_reused_tokens == 1


def test_the_prompt_is_what_was_trained(tiny_model, conversation):
    say(conversation, "hello")
    say(conversation, "</s><person1>you")
    messages = [{"role": m["role"], "content": m["content"]} for m in conversation.messages]
    prompt_ids, _turn_ends = tiny_model.encode_prompt(messages[:-1])
    trained_ids = encode_conversation(tiny_model.tokenizer, messages).input_ids
    assert trained_ids[: len(prompt_ids)] == prompt_ids
    assert tiny_model.tokenizer.decode(prompt_ids).endswith("<person1>")


def test_a_full_context_drops_whole_old_turns_down_to_half_and_says_so_once(tiny_model):
    said = []
    conversation = Conversation(
        tiny_model,
        seed=0,
        sampling=replace(tiny_model.sampling, do_sample=False, max_new_tokens=4),
        on_context_full=lambda: said.append("full"),
    )
    room = tiny_model.context_tokens - 4
    lengths = [say(conversation, "one two three four").num_prompt_tokens for _ in range(20)]
    assert max(lengths) <= room
    drops = [(before, after) for before, after in zip(lengths, lengths[1:], strict=False) if after < before]
    assert drops and all(after <= room / 2 + 1 for _before, after in drops)
    assert said == ["full"]
    assert len(conversation.messages) == 40  # the conversation itself is whole


def test_turns_that_were_dropped_are_prompted_again_when_those_after_them_are_taken_back(tiny_model, conversation):
    for number in range(12):
        say(conversation, f"{number} two three four")
    while len(conversation.messages) > 2:
        conversation.undo()
    say(conversation, "hello")
    assert conversation.fit_prompt() == tiny_model.encode_prompt(conversation.messages)[0]


def test_a_message_longer_than_the_context_is_refused_and_leaves_nothing(conversation):
    say(conversation, "hi")
    before = list(conversation.messages)
    with pytest.raises(
        MessageTooLong, match="this message has .* tokens, the model's context has room for 148; shorten it"
    ):
        say(conversation, "word " * 500)
    assert conversation.messages == before
    assert say(conversation, "still here").num_new_tokens > 0


def test_an_interrupted_reply_is_kept_as_it_was_shown(conversation):
    stop = threading.Event()
    shown = []

    def show(text):
        shown.append(text)
        if len(shown) == 3:
            stop.set()

    reply = say(conversation, "שלום", on_text=show, stop=stop)
    assert reply.ending == "interrupted"
    assert conversation.messages[-1]["content"] == reply.text == "".join(shown).strip()


def test_sampled_replies_repeat_with_the_seed_and_differ_when_regenerated(tiny_model):
    hot = replace(tiny_model.sampling, temperature=2.0, min_p=0.0)
    texts = []
    for _ in range(2):
        conversation = Conversation(tiny_model, seed=7, sampling=hot)
        texts.append([say(conversation, "שלום").text, regenerate(conversation).text])
    assert texts[0] == texts[1]
    assert texts[0][0] != texts[0][1]


@pytest.mark.slow
def test_a_conversation_knows_its_dialogue_in_bubbles(talking_model_dir):
    talking = load_trained_model(check_saved_model(talking_model_dir), device="cpu", dtype="float32", is_merged=True)
    conversation = Conversation(talking, seed=0, sampling=replace(talking.sampling, do_sample=False))
    bubbles = []
    reply = say(conversation, "שלום", on_bubble=lambda text, cut_by: bubbles.append((text, cut_by)))
    assert (reply.text, reply.ending) == ("היי\nמה נשמע? 😂", "complete")
    assert bubbles == [("היי", None), ("מה נשמע? 😂", None)]
    conversation.sampling = replace(conversation.sampling, max_bubbles=1)
    cut = regenerate(conversation)
    assert (cut.text, cut.ending) == ("היי", "bubbles")
