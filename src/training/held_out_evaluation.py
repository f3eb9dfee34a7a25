"""The model on held-out conversations: the loss of the replies, and a few sample replies.

The loss is summed over tokens and divided once; the Trainer's mean over batches depends on their size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from packed_attention import plain_attention
from packing import PackedRows, collate_row, on_device
from recipes import MAX_SAMPLE_TOKENS, NUM_SAMPLES

from common.chat_format import encode_conversation
from common.script import printable

NUM_COMPARED = 3  # after training, beside what the person really wrote
MAX_SAMPLE_PROMPT_TOKENS = 400
MAX_SAMPLE_CHARS = 100

T = TypeVar("T")


@dataclass(frozen=True)
class ReplyLoss:
    """The loss of replies, their end-of-turn tokens included."""

    nats: float
    num_tokens: int
    num_chars: int

    @property
    def per_token(self) -> float:
        """Nats per token: what training minimises."""
        return self.nats / self.num_tokens

    @property
    def bits_per_char(self) -> float:
        """Bits per character: comparable between base models with different tokenizers."""
        return self.nats / math.log(2) / self.num_chars


def measure_reply_loss(model: Any, rows: PackedRows) -> ReplyLoss:
    """Measure the loss of the replies in all rows."""
    nats = num_tokens = num_chars = 0.0
    was_training = model.training
    model.eval()
    with torch.no_grad():
        for number in range(len(rows)):
            chunks = rows[number]
            batch = on_device(collate_row([chunks]), model.device)
            nats += model(**batch, num_items_in_batch=1).loss.item()  # divided by 1: the sum
            num_tokens += len(batch["labels"])
            num_chars += sum(chunk["num_reply_chars"] for chunk in chunks)
    model.train(was_training)
    return ReplyLoss(nats, int(num_tokens), int(num_chars))


@dataclass(frozen=True)
class ComparedReply:
    """A held-out message with the person's own reply and the model's, one line each."""

    message: str
    real: str
    written: str


class SampleReplies:
    """A few held-out prompts, each answered by the base and by the model at each evaluation, with the same random numbers."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        conversations: Sequence[tuple[str, Sequence[Mapping[str, str]]]],
        generation_config: Mapping[str, Any],
        seed: int,
    ) -> None:
        """Choose prompts evenly from `conversations`, each a header and messages.

        A prompt ends with the other person's first turn.
        """
        self._model = model
        self._tokenizer = tokenizer
        self._sampling = {**generation_config, "max_new_tokens": MAX_SAMPLE_TOKENS}
        self._seed = seed
        # Turns alternate: the other person's first turn is the first or the second.
        exchanges = []
        for header, messages in conversations:
            first = 1 if messages[0]["role"] == "user" else 2
            if first < len(messages):
                exchanges.append((header, messages[:first], messages[first]["content"]))
        self._base_replies: list[str] = []  # generated once: the base does not change
        self._prompts = [(header, messages) for header, messages, _ in _spread(exchanges, NUM_SAMPLES)]
        self._compared = _spread(exchanges, NUM_COMPARED)

    def show(self, is_base: bool) -> None:
        """Print each prompt with the base's reply and, after the first step, the model's reply now."""
        if not self._base_replies:
            with self._model.disable_adapter():
                self._base_replies = [self._reply(*prompt) for prompt in self._prompts]
        for (header, messages), base_reply in zip(self._prompts, self._base_replies, strict=True):
            print(f"  them  {_one_line(messages[-1]['content'])}")
            print(f"  base  {_one_line(base_reply)}")
            if not is_base:
                print(f"  now   {_one_line(self._reply(header, messages))}")

    def compare(self) -> list[ComparedReply]:
        """Return a few held-out messages, each with the person's own reply and the model's reply now."""
        return [
            ComparedReply(_one_line(messages[-1]["content"]), _one_line(real), _one_line(self._reply(header, messages)))
            for header, messages, real in self._compared
        ]

    def _reply(self, header: str, messages: Sequence[Mapping[str, str]]) -> str:
        encoded = encode_conversation(self._tokenizer, messages, add_generation_prompt=True, header=header)
        ids = encoded.input_ids[-MAX_SAMPLE_PROMPT_TOKENS:]
        input_ids = torch.tensor([ids], device=self._model.device)
        was_training = self._model.training
        self._model.eval()
        # Sampling must not change the random state of the training.
        devices = [self._model.device] if self._model.device.type == "cuda" else []
        with torch.no_grad(), torch.random.fork_rng(devices), plain_attention(self._model):
            torch.manual_seed(self._seed)
            mask = torch.ones_like(input_ids)
            output = self._model.generate(input_ids=input_ids, attention_mask=mask, use_cache=True, **self._sampling)
        self._model.train(was_training)
        reply: str = self._tokenizer.decode(output[0][len(ids) :], skip_special_tokens=True)
        return reply.replace("\N{REPLACEMENT CHARACTER}", "")  # part of an emoji, cut by the limit


def _spread(items: Sequence[T], most: int) -> list[T]:
    """Return at most so many of `items`, evenly spread over them."""
    number = min(most, len(items))
    return [items[place * len(items) // number] for place in range(number)]


def _one_line(text: str) -> str:
    return printable(" / ".join(text.strip().splitlines()))[:MAX_SAMPLE_CHARS]
