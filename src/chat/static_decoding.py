"""One new token at a time at fixed addresses, so that a CUDA card replays the step instead of launching it.

A decoding step of a 7B with its adapter is about 3,000 small kernels. A card finishes them sooner than Python launches
them. A CUDA graph records the launches once and repeats them with one call, but only on tensors that stay where they
are. Here keys and values therefore lie in tensors of the full length, and a step reads its token, its position and the
number of tokens from tensors as well. Without a card the same step runs directly.
Messages and prompts are left to the callers, the reply's end to `reply_stream`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any

import torch
from transformers import (
    MinNewTokensLengthLogitsProcessor,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)
from transformers.cache_utils import Cache, CacheLayerMixin

from common.model_folder import Sampling

# A step attends to the first 512, 1,024, 2,048 ... places, the fewest that hold its tokens; each number is captured once.
FEWEST_VISIBLE = 512
# A short new part of a prompt is read in captured steps of 32 tokens. A long one is read in one pass: its launches take
# as long as about eight such steps.
CHUNK_TOKENS = 32
MOST_CHUNKED_TOKENS = 256
# Of the logits' spread, from one pass of the library. In bf16, a step of 7.5 billion random weights differed by 0.2 in
# the logit that differed most, from rounding; the limit for their mean is a guess. In fp32, with a base of two layers,
# rounding is 3e-7, a forgotten padding 5e-3, a mask of one place too many 0.1.
TOLERANCES = {torch.float32: 2e-3, torch.bfloat16: 0.15, torch.float16: 0.05}
# Of several rows a third of it: on an H200, batches of a tiny base gave other replies than the library, one row the same.
SHARE_FOR_BATCHES = 1 / 3
NUM_WARM_UPS = 2  # before capturing: libraries allocate their workspaces and choose their kernels

LAYER_TYPES = {"full_attention", "sliding_attention"}
LENGTH_DEPENDENT_ROPES = {"dynamic", "longrope"}


class NotStatic(ValueError):
    """A model that cannot be decoded at fixed addresses; the text says why."""


class StaticDecoder:
    """Keys and values of `num_rows` rows, and steps that read tokens into them.

    After each `read` and `step`, `logits` (rows, vocabulary; float32) are those of each row's next token.
    `num_tokens` of at most `max_tokens` tokens of each row are held, padding on the left included.
    """

    @torch.no_grad()
    def __init__(self, model: Any, num_rows: int, max_tokens: int) -> None:
        """Take the memory for `max_tokens` tokens a row, and capture the first steps where there is a card.

        Raises NotStatic when the model cannot be decoded so, torch.OutOfMemoryError when there is no room.
        """
        self._model = model.get_base_model() if hasattr(model, "get_base_model") else model
        self._config = self._model.config.get_text_config()
        check_static(self._config)
        self._adapted = next((layer for layer in self._model.modules() if hasattr(layer, "disable_adapters")), None)
        device = self._model.device
        # The last chunk may be filled up; kernels want masks whose length is a multiple of 8.
        self._max_places = -(-(max_tokens + CHUNK_TOKENS) // 64) * 64
        self._view = _View()
        make_layer: Any = partial(_FullLayer, self._max_places, self._view)  # called where a class is expected
        self._cache = Cache(layer_class_to_replicate=make_layer)
        self._places = torch.arange(self._max_places, device=device)
        self._num_held = torch.zeros((), dtype=torch.long, device=device)  # `num_tokens`, where a graph finds it
        self._num_padding = torch.zeros(num_rows, dtype=torch.long, device=device)
        self._last_new = torch.zeros(1, dtype=torch.long, device=device)  # the place of the last real token of a chunk
        self._new_ids = {
            width: torch.zeros((num_rows, width), dtype=torch.long, device=device) for width in (1, CHUNK_TOKENS)
        }
        self.graphs: dict[tuple[int, int, bool], Any] = {}  # by width, places visible, and whether the adapter is off
        self.num_rows, self.max_tokens = num_rows, max_tokens
        self.num_tokens = 0
        self.why_direct: str | None = None if device.type == "cuda" else f"no CUDA graphs on {device.type}"
        if device.type == "cuda":
            self._stream, self._pool = torch.cuda.Stream(), torch.cuda.graph_pool_handle()
        self.logits = torch.empty((num_rows, 0), device=device)
        self._compare_with_one_pass()
        if num_rows == 1:
            self.read([[0]])  # captures the chunk now rather than before the first reply
        self.rewind(0)

    def _compare_with_one_pass(self) -> None:
        """Read made-up rows of several lengths and one token more; raise NotStatic if the library's logits are others."""
        size = self._config.vocab_size
        rows = [[(7 * row + place) % size for place in range(3 + row % 5)] for row in range(self.num_rows)]
        self._read_whole(rows)  # allocates the layers
        self.step(torch.tensor([row[-1] for row in rows], device=self._places.device))
        places = self._places[: self.num_tokens]
        output = self._model(
            input_ids=self._pad([[*row, row[-1]] for row in rows]),
            attention_mask=self._are_real(places) if self.num_rows > 1 else None,
            position_ids=self._positions(places),
            use_cache=False,
            logits_to_keep=1,
        )
        expected = output.logits[:, -1].float()
        difference = ((self.logits - expected).norm() / (expected - expected.mean()).norm()).item()
        tolerance = TOLERANCES[self._model.dtype] * (1 if self.num_rows == 1 else SHARE_FOR_BATCHES)
        if not difference <= tolerance:
            raise NotStatic(f"a step differs from one pass by {difference:.2f} of the logits' spread")

    def rewind(self, num_tokens: int) -> None:
        """Keep the first `num_tokens` of the tokens held."""
        self.num_tokens = min(num_tokens, self.num_tokens)

    @torch.no_grad()
    def read(self, rows: Sequence[Sequence[int]]) -> None:
        """Add the ids of each row; rows of different lengths are padded on the left, and need an empty decoder."""
        if self.num_rows == 1 and len(rows[0]) <= MOST_CHUNKED_TOKENS:
            for start in range(0, len(rows[0]), CHUNK_TOKENS):
                self._read_chunk(rows[0][start : start + CHUNK_TOKENS])
        else:
            self._read_whole(rows)

    @torch.no_grad()
    def step(self, tokens: torch.Tensor) -> None:
        """Add one token of each row; `tokens` may still be on its way on the device."""
        self._new_ids[1].copy_(tokens[:, None])
        self._advance(1, 1)

    def _read_whole(self, rows: Sequence[Sequence[int]]) -> None:
        device = self._places.device
        longest = max(map(len, rows))
        start, end = self.num_tokens, self.num_tokens + longest
        if start == 0:
            self._num_padding.copy_(torch.tensor([longest - len(row) for row in rows]))
        self._view.set(self._places[start:end], end, num_before=start)
        output = self._model(
            input_ids=self._pad(rows),
            attention_mask=self._are_real(self._places[:end]) if self.num_rows > 1 else None,
            position_ids=self._positions(self._places[start:end]),
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        if self.logits.shape[-1] == 0:
            self.logits = torch.empty(output.logits[:, -1].shape, dtype=torch.float32, device=device)
        self.logits.copy_(output.logits[:, -1])
        self.num_tokens = end

    def _read_chunk(self, ids: Sequence[int]) -> None:
        filled = [*ids, *[ids[-1]] * (CHUNK_TOKENS - len(ids))]
        self._new_ids[CHUNK_TOKENS].copy_(torch.tensor([filled]))
        self._last_new.fill_(len(ids) - 1)
        self._advance(CHUNK_TOKENS, len(ids))

    def _advance(self, width: int, num_new: int) -> None:
        self._num_held.fill_(self.num_tokens)
        num_visible = FEWEST_VISIBLE
        while num_visible < self.num_tokens + num_new:
            num_visible *= 2
        self._launch(width, min(num_visible, self._max_places))
        self.num_tokens += num_new

    def _launch(self, width: int, num_visible: int) -> None:
        if self.why_direct is None:
            key = (width, num_visible, bool(self._adapted is not None and self._adapted.disable_adapters))
            try:
                if key not in self.graphs:
                    self.graphs[key] = self._capture(width, num_visible)
                self.graphs[key].replay()
                return
            except RuntimeError as error:  # also what torch raises for the card's own errors and for no memory
                self.why_direct = str(error).split("\n")[0]
        self._compute(width, num_visible)

    def _capture(self, width: int, num_visible: int) -> Any:
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            for _number in range(NUM_WARM_UPS):
                self._compute(width, num_visible)
        torch.cuda.current_stream().wait_stream(self._stream)
        graph = torch.cuda.CUDAGraph()
        # All graphs take their memory from one pool: nothing in it is needed after a replay.
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
            self._compute(width, num_visible)
        return graph

    def _compute(self, width: int, num_visible: int) -> None:
        """Read `width` tokens a row; only tensors at fixed addresses go in and out, and no number of Python's changes."""
        places = self._num_held + self._places[:width]
        self._view.set(places, num_visible)
        output = self._model(
            input_ids=self._new_ids[width],
            attention_mask=self._make_masks(places, num_visible),
            position_ids=self._positions(places),
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1 if width == 1 else self._last_new,
        )
        self.logits.copy_(output.logits[:, -1])

    def _pad(self, rows: Sequence[Sequence[int]]) -> torch.Tensor:
        longest = max(map(len, rows))
        padded = [[row[0]] * (longest - len(row)) + list(row) for row in rows]
        return torch.tensor(padded, device=self._places.device)

    def _are_real(self, places: torch.Tensor) -> torch.Tensor:
        return (places >= self._num_padding[:, None]).long()

    def _positions(self, places: torch.Tensor) -> torch.Tensor:
        return (places[None] - self._num_padding[:, None]).clamp(min=0)

    def _make_masks(self, places: torch.Tensor, num_visible: int) -> Any:
        """Return what is added to the attention scores, in the form that the library's models take ready-made masks."""
        visible = self._places[:num_visible]
        is_allowed = visible[None, None] <= places[None, :, None]
        if self.num_rows > 1:
            is_allowed = is_allowed & (visible[None, None] >= self._num_padding[:, None, None])
        window = getattr(self._config, "sliding_window", None)
        is_near = is_allowed & (visible[None, None] > places[None, :, None] - window) if window else is_allowed
        layer_types = getattr(self._config, "layer_types", None)
        if layer_types is None:
            return self._to_scores(is_near)
        masks = {"full_attention": is_allowed, "sliding_attention": is_near}
        return {layer_type: self._to_scores(masks[layer_type]) for layer_type in sorted(set(layer_types))}

    def _to_scores(self, is_allowed: torch.Tensor) -> torch.Tensor:
        scores = torch.zeros(is_allowed.shape, dtype=self._view.dtype, device=is_allowed.device)
        return scores.masked_fill_(~is_allowed, -torch.inf)[:, None]


class _View:
    """Where the layers of a cache write, and how many places attention sees: one for all of them."""

    dtype: torch.dtype  # of keys and values
    places: torch.Tensor  # of the new tokens
    num_visible: int
    num_before: int  # tokens before the new ones, for the library's own masks

    def set(self, places: torch.Tensor, num_visible: int, num_before: int = 0) -> None:
        self.places, self.num_visible, self.num_before = places, num_visible, num_before


class _FullLayer(CacheLayerMixin):
    """Keys and values of one layer at every place, also with a sliding window: any number of tokens can be kept."""

    keys: torch.Tensor
    values: torch.Tensor

    def __init__(self, num_places: int, view: _View) -> None:
        super().__init__()
        self._num_places, self._view = num_places, view

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        self.keys, self.values = (
            torch.zeros(
                (*states.shape[:2], self._num_places, states.shape[-1]), dtype=states.dtype, device=states.device
            )
            for states in (key_states, value_states)
        )
        self._view.dtype = key_states.dtype
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_args: Any, **_kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.keys.index_copy_(2, self._view.places, key_states)
        self.values.index_copy_(2, self._view.places, value_states)
        return self.keys[:, :, : self._view.num_visible], self.values[:, :, : self._view.num_visible]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self._view.num_visible, 0

    def get_seq_length(self) -> int:
        return self._view.num_before

    def get_max_length(self) -> int:
        return self._num_places


def check_static(config: Any) -> None:
    """Raise NotStatic unless all layers attend to all tokens or to a window, by positions that do not change later."""
    others = set(getattr(config, "layer_types", None) or ()) - LAYER_TYPES
    if others:
        raise NotStatic(f"the base has layers of the type {min(others)}")
    parameters = getattr(config, "rope_parameters", None) or {}
    kinds = {value.get("rope_type") if isinstance(value, dict) else value for value in parameters.values()}
    if kinds & LENGTH_DEPENDENT_ROPES:
        raise NotStatic("the base's rotary positions depend on the length")


def generate_tokens(
    decoder: StaticDecoder,
    sampling: Sampling,
    end_ids: Collection[int],
    max_new_tokens: int,
    take: Callable[[list[int]], bool],
) -> None:
    """Draw one token a row after another, give each to `take`, and stop once it returns True.

    The arithmetic and its order are those of the library's `generate`, so that the same seed gives the same tokens.
    """
    processors = make_processors(sampling)
    device = decoder.logits.device
    no_end = MinNewTokensLengthLogitsProcessor(0, 1, sorted(end_ids), device=str(device))
    ids = torch.empty((decoder.num_rows, max_new_tokens), dtype=torch.long, device=device)
    received = [
        torch.empty(decoder.num_rows, dtype=dtype, pin_memory=device.type == "cuda")
        for dtype in (torch.long, torch.float32)
    ]
    for number in range(max_new_tokens):
        scores = decoder.logits
        for processor in [no_end, *processors] if number == 0 else processors:
            scores = processor(ids[:, :number], scores)
        tokens, probabilities = draw_tokens(scores, sampling.do_sample)
        ids[:, number] = tokens
        for host, values in zip(received, (tokens, probabilities), strict=True):
            host.copy_(values, non_blocking=True)
        arrival = torch.cuda.Event() if device.type == "cuda" else None
        if arrival is not None:
            arrival.record()
        # The card goes on while Python waits for this token and shows it; after the last one, this step is unused.
        if number + 1 < max_new_tokens:
            decoder.step(tokens)
        if arrival is not None:
            arrival.synchronize()
        if not (received[1] > 0).all():
            raise RuntimeError("the model's probabilities are not finite numbers")
        if take(received[0].tolist()):
            return


def make_processors(sampling: Sampling) -> list[Any]:
    """Return what changes the scores before a token is drawn, in the library's order; they see the reply's tokens only."""
    processors: list[Any] = []
    if sampling.repetition_penalty != 1.0:
        processors.append(RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty))
    if sampling.do_sample:
        if sampling.temperature != 1.0:
            processors.append(TemperatureLogitsWarper(sampling.temperature))
        if sampling.top_k:
            processors.append(TopKLogitsWarper(sampling.top_k))
        if sampling.top_p < 1.0:
            processors.append(TopPLogitsWarper(sampling.top_p))
        if sampling.min_p:
            processors.append(MinPLogitsWarper(sampling.min_p))
    return processors


def draw_tokens(scores: torch.Tensor, do_sample: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a token for each row of `scores` and its probability; the likeliest one unless `do_sample`."""
    probabilities = torch.softmax(scores, dim=-1)
    if do_sample:
        # What torch.multinomial computes; that function waits for the card, to check the probabilities.
        weighted = probabilities / torch.empty_like(probabilities).exponential_(1)
        tokens = weighted.argmax(dim=-1)
    else:
        tokens = scores.argmax(dim=-1)
    return tokens, probabilities.gather(-1, tokens[:, None])[:, 0]
