"""The trained folder without its weights: messages -> prompt ids, where a reply ends, and the cache that every engine has.

Imports no torch: the chat on llama.cpp needs none. The weights are left to `trained_model` and `llama_cpp_model`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from reply_stream import ReplyStream
from saved_model_checks import SavedModel

from common.chat_format import encode_conversation, find_end_of_turn_id
from common.model_folder import Sampling
from common.outside_files import loading
from common.script import ScriptError, printable, shown_path
from common.template_rendering import ChatFormatError


@dataclass(frozen=True)
class TrainedChat:
    """What the chat knows of a trained model, whatever computes it."""

    tokenizer: Any
    settings: Mapping[str, Any]  # training_settings.json
    sampling: Sampling  # the trained folder's values
    end_ids: frozenset[int]  # the tokens that end a turn
    context_tokens: int  # the length it was trained at, or the base's limit if that is lower

    @property
    def computed_on(self) -> str:
        """What computes the replies, as messages show it."""
        raise NotImplementedError

    @property
    def person(self) -> str:
        """Whom the model imitates, as messages and the log show it."""
        return printable(str(self.settings.get("person") or "the person of the chat"))

    @property
    def name(self) -> str:
        """The model, as the log names it: whose replies, on which base, trained when."""
        base_name = str(self.settings["base_model_id"]).rstrip("/").rpartition("/")[2]
        finished_at = str(self.settings.get("finished_at") or "")[:16].replace("T", " ")  # to the minute
        return printable(f"{self.person} on {base_name}" + (f", trained {finished_at}" if finished_at else ""))

    def encode_prompt(self, messages: Sequence[Mapping[str, Any]], header: str = "") -> tuple[list[int], list[int]]:
        """Return the ids of `messages` and of what opens the next reply, and where each message's turn ends.

        `header`: the line before the conversation that says who and when.
        """
        reply_ids = {number: message["ids"] for number, message in enumerate(messages) if message.get("ids")}
        encoded = encode_conversation(self.tokenizer, messages, reply_ids, add_generation_prompt=True, header=header)
        return encoded.input_ids, encoded.turn_ends

    def reply_room(self, sampling: Sampling) -> int:
        """Return the maximum number of tokens of a reply: at most half of the context."""
        return min(sampling.max_new_tokens, self.context_tokens // 2)

    def new_stream(
        self,
        num_prompt_tokens: int,
        sampling: Sampling,
        on_text: Callable[[str], None] = lambda text: None,
        on_bubble: Callable[[str, str | None], None] = lambda text, cut_by: None,
        stop: threading.Event | None = None,
    ) -> ReplyStream:
        """Return the stream for the reply to a prompt of this length."""
        return ReplyStream(
            self.tokenizer,
            num_prompt_tokens,
            self.end_ids,
            sampling.max_bubbles,
            on_text,
            on_bubble,
            stop or threading.Event(),
        )


class ConversationCache(Protocol):
    """What a model has read of one conversation, and replies from there."""

    @property
    def why_direct(self) -> str | None:
        """Why steps are not captured on a device that could do it, or None."""

    def drop(self) -> None:
        """Empty the cache."""

    def rewind(self, prompt_ids: list[int]) -> int:
        """Cut the cache back to what it shares with `prompt_ids`; return the number of shared tokens."""

    def generate(self, prompt_ids: list[int], sampling: Sampling, seed: int, stream: ReplyStream) -> list[int]:
        """Give the reply's tokens to `stream` until it ends; return prompt and reply. `rewind` goes before."""


def count_shared(cached_ids: Sequence[int], prompt_ids: Sequence[int]) -> int:
    """Return how many ids both begin with; never the whole prompt, whose last token predicts the next."""
    num_shared = 0
    for cached_id, prompt_id in zip(cached_ids, prompt_ids[:-1]):  # noqa: B905
        if cached_id != prompt_id:
            break
        num_shared += 1
    return num_shared


def load_tokenizer(saved: SavedModel) -> tuple[Any, frozenset[int]]:
    """Return the tokenizer of the checked folder, and the tokens that end a turn; raise ScriptError."""
    from transformers import AutoTokenizer

    shown_folder = shown_path(saved.folder)
    with loading(shown_folder, "its tokenizer", "train again, or restore the folder from a backup"):
        tokenizer = AutoTokenizer.from_pretrained(saved.folder, trust_remote_code=False)
        if tokenizer.chat_template is None:
            missing = shown_path(saved.folder / "chat_template.jinja")
            raise ScriptError(f"{missing}: not found, the trained folder is incomplete; train again")
        try:
            return tokenizer, frozenset({find_end_of_turn_id(tokenizer), *tokenizer.all_special_ids})
        except ChatFormatError as error:
            raise ScriptError(f"{shown_folder}: {error}") from None
