"""Finding, downloading and refusing base models. The hub is a small server on this machine; no test asks the real one."""

import contextlib
import hashlib
import json
import os
import shutil
import struct
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from common.base_model_files import (
    HUB_ANSWER_SECONDS,
    BaseModelError,
    HubListing,
    base_fingerprint,
    check_base_folder,
    download_base,
    fetch_config,
    find_base,
    list_on_hub,
)
from common.script import ScriptError

CONFIG = {"model_type": "mistral", "architectures": ["MistralForCausalLM"], "hidden_size": 8, "vocab_size": 16}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def safetensors_bytes(num_values: int = 4, fill: int = 0) -> bytes:
    data = bytes([fill]) * (4 * num_values)
    header = json.dumps({"w": {"dtype": "F32", "shape": [num_values], "data_offsets": [0, len(data)]}}).encode()
    return struct.pack("<Q", len(header)) + header + data


def make_base(folder: Path, config: dict | None = None, weights: bytes | None = None) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(CONFIG if config is None else config))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(safetensors_bytes() if weights is None else weights)
    return folder


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    """An empty hub cache, and no way out of this machine: port 9 of the local host refuses."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    return tmp_path / "hub"


class TestFinding:
    def test_relative_folder_counts_from_the_start_folder(self, tmp_path, hub_cache):
        make_base(tmp_path / "bases" / "small")
        assert find_base("bases/small", tmp_path).folder == tmp_path / "bases" / "small"

    @pytest.mark.parametrize(
        "value",
        ["/no/such/base", "./base", "../base", "~/no-such-base", "~nosuchuser/base", "a/b/c", "my_base", "a b/c"],
    )
    def test_path_that_is_not_there_is_no_hub_id(self, value, tmp_path, hub_cache):
        with pytest.raises(BaseModelError, match="no such folder"):
            find_base(value, tmp_path)

    def test_misspelled_first_folder_is_no_hub_id(self, tmp_path, hub_cache):
        make_base(tmp_path / "models" / "small")
        with pytest.raises(BaseModelError, match="there is models/"):
            find_base("modles/small", tmp_path)

    def test_empty_value_is_refused(self, tmp_path):
        with pytest.raises(BaseModelError, match="is empty"):
            find_base(" ", tmp_path)

    def test_folder_whose_name_is_not_utf_8_is_refused(self, tmp_path):
        folder = os.fsdecode(b"caf\xe9")
        make_base(tmp_path / folder)
        with pytest.raises(ScriptError, match="not UTF-8"):
            find_base(folder, tmp_path)

    def test_file_is_refused(self, tmp_path, hub_cache):
        (tmp_path / "base").write_text("x")
        with pytest.raises(BaseModelError, match="is a file"):
            find_base("base", tmp_path)

    @pytest.mark.parametrize("rest", ["", "/", "/tree/main", "?library=transformers", "#model"])
    def test_the_address_of_a_models_page_is_answered_with_its_id(self, rest, tmp_path, hub_cache):
        with pytest.raises(BaseModelError, match="is an address; give the hub id alone: Qwen/Qwen3-0.6B-Base$"):
            find_base(f"https://huggingface.co/Qwen/Qwen3-0.6B-Base{rest}", tmp_path)

    def test_a_gguf_file_is_no_base(self, tmp_path, hub_cache):
        (tmp_path / "base.Q4_0.gguf").write_bytes(b"GGUF")
        with pytest.raises(BaseModelError, match="cannot be trained; give the base model it was made from"):
            find_base("base.Q4_0.gguf", tmp_path)

    def test_hub_id_that_is_not_on_disk_has_no_folder(self, tmp_path, hub_cache):
        assert find_base("owner/name", tmp_path).folder is None

    def test_finished_download_is_found_with_its_commit(self, tmp_path, hub_cache):
        snapshot = make_base(hub_cache / "models--owner--name" / "snapshots" / COMMIT)
        (hub_cache / "models--owner--name" / "refs").mkdir()
        (hub_cache / "models--owner--name" / "refs" / "main").write_text(COMMIT)
        base = find_base("owner/name", tmp_path)
        assert (base.folder, base.revision) == (snapshot, COMMIT)

    def test_interrupted_download_does_not_count_as_on_disk(self, tmp_path, hub_cache):
        snapshot = make_base(hub_cache / "models--owner--name" / "snapshots" / COMMIT)
        (hub_cache / "models--owner--name" / "refs").mkdir()
        (hub_cache / "models--owner--name" / "refs" / "main").write_text(COMMIT)
        (snapshot / "model.safetensors").unlink()
        assert find_base("owner/name", tmp_path).folder is None


class TestHub:
    def test_unreachable_hub_is_one_line(self, hub_cache):
        with pytest.raises(BaseModelError, match="hub cannot be reached; connect"):
            list_on_hub("owner/name")

    @pytest.mark.slow
    def test_silent_hub_is_given_up_before_it_answers(self, hub_cache, monkeypatch):
        files = {"config.json": b"{}", "model.safetensors": b"12345"}  # answered in time, no error would come
        with served_hub(files, silent_seconds=HUB_ANSWER_SECONDS) as address:
            monkeypatch.setenv("HF_ENDPOINT", address)
            with pytest.raises(BaseModelError, match="hub cannot be reached"):
                list_on_hub("owner/name")

    def test_offline_by_wish_asks_nothing(self, hub_cache, monkeypatch):
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        with pytest.raises(BaseModelError, match="HF_HUB_OFFLINE forbids"):
            list_on_hub("owner/name")

    def test_lists_only_files_worth_having(self, hub_cache, monkeypatch):
        files = {"config.json": b"{}", "model.safetensors": b"12345", "pytorch_model.bin": b"x", "modeling_x.py": b"x"}
        with served_hub(files) as address:
            monkeypatch.setenv("HF_ENDPOINT", address)
            listing = list_on_hub("owner/name")
        assert listing == HubListing("owner/name", COMMIT, {"config.json": 2, "model.safetensors": 5})
        assert listing.total_bytes == 7

    def test_unknown_model_is_named(self, hub_cache, monkeypatch):
        with served_hub({}) as address:
            monkeypatch.setenv("HF_ENDPOINT", address)
            with pytest.raises(BaseModelError, match="no/such: the hub has no such model"):
                list_on_hub("no/such")

    def test_pickle_only_model_is_not_downloaded(self, hub_cache, monkeypatch):
        with served_hub({"config.json": b"{}", "pytorch_model.bin": b"x"}) as address:
            monkeypatch.setenv("HF_ENDPOINT", address)
            with pytest.raises(BaseModelError, match="no safetensors"):
                list_on_hub("owner/name")

    @pytest.mark.parametrize(
        ("change", "problem"),
        [
            ({"model_type": None}, "config.json: names no model_type; choose another"),
            ({"num_hidden_layers": -1}, "config.json: num_hidden_layers is no usable value; choose another"),
            ({"num_attention_heads": 0}, "num_attention_heads is no usable value"),
            ({"hidden_size": 10**30}, "hidden_size is no usable value"),
            ({"text_config": [1]}, "text_config is no usable value"),
            ({"quantization_config": {"bits": 4}}, "owner/name: is already quantized"),
            ({"auto_map": {"AutoConfig": "x.py"}}, "would run its own code"),
        ],
    )
    def test_config_that_gives_no_model_is_refused_before_the_download(self, change, problem, hub_cache, monkeypatch):
        with served_hub({"config.json": json.dumps(CONFIG | change).encode()}) as address:
            monkeypatch.setenv("HF_ENDPOINT", address)
            with pytest.raises(BaseModelError, match=problem):
                fetch_config("owner/name")

    @pytest.mark.slow
    def test_download_by_the_real_library_is_found_next_time(self, hub_cache, tmp_path, monkeypatch):
        files = {
            "config.json": json.dumps(CONFIG).encode(),
            "tokenizer.json": b"{}",
            "model.safetensors": safetensors_bytes(1000),
            "pytorch_model.bin": b"never fetched",
        }
        with served_hub(files) as address:
            monkeypatch.setenv("HF_ENDPOINT", address)
            base = download_base(list_on_hub("owner/name"))
        assert sorted(path.name for path in base.folder.iterdir()) == [
            "config.json",
            "model.safetensors",
            "tokenizer.json",
        ]
        check_base_folder(base.folder)
        assert find_base("owner/name", tmp_path) == base  # with the server gone
        assert base.revision == COMMIT

    @pytest.mark.slow
    def test_failed_download_says_how_to_go_on(self, hub_cache, monkeypatch):
        with served_hub({}) as address:  # it answers, but the file has gone
            monkeypatch.setenv("HF_ENDPOINT", address)
            with pytest.raises(BaseModelError, match="did not finish"):
                download_base(HubListing("owner/name", COMMIT, {"config.json": 2}))


class TestChecks:
    def test_good_base_passes(self, tmp_path):
        assert check_base_folder(make_base(tmp_path / "base")) == CONFIG

    def test_sharded_base_passes(self, tmp_path):
        folder = make_sharded(tmp_path / "base")
        assert check_base_folder(folder) == CONFIG

    def test_missing_shard_is_named(self, tmp_path):
        folder = make_sharded(tmp_path / "base")
        (folder / "model-00002-of-00002.safetensors").unlink()
        with pytest.raises(BaseModelError, match="model-00002-of-00002.safetensors: not found"):
            check_base_folder(folder)

    @pytest.mark.parametrize("names", [[1, "a"], [["a"]], ["a\0b"], [".."], [""], ["a/b"], [None], []])
    def test_an_index_of_what_is_no_name_is_refused(self, tmp_path, names):
        folder = make_sharded(tmp_path / "base")
        weight_map = {str(number): name for number, name in enumerate(names)}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
        with pytest.raises(BaseModelError, match="download the base model again"):
            check_base_folder(folder)

    @pytest.mark.parametrize("cut", [0, 5, 20, -1])
    def test_cut_weights_are_named(self, tmp_path, cut):
        folder = make_base(tmp_path / "base", weights=safetensors_bytes()[:cut])
        with pytest.raises(BaseModelError, match="model.safetensors: is cut or damaged"):
            check_base_folder(folder)

    def test_absurd_header_length_is_refused_without_reading_it(self, tmp_path):
        folder = make_base(tmp_path / "base", weights=struct.pack("<Q", 2**62) + b"{}")
        with pytest.raises(BaseModelError, match="cut or damaged"):
            check_base_folder(folder)

    @pytest.mark.parametrize(
        "entry",
        [
            {"shape": [2]},
            {"shape": [-1]},
            {"shape": "1"},
            {"data_offsets": [1, 4]},
            {"data_offsets": [0]},
            {"data_offsets": [0, 2**70]},
            {"dtype": ["F32"]},
        ],
    )
    def test_a_header_that_contradicts_the_length_is_damage(self, tmp_path, entry):
        header = {"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} | entry}
        text = json.dumps(header).encode()
        folder = make_base(tmp_path / "base", weights=struct.pack("<Q", len(text)) + text + b"\0" * 4)
        with pytest.raises(BaseModelError, match="model.safetensors: is cut or damaged"):
            check_base_folder(folder)

    @pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "chat_template.jinja", "model.safetensors"])
    def test_a_pipe_in_the_place_of_a_file_is_refused_without_waiting(self, tmp_path, name):
        folder = make_base(tmp_path / "base")
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)
        with pytest.raises(BaseModelError, match=name):
            check_base_folder(folder)

    @pytest.mark.parametrize(
        ("name", "content", "problem"),
        [
            ("config.json", None, "config.json: not found"),
            ("config.json", b"{", "config.json: is not readable JSON"),
            ("config.json", b"\xff\xfe{}", "config.json: is not readable JSON"),
            ("config.json", b"[" * 100_000, "config.json: is not readable JSON"),
            ("config.json", b"[]", "holds no JSON object"),
            ("config.json", b"{}", "names no model_type"),
            ("tokenizer.json", None, "tokenizer.json: not found"),
            ("tokenizer.json", b"{", "tokenizer.json: is not readable JSON"),
            ("adapter_config.json", b"{}", "is an adapter"),
            ("tokenizer_config.json", b'{"auto_map": {"AutoTokenizer": ["x.X", null]}}', "own code"),
            (
                "model.safetensors.index.json",
                b'{"weight_map": {"w": "../secret.safetensors"}}',
                "names no weight files",
            ),
        ],
    )
    def test_broken_part_is_named(self, tmp_path, name, content, problem):
        folder = make_base(tmp_path / "base")
        if content is None:
            (folder / name).unlink()
        else:
            (folder / name).write_bytes(content)
        with pytest.raises(BaseModelError, match=problem):
            check_base_folder(folder)

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("max_position_embeddings", 0),
            ("max_position_embeddings", -5),
            ("num_hidden_layers", 1_000_000),
            ("num_hidden_layers", True),
            ("hidden_size", -64),
            ("vocab_size", 10**12),
            ("intermediate_size", "128"),
            ("num_attention_heads", 1.5),
            ("rope_theta", float("nan")),
            ("rms_norm_eps", []),
        ],
    )
    def test_an_absurd_value_is_named(self, tmp_path, key, value):
        for name, config in (("plain", {key: value}), ("nested", {"text_config": {key: value}})):
            folder = make_base(tmp_path / name, CONFIG | config)
            with pytest.raises(BaseModelError, match=f"config.json: {key} is no usable value; download"):
                check_base_folder(folder)

    def test_more_layers_than_weights_are_refused(self, tmp_path):
        folder = make_base(tmp_path / "base", CONFIG | {"num_hidden_layers": 999})
        with pytest.raises(BaseModelError, match="more layers than there are weights"):
            check_base_folder(folder)

    def test_pickle_only_base_is_never_opened(self, tmp_path):
        folder = make_base(tmp_path / "base")
        (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
        with pytest.raises(BaseModelError, match="only as pickle"):
            check_base_folder(folder)

    @pytest.mark.parametrize(
        "addition",
        [
            {"auto_map": {"AutoConfig": "evil.Config"}},
            {"_attn_implementation": "someone/kernel"},
            {"text_config": {"attn_implementation": "someone/kernel:run"}},
            {"experts_implementation": {"": "someone/kernel"}},
        ],
    )
    def test_foreign_code_is_refused(self, tmp_path, addition):
        folder = make_base(tmp_path / "base", CONFIG | addition)
        with pytest.raises(BaseModelError, match="refused"):
            check_base_folder(folder)

    @pytest.mark.parametrize(
        "addition",
        [
            {"quantization_config": {"quant_method": "awq"}},
            {"text_config": {"quantization_config": {"quant_method": "fp8"}}},
            {"quantization": {"group_size": 64, "bits": 4}},  # of MLX
        ],
    )
    def test_quantized_base_is_refused(self, tmp_path, addition):
        folder = make_base(tmp_path / "base", CONFIG | addition)
        with pytest.raises(BaseModelError, match="already quantized"):
            check_base_folder(folder)

    def test_a_key_for_quantization_that_is_empty_does_not_count(self, tmp_path):
        check_base_folder(make_base(tmp_path / "base", CONFIG | {"quantization_config": None}))

    @pytest.mark.parametrize(
        ("removed", "added"),
        [
            ("tokenizer.json", "tekken.json"),
            ("tokenizer.json", "vocab.txt"),
            ("tokenizer.json", "spiece.model"),
            ("model.safetensors", "model-Q4_K_M.gguf"),
            ("config.json", "model-Q4_K_M.gguf"),
            ("config.json", "params.json"),
        ],
    )
    def test_files_of_another_program_are_named_and_no_new_download_is_advised(self, tmp_path, removed, added):
        folder = make_base(tmp_path / "base")
        (folder / removed).rename(folder / added)
        with pytest.raises(BaseModelError) as refusal:
            check_base_folder(folder)
        message = str(refusal.value)
        assert f"has no {removed}, and {added} in its place" in message
        assert "download" not in message and "choose the same base in the format of transformers" in message

    def test_a_model_that_turns_one_text_into_another_is_refused(self, tmp_path):
        folder = make_base(tmp_path / "base", CONFIG | {"model_type": "t5", "is_encoder_decoder": True})
        with pytest.raises(BaseModelError, match="one text into another .*; choose another base model"):
            check_base_folder(folder)


def make_sharded(folder: Path) -> Path:
    make_base(folder)
    (folder / "model.safetensors").unlink()
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    for name in names:
        (folder / name).write_bytes(safetensors_bytes())
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": dict(zip("ab", names, strict=True))})
    )
    return folder


class TestFingerprint:
    def test_same_base_elsewhere_has_the_same_fingerprint(self, tmp_path):
        assert base_fingerprint(make_base(tmp_path / "a")) == base_fingerprint(make_base(tmp_path / "b"))

    @pytest.mark.parametrize(
        ("config", "weights"),
        [
            (CONFIG | {"hidden_size": 9}, safetensors_bytes()),
            (CONFIG, safetensors_bytes(5)),
            (CONFIG, safetensors_bytes(100_000, fill=1)),
        ],
        ids=["shape", "size", "values"],
    )
    def test_another_base_has_another_fingerprint(self, tmp_path, config, weights):
        first = make_base(tmp_path / "a", weights=safetensors_bytes(100_000 if len(weights) > 1000 else 4))
        assert base_fingerprint(first) != base_fingerprint(make_base(tmp_path / "b", config, weights))

    def test_values_that_change_no_computation_do_not_count(self, tmp_path):
        other = CONFIG | {"transformers_version": "9.9", "_name_or_path": "elsewhere", "use_cache": False}
        assert base_fingerprint(make_base(tmp_path / "a")) == base_fingerprint(make_base(tmp_path / "b", other))


def test_import_brings_no_library_along(start_python):
    program = (
        "import os, sys; from common import base_model_files as b; b.prepare_environment(); b.work_offline()\n"
        "libraries = {'torch', 'transformers', 'huggingface_hub', 'safetensors'}\n"
        "print(os.environ['HF_HUB_OFFLINE'], libraries & set(sys.modules))"
    )
    assert start_python(program).communicate(timeout=60) == ("1 set()\n", "")


@pytest.mark.slow
def test_no_library_fetches_compiled_code_or_warns_that_it_cannot(tmp_path, start_python):
    # What the package of this name would do: fetch code from the hub.
    (tmp_path / "kernels.py").write_text("open('fetched', 'w').close()\ndef get_kernel(*_): ...\n")
    program = (
        "import sys; sys.path.insert(0, ''); from common import base_model_files as b; b.prepare_environment()\n"
        "import bitsandbytes, peft, transformers"
    )
    assert start_python(program, cwd=tmp_path).communicate(timeout=120) == ("", "")
    assert not (tmp_path / "fetched").exists()


@contextlib.contextmanager
def served_hub(files: dict[str, bytes], silent_seconds: float = 0):
    """Serve `files` as the model owner/name by the requests the hub's library makes."""
    siblings = [{"rfilename": name, "size": len(content)} for name, content in files.items()]

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.answer(with_body=False)

        def do_GET(self):
            time.sleep(silent_seconds)
            self.answer(with_body=True)

        def answer(self, with_body):
            path = self.path.split("?")[0]
            if path.startswith("/api/models/owner/name/tree/"):
                body = json.dumps([{"type": "file", "path": n, "size": len(c), "oid": "0"} for n, c in files.items()])
                self.reply(200, body.encode(), with_body)
            elif path.startswith("/api/models/owner/name"):
                body = json.dumps({"id": "owner/name", "sha": COMMIT, "siblings": siblings})
                self.reply(200, body.encode(), with_body)
            elif path.startswith("/owner/name/resolve/") and Path(path).name in files:
                self.reply(200, files[Path(path).name], with_body)
            else:
                self.reply(404, b"{}", with_body)

        def reply(self, status, body, with_body):
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
            self.end_headers()
            if with_body:
                with contextlib.suppress(OSError):  # the client gave up waiting
                    self.wfile.write(body)

        def log_message(self, *_args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.block_on_close = False
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


LOADING_A_TOKENIZER = """
import sys
from common.base_model_files import prepare_environment
prepare_environment()
sys.modules["torch"] = None  # not needed, and slow
from transformers import AutoTokenizer
AutoTokenizer.from_pretrained(sys.argv[1])
"""


@pytest.mark.slow
def test_no_library_quotes_a_config_on_the_screen(tmp_path, tiny_base_dir, start_python):
    base = shutil.copytree(tiny_base_dir, tmp_path / "base")
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    hostile = {"model_type": "x\x1b[2J\nall is well", "rope_parameters": {"rope_type": "y\x1b[2J"}}
    (base / "config.json").write_text(json.dumps(config | hostile))
    process = start_python(LOADING_A_TOKENIZER, base)
    assert process.communicate(timeout=300) == ("", "")
    assert process.returncode == 0


def test_no_library_speaks_of_a_home_that_is_none(start_python):
    program = "from common.base_model_files import prepare_environment\nprepare_environment()\nimport matplotlib"
    homeless = {"HOME": "/dev/null", "MPLCONFIGDIR": "", "XDG_CONFIG_HOME": "", "XDG_CACHE_HOME": ""}
    assert start_python(program, env=homeless).communicate(timeout=60) == ("", "")
