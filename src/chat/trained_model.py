"""The trained folder at work: loading base and adapter, and a conversation that never reads its history twice.

A conversation keeps one key/value cache. Each turn, the part of the new prompt that the model has already read is found
by comparing token ids, and only the rest is read: saying, undoing, editing and forgetting are all this one comparison.
It leaves checking the folder to `saved_model_checks` and talking to the user to `chat_bot`.
"""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from chat_script import ScriptError, shown_path
from compute_device import ComputePlan, look_at_machine, plan_computing, quantization_config
from peft import PeftModel
from reply_stream import ReplyStream
from sampling import Sampling
from saved_model_checks import SavedModel, check_saved_model
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DynamicCache,
    GenerationConfig,
    RepetitionPenaltyLogitsProcessor,
)
from transformers.utils import logging as transformers_logging
from turn_format import ChatFormatError, encode_conversation, find_end_of_turn_id
from turns import Messages, add_to_turn, take_back_reply, take_back_turn, with_seats_swapped

# What stays in the model's memory when it is full. Forgetting moves every position, so what stays is read again once:
# at a half that costs one re-read token per new one, at nine tenths nine.
SHARE_KEPT = 0.5


class MessageTooLong(ValueError):
    """A message alone is longer than the model's memory; the text says by how much."""


@dataclass(frozen=True)
class Reply:
    """What came out for one turn: the text shown, how it ended, and what it cost."""

    text: str  # bubbles, joined by line breaks; empty when the model had nothing to say
    ending: str  # one of reply_stream.ENDINGS
    num_prompt_tokens: int
    num_reused_tokens: int  # of the prompt: read in an earlier turn
    num_new_tokens: int
    first_token_seconds: float
    seconds: float


@dataclass(frozen=True)
class TrainedModel:
    """A base with its adapter, ready to write; `model` is a PeftModel (`disable_adapter()` gives the base)."""

    model: Any
    tokenizer: Any
    settings: Mapping[str, Any]  # training_settings.json
    sampling: Sampling  # the folder's own values
    end_ids: frozenset[int]  # the tokens that end a turn
    context_tokens: int  # as long as the conversations it was trained on
    plan: ComputePlan

    def encode_prompt(self, messages: Sequence[Mapping[str, Any]]) -> tuple[list[int], list[int]]:
        """Return the ids of `messages` and of the next reply's header, and where each message's turn ends in them."""
        reply_ids = {number: message["ids"] for number, message in enumerate(messages) if message.get("ids")}
        encoded = encode_conversation(self.tokenizer, messages, reply_ids, add_generation_prompt=True)
        return encoded.input_ids, encoded.turn_ends

    def reply_room(self, sampling: Sampling) -> int:
        """Return how many tokens a reply may have, at most half of the context."""
        return min(sampling.max_new_tokens, self.context_tokens // 2)

    def generate(
        self, prompt_ids: list[int], stream: ReplyStream, sampling: Sampling, seed: int, cache: Any
    ) -> list[int]:
        """Write a reply to `prompt_ids` into `stream`; return the prompt and everything that was generated."""
        torch.manual_seed(seed)
        input_ids = torch.tensor([prompt_ids], device=self.model.device)
        choosing = (
            {name: getattr(sampling, name) for name in ("temperature", "min_p", "top_p", "top_k")}
            if sampling.do_sample
            else {}
        )
        processors = []
        if sampling.repetition_penalty != 1.0:
            processors.append(
                RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty, prompt_ignore_length=len(prompt_ids))
            )
        output = self.model.generate(
            input_ids=input_ids,
            # Explicit, or one would be guessed from the padding id, which may occur as an ordinary token.
            attention_mask=torch.ones_like(input_ids),
            past_key_values=cache,
            generation_config=GenerationConfig(
                do_sample=sampling.do_sample,
                max_new_tokens=self.reply_room(sampling),
                min_new_tokens=1,
                eos_token_id=sorted(self.end_ids),
                pad_token_id=min(self.end_ids),
                **choosing,
            ),
            logits_processor=processors,
            stopping_criteria=[stream],
        )
        ids: list[int] = output[0].tolist()
        return ids

    def generate_reply(self, messages: Sequence[Mapping[str, Any]], seed: int, sampling: Sampling | None = None) -> str:
        """Return one reply to `messages`, read from the start: for measuring, also within `model.disable_adapter()`."""
        prompt_ids, _turn_ends = self.encode_prompt(messages)
        stream = self.new_stream(len(prompt_ids), sampling or self.sampling)
        self.generate(prompt_ids, stream, sampling or self.sampling, seed, DynamicCache())
        stream.finish("limit")
        return "\n".join(stream.bubbles)

    def new_stream(
        self,
        num_prompt_tokens: int,
        sampling: Sampling,
        on_text: Callable[[str], None] = lambda text: None,
        on_bubble: Callable[[str, str | None], None] = lambda text, cut_by: None,
        stop: threading.Event | None = None,
    ) -> ReplyStream:
        """Return the stream that a reply to a prompt of this length goes into."""
        return ReplyStream(
            self.tokenizer,
            num_prompt_tokens,
            self.end_ids,
            sampling.max_bubbles,
            on_text,
            on_bubble,
            stop or threading.Event(),
        )


def load_trained_model(
    saved_model_dir: Path | SavedModel,
    base_model_id: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    is_merged: bool = False,
) -> TrainedModel:
    """Load the trained folder onto `device`; raise ScriptError with the cure.

    `is_merged` folds the adapter into the weights where that is exact enough (float32), which is a fifth faster on a
    processor; `disable_adapter()` still works.
    """
    saved = (
        saved_model_dir
        if isinstance(saved_model_dir, SavedModel)
        else check_saved_model(saved_model_dir, base_model_id)
    )
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    assert saved.base.folder is not None
    tokenizer = AutoTokenizer.from_pretrained(saved.folder, trust_remote_code=False)
    plan = plan_computing(device, dtype, saved.base.folder, look_at_machine())
    base = AutoModelForCausalLM.from_pretrained(
        saved.base.folder,
        dtype=plan.dtype,
        device_map={"": 0 if plan.device == "cuda" else plan.device},
        quantization_config=quantization_config(plan, saved.settings),
        attn_implementation="sdpa",
        trust_remote_code=False,
        use_safetensors=True,
    )
    base.generation_config = GenerationConfig()  # whatever the base's own says: the trained folder decides
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # between the libraries; nothing its user could act on
        model = PeftModel.from_pretrained(base, saved.folder, is_trainable=False)
    model.eval()
    if is_merged and plan.dtype == torch.float32 and not base.config.tie_word_embeddings:
        model.merge_adapter()
    positions = getattr(base.config, "max_position_embeddings", None) or saved.settings["max_length"]
    try:
        end_ids = {find_end_of_turn_id(tokenizer), *tokenizer.all_special_ids}
        sampling = Sampling.from_generation_config(saved.generation)
    except ChatFormatError as error:
        raise ScriptError(f"{shown_path(saved.folder)}: {error}") from None
    except ValueError as error:
        raise ScriptError(f"{shown_path(saved.folder / 'generation_config.json')}: {error}; correct it") from None
    return TrainedModel(
        model=model,
        tokenizer=tokenizer,
        settings=saved.settings,
        sampling=sampling,
        end_ids=frozenset(end_ids),
        context_tokens=min(saved.settings["max_length"], positions),
        plan=plan,
    )


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

    def say(self, text: str, **watching: Any) -> Reply:
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
    ) -> Reply:
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
            read_ids = self.trained.generate(
                prompt_ids, stream, self.sampling, self.seed + self._num_replies, self._cache
            )
        finally:
            if not read_ids:  # broken off in the middle of a step: the layers may differ in length
                self.drop_cache()
            self._read_ids = read_ids
            stream.finish("limit" if read_ids else "interrupted")
            self._remember(stream)
        return Reply(
            text="\n".join(stream.bubbles),
            ending=str(stream.ending),
            num_prompt_tokens=len(prompt_ids),
            num_reused_tokens=num_reused,
            num_new_tokens=len(read_ids) - len(prompt_ids),
            first_token_seconds=(stream.first_token_at or time.monotonic()) - started_at,
            seconds=time.monotonic() - started_at,
        )

    def regenerate(self, **watching: Any) -> Reply:
        """Replace the last reply by another one."""
        take_back_reply(self.messages)
        return self.answer(**watching)

    def undo(self) -> bool:
        """Take back the user's last message and the reply to it; return whether there was one."""
        return take_back_turn(self.messages)

    def swap(self) -> None:
        """Change seats: what the user said becomes the imitated person's, the replies become the user's."""
        self.messages = with_seats_swapped(self.messages)

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
