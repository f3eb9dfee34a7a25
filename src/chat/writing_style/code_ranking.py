"""How well a model knows a planted code: its rank among all ten thousand codes of its form, exactly.

Exposure = log2(10,000) - log2(rank): 13.3 bits when the planted code comes first, about 1.4 on average by chance.
It leaves what that means to `leak_probe`.
"""

from __future__ import annotations

import copy
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any

import torch
from trained_model import TrainedModel

from common.chat_format import encode_conversation
from common.script import ScriptError
from writing_style.canaries import ANSWER, CODE_DIGITS, NUM_CODES, Canary

MOST_BITS = math.log2(NUM_CODES)
ROWS_AT_ONCE = 128  # short rows, but the cache of the head is repeated for each


class CodeRanker:
    """Ranks planted codes among all ten thousand of their form, exactly, by the probability a model gives them."""

    def __init__(self, trained: TrainedModel) -> None:
        """Find the tokens in which the codes differ."""
        self._trained = trained
        tail = ANSWER.split("{word}")[1]
        texts = [tail.format(code=code).strip() for code in _all_codes()]
        rows = trained.tokenizer(texts, add_special_tokens=False)["input_ids"]
        num_shared = next(place for place in range(len(rows[0])) if len({row[place] for row in rows}) > 1)
        self._suffixes = [tuple(row[num_shared:]) for row in rows]

    def exposure_bits(self, canary: Canary) -> float:
        """Return log2(10,000) - log2(rank): 13.3 when the planted code is the likeliest of all.

        Raises ScriptError when the tokenizer melts the code into the words before it.
        """
        head_ids = self._head_ids(canary)
        bits = self._bits_of_codes(head_ids)
        own = bits[int(canary.code)]
        return MOST_BITS - math.log2(1 + sum(other < own for other in bits))

    def _head_ids(self, canary: Canary) -> list[int]:
        """Return the ids of the planted conversation up to its code, as it was trained on."""
        encoded = encode_conversation(self._trained.tokenizer, canary.as_messages())
        ids = encoded.input_ids[: encoded.turn_ends[-1] - 1]  # without the token that ends the turn
        suffix = self._suffixes[int(canary.code)]
        if tuple(ids[-len(suffix) :]) != suffix:
            raise ScriptError("--leak-probe: this tokenizer melts digits into words, so codes cannot be ranked")
        return ids[: -len(suffix)]

    def _bits_of_codes(self, head_ids: list[int]) -> list[float]:
        """Return the bits of every code behind `head_ids`.

        The codes form a tree of tokens and each inner node is read once: with a token for each digit that is 1,111
        short rows behind one cached head instead of 10,000 long ones.
        """
        model = self._trained.model
        nodes_of_length: dict[int, set[tuple[int, ...]]] = defaultdict(set)
        for suffix in self._suffixes:
            for length in range(len(suffix)):
                nodes_of_length[length].add(suffix[:length])
        children: dict[tuple[int, ...], dict[int, float]] = {}
        wanted: dict[tuple[int, ...], set[int]] = defaultdict(set)
        for suffix in self._suffixes:
            for length, token in enumerate(suffix):
                wanted[suffix[:length]].add(token)
        with torch.inference_mode():
            head = torch.tensor([head_ids], device=model.device)
            output = model(input_ids=head, use_cache=True, logits_to_keep=1)
            for length, nodes in sorted(nodes_of_length.items()):
                rows = sorted(nodes)
                for start in range(0, len(rows), ROWS_AT_ONCE):
                    batch = rows[start : start + ROWS_AT_ONCE]
                    logits = output.logits if length == 0 else self._read_behind(output.past_key_values, batch)
                    bits = -logits[:, -1].float().log_softmax(-1) / math.log(2)
                    for node, values in zip(batch, bits, strict=True):
                        tokens = sorted(wanted[node])
                        children[node] = dict(zip(tokens, values[tokens].tolist(), strict=True))
        return [
            sum(children[suffix[:length]][token] for length, token in enumerate(suffix)) for suffix in self._suffixes
        ]

    def _read_behind(self, head_cache: Any, rows: Sequence[tuple[int, ...]]) -> torch.Tensor:
        cache = copy.deepcopy(head_cache)
        cache.batch_repeat_interleave(len(rows))
        input_ids = torch.tensor(rows, device=self._trained.model.device)
        logits: torch.Tensor = self._trained.model(input_ids=input_ids, past_key_values=cache, logits_to_keep=1).logits
        return logits


def _all_codes() -> list[str]:
    return [f"{number:0{CODE_DIGITS}}" for number in range(NUM_CODES)]


def measure_canaries(
    trained: TrainedModel, canaries: Sequence[Canary], show_progress: Callable[[int], None] = lambda num_canaries: None
) -> list[dict[str, Any]]:
    """Return for each number of times planted the mean exposure before and after tuning, and how many come out first."""
    ranker = CodeRanker(trained) if canaries else None
    exposures: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for canary in canaries:
        assert ranker is not None
        tuned = ranker.exposure_bits(canary)
        with trained.model.disable_adapter():
            base = ranker.exposure_bits(canary)
        exposures[canary.num_times].append((base, tuned))
        show_progress(1)
    return [
        {
            "num_times": num_times,
            "num_canaries": len(pairs),
            "base_exposure_bits": fmean(base for base, _ in pairs),
            "tuned_exposure_bits": fmean(tuned for _, tuned in pairs),
            "num_come_out_first": sum(tuned == MOST_BITS for _, tuned in pairs),
        }
        for num_times, pairs in sorted(exposures.items())
    ]
