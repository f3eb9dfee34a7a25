"""How long a conversation waits for its first token, on any engine. Imports no torch."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from live_conversation import Conversation
from trained_chat import ConversationCache, TrainedChat

HISTORY_TOKENS = (0, 250, 1_000, 3_000)
NEW_TOKENS = 25  # of the user's next message: a line
REPEATS = 3  # the best of them counts


def first_token_times(
    trained: TrainedChat,
    num_history_tokens: int,
    is_reusing: bool,
    clock: Callable[[], float] = time.process_time,
    cache: ConversationCache | None = None,
) -> list[float]:
    """Return the seconds from a line typed to the first token of its reply, everything in between included."""
    sampling = replace(trained.sampling, do_sample=False, max_new_tokens=1)
    conversation = Conversation(trained, seed=0, sampling=sampling, cache=cache)
    word = trained.tokenizer.decode([300])
    num_per_word = len(trained.tokenizer(word, add_special_tokens=False)["input_ids"])
    if num_history_tokens:
        # Turns of 25 tokens, as long as the one that is timed; nothing is generated for them.
        for number in range(num_history_tokens // 25):
            role = "user" if number % 2 == 0 else "assistant"
            conversation.messages.append({"role": role, "content": word * (12 // num_per_word)})
        while conversation.messages[-1]["role"] == "user" or conversation.num_prompt_tokens < num_history_tokens:
            conversation.messages.append({"role": "user", "content": word})
            conversation.messages.append({"role": "assistant", "content": word})
        conversation.add("x")
        conversation.answer()
        conversation.undo()
    times = []
    for repeat in range(REPEATS):
        if not is_reusing:
            conversation.cache.drop()
        # Begins differently each time, or the repeats would find it read already.
        line = f"{repeat}{word * ((NEW_TOKENS - 1) // num_per_word)}"
        started_at = clock()
        conversation.add(line)
        conversation.answer()
        times.append(clock() - started_at)
        conversation.undo()
    return times
