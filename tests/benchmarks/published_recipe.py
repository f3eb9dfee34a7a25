"""The recipe that was published for this project, for comparison: rows padded to 2,000 tokens, a loss on every token."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from packing import Schedule, fill_last_step

# Its learning rate of 2.5e-5 is not used: the benchmark trains all arms at one rate.
DROPOUT = 0.07
MAX_LENGTH = 2_000
ROWS_PER_BATCH = 2
BATCHES_PER_STEP = 4

IGNORED = -100  # the label on which the libraries take no loss


def plan_padded_schedule(num_rows: int, num_epochs: int, seed: int) -> Schedule:
    """Plan a run of padded batches: shuffled conversations, `ROWS_PER_BATCH` to a batch."""
    rows: list[list[int]] = []
    epoch_ends: list[int] = []
    for epoch in range(num_epochs):
        order = list(range(num_rows))
        random.Random(f"{seed} {epoch}").shuffle(order)
        batches = [order[start : start + ROWS_PER_BATCH] for start in range(0, len(order), ROWS_PER_BATCH)]
        rows += fill_last_step(batches, BATCHES_PER_STEP)
        epoch_ends.append(len(rows) // BATCHES_PER_STEP)
    return Schedule(rows, BATCHES_PER_STEP, epoch_ends)


@dataclass(frozen=True)
class PaddedCollator:
    """Rows padded to one fixed length; no loss on padding."""

    pad_token_id: int
    length: int = MAX_LENGTH

    def __call__(self, batch: Sequence[Sequence[dict[str, Any]]]) -> dict[str, Any]:
        """Return `input_ids`, `attention_mask` and `labels`, each [rows, length]."""
        (conversations,) = batch
        input_ids = torch.full((len(conversations), self.length), self.pad_token_id)
        attention_mask = torch.zeros_like(input_ids)
        is_supervised = torch.zeros_like(input_ids, dtype=torch.bool)
        for row, conversation in enumerate(conversations):
            ids = torch.tensor(conversation["input_ids"][: self.length])
            input_ids[row, : len(ids)] = ids
            attention_mask[row, : len(ids)] = 1
            is_supervised[row, : len(ids)] = torch.tensor(conversation["is_supervised"][: self.length])
        labels = input_ids.masked_fill(~is_supervised, IGNORED)
        return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels, "use_cache": False}
