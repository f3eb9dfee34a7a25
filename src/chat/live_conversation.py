"""A conversation with the trained model that does not encode its history again for each reply.

For each reply, the new prompt is compared with the cached token ids: the cache is cut back to the part they share, and
only the rest is encoded. New messages, undo, edits and dropped turns need no more.
The cache itself is left to `conversation_cache`, input and output to `chat_session`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from reply_stream import ReplyStream
from trained_chat import ConversationCache, TrainedChat
from turns import Messages, add_to_turn, take_back_reply, take_back_turn, with_roles_swapped
from who_and_when import WhoAndWhen

from common.model_folder import Sampling

# The share of the context that is kept when it is full. Dropping turns moves every position, so what is kept is encoded
# again: with a half, one token again for each new one; with nine tenths, nine.
SHARE_KEPT = 0.5


class MessageTooLong(ValueError):
    """A message alone does not fit the model's context; the text says by how much."""


@dataclass(frozen=True)
class FinishedReply:
    """The reply of one turn: the text shown, how it ended, and what it cost."""

    text: str  # bubbles, joined by line breaks; empty when the model wrote nothing
    ending: str  # one of reply_stream.ENDINGS
    num_prompt_tokens: int
    num_reused_tokens: int  # of the prompt: taken from the cache
    num_new_tokens: int
    first_token_seconds: float
    seconds: float


class Conversation:
    """One conversation. `messages` is the source of truth; the cache only avoids encoding it again."""

    def __init__(
        self,
        trained: TrainedChat,
        seed: int,
        sampling: Sampling | None = None,
        messages: Messages | None = None,
        on_context_full: Callable[[], None] = lambda: None,
        cache: ConversationCache | None = None,
        who_and_when: WhoAndWhen | None = None,
    ) -> None:
        """`on_context_full` is called the first time that old turns are dropped from the prompt.

        `who_and_when` gives the header line; without it, the partner who wrote most and the clock do.
        `cache`: of another engine, or of an earlier conversation, which is over; without one, a TrainedModel gets its own.
        """
        self.trained = trained
        self.sampling = sampling or trained.sampling
        self.seed = seed
        self.messages: Messages = messages or []
        self.who_and_when = who_and_when or WhoAndWhen(trained.settings)
        self._on_context_full = on_context_full
        self._was_full = False
        self._num_dropped = 0  # messages at the beginning that are no longer in the prompt
        self._num_replies = 0  # each reply gets a seed of its own, also a regenerated one
        if cache is None:
            from conversation_cache import open_cache  # only here: it imports torch

            cache = open_cache(trained)  # type: ignore[arg-type] # given no cache, it is a TrainedModel
        self.cache = cache

    def say(self, text: str, **callbacks: Any) -> FinishedReply:
        """Add the user's `text` and return the reply to it."""
        self.add(text)
        return self.answer(**callbacks)

    def add(self, text: str) -> None:
        """Add the user's `text`; raise MessageTooLong, with nothing added, when it does not fit the context."""
        before = list(self.messages)
        if not before:
            self.who_and_when.begin()
        add_to_turn(self.messages, "user", text)
        try:
            self._fit_prompt()
        except MessageTooLong:
            self.messages[:] = before
            raise

    def answer(
        self,
        on_text: Callable[[str], None] = lambda text: None,
        on_bubble: Callable[[str, str | None], None] = lambda text, cut_by: None,
        stop: threading.Event | None = None,
    ) -> FinishedReply:
        """Generate the reply to the messages so far and add it; also what was generated before an interruption.

        `on_text` gets each piece of text, `on_bubble` each finished line and what cut it short, if anything; setting
        `stop` ends the reply after the next token.
        """
        started_at = time.monotonic()
        prompt_ids = self._fit_prompt()
        num_reused = self.cache.rewind(prompt_ids)
        stream = self.trained.new_stream(len(prompt_ids), self.sampling, on_text, on_bubble, stop)
        self._num_replies += 1
        output_ids: list[int] = []
        try:
            output_ids = self.cache.generate(prompt_ids, self.sampling, self.seed + self._num_replies, stream)
        finally:
            stream.finish("limit" if output_ids else "interrupted")
            self._add_reply(stream)
        return FinishedReply(
            text="\n".join(stream.bubbles),
            ending=str(stream.ending),
            num_prompt_tokens=len(prompt_ids),
            num_reused_tokens=num_reused,
            num_new_tokens=len(output_ids) - len(prompt_ids),
            first_token_seconds=(stream.first_token_at or time.monotonic()) - started_at,
            seconds=time.monotonic() - started_at,
        )

    def regenerate(self, **callbacks: Any) -> FinishedReply:
        """Replace the last reply by another one."""
        take_back_reply(self.messages)
        return self.answer(**callbacks)

    def undo(self) -> bool:
        """Take back the user's last message and the reply to it; return whether there was one."""
        return take_back_turn(self.messages)

    def swap(self) -> None:
        """Swap roles: the user's messages become the imitated person's, the replies become the user's.

        Raises ChatFormatError, with nothing swapped, where the template lets only the user begin.
        """
        swapped = with_roles_swapped(self.messages)
        if swapped:
            visible = list(swapped[self._num_dropped :])
            add_to_turn(visible, "user", "")  # the next prompt is that of a reply to the user
            self.trained.encode_prompt(visible, self.who_and_when.header)
        self.messages = swapped

    def reset(self, messages: Messages | None = None) -> None:
        """Begin a new conversation, or continue `messages`."""
        self.messages = messages or []
        self.who_and_when.began_at = None
        self._num_dropped = 0

    def drop_cache(self) -> None:
        """Empty the cache: the next reply encodes the whole conversation again, and is the same."""
        self.cache.drop()

    @property
    def num_prompt_tokens(self) -> int:
        """The length of the prompt for the next reply, without dropped turns; 0 before the first message."""
        return len(self._encode_visible()[0]) if self.messages else 0  # some templates let nobody but the user begin

    def _fit_prompt(self) -> list[int]:
        """Return the prompt; drop whole old turns when it leaves no room for the reply."""
        if self._num_dropped >= len(self.messages):  # every message still in the prompt was taken back
            self._num_dropped = 0
        if self.who_and_when.began_at is None:
            self.who_and_when.begin()
        prompt_ids, turn_ends = self._encode_visible()
        room = self.trained.context_tokens - self.trained.reply_room(self.sampling)
        if len(prompt_ids) <= room:
            return prompt_ids
        kept = room * SHARE_KEPT
        visible = self.messages[self._num_dropped :]
        # The prompt then begins with a message of the user, as conversations do in training.
        starts = [number for number, message in enumerate(visible) if number and message["role"] == "user"]
        fitting = [number for number in starts if len(prompt_ids) - turn_ends[number - 1] <= kept]
        for number in fitting[:1] or starts[-1:]:
            self._num_dropped += number
            prompt_ids, _turn_ends = self._encode_visible()
        if len(prompt_ids) > room:
            raise MessageTooLong(
                f"this message has {len(prompt_ids):,} tokens, the model's context has room for {room:,}; shorten it"
            )
        if not self._was_full:
            self._was_full = True
            self._on_context_full()
        return prompt_ids

    def _encode_visible(self) -> tuple[list[int], list[int]]:
        """Encode the prompt: the header, which stays, and the messages that are not dropped."""
        return self.trained.encode_prompt(self.messages[self._num_dropped :], self.who_and_when.header)

    def _add_reply(self, stream: ReplyStream) -> None:
        if not stream.bubbles:
            return
        reply: dict[str, Any] = {"role": "assistant", "content": "\n".join(stream.bubbles)}
        # Ids that decode to more than was shown (half a letter, a control character) are not kept.
        decoded = self.trained.tokenizer.decode(
            stream.ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        if decoded == reply["content"]:
            reply["ids"] = stream.ids
        self.messages.append(reply)
