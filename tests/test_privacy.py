"""What is promised about private words: nothing reaches the network, nothing lies outside the output folders or open to others.

The three stages run once, in a network namespace without interfaces where the system allows it, and under an audit hook
that writes down every look-up of a name and every connection that is so much as tried.
"""

import fnmatch
import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from make_sample_chat import sample_export

ROOT = Path(__file__).resolve().parents[1]
MARKER = "purple elephant"  # said in the chat and typed to the chatbot: may be found in the output folders alone

# Python runs a module of this name at each start, in the processes that the stages start, too.
AUDIT_HOOK = """
import os, sys

EVENTS = ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.getnameinfo", "socket.connect",
          "socket.sendto", "socket.sendmsg", "socket.bind", "urllib.Request", "http.client.connect")

def write_down(event, arguments):
    if event not in EVENTS:
        return
    address = arguments[1] if event.startswith("socket.") and len(arguments) == 2 else arguments
    if isinstance(address, (str, bytes)) and event != "socket.gethostbyname":
        return  # a socket of this machine's file system
    handle = os.open(os.environ["AUDIT_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(handle, f"{event} {arguments!r}\\n".encode())
    os.close(handle)

sys.addaudithook(write_down)
"""


def network_cut_off():
    """The command that runs another one without a network, [] where the system does not allow that."""
    for command in (["unshare", "--net"], ["unshare", "--map-root-user", "--net"]):
        if shutil.which("unshare") and subprocess.run([*command, "true"], capture_output=True).returncode == 0:
            return command
    return []


def sha256_of_all(*paths):
    files = [file for path in paths for file in ([path] if path.is_file() else sorted(path.rglob("*")))]
    return {file: hashlib.sha256(file.read_bytes()).hexdigest() for file in files if file.is_file()}


@pytest.fixture(scope="module")
def stages(tmp_path_factory, tiny_base_dir):
    """Run the three stages, and the digest; what they were given, where they wrote, and what they said."""
    root = tmp_path_factory.mktemp("stages")
    homes = {name: root / name for name in ("HOME", "TMPDIR", "HF_HOME", "XDG_CACHE_HOME")}
    for home in homes.values():
        home.mkdir()
    hook_dir = root / "hook"
    hook_dir.mkdir()
    (hook_dir / "sitecustomize.py").write_text(AUDIT_HOOK)
    inputs, out = root / "inputs", root / "out"
    inputs.mkdir()
    export = sample_export(40, seed=2)
    (inputs / "chat.txt").write_text(export.replace(": ", f": {MARKER} ", 40), encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "XDG_"))}
    environment |= {name: str(path) for name, path in homes.items()}
    environment |= {"PYTHONPATH": str(hook_dir), "AUDIT_LOG": str(root / "audit.log"), "OMP_NUM_THREADS": "1"}

    def run(script, *arguments, stdin="", **more_environment):
        finished = subprocess.run(
            [*network_cut_off(), sys.executable, str(ROOT / "src" / script), *map(str, arguments)],
            cwd=root, env=environment | more_environment, input=stdin, capture_output=True, text=True, timeout=600,
            umask=0o022,  # what a new account has: the stages must be private by themselves
        )  # fmt: skip
        assert finished.returncode == 0, finished.stderr
        return finished.stdout + finished.stderr

    data_path, model_dir, log_path = out / "data/formatted_data.jsonl", out / "model", out / "chat/conversation.txt"
    before = sha256_of_all(inputs, tiny_base_dir)
    said = run(
        "data_preprocessing/load_whatsapp.py", inputs / "chat.txt", "--imitate", "Noam", "--path-to-data", data_path
    )
    run(
        "data_preprocessing/chat_digest.py", inputs / "chat.txt", "--me", "Noam",
        "--html", data_path.parent / "digest.html", "--ics", data_path.parent / "plans.ics",
    )  # fmt: skip
    before |= sha256_of_all(data_path.parent)
    said += run(
        "training/fine_tuning_model.py", "--base-model-id", tiny_base_dir, "--path-to-data", data_path,
        "--saved-model-path", model_dir, "--epochs", "1", "--learning-rate", "1e-3",
    )  # fmt: skip
    before |= sha256_of_all(model_dir)
    log_path.parent.mkdir(mode=0o700)  # the chat makes none: a mistyped one is refused
    run(
        "chat/chat_bot.py", "--saved-model-path", model_dir, "--conversation-path", log_path,
        stdin=f"{MARKER} to you\nexit\n",
        HF_HOME="/proc/none",  # a cache that cannot be written is not missed
    )  # fmt: skip
    return SimpleNamespace(
        root=root, out=out, before=before, said=said, log_path=log_path, environment=environment, homes=homes
    )


@pytest.mark.slow
def test_no_stage_tries_to_reach_the_network(stages):
    audit_log = stages.root / "audit.log"
    assert not audit_log.exists(), audit_log.read_text()
    # The hook is awake: it notices a process that tries.
    look_up = [sys.executable, "-c", "import socket; socket.getaddrinfo('localhost', 80)"]
    subprocess.run([*network_cut_off(), *look_up], env=stages.environment, capture_output=True)
    assert "localhost" in audit_log.read_text()
    audit_log.unlink()


@pytest.mark.slow
def test_the_stages_ran_without_any_network_interface(stages):
    if not network_cut_off():
        pytest.skip("this system does not let us make a network namespace")
    code = "import socket; print([name for _, name in socket.if_nameindex()]); socket.create_connection(('1.1.1.1', 53), 2)"
    tried = subprocess.run([*network_cut_off(), sys.executable, "-c", code], capture_output=True, text=True)
    assert "Network is unreachable" in tried.stderr  # so did every attempt of a stage; all three ended with 0


@pytest.mark.slow
def test_nobody_else_can_read_what_the_stages_wrote(stages):
    made = [stages.out, *stages.out.rglob("*")]
    assert len(made) > 15
    assert [path for path in made if path.stat().st_mode & 0o077] == []


def is_young_and_holds_the_marker(path, since):
    try:
        return path.is_file() and path.stat().st_mtime >= since and MARKER.encode() in path.read_bytes()
    except OSError:  # another program's: gone meanwhile, or not for us to read
        return False


@pytest.mark.slow
def test_no_word_of_the_chat_lies_outside_the_output_folders(stages):
    holders = {
        path.relative_to(stages.root).parts[0]
        for path in stages.root.rglob("*")
        if path.is_file() and MARKER.encode() in path.read_bytes()
    }
    assert holders == {"inputs", "out"}
    assert MARKER in stages.log_path.read_text(encoding="utf-8")
    elsewhere = [Path("/var/tmp"), Path("/dev/shm"), Path(stages.environment.get("TMP", "/tmp"))]
    begun_at = (stages.root / "hook/sitecustomize.py").stat().st_mtime
    found = [path for folder in elsewhere for path in folder.glob("*") if is_young_and_holds_the_marker(path, begun_at)]
    assert not found


@pytest.mark.slow
def test_stages_1_and_2_quote_no_message(stages):
    assert "Wrote" in stages.said and "Done" in stages.said
    assert MARKER not in stages.said


@pytest.mark.slow
def test_no_stage_changes_what_it_was_given(stages):
    assert len(stages.before) > 15
    assert sha256_of_all(*stages.before) == stages.before


PRIVATE_NAMES = [
    "src/data_preprocessing/WhatsappChatOriginal.txt", "src/data_preprocessing/WhatsappChatOriginal.zip",
    "WhatsApp Chat with Rut.txt", "WhatsApp Chat - Rut.zip", "exports/_chat.txt",
    "src/data_preprocessing/final_outputs/formatted_data.jsonl",
    "src/data_preprocessing/final_outputs/preprocessing_report.json", "data/formatted_data.jsonl",
    "data/dropped_messages.jsonl", "data/preprocessing_report.json", "data/.unfinished-123-abc",
    "saved_model/adapter_model.safetensors", "saved_model/style_report.html", "saved_model/training_log.jsonl",
    "saved_model/checkpoints/checkpoint-10/optimizer.pt", "saved_model.old-20261124-080000/adapter_config.json", "saved_model.tgz",
    "models/noam/adapter_model.safetensors", "models/noam/checkpoints/checkpoint-10/optimizer.pt",
    "models/noam/checkpoints/checkpoint-10/rng_state.pth", "models/noam/training_log.jsonl",
    "models/noam/training_settings.json", "models/noam/style_quiz.html", "models/noam/style_quiz_key.json",
    "exported_model/model-00001-of-00004.safetensors", "exported_model/model.gguf",
    "src/chat/conversation.txt", "src/chat/conversation.jsonl", "src/chat/conversation-123.txt",
    "src/chat/conversation_history.txt", "my chat.txt", "digest.html", "chats/digest-week.json", "plans.ics", ".demo/saved_model/training_report.json",
]  # fmt: skip
PROJECT_NAMES = [
    "README.md", "requirements.txt", "tests/requirements.txt", "tests/benchmarks/requirements.txt", ".gitignore",
    "src/chat/chat_bot.py", "src/data_preprocessing/placeholders.json", "images/lora.png", "tests/benchmarks/RESULTS.md",
]  # fmt: skip


def test_git_keeps_chats_data_models_and_logs_out(tmp_path):
    if shutil.which("git") is None:
        pytest.skip("no git")
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    shutil.copy(ROOT / ".gitignore", tmp_path)
    for name in (*PRIVATE_NAMES, *PROJECT_NAMES):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    listing = ["git", "ls-files", "-z", "--others", "--exclude-standard"]
    found = subprocess.run(listing, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert sorted(found.split("\0")[:-1]) == sorted(PROJECT_NAMES)


def test_what_the_readme_erases_is_no_file_of_the_project():
    patterns = re.findall(r"`rm (?:-r )?([^`]+)`", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert len(patterns) >= 5
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    for pattern in " ".join(patterns).split():
        assert not [name for name in tracked if fnmatch.fnmatch(name, pattern) or name.startswith(f"{pattern}/")], (
            pattern
        )
