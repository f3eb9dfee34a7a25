"""A conversation with the trained model that never reads its history twice.

It keeps one key/value cache. Each turn, the part of the new prompt that the model has already read is found by
comparing token ids, and only the rest is read: saying, undoing, editing and forgetting are all this one comparison.
It leaves talking to the user to `chat_session`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from reply_stream import ReplyStream
from trained_model import TrainedModel
from transformers import DynamicCache
from turns import Messages, add_to_turn, take_back_reply, take_back_turn, with_roles_swapped

from common.model_folder import Sampling

# What stays in the model's memory when it is full. Forgetting moves every position, so what stays is read again once:
# at a half that costs one re-read token per new one, at nine tenths nine.
SHARE_KEPT = 0.5


class MessageTooLong(ValueError):
    """A message alone is longer than the model's memory; the text says by how much."""


@dataclass(frozen=True)
class FinishedReply:
    """What came out for one turn: the text shown, how it ended, and what it cost."""

    text: str  # bubbles, joined by line breaks; empty when the model had nothing to say
    ending: str  # one of reply_stream.ENDINGS
    num_prompt_tokens: int
    num_reused_tokens: int  # of the prompt: read in an earlier turn
    num_new_tokens: int
    first_token_seconds: float
    seconds: float


class Conversation:
    """One conversation with a trained model. Its truth are `messages`; the cache only saves reading them again."""

    def __init__(
        self,
        trained: TrainedModel,
        seed: int,
        sampling: Sampling | None = None,
        messages: Messages | None = None,
        on_forget: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_forget` is called the first time that old turns leave the model's memory."""
        self.trained = trained
        self.sampling = sampling or trained.sampling
        self.seed = seed
        self.messages: Messages = messages or []
        self._on_forget = on_forget
        self._has_forgotten = False
        self._num_forgotten = 0  # messages at the beginning that the model no longer sees
        self._num_replies = 0  # each reply is drawn with a seed of its own, also a repeated one
        # A plain one, also for models with a sliding window: it can be cut back to any length.
        self._cache = DynamicCache()
        self._read_ids: list[int] = []  # what the cache was made from, and the last token, which it does not hold

    def say(self, text: str, **watching: Any) -> FinishedReply:
        """Add the user's `text` and return the reply to it."""
        self.add(text)
        return self.answer(**watching)

    def add(self, text: str) -> None:
        """Add the user's `text`; raise MessageTooLong when the model cannot take it in, and then nothing was added."""
        before = list(self.messages)
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
        """Write the reply to the messages so far; what was written when it is broken off stays in them.

        `on_text` gets each piece, `on_bubble` each finished line (and what cut it, if anything); setting `stop` ends the
        reply after the next token.
        """
        started_at = time.monotonic()
        prompt_ids = self._fit_prompt()
        num_reused = self._rewind_cache(prompt_ids)
        stream = self.trained.new_stream(len(prompt_ids), self.sampling, on_text, on_bubble, stop)
        self._num_replies += 1
        read_ids: list[int] = []
        try:
            output = self.trained.generate(
                torch.tensor([prompt_ids], device=self.trained.model.device),
                self.sampling,
                self.seed + self._num_replies,
                past_key_values=self._cache,
                stopping_criteria=[stream],
            )
            read_ids = output[0].tolist()
        finally:
            if not read_ids:  # broken off in the middle of a step: the layers may differ in length
                self.drop_cache()
            self._read_ids = read_ids
            stream.finish("limit" if read_ids else "interrupted")
            self._remember(stream)
        return FinishedReply(
            text="\n".join(stream.bubbles),
            ending=str(stream.ending),
            num_prompt_tokens=len(prompt_ids),
            num_reused_tokens=num_reused,
            num_new_tokens=len(read_ids) - len(prompt_ids),
            first_token_seconds=(stream.first_token_at or time.monotonic()) - started_at,
            seconds=time.monotonic() - started_at,
        )

    def regenerate(self, **watching: Any) -> FinishedReply:
        """Replace the last reply by another one."""
        take_back_reply(self.messages)
        return self.answer(**watching)

    def undo(self) -> bool:
        """Take back the user's last message and the reply to it; return whether there was one."""
        return take_back_turn(self.messages)

    def swap(self) -> None:
        """Change seats: what the user said becomes the imitated person's, the replies become the user's."""
        self.messages = with_roles_swapped(self.messages)

    def reset(self, messages: Messages | None = None) -> None:
        """Begin anew, or go on from `messages`."""
        self.messages = messages or []
        self._num_forgotten = 0

    def drop_cache(self) -> None:
        """Forget what was read: the next reply reads the whole conversation again, and is the same."""
        self._cache = DynamicCache()
        self._read_ids = []

    @property
    def num_prompt_tokens(self) -> int:
        """How many tokens the model would read for the next reply, forgotten turns left out."""
        return len(self.trained.encode_prompt(self.messages[self._num_forgotten :])[0])

    def _fit_prompt(self) -> list[int]:
        """Return the prompt, after whole old turns were forgotten when it leaves no room for the reply."""
        if self._num_forgotten >= len(self.messages):  # turns were taken back beyond what was forgotten
            self._num_forgotten = 0
        prompt_ids, turn_ends = self.trained.encode_prompt(self.messages[self._num_forgotten :])
        room = self.trained.context_tokens - self.trained.reply_room(self.sampling)
        if len(prompt_ids) <= room:
            return prompt_ids
        kept = room * SHARE_KEPT
        visible = self.messages[self._num_forgotten :]
        # From which message on to keep: a message of the user, as conversations begin in training.
        starts = [number for number, message in enumerate(visible) if number and message["role"] == "user"]
        fitting = [number for number in starts if len(prompt_ids) - turn_ends[number - 1] <= kept]
        for number in fitting[:1] or starts[-1:]:
            self._num_forgotten += number
            prompt_ids, _turn_ends = self.trained.encode_prompt(self.messages[self._num_forgotten :])
        if len(prompt_ids) > room:
            raise MessageTooLong(
                f"this message has {len(prompt_ids):,} tokens, the model's memory {room:,}; shorten it"
            )
        if not self._has_forgotten:
            self._has_forgotten = True
            self._on_forget()
        return prompt_ids

    def _rewind_cache(self, prompt_ids: list[int]) -> int:
        """Cut the cache back to what it shares with `prompt_ids`; return how many tokens that are."""
        num_cached = self._cache.get_seq_length()
        num_shared = 0
        # Never all of it: at least one token must be read to predict the next.
        for read_id, prompt_id in zip(self._read_ids[:num_cached], prompt_ids[:-1]):  # noqa: B905 the shorter one decides
            if read_id != prompt_id:
                break
            num_shared += 1
        if num_shared == 0:
            self.drop_cache()
        elif num_cached > num_shared:
            self._cache.crop(num_shared - num_cached)  # negative: how many to remove
        return num_shared

    def _remember(self, stream: ReplyStream) -> None:
        if not stream.bubbles:
            return
        reply: dict[str, Any] = {"role": "assistant", "content": "\n".join(stream.bubbles)}
        # Where the ids say more than was shown (half a letter, a control character), what was shown counts.
        said = self.trained.tokenizer.decode(stream.ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        if said == reply["content"]:
            reply["ids"] = stream.ids
        self.messages.append(reply)
