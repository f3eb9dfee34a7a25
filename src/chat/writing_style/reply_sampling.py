"""Replies of the tuned and of the untouched base model to the same contexts, drawn as the chat draws them.

Several contexts at a time; each reply then goes through the chat's own stream, so that bubbles, role markers and loops
end it as they do in a conversation. Finished batches are kept in a private file, and an interrupted run goes on there.
It leaves loading the model to `trained_model`, and which contexts to the script.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
from trained_model import TrainedModel

from common.model_folder import Sampling
from common.script import replacing
from writing_style.held_out_replies import Exchange
from writing_style.reply_scoring import encode_fitting, make_batches, pad_left

WRITERS = ("tuned", "base")


class SampledReply(NamedTuple):
    """What a model wrote, and how it ended: "complete", "bubbles", "loop", "marker" or "limit"."""

    text: str
    ending: str


def generate_batch(
    trained: TrainedModel, prompts: Sequence[Sequence[int]], sampling: Sampling, seed: int
) -> list[SampledReply]:
    """Return one reply to each prompt; the same prompts and seed give the same replies on the same machine."""
    input_ids, attention_mask = pad_left(prompts, min(trained.end_ids), trained.model.device)
    with torch.inference_mode():
        output = trained.generate(input_ids, sampling, seed, attention_mask)
    return [_finish(trained, row[None], input_ids.shape[1], sampling) for row in output]


def _finish(trained: TrainedModel, ids: torch.Tensor, num_prompt_tokens: int, sampling: Sampling) -> SampledReply:
    stream = trained.new_stream(num_prompt_tokens, sampling)
    stream(ids, None)
    stream.finish("limit")
    return SampledReply("\n".join(stream.bubbles), str(stream.ending))


def cut_as_generated(trained: TrainedModel, text: str) -> str:
    """Return what of a real reply a generated one could have been: as many messages, as many tokens."""
    text = "\n".join([line for line in text.split("\n") if line.strip()][: trained.sampling.max_bubbles])
    ids = trained.tokenizer(text, add_special_tokens=False)["input_ids"]
    room = trained.reply_room(trained.sampling)
    if len(ids) <= room:
        return text
    return str(trained.tokenizer.decode(ids[:room])).rstrip("\N{REPLACEMENT CHARACTER}")


class RepliesFile:
    """`style_replies.jsonl`: a first line that says how the replies were made, then a line for each."""

    def __init__(self, path: Path, made_with: Mapping[str, Any]) -> None:
        """Take up the replies that an earlier run with the same `made_with` left; else begin an empty file."""
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
                    break  # torn by a kill: what follows was not finished either
                whole.append(line)
        with replacing(path) as file:
            file.write("\n".join(whole) + "\n")

    def find(self, writer: str, exchange: Exchange) -> SampledReply | None:
        """Return the reply that is already there, or None."""
        return self._replies.get((writer, exchange.conversation, exchange.number))

    def texts(self, writer: str, exchanges: Sequence[Exchange]) -> list[str]:
        """Return what `writer` wrote in each of `exchanges`, all of which must be there."""
        return [self._replies[writer, exchange.conversation, exchange.number].text for exchange in exchanges]

    def add(self, writer: str, exchanges: Sequence[Exchange], replies: Sequence[SampledReply]) -> None:
        """Append finished replies and flush them to disk."""
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
) -> dict[str, list[SampledReply]]:
    """Return the replies of "tuned" and "base" to the contexts of `exchanges`, in their order."""
    sampling = trained.sampling
    room = trained.context_tokens - trained.reply_room(sampling)
    prompts = [
        encode_fitting(trained.tokenizer, exchange.context, room, add_generation_prompt=True).input_ids[-room:]
        for exchange in exchanges
    ]
    batches = make_batches([len(prompt) + trained.reply_room(sampling) for prompt in prompts])
    for number, batch in enumerate(batches):
        chosen = [exchanges[row] for row in batch]
        for writer in WRITERS:
            if any(replies_file.find(writer, exchange) is None for exchange in chosen):
                with trained.model.disable_adapter() if writer == "base" else nullcontext():
                    replies = generate_batch(trained, [prompts[row] for row in batch], sampling, seed + number)
                replies_file.add(writer, chosen, replies)
            show_progress(len(batch))
    found = {writer: [replies_file.find(writer, exchange) for exchange in exchanges] for writer in WRITERS}
    return {writer: [reply for reply in replies if reply is not None] for writer, replies in found.items()}
