"""One reply while it is generated: whole characters, bubbles, and when to stop.

It takes one token id after another. It is also a stopping criterion, which the library's `generate` calls after each
token, before it would call a streamer.
Sampling is left to `trained_model`, the cache to `live_conversation`, showing the text to the callbacks.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Collection, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from wcwidth import iter_graphemes

from common.text_safety import remove_unsafe_characters

if TYPE_CHECKING:
    import torch

# The published role markers are plain text to the tokenizer, so an undertrained model can write one. It ends the reply.
ROLE_MARKER_RE = re.compile(r"<person[12]>")
ROLE_MARKER_PREFIX_RE = re.compile(r"<(p(e(r(s(o(n[12]?)?)?)?)?)?)?$")

# How a reply can end: by itself, at the allowed number of bubbles, at a role marker; or cut short: in a loop, by the
# user, at the maximum length.
ENDINGS = ("complete", "bubbles", "marker", "loop", "interrupted", "limit")
CUT_ENDINGS = ENDINGS[3:]

BLOCK_TOKENS = range(4, 21)  # shorter blocks occur in good replies, longer ones reach the maximum length
NUM_REPEATS = 4
LAUGHTER_GRAPHEMES = 25  # the longest allowed run of "חחחחח", "hahaha" or one repeated emoji
LAUGHTER_LETTERS = 2


class ReplyStream:
    """Collects a reply; calls `on_text` with each piece of text and `on_bubble` with each finished bubble (one line).

    `on_bubble` also gets the ending that cut the bubble short, or None.
    """

    def __init__(
        self,
        tokenizer: Any,
        num_prompt_tokens: int,
        end_ids: Collection[int],
        max_bubbles: int,
        on_text: Callable[[str], None],
        on_bubble: Callable[[str, str | None], None],
        stop: threading.Event,
    ) -> None:
        """`end_ids` are the tokens that end a turn; `stop` is set from outside to stop after the current token."""
        from tokenizers.decoders import DecodeStream

        self._tokenizer = tokenizer
        # Holds bytes back until they form whole characters; decoding token by token would break emoji.
        self._decoder = DecodeStream([], skip_special_tokens=True)
        self._end_ids = end_ids
        self._max_bubbles = max_bubbles
        self._on_text = on_text
        self._on_bubble = on_bubble
        self._stop = stop
        self._num_seen_tokens = num_prompt_tokens
        self._held = ""  # possibly the beginning of a role marker
        self._line = ""  # the current bubble
        self.ids: list[int] = []
        self.bubbles: list[str] = []
        self.ending: str | None = None  # one of ENDINGS; None until then
        self.first_token_at: float | None = None

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_kwargs: Any) -> torch.Tensor:
        """Process the new tokens of `input_ids` (one sequence) and return whether to stop."""
        import torch

        for token_id in input_ids[0, self._num_seen_tokens :].tolist():
            self._num_seen_tokens += 1
            self.take(token_id)
        return torch.full((1,), self.ending is not None, dtype=torch.bool, device=input_ids.device)

    def take(self, token_id: int) -> bool:
        """Process the next token, unless the reply has ended before it; return whether it has ended now."""
        if self.first_token_at is None:
            self.first_token_at = time.monotonic()
        if self.ending is None:
            self._take(token_id)
        return self.ending is not None

    def finish(self, ending: str) -> None:
        """Close the current bubble; `ending` applies unless the stream has ended the reply itself."""
        self.ending = self.ending or ending
        self._write(self._held)
        self._held = ""
        self._close_bubble(self.ending if self.ending in CUT_ENDINGS else None)

    def _take(self, token_id: int) -> None:
        if token_id in self._end_ids:
            self.ending = "complete"
            return
        self.ids.append(token_id)
        piece = self._decoder.step(self._tokenizer.backend_tokenizer, token_id)
        if piece:
            self._add(piece)
        if self.ending is None and is_looping(self.ids, self._tokenizer.decode):
            self.ending = "loop"
        self.end_if_stopped()

    def end_if_stopped(self) -> bool:
        """End the reply if `stop` was set, between two tokens or before the first; return whether it has ended."""
        if self.ending is None and self._stop.is_set():
            self.ending = "interrupted"
        return self.ending is not None

    def _add(self, piece: str) -> None:
        # Bytes that form no character, such as half an emoji, decode to U+FFFD.
        text = self._held + remove_unsafe_characters(piece).replace("\N{REPLACEMENT CHARACTER}", "")
        marker = ROLE_MARKER_RE.search(text)
        if marker:
            self.ending = "marker"
            text = text[: marker.start()]
        begun = None if marker else ROLE_MARKER_PREFIX_RE.search(text)
        self._held = begun[0] if begun else ""
        lines = text[: len(text) - len(self._held)].split("\n")
        self._write(lines[0])
        for line in lines[1:]:
            self._close_bubble()
            if len(self.bubbles) >= self._max_bubbles:
                self.ending, self._held = "bubbles", ""
                return
            self._write(line)

    def _write(self, text: str) -> None:
        if not self._line:
            text = text.lstrip()
        self._line += text
        if text:
            self._on_text(text)

    def _close_bubble(self, cut_by: str | None = None) -> None:
        bubble = self._line.rstrip()
        self._line = ""
        if bubble:
            self.bubbles.append(bubble)
            self._on_bubble(bubble, cut_by)


def is_looping(ids: Sequence[int], decode: Callable[[Sequence[int]], str]) -> bool:
    """Return whether `ids` end with one block of 4 to 20 tokens, 4 times in a row.

    A run of one or two different letters (or emoji) is laughter, and up to 25 of them are allowed.
    """
    for size in BLOCK_TOKENS:
        tail = list(ids[-size * NUM_REPEATS :])
        if len(tail) == size * NUM_REPEATS and tail == tail[:size] * NUM_REPEATS:
            return not _is_laughter(decode(tail), decode(ids))
    return False


def _is_laughter(tail: str, text: str) -> bool:
    letters = set(iter_graphemes(tail.strip("\N{REPLACEMENT CHARACTER}")))  # the block may begin or end inside a letter
    if len(letters) > LAUGHTER_LETTERS:
        return False
    run = takewhile(letters.__contains__, reversed(list(iter_graphemes(text))))
    return sum(1 for _ in run) <= LAUGHTER_GRAPHEMES
