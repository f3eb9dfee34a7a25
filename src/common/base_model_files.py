"""The base model on disk: finding it, downloading it once, refusing a broken or hostile one, its fingerprint.

Standard library only: it decides about the network before any model library is imported.
It leaves loading the model to the stages.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import logging
import math
import os
import re
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

from common.config_values import count_layers, find_absurd_value
from common.outside_files import NotReadableError, find_irregular, read_json, read_limited
from common.script import ScriptError, printable, refuse_undecodable, shown_path

HUB_ANSWER_SECONDS = 5.0  # then the hub counts as unreachable; the libraries' own retries take up to 48 s
MAX_PATH_CHARS = 4096
ADDRESS_RE = re.compile(
    r"https?://[^/]+/([^/?#]+/[^/?#]+)"
)  # of a model's page: https://huggingface.co/owner/name/tree/main
HUB_ID_RE = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)

# Never *.bin, *.pt, *.py: a pickle or a module in the folder could run code.
DOWNLOADED_NAMES_RE = re.compile(
    r"(config|generation_config|tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab)\.json"
    r"|tokenizer\.model|merges\.txt|chat_template\.jinja|model(-\d+-of-\d+)?\.safetensors|model\.safetensors\.index\.json"
)
TOKENIZER_FILES = (("tokenizer.json",), ("tokenizer.model",), ("vocab.json", "merges.txt"))  # one group is enough
# Of other programs: of these files no folder becomes usable by downloading it again.
FOREIGN_FILES_RE = re.compile(r".*\.gguf|params\.json|tekken\.json|vocab\.txt|.*\.model|.*\.tiktoken|.*\.onnx|.*\.npz")
PICKLE_ENDINGS = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
# The size of one number of a safetensors file, by the format's name for its type.
BITS_OF_DTYPE = {
    "F64": 64, "I64": 64, "U64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16, "BF16": 16, "I16": 16, "U16": 16,
    "F8_E4M3": 8, "F8_E5M2": 8, "I8": 8, "U8": 8, "BOOL": 8,
}  # fmt: skip
MAX_SAFETENSORS_HEADER_BYTES = 100_000_000  # the limit of the format's own library

# The config keys that decide a model's shape and what its layers compute, by their names in the common families.
SHAPE_KEYS = (
    "model_type", "architectures", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
    "num_attention_heads", "num_key_value_heads", "head_dim", "hidden_act", "tie_word_embeddings", "sliding_window",
    "rope_theta", "rope_scaling", "rope_parameters", "n_embd", "n_layer", "n_head", "n_inner",
)  # fmt: skip
FINGERPRINT_SAMPLE_BYTES = 65_536  # from the middle of each weight file: distinguishes bases of the same shape


class BaseModelError(ScriptError):
    """The base model cannot be used, worded `BASE: what is wrong; what to do`."""


@dataclass(frozen=True)
class BaseModel:
    """Where a base model is. `folder` is None until it is downloaded."""

    name: str  # as the user wrote it: a hub id, or the path of a folder
    folder: Path | None
    revision: str | None = None  # the hub's commit, for a base that came from there


@dataclass(frozen=True)
class HubListing:
    """What the hub has under an id: the commit, and the files to download with their sizes."""

    hub_id: str
    revision: str
    sizes_bytes: dict[str, int]

    @property
    def total_bytes(self) -> int:
        """The size of the whole download."""
        return sum(self.sizes_bytes.values())


def prepare_environment() -> None:
    """Switch off what the model libraries report to others or fetch by themselves; call it before importing any of them."""
    os.environ.update(
        HF_HUB_DISABLE_TELEMETRY="1",
        DO_NOT_TRACK="1",
        HF_HUB_DISABLE_IMPLICIT_TOKEN="1",  # a stored login is not sent; HF_TOKEN is, for gated bases
        WANDB_MODE="disabled",
        USE_HUB_KERNELS="0",  # no layer downloads code
        TOKENIZERS_PARALLELISM="false",  # else each fork prints a warning
        TRANSFORMERS_VERBOSITY="error",  # its warnings quote what stands in a config
    )
    # Where the package `kernels` is installed, bitsandbytes 0.50 fetches compiled code with it; where not, it warns.
    sys.modules["kernels"] = None  # type: ignore[assignment]  # importing it fails from here on
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it tells a user without a home where it keeps its fonts
    # NumPy's threads: the models do not use them, each takes memory, and where none may be started it sends SIGINT.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # Without it, the CUDA allocator loses several percent of the memory to fragmentation when lengths vary.
    os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")


def work_offline() -> None:
    """Forbid the model libraries all network use; call it once the base is on disk, before importing any of them."""
    os.environ["HF_HUB_OFFLINE"] = "1"


def find_base(base_model_id: str, start_dir: Path, revision: str | None = None) -> BaseModel:
    """Return where the base model lies: in a local folder, in the hub's cache, or not yet on disk.

    A relative path counts from `start_dir`. A path, also a misspelled one, is never taken for a hub id. Uses no
    network. Raises ScriptError.
    """
    if not base_model_id.strip():
        raise BaseModelError("base_model_id: is empty; give a hub id such as owner/name, or a folder")
    if "\0" in base_model_id or len(base_model_id) > MAX_PATH_CHARS:
        raise BaseModelError(
            "base_model_id: is no path of a folder, and no hub id (owner/name) either; check the spelling"
        )
    shown = printable(base_model_id)
    path = start_dir / os.path.expanduser(base_model_id)  # `~` of an unknown user stays
    if path.is_dir():
        refuse_undecodable(path)
        return _as_base(base_model_id, path)
    cached = _find_in_hub_cache(base_model_id, revision)
    if cached is not None:
        return BaseModel(base_model_id, cached, cached.name)
    address = ADDRESS_RE.match(base_model_id)
    if address:
        raise BaseModelError(f"{shown}: is an address; give the hub id alone: {printable(address[1])}")
    if path.suffix.lower() == ".gguf" and path.exists():
        raise BaseModelError(
            f"{shown}: is in the form of llama.cpp (GGUF), which cannot be trained; give the base model it was made from"
        )
    if path.exists():
        raise BaseModelError(f"{shown}: is a file; give the folder of the base model, or a hub id")
    if HUB_ID_RE.fullmatch(base_model_id) is None:
        raise BaseModelError(f"{shown}: no such folder, and no hub id (owner/name) either; check the spelling")
    first_part = base_model_id.split("/")[0]
    similar = difflib.get_close_matches(first_part, [p.name for p in start_dir.iterdir() if p.is_dir()], 1, 0.75)
    if similar:
        raise BaseModelError(
            f"{shown}: no such folder, but there is {printable(similar[0])}/; check the spelling "
            "(if a hub id is meant, run from a folder without that name)"
        )
    return BaseModel(base_model_id, None, revision)


def _as_base(name: str, path: Path) -> BaseModel:
    # In the hub's cache, a snapshot folder is named after its commit.
    is_snapshot = path.resolve().parent.name == "snapshots"
    return BaseModel(name, path, path.resolve().name if is_snapshot else None)


def hub_cache_dir() -> Path:
    """Return the folder of the hub library's downloads."""
    if "HF_HUB_CACHE" in os.environ:
        return Path(os.path.expanduser(os.environ["HF_HUB_CACHE"]))
    cache_home = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    return Path(os.path.expanduser(os.environ.get("HF_HOME", f"{cache_home}/huggingface"))) / "hub"


def hub_folder_of(hub_id: str) -> Path:
    """Return the folder of this model in the hub library's cache, which may not be there."""
    return hub_cache_dir() / f"models--{hub_id.replace('/', '--')}"


def _find_in_hub_cache(hub_id: str, revision: str | None) -> Path | None:
    """Return the snapshot folder of `hub_id` if it is there and complete, else None."""
    if re.fullmatch(r"[\w.-]+(/[\w.-]+)?", hub_id, re.ASCII) is None:
        return None
    model_dir = hub_folder_of(hub_id)
    if revision is None:
        try:
            revision = read_limited(model_dir / "refs" / "main").decode("utf-8").strip()
        except (OSError, ValueError):
            return None
    snapshot = model_dir / "snapshots" / revision
    try:
        list_weight_files(snapshot)
    except BaseModelError:
        return None  # an interrupted download, to be continued
    return snapshot if _has_tokenizer(snapshot) and (snapshot / "config.json").is_file() else None


def _has_tokenizer(folder: Path) -> bool:
    return any(all((folder / name).is_file() for name in names) for names in TOKENIZER_FILES)


def list_on_hub(hub_id: str) -> HubListing:
    """Ask the hub for the files of `hub_id`; raise BaseModelError if there are none, or no answer within 5 seconds."""
    _refuse_when_offline(hub_id)
    answer = _ask_hub(hub_id, f"api/models/{hub_id}/revision/main?blobs=true")
    names = {file["rfilename"]: int(file.get("size") or 0) for file in answer.get("siblings", [])}
    wanted = {name: size for name, size in names.items() if DOWNLOADED_NAMES_RE.fullmatch(name)}
    if not any(name.endswith(".safetensors") for name in wanted):
        raise BaseModelError(
            f"{printable(hub_id)}: has no safetensors weights, and other formats are never opened; choose another base model"
        )
    return HubListing(hub_id, str(answer["sha"]), wanted)


def fetch_config(hub_id: str) -> dict[str, Any]:
    """Download only the config of `hub_id`; raise BaseModelError."""
    _refuse_when_offline(hub_id)
    config = _ask_hub(hub_id, f"{hub_id}/resolve/main/config.json")
    _check_config(config, Path(hub_id) / "config.json", "choose another base model")
    return config


def _refuse_when_offline(hub_id: str) -> None:
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}:
        raise BaseModelError(
            f"{printable(hub_id)}: is not on this disk, and HF_HUB_OFFLINE forbids downloading it; unset HF_HUB_OFFLINE, "
            "or give the folder of a base model"
        )


def _ask_hub(hub_id: str, path: str) -> dict[str, Any]:
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    request = urllib.request.Request(f"{endpoint}/{path}", headers={"User-Agent": "PersonalChatbot"})
    if "HF_TOKEN" in os.environ:
        request.add_unredirected_header("Authorization", f"Bearer {os.environ['HF_TOKEN']}")
    outcome: list[dict[str, Any] | BaseException] = []

    def ask() -> None:
        try:
            with urllib.request.urlopen(request, timeout=HUB_ANSWER_SECONDS) as response:
                outcome.append(json.load(response))
        except (OSError, ValueError, HTTPException) as error:  # no route, no name, a bad certificate, no JSON
            outcome.append(error)

    # In a thread, because looking up a host name obeys no timeout.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(HUB_ANSWER_SECONDS - 0.5)
    result = outcome[0] if outcome else TimeoutError("no answer")
    if isinstance(result, urllib.error.HTTPError) and result.code in {401, 403, 404}:
        raise BaseModelError(
            f"{printable(hub_id)}: the hub has no such model, or restricts access to it; check the spelling, or accept its licence "
            "on the hub and set HF_TOKEN"
        )
    if not isinstance(result, dict):
        raise BaseModelError(
            f"{printable(hub_id)}: is not on this disk and the hub cannot be reached; connect to the internet, "
            "or give the folder of a base model"
        )
    return result


# Runs in a separate process, where the hub's library may use the network; in this process it never may.
DOWNLOAD_PROGRAM = """
import os, sys
from huggingface_hub import snapshot_download
hub_id, revision, *names = sys.argv[1:]
print(snapshot_download(hub_id, revision=revision, allow_patterns=names, token=os.environ.get("HF_TOKEN") or False))
"""


def download_base(listing: HubListing) -> BaseModel:
    """Download the listed files into the hub's cache, with the library's progress bar; raise BaseModelError."""
    # Pinned to the commit: `main` may move during the download.
    command = [sys.executable, "-c", DOWNLOAD_PROGRAM, listing.hub_id, listing.revision, *listing.sizes_bytes]
    finished = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    folder = finished.stdout.decode("utf-8").strip()
    # The library reports success even if a listed file is no longer on the hub.
    is_complete = bool(folder) and all((Path(folder) / name).is_file() for name in listing.sizes_bytes)
    if finished.returncode != 0 or not is_complete:
        raise BaseModelError(
            f"{printable(listing.hub_id)}: the download did not finish (see above); run the same command again to continue it"
        )
    if _find_in_hub_cache(listing.hub_id, None) is None:
        # A download by commit writes no refs/main; with it, the base is found without the network next time.
        reference = hub_folder_of(listing.hub_id) / "refs" / "main"
        reference.parent.mkdir(parents=True, exist_ok=True)
        reference.write_text(listing.revision, encoding="utf-8")
    return BaseModel(listing.hub_id, Path(folder), listing.revision)


def check_base_folder(folder: Path) -> dict[str, Any]:
    """Return the config of the base model in `folder`; raise BaseModelError if a file is missing, cut or hostile."""
    if (folder / "adapter_config.json").is_file():
        raise BaseModelError(
            f"{shown_path(folder)}: is an adapter, not a base model; give the base model it was trained on"
        )
    irregular = find_irregular(folder)
    if irregular is not None:
        raise BaseModelError(
            f"{shown_path(irregular)}: is no regular file, or far too large; download the base model again"
        )
    _refuse_foreign_format(folder, ("config.json",))
    config = read_json_object(folder / "config.json")
    _check_config(config, folder / "config.json", "download the base model again")
    if not _has_tokenizer(folder):
        _refuse_foreign_format(folder, ("tokenizer.json",))
        raise BaseModelError(f"{shown_path(folder / 'tokenizer.json')}: not found; download the base model again")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            content = read_json_object(folder / name)
            if name == "tokenizer_config.json":
                refuse_foreign_code(content, folder / name)
    num_tensors = sum(len(check_safetensors_file(path)) for path in list_weight_files(folder))
    if count_layers(config) > num_tensors:  # to build a million empty layers takes hours
        raise BaseModelError(
            f"{shown_path(folder / 'config.json')}: has more layers than there are weights; download the base again"
        )
    return config


def _refuse_foreign_format(folder: Path, needed: tuple[str, ...]) -> None:
    """Raise BaseModelError if none of the `needed` files is in `folder`, but files that other programs have in their place."""
    if any((folder / name).is_file() for name in needed):
        return
    others = sorted(path.name for path in folder.iterdir() if FOREIGN_FILES_RE.fullmatch(path.name))
    if others:
        raise BaseModelError(
            f"{shown_path(folder)}: has no {needed[0]}, and {printable(others[0])} in its place, which is for other programs; "
            "choose the same base in the format of transformers (config.json, tokenizer.json, model.safetensors)"
        )


def _check_config(config: dict[str, Any], path: Path, cure: str) -> None:
    """Raise BaseModelError if no model is to be built from `config`, which is that of `path`."""
    refuse_foreign_code(config, path)
    if not isinstance(config.get("model_type"), str):
        raise BaseModelError(f"{shown_path(path)}: names no model_type; {cure}")
    absurd = find_absurd_value(config)
    if absurd is not None:
        raise BaseModelError(f"{shown_path(path)}: {absurd} is no usable value; {cure}")
    # MLX calls it `quantization`; a model that also reads pictures may have it in the config inside.
    if any(key in ("quantization_config", "quantization") and value for key, value in _walk(config)):
        raise BaseModelError(
            f"{shown_path(path.parent)}: is already quantized; choose the same base in its original precision"
        )
    if config.get("is_encoder_decoder") is True:
        raise BaseModelError(
            f"{shown_path(path)}: is of a model that turns one text into another (is_encoder_decoder), none that continues "
            "a text; choose another base model"
        )


def read_json_object(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; raise BaseModelError when there is none."""
    try:
        content = read_json(path)
    except FileNotFoundError:
        raise BaseModelError(
            f"{shown_path(path)}: not found; give the folder of a base model, or download it again"
        ) from None
    except (OSError, NotReadableError):
        raise BaseModelError(f"{shown_path(path)}: is not readable JSON; download the base model again") from None
    if not isinstance(content, dict):
        raise BaseModelError(f"{shown_path(path)}: holds no JSON object; download the base model again")
    return content


def refuse_foreign_code(content: Any, path: Path) -> None:
    """Raise BaseModelError when a config would make the libraries download or run code from the model's author."""
    for key, value in _walk(content):
        if key == "auto_map":
            raise BaseModelError(
                f"{shown_path(path)}: would run its own code (auto_map), which is refused; choose another base"
            )
        if key.endswith("implementation") and "/" in json.dumps(value):
            raise BaseModelError(
                f"{shown_path(path)}: would download code ({printable(key)}), which is refused; choose another base"
            )


def _walk(content: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(content, dict):
        for key, value in content.items():
            yield key, value
            yield from _walk(value)
    elif isinstance(content, list):
        for value in content:
            yield from _walk(value)


def list_weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files of the base in `folder`, sorted; raise BaseModelError when one is missing."""
    index_path = folder / "model.safetensors.index.json"
    if index_path.is_file():
        weight_map = read_json_object(index_path).get("weight_map")
        values = list(weight_map.values()) if isinstance(weight_map, dict) else []
        names = sorted({name for name in values if isinstance(name, str) and Path(name).name == name})
        if not names or any(name not in names for name in values):
            raise BaseModelError(
                f"{shown_path(index_path)}: names no weight files of this folder; download the base model again"
            )
    else:
        names = ["model.safetensors"]
    missing = [name for name in names if not (folder / name).is_file()]
    if missing and any(path.suffix in PICKLE_ENDINGS for path in folder.glob("*")):
        raise BaseModelError(
            f"{shown_path(folder)}: has its weights only as pickle files (.bin), which could run code and are never opened; "
            "choose a base with safetensors weights"
        )
    if missing:
        _refuse_foreign_format(folder, tuple(names))
        raise BaseModelError(f"{shown_path(folder / missing[0])}: not found; download the base model again")
    return [folder / name for name in names]


def check_safetensors_file(path: Path) -> dict[str, Any]:
    """Return the header of a safetensors file; raise BaseModelError if it is damaged or contradicts the file's length."""
    header: dict[str, Any] | None = None
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        header = _read_safetensors_header(path)
    if header is None:
        raise BaseModelError(f"{shown_path(path)}: is cut or damaged; download the base model again")
    return header


def _read_safetensors_header(path: Path) -> dict[str, Any] | None:
    """Return the header if it describes exactly the bytes that follow it, without gaps; else None."""
    if not path.is_file():  # a pipe would wait for a writer
        return None
    size = path.stat().st_size
    with path.open("rb") as file:
        header_bytes = int.from_bytes(file.read(8), "little")
        if not 2 <= header_bytes <= min(size - 8, MAX_SAFETENSORS_HEADER_BYTES):
            return None
        header: dict[str, Any] = json.loads(file.read(header_bytes))
    place = 0
    entries = [entry for name, entry in header.items() if name != "__metadata__"]
    for entry in sorted(entries, key=lambda entry: entry["data_offsets"]):
        start, end = entry["data_offsets"]
        if start != place or any(type(length) is not int or length < 0 for length in entry["shape"]):
            return None
        bits = BITS_OF_DTYPE.get(entry["dtype"])
        if bits is not None and math.prod(entry["shape"]) * bits != 8 * (end - start):
            return None
        place = end
    return header if size == 8 + header_bytes + place else None


def base_fingerprint(folder: Path) -> str:
    """Return a sha256 that identifies a base model: its shape, and each weight file's name, size and a sample."""
    config = read_json_object(folder / "config.json")
    shape = {key: config[key] for key in SHAPE_KEYS if key in config}
    digest = hashlib.sha256(json.dumps(shape, sort_keys=True).encode("utf-8"))
    for path in list_weight_files(folder):
        size = path.stat().st_size
        digest.update(f"\n{path.name} {size}\n".encode())
        with path.open("rb") as file:
            file.seek(max(0, (size - FINGERPRINT_SAMPLE_BYTES) // 2))
            digest.update(file.read(FINGERPRINT_SAMPLE_BYTES))
    return digest.hexdigest()
