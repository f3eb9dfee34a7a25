"""Tuned and base model on the held-out exchanges: the bits of each real reply, and generated replies.

The bits of a reply are those of its tokens and its end token. They are divided by its characters rather than its
tokens, so that bases with different tokenizers compare. Replies are sampled in batches and pass through the chat's
reply stream, so that bubbles, role markers and loops end them as in the chat. Loading the model is left to
`trained_model`, the steps of a batch on a card to `static_decoding`, choosing the contexts to the script, and intervals
to `style_measuring`.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from reply_stream import ReplyStream
from static_decoding import NotStatic, StaticDecoder, generate_tokens
from trained_model import TrainedModel
from turns import Messages

from common.chat_format import EncodedConversation, encode_conversation
from common.model_folder import Sampling
from common.private_files import replacing
from writing_style.held_out_replies import Exchange

WRITERS = ("tuned", "base")

# Tokens in a batch: about 1 GiB of keys and values with the default 7B, little beside its weights.
BATCH_TOKENS = 8_192
MAX_BATCH_ROWS = 16
# On a card a step of 64 rows takes little longer than one of a row: both read every weight once.
MAX_CARD_ROWS = 64
MAX_CARD_TOKENS = 65_536  # reading the prompts of a batch takes about 10 GiB beside its keys and values then
SHARE_OF_CARD = 0.5  # for keys and values, of what the weights leave; counted from the whole card, so that runs repeat


@dataclass(frozen=True)
class ScoredReply:
    """The bits of one reply under the base and the tuned model."""

    conversation: int
    num_chars: int
    base_bits: float
    tuned_bits: float


def encode_fitting(
    tokenizer: Any, messages: Messages, max_tokens: int, add_generation_prompt: bool = False, header: str = ""
) -> EncodedConversation:
    """Encode `messages` after their header, leaving out whole turns, the oldest first, until they fit into `max_tokens`."""
    encode = partial(encode_conversation, tokenizer, add_generation_prompt=add_generation_prompt, header=header)
    encoded = encode(messages)
    first = 0
    while len(encoded.input_ids) > max_tokens and first < len(messages) - 1:
        surplus = len(encoded.input_ids) - max_tokens
        first += next((place + 1 for place, end in enumerate(encoded.turn_ends[:-1]) if end >= surplus), 1)
        first = min(first, len(messages) - 1)
        encoded = encode(messages[first:])
    return encoded


def make_batches(
    lengths: Sequence[int], batch_tokens: int = BATCH_TOKENS, max_rows: int = MAX_BATCH_ROWS
) -> list[list[int]]:
    """Return the rows of each batch, rows of similar length together; the same lengths give the same batches."""
    batches: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda row: (-lengths[row], row)):
        longest = lengths[batches[-1][0]] if batches else 0
        if batches and len(batches[-1]) < max_rows and longest * (len(batches[-1]) + 1) <= batch_tokens:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches


def pad_left(rows: Sequence[Sequence[int]], padding_id: int, device: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Return `input_ids` and `attention_mask` of `rows`, padded on the left to one length."""
    longest = max(map(len, rows))
    input_ids = torch.tensor([[padding_id] * (longest - len(row)) + list(row) for row in rows], device=device)
    attention_mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=device)
    return input_ids, attention_mask


def reply_token_bits(model: Any, rows: Sequence[tuple[Sequence[int], int]]) -> Iterator[list[float]]:
    """Yield for each row `(ids, number of tokens to score at its end)` the bits of each scored token."""
    input_ids, attention_mask = pad_left([ids for ids, _ in rows], rows[0][0][0], model.device)
    num_kept = max(num_scored for _, num_scored in rows) + 1
    with torch.inference_mode():
        logits = model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=(attention_mask.cumsum(-1) - 1).clamp(min=0),
            use_cache=False,
            logits_to_keep=num_kept,
        ).logits
        for row, (ids, num_scored) in enumerate(rows):
            targets = torch.tensor(ids[len(ids) - num_scored :], device=model.device)
            log_probabilities = logits[row, -num_scored - 1 : -1].float().log_softmax(-1)
            nats = -log_probabilities.gather(-1, targets[:, None])[:, 0]
            yield (nats / math.log(2)).tolist()


def encode_exchange(tokenizer: Any, exchange: Exchange, max_tokens: int) -> tuple[list[int], int]:
    """Return the ids of context and reply, and how many of them at the end belong to the reply, its end token included."""
    messages = [*exchange.context, {"role": "assistant", "content": exchange.reply}]
    encoded = encode_fitting(tokenizer, messages, max_tokens, header=exchange.header)
    end = encoded.turn_ends[-1]
    start = encoded.turn_ends[-2] if len(encoded.turn_ends) > 1 else 0
    num_scored = sum(encoded.is_supervised[start:end])
    ids = encoded.input_ids[:end][-max_tokens:]
    return ids, min(num_scored, len(ids) - 1)


def score_replies(
    model: Any,
    tokenizer: Any,
    exchanges: Sequence[Exchange],
    max_tokens: int,
    show_progress: Callable[[int], None] = lambda num_replies: None,
) -> list[ScoredReply]:
    """Return the bits of each reply in its context, without and with the adapter of `model` (a PeftModel)."""
    rows = [encode_exchange(tokenizer, exchange, max_tokens) for exchange in exchanges]
    base_bits, tuned_bits = [0.0] * len(rows), [0.0] * len(rows)
    for batch in make_batches([len(ids) for ids, _ in rows]):
        chosen = [rows[row] for row in batch]
        for row, bits in zip(batch, reply_token_bits(model, chosen), strict=True):
            tuned_bits[row] = sum(bits)
        with model.disable_adapter():
            for row, bits in zip(batch, reply_token_bits(model, chosen), strict=True):
                base_bits[row] = sum(bits)
        show_progress(len(batch))
    return [
        ScoredReply(exchange.conversation, len(exchange.reply), base, tuned)
        for exchange, base, tuned in zip(exchanges, base_bits, tuned_bits, strict=True)
    ]


def with_shuffled_contexts(exchanges: Sequence[Exchange], distance: float = 0.5) -> list[Exchange]:
    """Return each reply with the context of a reply from another conversation (`distance` of the list away).

    It keeps its own header: what differs are the words alone.
    """
    step = int(distance * len(exchanges))
    return [
        replace(exchange, context=exchanges[(place + step) % len(exchanges)].context)
        for place, exchange in enumerate(exchanges)
    ]


class SampledReply(NamedTuple):
    """A generated reply, and how it ended: "complete", "bubbles", "loop", "marker" or "limit"."""

    text: str
    ending: str


class BatchGeneration:
    """Replies to batches of prompts: by captured steps on a CUDA card, else by the library's `generate`.

    The same prompts and seed give the same replies on the same machine.
    """

    def __init__(self, trained: TrainedModel, is_static: bool | None = None) -> None:
        """`is_static`: decode at fixed addresses; None chooses by the device."""
        self._trained = trained
        self._is_static = trained.device.kind == "cuda" if is_static is None else is_static
        self._decoder: StaticDecoder | None = None
        self.batch_tokens, self.max_rows = BATCH_TOKENS, MAX_BATCH_ROWS
        if trained.device.kind == "cuda":
            fitting = int(free_card_bytes(trained.model) / bytes_per_token(trained.model))
            self.batch_tokens = min(max(BATCH_TOKENS, fitting), MAX_CARD_TOKENS)
            self.max_rows = MAX_CARD_ROWS

    def generate(self, prompts: Sequence[Sequence[int]], sampling: Sampling, seed: int) -> list[SampledReply]:
        """Return one reply to each prompt; their padded tokens are at most `batch_tokens`."""
        if self._is_static:
            try:
                return self._generate_static(prompts, sampling, seed)
            except (NotStatic, torch.OutOfMemoryError):
                self._is_static, self._decoder = False, None
        input_ids, attention_mask = pad_left(prompts, min(self._trained.end_ids), self._trained.model.device)
        with torch.inference_mode():
            output = self._trained.generate(input_ids, sampling, seed, attention_mask)
        streams = [self._trained.new_stream(input_ids.shape[1], sampling) for _row in output]
        for stream, ids in zip(streams, output, strict=True):
            stream(ids[None], None)
        return [_finish(stream) for stream in streams]

    def _generate_static(self, prompts: Sequence[Sequence[int]], sampling: Sampling, seed: int) -> list[SampledReply]:
        room = self._trained.reply_room(sampling)
        decoder = self._decoder_for(len(prompts), max(map(len, prompts)) + room)
        torch.manual_seed(seed)
        decoder.rewind(0)
        decoder.read([*prompts, *[prompts[-1]] * (decoder.num_rows - len(prompts))])
        streams = [self._trained.new_stream(len(prompt), sampling) for prompt in prompts]

        def take(tokens: list[int]) -> bool:
            endings = [stream.take(token) for stream, token in zip(streams, tokens, strict=False)]
            return all(endings)

        with torch.no_grad():
            generate_tokens(decoder, sampling, self._trained.end_ids, room, take)
        return [_finish(stream) for stream in streams]

    def _decoder_for(self, num_rows: int, num_tokens: int) -> StaticDecoder:
        """Return the last decoder if it fits, else one of a round size, so that a few captures serve all batches."""
        num_rows, num_tokens = -(-num_rows // 8) * 8 if num_rows > 4 else num_rows, -(-num_tokens // 256) * 256
        decoder = self._decoder
        if decoder is None or decoder.num_rows != num_rows or decoder.max_tokens < num_tokens:
            self._decoder = decoder = None  # its memory first
            self._decoder = decoder = StaticDecoder(self._trained.model, num_rows, num_tokens)
        return decoder


def _finish(stream: ReplyStream) -> SampledReply:
    stream.finish("limit")
    return SampledReply("\n".join(stream.bubbles), str(stream.ending))


def bytes_per_token(model: Any) -> int:
    """Return the memory of one token's keys and values."""
    config = model.config.get_text_config()
    num_heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    head_width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(2 * config.num_hidden_layers * num_heads * head_width * model.get_input_embeddings().weight.itemsize)


def free_card_bytes(model: Any) -> float:
    """Return how much of the card keys and values may take."""
    weights = sum(parameter.nbytes for parameter in model.parameters())
    total: int = torch.cuda.get_device_properties(model.device).total_memory
    return SHARE_OF_CARD * float(total - weights)


def cut_as_generated(trained: TrainedModel, text: str) -> str:
    """Return a real reply cut to the limits of a generated one, in messages and in tokens."""
    text = "\n".join([line for line in text.split("\n") if line.strip()][: trained.sampling.max_bubbles])
    ids = trained.tokenizer(text, add_special_tokens=False)["input_ids"]
    room = trained.reply_room(trained.sampling)
    if len(ids) <= room:
        return text
    return str(trained.tokenizer.decode(ids[:room])).rstrip("\N{REPLACEMENT CHARACTER}")


class RepliesFile:
    """`style_replies.jsonl`: a first line with the settings of the replies, then a line for each reply."""

    def __init__(self, path: Path, made_with: Mapping[str, Any]) -> None:
        """Load the replies of an earlier run with the same `made_with`, or begin an empty file."""
        self._path = path
        self._replies: dict[tuple[str, int, int], SampledReply] = {}
        header = json.dumps(made_with, ensure_ascii=False, sort_keys=True)
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n") if path.is_file() else []
        whole = [header]
        if lines and lines[0] == header:
            for line in lines[1:]:
                try:
                    record = json.loads(line)
                    key = (record["writer"], record["conversation"], record["number"])
                    self._replies[key] = SampledReply(record["text"], record["ending"])
                except (ValueError, TypeError, KeyError):
                    break  # cut off by a kill: what follows is incomplete, too
                whole.append(line)
        with replacing(path) as file:
            file.write("\n".join(whole) + "\n")

    def find(self, writer: str, exchange: Exchange) -> SampledReply | None:
        """Return the stored reply, or None."""
        return self._replies.get((writer, exchange.conversation, exchange.number))

    def add(self, writer: str, exchanges: Sequence[Exchange], replies: Sequence[SampledReply]) -> None:
        """Append replies and flush them to disk."""
        records = []
        for exchange, reply in zip(exchanges, replies, strict=True):
            self._replies[writer, exchange.conversation, exchange.number] = reply
            place = {"writer": writer, "conversation": exchange.conversation, "number": exchange.number}
            records.append(json.dumps({**place, **reply._asdict()}, ensure_ascii=False) + "\n")
        with self._path.open("a", encoding="utf-8") as file:
            file.write("".join(records))
            file.flush()
            os.fsync(file.fileno())


def sample_replies(
    trained: TrainedModel,
    exchanges: Sequence[Exchange],
    seed: int,
    replies_file: RepliesFile,
    show_progress: Callable[[int], None] = lambda num_replies: None,
    write_tuned: Callable[[Sequence[Sequence[int]], Sampling, int], list[SampledReply]] | None = None,
) -> dict[str, list[SampledReply]]:
    """Return the replies of "tuned" and "base" to the contexts of `exchanges`, in their order.

    `write_tuned` takes the place of `trained` with its adapter.
    """
    sampling = trained.sampling
    room = trained.context_tokens - trained.reply_room(sampling)
    prompts = [
        encode_fitting(trained.tokenizer, exchange.context, room, True, exchange.header).input_ids[-room:]
        for exchange in exchanges
    ]
    generation = BatchGeneration(trained)
    batches = make_batches(
        [len(prompt) + trained.reply_room(sampling) for prompt in prompts], generation.batch_tokens, generation.max_rows
    )
    for number, batch in enumerate(batches):
        chosen = [exchanges[row] for row in batch]
        for writer in WRITERS:
            is_missing = any(replies_file.find(writer, exchange) is None for exchange in chosen)
            if is_missing and writer == "tuned" and write_tuned is not None:
                replies_file.add(writer, chosen, write_tuned([prompts[row] for row in batch], sampling, seed + number))
            elif is_missing:
                with trained.model.disable_adapter() if writer == "base" else nullcontext():
                    replies = generation.generate([prompts[row] for row in batch], sampling, seed + number)
                replies_file.add(writer, chosen, replies)
            show_progress(len(batch))
    found = {writer: [replies_file.find(writer, exchange) for exchange in exchanges] for writer in WRITERS}
    return {writer: [reply for reply in replies if reply is not None] for writer, replies in found.items()}
