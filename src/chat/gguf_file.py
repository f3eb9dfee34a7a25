"""Base and adapter -> one GGUF file, tensor by tensor: merged, the base alone, or the adapter alone.

A tensor is read, merged with its part of the adapter in float32, quantised in blocks of rows and written, so that memory
stays small at any size. The tokenizer's keys are left to `gguf_tokenizer`, proving the file to `gguf_check`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFWriter
from gguf_header import (
    ADAPTER_KEY,
    ARCHITECTURES,
    BASE_KEY,
    CONTENT_KEY,
    FORMAT_KEY,
    FORMAT_VERSION,
    SAMPLER_ORDER,
    Content,
    hash_file,
)
from gguf_tokenizer import add_tokenizer
from safetensors import safe_open
from saved_model_checks import SavedModel
from transformers import AutoConfig, AutoTokenizer

from common.base_model_files import list_weight_files, read_json_object
from common.model_folder import ADAPTER_CONFIG_NAME, ADAPTER_NAME
from common.outside_files import loading
from common.script import ScriptError, printable, shown_path

# llama.cpp's `llama` turns pairs of neighbouring dimensions, transformers the two halves of a head: there, the rows of q
# and k change places.
PERMUTED_ARCHITECTURES = {"llama"}

FILE_TYPES = {
    "f32": (GGMLQuantizationType.F32, gguf.LlamaFileType.ALL_F32),
    "f16": (GGMLQuantizationType.F16, gguf.LlamaFileType.MOSTLY_F16),
    "q8_0": (GGMLQuantizationType.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
    "q4_0": (GGMLQuantizationType.Q4_0, gguf.LlamaFileType.MOSTLY_Q4_0),
}
HEAD_TYPES = {"q4_0": GGMLQuantizationType.Q8_0}  # the head decides each token: 4 bits there cost more than they save

MODULES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
EMBEDDINGS, FINAL_NORM, HEAD = "model.embed_tokens", "model.norm", "lm_head"
OTHER_MODULES = {EMBEDDINGS: "token_embd", FINAL_NORM: "output_norm", HEAD: "output"}
LAYER_RE = re.compile(r"model\.layers\.(\d+)\.(.+)")

ROWS_AT_ONCE_BYTES = 16 * 2**20  # of float32: larger blocks spend as long on getting memory as on quantising
METADATA_BYTES = 32 * 2**20  # at most: the tokens of the largest vocabularies take 10 MiB


@dataclass(frozen=True)
class LoraPair:
    """One module's adapter: its weight grows by `scale` times B times A."""

    a: torch.Tensor  # (rank, inputs), float32
    b: torch.Tensor  # (outputs, rank), float32
    scale: float


@dataclass(frozen=True)
class Tensor:
    """One tensor of the file: where it comes from and how it is written."""

    name: str
    shape: tuple[int, ...]
    kind: GGMLQuantizationType
    source: str | torch.Tensor  # a name in the base's weights, or the numbers
    row_order: np.ndarray[Any, Any] | None = None  # the row of the source that each row is taken from
    lora: LoraPair | None = None

    @property
    def num_bytes(self) -> int:
        """The size in the file."""
        block_size, block_bytes = gguf.GGML_QUANT_SIZES[self.kind]
        return int(np.prod(self.shape)) // block_size * block_bytes


class GgufExport:
    """What will be written, known before the first byte is: `num_bytes` for the disk, then `write`."""

    def __init__(self, saved: SavedModel, content: Content, type_name: str) -> None:
        """Read the headers of base and adapter; raise ScriptError when they cannot become a GGUF file."""
        self.saved, self.content, self.type_name = saved, content, type_name
        with loading(shown_path(saved.base_dir), "its config", "download it again, or train again on another one"):
            self.config = AutoConfig.from_pretrained(saved.base_dir, trust_remote_code=False)
        self.architecture = check_family(self.config, saved)
        self.adapter_sha256 = hash_file(saved.folder / ADAPTER_NAME)
        self._files = {
            name: path
            for path in list_weight_files(saved.base_dir)
            for name in _names_in(path)
            if not name.endswith("rotary_emb.inv_freq")  # computed, but old checkpoints hold it
        }
        self._lora = read_adapter(saved)
        self._refuse_unknown_names()
        self.tensors = list(self._adapter_tensors() if content == "adapter" else self._model_tensors())

    @property
    def num_bytes(self) -> int:
        """The size of the file, rounded up."""
        return self.tensor_bytes + METADATA_BYTES

    @property
    def tensor_bytes(self) -> int:
        """The size of all tensors: most of the file, and of the time that writing takes."""
        return sum(tensor.num_bytes for tensor in self.tensors)

    def write(self, path: Path, show_progress: Callable[[int], object] = lambda num_bytes: None) -> None:
        """Write the file; `show_progress` is called with the bytes of each finished tensor."""
        writer = GGUFWriter(path, self.architecture)
        self._add_metadata(writer)
        for tensor in self.tensors:
            writer.add_tensor_info(
                tensor.name, tensor.shape, np.dtype(np.float32), tensor.num_bytes, raw_dtype=tensor.kind
            )
        try:
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            assert writer.fout is not None
            (file,) = writer.fout
            writer.write_padding(file, file.tell())
            for tensor in self.tensors:
                for block in self._blocks(tensor):
                    file.write(block.tobytes())
                writer.write_padding(file, tensor.num_bytes)
                show_progress(tensor.num_bytes)
            writer.flush()
        finally:
            writer.close()

    def _refuse_unknown_names(self) -> None:
        unknown = [name for name in self._files if _gguf_name(name.rpartition(".")[0]) is None]
        if unknown:
            raise ScriptError(
                f"{printable(self.saved.base.name)}: has the weight {printable(unknown[0])}, which this export cannot write as GGUF; "
                "export without --gguf, for transformers"
            )
        lost = [module for module in self._lora if f"{module}.weight" not in self._files and module != HEAD]
        if lost or EMBEDDINGS in self._lora:
            raise ScriptError(
                f"{shown_path(self.saved.folder / ADAPTER_NAME)}: changes {printable([*lost, EMBEDDINGS][0])}, which this export "
                "cannot write as GGUF; export without --gguf, for transformers"
            )

    def _model_tensors(self) -> Iterator[Tensor]:
        is_tied = f"{HEAD}.weight" not in self._files or self.config.tie_word_embeddings
        names = sorted(self._files, key=_order_in_file)
        if is_tied:
            names = [name for name in names if not name.startswith(f"{HEAD}.")]
        for name in names:
            yield self._model_tensor(name, name, is_head=is_tied and name.startswith(EMBEDDINGS))
        if is_tied and HEAD in self._lora:
            # The adapter changes the head alone, so the head gets its own copy; also in a base to go beside an adapter.
            yield self._model_tensor(f"{HEAD}.weight", f"{EMBEDDINGS}.weight", is_head=True)

    def _model_tensor(self, name: str, source: str, is_head: bool) -> Tensor:
        module, _, kind_of_weight = name.rpartition(".")
        with safe_open(self._files[source], "pt") as file:
            shape = tuple(file.get_slice(source).get_shape())
        kind = GGMLQuantizationType.F32
        if len(shape) > 1:
            is_head = is_head or module == HEAD
            kind = HEAD_TYPES.get(self.type_name, self._kind) if is_head else self._kind
            if shape[-1] % gguf.GGML_QUANT_SIZES[kind][0]:
                kind = GGMLQuantizationType.F16  # rows that are no multiple of a block
        lora = self._lora.get(module) if self.content == "model" and kind_of_weight == "weight" else None
        return Tensor(
            f"{_gguf_name(module)}.{kind_of_weight}", shape, kind, source, self._row_order(module, shape[0]), lora
        )

    def _adapter_tensors(self) -> Iterator[Tensor]:
        """Yield A and B of each module, never quantised: they are small."""
        kind = GGMLQuantizationType.F32 if self.type_name == "f32" else GGMLQuantizationType.F16
        for module, lora in sorted(self._lora.items(), key=lambda item: _order_in_file(f"{item[0]}.weight")):
            name = f"{_gguf_name(module)}.weight"
            yield Tensor(f"{name}.lora_a", tuple(lora.a.shape), kind, lora.a)
            row_order = self._row_order(module, lora.b.shape[0])
            yield Tensor(f"{name}.lora_b", tuple(lora.b.shape), kind, lora.b, row_order)

    @property
    def _kind(self) -> GGMLQuantizationType:
        return FILE_TYPES[self.type_name][0]

    def _row_order(self, module: str, num_rows: int) -> np.ndarray[Any, Any] | None:
        if self.architecture not in PERMUTED_ARCHITECTURES:
            return None
        num_heads = {
            "q_proj": self.config.num_attention_heads,
            "k_proj": self.config.num_key_value_heads,
        }.get(module.rpartition(".")[2])
        if num_heads is None:
            return None
        return np.arange(num_rows).reshape(num_heads, 2, num_rows // num_heads // 2).swapaxes(1, 2).ravel()

    def _blocks(self, tensor: Tensor) -> Iterator[np.ndarray[Any, Any]]:
        """Yield the rows of `tensor` as they stand in the file, a block at a time."""
        rows_at_once = max(1, ROWS_AT_ONCE_BYTES // (4 * (tensor.shape[-1] if len(tensor.shape) > 1 else 1)))
        with ExitStack() as stack:
            rows: Any = tensor.source
            if isinstance(tensor.source, str):
                rows = stack.enter_context(safe_open(self._files[tensor.source], "pt")).get_slice(tensor.source)
            if tensor.row_order is not None:
                rows = rows[:][torch.from_numpy(tensor.row_order)]
            for start in range(0, tensor.shape[0], rows_at_once):
                block = rows[start : start + rows_at_once].float()
                if tensor.lora is not None:
                    b = tensor.lora.b if tensor.row_order is None else tensor.lora.b[torch.from_numpy(tensor.row_order)]
                    block = block + tensor.lora.scale * (b[start : start + rows_at_once] @ tensor.lora.a)
                yield self._quantised(block.numpy(), tensor)

    def _quantised(self, block: np.ndarray[Any, Any], tensor: Tensor) -> np.ndarray[Any, Any]:
        if not np.isfinite(block).all():
            raise ScriptError(
                f"{printable(self.saved.base.name)}: {printable(tensor.name)} holds numbers that are not finite; train again"
            )
        with np.errstate(over="ignore"):
            quantised: np.ndarray[Any, Any] = gguf.quantize(block, tensor.kind)
        if tensor.kind is GGMLQuantizationType.F16 and not np.isfinite(quantised).all():
            raise ScriptError(
                f"{printable(self.saved.base.name)}: {printable(tensor.name)} is too large for f16; choose --gguf f32"
            )
        return quantised

    def _add_metadata(self, writer: GGUFWriter) -> None:
        writer.add_uint32(FORMAT_KEY, FORMAT_VERSION)
        writer.add_string(CONTENT_KEY, self.content)
        writer.add_string(BASE_KEY, self.saved.settings["base_fingerprint"])
        if self.content != "base":
            writer.add_string(ADAPTER_KEY, self.adapter_sha256)
        if self.content == "adapter":
            writer.add_type(gguf.GGUFType.ADAPTER)
            writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
            # llama.cpp scales by alpha / rank, where rank is that of the tensors.
            rank, scale = next(((len(lora.a), lora.scale) for lora in self._lora.values()), (1, 1.0))
            writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, scale * rank)
            return
        writer.add_type(gguf.GGUFType.MODEL)
        writer.add_file_type(FILE_TYPES[self.type_name][1])
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        self._add_shape(writer)
        self._add_sampling(writer)
        tokenizer = AutoTokenizer.from_pretrained(self.saved.folder, trust_remote_code=False)
        add_tokenizer(writer, tokenizer, self.saved.folder, self.config.vocab_size)

    def _add_shape(self, writer: GGUFWriter) -> None:
        config = self.config
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        window = getattr(config, "sliding_window", None)
        # llama.cpp knows no sliding window in these families: up to its length, full attention is the same.
        writer.add_context_length(min(config.max_position_embeddings, window or config.max_position_embeddings))
        writer.add_vocab_size(config.vocab_size)
        writer.add_embedding_length(config.hidden_size)
        writer.add_block_count(config.num_hidden_layers)
        writer.add_feed_forward_length(config.intermediate_size)
        writer.add_head_count(config.num_attention_heads)
        writer.add_head_count_kv(config.num_key_value_heads)
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
        writer.add_rope_dimension_count(head_dim)
        writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)

    def _add_sampling(self, writer: GGUFWriter) -> None:
        sampling = self.saved.sampling
        writer.add_sampling_sequence(";".join(SAMPLER_ORDER))
        writer.add_sampling_temp(sampling.temperature if sampling.do_sample else 0.0)
        writer.add_sampling_top_k(sampling.top_k)
        writer.add_sampling_top_p(sampling.top_p)
        writer.add_sampling_min_p(sampling.min_p)
        writer.add_sampling_penalty_repeat(sampling.repetition_penalty)


def check_family(config: Any, saved: SavedModel) -> str:
    """Return llama.cpp's architecture for this config; raise ScriptError when there is none that computes the same."""
    name, cure = printable(saved.base.name), "export without --gguf, for transformers"
    if config.model_type not in ARCHITECTURES:
        families = "Llama, Mistral, Qwen2 and Qwen3"
        raise ScriptError(
            f"{name}: is of the family {printable(config.model_type)}; GGUF is written for {families} only; {cure}"
        )
    rope = config.rope_parameters
    scaling = rope.get("rope_type", "default")
    if scaling != "default" or rope.get("partial_rotary_factor", 1.0) != 1.0:
        raise ScriptError(
            f"{name}: scales its positions (RoPE {printable(str(scaling))}), which this export cannot write; {cure}"
        )
    if config.hidden_act != "silu":
        raise ScriptError(f"{name}: computes with {printable(str(config.hidden_act))}, llama.cpp with silu; {cure}")
    return ARCHITECTURES[config.model_type]


def read_adapter(saved: SavedModel) -> dict[str, LoraPair]:
    """Return the adapter by the base's module names; raise ScriptError on numbers that are not finite."""
    config = read_json_object(saved.folder / ADAPTER_CONFIG_NAME)
    path = saved.folder / ADAPTER_NAME
    scale = config["lora_alpha"] / (config["r"] ** 0.5 if config.get("use_rslora") else config["r"])
    halves: dict[str, dict[str, torch.Tensor]] = {}
    with safe_open(path, "pt") as file:
        for name in file.keys():  # noqa: SIM118 - no dict
            match = re.fullmatch(r"base_model\.model\.(.+)\.lora_(A|B)\.weight", name)
            if match is None:
                raise ScriptError(
                    f"{shown_path(path)}: holds {printable(name)}, which is no part of a LoRA; train again"
                )
            halves.setdefault(match[1], {})[match[2]] = file.get_tensor(name).float()
    for module, pair in halves.items():
        if set(pair) != {"A", "B"} or pair["A"].shape[0] != pair["B"].shape[1]:
            raise ScriptError(f"{shown_path(path)}: {printable(module)} is damaged; train again")
        if not all(torch.isfinite(half).all() for half in pair.values()):
            raise ScriptError(
                f"{shown_path(path)}: holds numbers that are not finite (the training diverged); train again"
            )
    return {module: LoraPair(pair["A"], pair["B"], scale) for module, pair in halves.items()}


def _names_in(path: Path) -> list[str]:
    with safe_open(path, "pt") as file:
        return list(file.keys())


def _gguf_name(module: str) -> str | None:
    """Return llama.cpp's name of a module, or None.

    >>> _gguf_name("model.layers.3.mlp.up_proj"), _gguf_name("lm_head"), _gguf_name("model.vision")
    ('blk.3.ffn_up', 'output', None)
    """
    match = LAYER_RE.fullmatch(module)
    if match is None:
        return OTHER_MODULES.get(module)
    return f"blk.{match[1]}.{MODULES[match[2]]}" if match[2] in MODULES else None


def _order_in_file(name: str) -> tuple[int, str]:
    """Sort by layer: llama.cpp reads the file from start to end."""
    match = LAYER_RE.match(name)
    if match is not None:
        return int(match[1]), name
    return (-1 if name.startswith(EMBEDDINGS) else 1_000_000), name
