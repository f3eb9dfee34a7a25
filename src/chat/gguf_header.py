"""GGUF files of a trained folder: what stands in their header, and which of them are of this training.

Standard library only: the chat chooses its engine before it imports any library. Writing files is left to `gguf_file`,
proving them in llama.cpp to `gguf_check`.
"""

from __future__ import annotations

import hashlib
import math
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from saved_model_checks import SavedModel

from common.model_folder import ADAPTER_NAME
from common.script import ScriptError, shown_path

Content = Literal["model", "base", "adapter"]

GGUF_DIR_NAME = "gguf"  # in the trained folder

# transformers' model_type: llama.cpp's architecture, for the bases that can be written.
ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}

FORMAT_KEY, FORMAT_VERSION = "personal_chatbot.format", 1
CONTENT_KEY = "personal_chatbot.content"
ADAPTER_KEY = "personal_chatbot.adapter_sha256"
BASE_KEY = "personal_chatbot.base_fingerprint"

# The order of transformers; with llama.cpp's own, probabilities differ by up to 0.06.
SAMPLER_ORDER = ("penalties", "temperature", "top_k", "top_p", "min_p")

# The format itself: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
MAGIC, GGUF_VERSION = b"GGUF", 3
ALIGNMENT_KEY, ALIGNMENT_BYTES = "general.alignment", 32
SCALAR_FORMATS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
# Of the tensor types that the export writes: numbers in a block, bytes of a block.
BLOCK_SIZES = {"F32": (1, 4), "F16": (1, 2), "Q4_0": (32, 18), "Q8_0": (32, 34)}
TYPES_BY_SIZE = ("Q4_0", "Q8_0", "F16", "F32")  # a file has one of them, and larger ones for what is small or delicate
TENSOR_TYPES = {0: "F32", 1: "F16", 2: "Q4_0", 8: "Q8_0"}


class NotGguf(ValueError):
    """The file is no GGUF file that this project writes, or it is cut or damaged."""


@dataclass(frozen=True)
class GgufHeader:
    """The single values of a header (lists are left out), and the tensor types that the matrices have."""

    values: Mapping[str, Any]
    matrix_types: frozenset[str]

    @property
    def type_name(self) -> str:
        """The number type of most matrices, as `--gguf` calls it."""
        return next(name for name in TYPES_BY_SIZE if name in self.matrix_types).lower()

    @property
    def max_context_tokens(self) -> int:
        """The longest context that the base knows; 0 if the file does not say."""
        value = self.values.get(f"{self.values.get('general.architecture')}.context_length")
        return value if isinstance(value, int) else 0

    @property
    def is_float32(self) -> bool:
        """Whether llama.cpp can compute as transformers does in float32."""
        return self.matrix_types == {"F32"}


def read_header(path: Path) -> GgufHeader:
    """Return the header of a GGUF file whose length is the one that the header asks for.

    Raises NotGguf, or an OSError.
    """
    if not path.is_file():
        raise FileNotFoundError(path) if not path.exists() else NotGguf(path)
    with path.open("rb") as file:
        try:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                return _Reader(content).read()
        except (ValueError, TypeError, KeyError, ArithmeticError, struct.error):
            raise NotGguf(path) from None


class _Reader:
    """Reads a header from its first byte to its last; each method returns what stands at `_place` and moves on."""

    def __init__(self, content: mmap.mmap) -> None:
        self._content, self._place = content, 0

    def read(self) -> GgufHeader:
        if self._content[:4] != MAGIC:
            raise ValueError
        self._place = 4
        version, num_tensors, num_values = self._scalar("I"), self._scalar("Q"), self._scalar("Q")
        if version != GGUF_VERSION:
            raise ValueError
        values: dict[str, Any] = {}
        for _number in range(num_values):
            name, kind = self._text(), self._scalar("I")
            if kind == ARRAY:
                self._skip_array()
            else:
                values[name] = self._text() if kind == STRING else self._scalar(SCALAR_FORMATS[kind])
        matrix_types, data_bytes = set(), 0
        alignment = values.get(ALIGNMENT_KEY, ALIGNMENT_BYTES)
        for _number in range(num_tensors):
            self._text()
            shape = [self._scalar("Q") for _dimension in range(self._scalar("I"))]
            type_name, place = TENSOR_TYPES[self._scalar("I")], self._scalar("Q")
            block_size, block_bytes = BLOCK_SIZES[type_name]
            if place != data_bytes:
                raise ValueError
            data_bytes += _aligned(math.prod(shape) // block_size * block_bytes, alignment)
            if len(shape) > 1:
                matrix_types.add(type_name)
        if _aligned(self._place, alignment) + data_bytes != len(self._content) or not matrix_types:
            raise ValueError
        return GgufHeader(values, frozenset(matrix_types))

    def _scalar(self, kind: str) -> Any:
        (value,) = struct.unpack_from(f"<{kind}", self._content, self._place)
        self._place += struct.calcsize(f"<{kind}")
        return value

    def _text(self) -> str:
        start = self._place + 8
        self._skip_text()
        return self._content[start : self._place].decode("utf-8")

    def _skip_text(self) -> None:
        (length,) = struct.unpack_from("<Q", self._content, self._place)
        self._place += 8 + length
        if self._place > len(self._content):
            raise ValueError

    def _skip_array(self) -> None:
        kind, length = self._scalar("I"), self._scalar("Q")
        if kind == STRING:
            for _number in range(length):  # a made-up length ends at the end of the file
                self._skip_text()
        else:
            self._place += struct.calcsize(f"<{SCALAR_FORMATS[kind]}") * length


def _aligned(num_bytes: int, alignment: int) -> int:
    return -(-num_bytes // alignment) * alignment


def check_header(saved: SavedModel, content: Content, path: Path, final_path: Path) -> GgufHeader:
    """Return the header; raise ScriptError unless the file is whole, of this project, and of this training.

    `final_path` is the name that messages give it.
    """
    shown = shown_path(final_path)
    try:
        header = read_header(path)
        if content != "adapter" and FORMAT_KEY in header.values and header.max_context_tokens < 1:
            raise NotGguf(path)
    except FileNotFoundError:
        raise ScriptError(f"{shown}: not found; export it first, without --check-only") from None
    except NotGguf:
        raise ScriptError(f"{shown}: is no GGUF file, or is cut or damaged; remove it and export again") from None
    if FORMAT_KEY not in header.values:
        raise ScriptError(f"{shown}: was not written by this project; choose another --export-path")
    if header.values[FORMAT_KEY] != FORMAT_VERSION:
        raise ScriptError(f"{shown}: was written by another version of this project; remove it and export again")
    expected = {CONTENT_KEY: content, BASE_KEY: saved.settings["base_fingerprint"]}
    if content != "base":
        expected[ADAPTER_KEY] = hash_file(saved.folder / ADAPTER_NAME)
    if any(header.values.get(name) != value for name, value in expected.items()):
        raise ScriptError(
            f"{shown}: is of another training than {shown_path(saved.folder)}; remove it and export again"
        )
    return header


def find_base_beside(saved: SavedModel, adapter_path: Path) -> Path | None:
    """Return a base of this training in the folder of `adapter_path`: the one of its type, else the newest, or None."""
    candidates = sorted(adapter_path.parent.glob("base-*.gguf"), key=lambda path: path.stat().st_mtime, reverse=True)
    same_type = adapter_path.with_name(adapter_path.name.replace("adapter-", "base-"))
    for path in sorted(candidates, key=lambda path: path != same_type):
        try:
            check_header(saved, "base", path, path)
        except ScriptError:
            continue
        return path
    return None


@dataclass(frozen=True)
class ModelFiles:
    """The GGUF files that together are the trained model."""

    model_path: Path  # the merged model, or the base
    adapter_path: Path | None  # beside a base
    header: GgufHeader  # of the model


def find_model_files(saved: SavedModel) -> ModelFiles | ScriptError | None:
    """Return the newest GGUF files of this training in the trained folder.

    Without any, the reason against the newest file is returned, or None when there is no file.
    """
    problem: ScriptError | None = None
    paths = [path for path in (saved.folder / GGUF_DIR_NAME).glob("*.gguf") if not path.name.startswith("base-")]
    for path in sorted(paths, key=lambda path: path.stat().st_mtime, reverse=True):
        try:
            return _model_files(saved, path)
        except ScriptError as error:
            problem = problem or error
    return problem


def _model_files(saved: SavedModel, path: Path) -> ModelFiles:
    if not path.name.startswith("adapter-"):
        return ModelFiles(path, None, check_header(saved, "model", path, path))
    check_header(saved, "adapter", path, path)
    base_path = find_base_beside(saved, path)
    if base_path is None:
        raise ScriptError(f"{shown_path(path)}: no base of this training lies beside it; export one with --base-only")
    return ModelFiles(base_path, path, check_header(saved, "base", base_path, base_path))


def hash_file(path: Path) -> str:
    """Return the sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
