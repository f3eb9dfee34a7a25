"""The decoder of a training row on a CUDA card as two CUDA graphs: captured at the first row, replayed for every row.

A row of a 7B model starts more than 5,600 kernels, each from Python: on an H100 it took 815 ms, of which the card was busy
for 310. A replay starts all kernels of a pass in one call. A graph has fixed shapes, so rows are padded to one length with
segments of their own, whose hidden states no loss reads. The loss of the head stays outside: its number of positions varies.

Other calls (evaluation, generation, a row that does not fit) are computed as before, and so is every row where capturing
fails: one line says why. Segment borders come from `packing.collate_row`, attention from `packed_attention`.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from packed_attention import SEGMENT_ATTENTION, has_varlen_kernel
from processes import warn, world_size
from torch.autograd.function import once_differentiable
from torch.nn.utils import get_total_norm
from transformers.modeling_outputs import BaseModelOutputWithPast

from common.script import reason_of

# Capturing takes as long as about three rows (one computed as before, one captured, one replayed for comparison), and a
# replay saves at least half of a row on a card that waits for Python.
MIN_ROWS = 20
# Each segment, also an unused one, takes 128 rows of the attention's gradient in fp32 in the kernel: 2 MiB on a 7B.
MAX_SEGMENTS = 128
# Of the norm. The replay runs the same kernels; only the order of sums in the attention's gradient varies.
TOLERANCE = 0.02
COMPARED_GRADIENT = 1e-3  # about the size of a loss's gradient, so that no number type overflows

Work = Callable[[], None]


@dataclass(frozen=True)
class RowShape:
    """The one shape that is captured."""

    num_tokens: int
    num_segments: int  # at most, padding included
    longest_segment: int


def choose_shape(lengths: Sequence[int], rows: Sequence[Sequence[int]], row_tokens: int) -> RowShape | None:
    """Return the shape that the rows of at most `row_tokens` are padded to; None if there are too few to capture it.

    `rows`: numbers of chunks, whose tokens are `lengths`.

    >>> choose_shape([100, 30, 20], [[0, 1], [0, 2]] * 10, row_tokens=150)
    RowShape(num_tokens=150, num_segments=3, longest_segment=100)
    """
    fitting = [row for row in rows if sum(lengths[chunk] for chunk in row) <= row_tokens]
    if len(fitting) < MIN_ROWS:
        return None
    longest = max(lengths[chunk] for row in fitting for chunk in row)
    num_segments = max(
        len(row) + math.ceil((row_tokens - sum(lengths[chunk] for chunk in row)) / longest) for row in fitting
    )
    return RowShape(row_tokens, min(num_segments, MAX_SEGMENTS), longest)


class StaticRow:
    """The tensors that a graph reads: a row is copied into them, with padding as segments of its own at the end."""

    def __init__(self, shape: RowShape, device: torch.device) -> None:
        """Allocate them on `device`."""
        self._shape = shape
        self._input_ids = torch.zeros(1, shape.num_tokens, dtype=torch.long, device=device)
        self._position_ids = torch.zeros_like(self._input_ids)
        self._borders = torch.zeros(shape.num_segments + 1, dtype=torch.int32, device=device)
        # What padding is made of; computed once, so that no number has to be sent to the card.
        self._padding_positions = torch.arange(shape.num_tokens, device=device) % shape.longest_segment
        self._padding_ends = shape.longest_segment * torch.arange(
            1, shape.num_segments + 1, dtype=torch.int32, device=device
        )

    def has_room(self, num_tokens: int, num_segments: int, longest_segment: int) -> bool:
        """Return whether such a row fits."""
        padding = math.ceil((self._shape.num_tokens - num_tokens) / self._shape.longest_segment)
        return (
            num_tokens <= self._shape.num_tokens
            and num_segments + padding <= self._shape.num_segments
            and longest_segment <= self._shape.longest_segment
        )

    def fill(self, input_ids: torch.Tensor, position_ids: torch.Tensor, borders: torch.Tensor) -> None:
        """Copy a row that fits; nothing waits for the device."""
        num_tokens, num_borders = input_ids.shape[1], len(borders)
        self._input_ids[:, :num_tokens] = input_ids
        self._input_ids[:, num_tokens:].zero_()
        self._position_ids[:, :num_tokens] = position_ids
        self._position_ids[:, num_tokens:] = self._padding_positions[: self._shape.num_tokens - num_tokens]
        self._borders[:num_borders] = borders
        # After the last token the ends repeat: segments of no tokens, which the kernel skips.
        ends = self._padding_ends[: len(self._borders) - num_borders] + num_tokens
        self._borders[num_borders:] = ends.clamp_(max=self._shape.num_tokens)

    @property
    def arguments(self) -> dict[str, Any]:
        """What the decoder is called with."""
        return {
            "input_ids": self._input_ids,
            "position_ids": self._position_ids,
            "use_cache": False,
            "cu_seq_lens_q": self._borders,
            "max_length_q": self._shape.longest_segment,
        }


class Recorder(Protocol):
    """How work on the device becomes something that can be repeated."""

    def run(self, work: Work) -> None:
        """Do `work` once, in the way in which it will be recorded."""

    def record(self, work: Work) -> Work:
        """Return a function that repeats `work` on the same tensors."""


class GraphRecorder:
    """Records work as CUDA graphs that share their memory, as torch.cuda.make_graphed_callables does it."""

    def __init__(self, device: torch.device) -> None:
        """All work runs on one side stream: the libraries' workspaces belong to a stream, and are there when it is captured."""
        self.num_bytes = 0  # that the recordings hold, beside what torch counts as allocated
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()

    def run(self, work: Work) -> None:
        """Do `work` on the side stream."""
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            work()
        torch.cuda.current_stream(self._device).wait_stream(self._stream)

    def record(self, work: Work) -> Work:
        """Capture `work`, which is not done meanwhile."""
        graph = torch.cuda.CUDAGraph()
        torch.cuda.empty_cache()
        earlier_bytes = torch.cuda.memory_reserved(self._device)
        try:
            # The outer block restores the stream even where ending a failed capture raises.
            with torch.cuda.stream(self._stream), torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
                work()
        except RuntimeError:
            # A failed capture leaves the generator waiting for its end: sampling would raise.
            generator = torch.cuda.default_generators[self._device.index]
            generator.graphsafe_set_state(generator.clone_state())
            raise
        self.num_bytes += torch.cuda.memory_reserved(self._device) - earlier_bytes
        return graph.replay


class CapturedDecoder:
    """Replaces the forward pass of a decoder in training by replays of its recording."""

    def __init__(self, decoder: Any, shape: RowShape, recorder: Recorder) -> None:
        """Record at the first row that fits; until `remove`, calls of `decoder` come here."""
        self.seconds = 0.0  # that recording took
        self.num_replayed = 0  # rows
        self.recorder = recorder
        self.problem: str | None = None  # why rows are not replayed
        self._decoder = decoder
        self._own_forward = decoder.forward
        self._parameters = [parameter for parameter in decoder.parameters() if parameter.requires_grad]
        self._row = StaticRow(shape, self._parameters[0].device)
        self._anchor = torch.zeros((), device=self._parameters[0].device, requires_grad=True)
        self._replays: tuple[Work, Work] | None = None
        self._hidden = self._gradient = torch.empty(0)  # what the recording writes and reads
        self._gradients: list[torch.Tensor] = []  # of the parameters
        decoder.forward = self._forward

    def remove(self) -> None:
        """Let the decoder compute every call itself again, and free the memory of the recording."""
        self._decoder.forward = self._own_forward
        self._forget()

    def _forward(self, *args: Any, **kwargs: Any) -> Any:
        row = None if args or self.problem else self._read_row(kwargs)
        if row is not None and (self._replays or self._try_to_record(row)):
            self._row.fill(*row)
            hidden: torch.Tensor = _Replay.apply(self._anchor, self)
            return BaseModelOutputWithPast(last_hidden_state=hidden[:, : row[0].shape[1]])
        try:
            return self._own_forward(*args, **kwargs)
        except torch.OutOfMemoryError:
            if not self._replays:
                raise
        # The recording keeps the activations of a row for the whole run: beside them, a longer row had no room.
        self._give_up("they leave no memory for a row that is longer than usual")
        return self._own_forward(*args, **kwargs)

    def _read_row(self, kwargs: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None:
        """Return ids, positions and borders if this is a training row that fits, and nothing else was passed."""
        given = {name: value for name, value in kwargs.items() if value is not None}
        is_row = (
            given.keys() == self._row.arguments.keys()
            and not given["use_cache"]
            and self._decoder.training
            and torch.is_grad_enabled()
            and self._decoder.config._attn_implementation == SEGMENT_ATTENTION
        )
        if not is_row:
            return None
        ids, borders = given["input_ids"], given["cu_seq_lens_q"]
        if not self._row.has_room(ids.shape[1], len(borders) - 1, given["max_length_q"]):
            return None
        return ids, given["position_ids"], borders

    def _try_to_record(self, row: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> bool:
        """Record both passes and compare a replay with the same row computed as before; return whether to replay."""
        if any(parameter.grad is not None for parameter in self._parameters):
            return False  # an earlier row of the step was computed as before: recording would change its gradients
        started_at = time.perf_counter()
        self._row.fill(*row)
        try:
            self._record()
        except RuntimeError as error:  # out of memory, or a kernel that cannot be captured
            self._give_up(reason_of(error))
        for parameter in self._parameters:
            parameter.grad = None  # what was compared
        self.seconds = time.perf_counter() - started_at
        return self.problem is None

    def _give_up(self, problem: str) -> None:
        self.problem = problem
        self._forget()
        warn(f"training waits for Python before each kernel, since its steps cannot be captured: {problem}")

    def _record(self) -> None:
        # The backward pass adds to these tensors, and nothing else may: they become the parameters' `.grad`.
        self._gradients = [torch.empty_like(parameter) for parameter in self._parameters]
        self._hold_gradients()
        self._use_checkpoints_without_random_states()
        device = self._anchor.device.type
        # A cache of casts would leave the weights of this step in the graph.
        dtype, is_enabled = torch.get_autocast_dtype(device), torch.is_autocast_enabled(device)

        def forward() -> None:
            with torch.enable_grad(), torch.autocast(device, dtype, is_enabled, cache_enabled=False):
                self._hidden = self._own_forward(**self._row.arguments).last_hidden_state

        def backward() -> None:
            with torch.autocast(device, enabled=False):
                self._hidden.backward(self._gradient)

        self.recorder.run(forward)
        expected = self._hidden.detach().clone()
        random = torch.Generator(expected.device).manual_seed(0)  # not the training's
        self._gradient = torch.randn(
            expected.shape, generator=random, dtype=expected.dtype, device=expected.device
        ).mul_(COMPARED_GRADIENT)
        self.recorder.run(backward)
        size = get_total_norm(self._gradients)
        self._hidden = torch.empty(0)  # forget its autograd graph: its nodes belong to another stream's work
        gc.collect()
        replay_forward = self.recorder.record(forward)
        replay_backward = self.recorder.record(backward)
        self._hidden = self._hidden.detach()

        replay_forward()
        difference = (self._hidden.detach() - expected).norm() / expected.norm()
        # The backward pass is linear: with the opposite gradient, what is left is the difference. No copy is needed.
        self._gradient.neg_()
        replay_backward()
        rest = get_total_norm(self._gradients) / size
        if not (difference <= TOLERANCE and rest <= TOLERANCE):
            raise RuntimeError(
                f"a replay differs from the same row computed without it (hidden states by {difference:.1e}, gradients by {rest:.1e})"
            )
        self._replays = (replay_forward, replay_backward)

    def _use_checkpoints_without_random_states(self) -> None:
        # Reading the state of the random numbers is forbidden while capturing; without dropout nothing is random.
        if any(getattr(module, "gradient_checkpointing", False) for module in self._decoder.modules()):
            self._decoder.activation_checkpointing_enable({"use_reentrant": False, "preserve_rng_state": False})

    def _hold_gradients(self) -> None:
        """Make the recorded tensors the parameters' `.grad`, with the sums that are there so far.

        Replays add in place to these very tensors, so several rows sum up as without replays, in no more memory. After
        `zero_grad` the parameters have none; after a row that was computed as before, they have others.
        """
        empty = []
        for parameter, gradient in zip(self._parameters, self._gradients, strict=True):
            if parameter.grad is gradient:
                continue
            if parameter.grad is None:
                empty.append(gradient)
            else:
                gradient.copy_(parameter.grad)
            parameter.grad = gradient
        if empty:
            torch._foreach_zero_(empty)

    def _forget(self) -> None:
        self._replays = None
        self._hidden = self._gradient = torch.empty(0)
        self._gradients = []
        gc.collect()
        if self._anchor.is_cuda:
            torch.cuda.empty_cache()

    def replay_forward(self) -> torch.Tensor:
        """Return the hidden states of the row in `_row`; the next replay overwrites them."""
        assert self._replays is not None
        self._replays[0]()
        self.num_replayed += 1
        return self._hidden.detach()

    def replay_backward(self, gradient: torch.Tensor) -> None:
        """Add to the gradients of the parameters what the gradient of the last replay's hidden states gives."""
        assert self._replays is not None
        self._hold_gradients()
        self._gradient.copy_(gradient)
        self._replays[1]()


class _Replay(torch.autograd.Function):
    """One node of autograd for all that was recorded; the anchor makes its result require a gradient."""

    @staticmethod
    def forward(ctx: Any, _anchor: torch.Tensor, captured: CapturedDecoder) -> torch.Tensor:
        hidden = captured.replay_forward()
        ctx.captured, ctx.number = captured, captured.num_replayed
        return hidden

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[None, None]:
        if ctx.number != ctx.captured.num_replayed:
            raise AssertionError("a later row has overwritten the activations of this one")
        ctx.captured.replay_backward(gradient)
        return None, None


def find_hindrance(model: Any, shape: RowShape | None) -> str | None:
    """Return why the rows of `model` cannot be captured, or None."""
    if model.device.type != "cuda":
        return "there is no CUDA card"
    decoder = model.get_base_model().get_decoder()
    if world_size() > 1:
        return "several processes train together"
    if shape is None:
        return f"fewer than {MIN_ROWS} rows"
    if any(isinstance(module, torch.nn.Dropout) and module.p for module in decoder.modules()):
        return "dropout"
    if decoder.config._attn_implementation != SEGMENT_ATTENTION:
        return f"the attention is {decoder.config._attn_implementation}"
    config = model.get_base_model().config.get_text_config()
    head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if not has_varlen_kernel(model.device, model.dtype, head_size):
        return "the card or the model has no variable-length attention"
    return None


def capture_decoder(model: Any, shape: RowShape | None) -> CapturedDecoder | None:
    """Let training rows of `model`, a base with LoRA, be replayed from their first on; None if something hinders it."""
    if find_hindrance(model, shape) is not None:
        return None
    assert shape is not None
    return CapturedDecoder(model.get_base_model().get_decoder(), shape, GraphRecorder(model.device))
