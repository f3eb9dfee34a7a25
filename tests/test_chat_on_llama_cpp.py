"""The chat on llama.cpp as its user meets it: a trained folder with its GGUF file, and no base model on this disk."""

import json
import os
import shutil
import sys

import pytest
from gguf_file import GgufExport
from saved_model_checks import check_saved_model
from test_chat_bot import PROMPT, SCRIPT_PATH, Terminal, arguments, run_chat, shown_lines

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def saved_dir(talking_model_dir, tmp_path_factory):
    """The talking model's folder and f32 file; its settings name a base that is not there. Do not change it."""
    folder = shutil.copytree(talking_model_dir, tmp_path_factory.mktemp("laptop") / "saved_model")
    (folder / "gguf").mkdir()
    GgufExport(check_saved_model(folder), "model", "f32").write(folder / "gguf/model-f32.gguf")
    path = folder / "training_settings.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_id": "nobody/nothing"}))
    return folder


def test_a_whole_session_at_a_terminal(saved_dir, tmp_path):
    log_path = tmp_path / "conversation.txt"
    terminal = Terminal(*arguments(saved_dir, log_path, "--greedy"))
    assert "imitating Noam on cpu, llama.cpp, f32" in terminal.read_until(PROMPT)
    assert terminal.say("שלום") == "🟦 היי\n🟦 מה נשמע? 😂\n"
    assert terminal.say("see you at 5") == "🟦 yalla bye 👨\u200d👩\u200d👧\n"
    assert terminal.say("/undo") == "last turn taken back\n"
    assert terminal.say("ok") == "🟦 סבבה\n"
    assert terminal.say("/regenerate") == "🟦 סבבה\n"
    assert "of them from the cache" in terminal.say("/stats")
    terminal.type("\x04")
    assert terminal.wait() == 0
    said = [line for line in shown_lines(log_path) if line[:1] in ("🟩", "🟦")]
    assert said[:3] == ["🟩 שלום 🟩", "🟦 היי 🟦", "🟦 מה נשמע? 😂 🟦"]


def test_ctrl_c_ends_a_reply(saved_dir, tmp_path):
    """A whole reply takes a third of a second here, so on a busy machine one may be over before the key is typed."""
    for number in range(5):
        terminal = Terminal(*arguments(saved_dir, tmp_path / f"log{number}.txt", "--greedy"))
        terminal.read_until(PROMPT)
        terminal.say("/set max_new_tokens 290")
        terminal.type("long\r")
        terminal.read_until("word1")
        terminal.type("\x03")
        shown = terminal.read_until(PROMPT)
        is_interrupted = shown.endswith(f" [interrupted]\n{PROMPT}")
        terminal.type("\x04" if is_interrupted else "")
        terminal.wait()
        if is_interrupted:
            assert "word59" not in shown
            return
    pytest.fail("no reply of five could be interrupted")


def test_piped_lines_then_resumed(saved_dir, tmp_path):
    command = arguments(saved_dir, tmp_path / "log.txt", "--greedy")
    first = run_chat(*command, lines="שלום\nok\n")
    assert (first.returncode, first.stdout.decode()) == (0, "היי\nמה נשמע? 😂\n\nסבבה\n\n")
    assert first.stderr.decode() == "loading the model ...\n"
    resumed = run_chat(*command, "--resume", lines="/swap\n/regenerate\n/swap\nok\n")
    assert resumed.returncode == 0
    assert resumed.stdout.decode().endswith("סבבה\n\n")
    assert "── a saved conversation continues ──" in shown_lines(tmp_path / "log.txt")


def test_left_at_once_it_ends_and_leaves_nothing(saved_dir, tmp_path):
    temporary_dir = tmp_path / "temporary"
    temporary_dir.mkdir()
    finished = run_chat(
        "env", f"TMPDIR={temporary_dir}", *arguments(saved_dir, tmp_path / "log.txt"), lines="", timeout=60
    )
    assert finished.returncode == 0
    assert os.listdir(temporary_dir) == []


def test_torch_is_not_even_imported(saved_dir, tmp_path):
    program = (
        "import runpy, sys; sys.argv = sys.argv[1:]; sys.path.insert(0, sys.argv[0].rpartition('/')[0])\n"
        "try:\n runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as leaving:\n assert not leaving.code, leaving.code\n"
        "assert sys.modules['torch'] is None, sys.modules['torch']\n"
    )
    command = [sys.executable, "-c", program, *arguments(saved_dir, tmp_path / "log.txt", "-p", "ok")[1:]]
    finished = run_chat(*command, timeout=120)
    assert (finished.returncode, finished.stdout.decode().count("\n\n")) == (0, 1), finished.stderr.decode()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda content: content[:-1_000], "is no GGUF file, or is cut or damaged; remove it and export again"),
        (lambda content: content.replace(b"personal_chatbot.format", b"personal_chatbox.format"), "was not written by"),
    ],
)
@pytest.mark.parametrize("engine", ["auto", "llama.cpp"])
def test_a_bad_file_is_one_line(saved_dir, tmp_path, damage, words, engine):
    folder = shutil.copytree(saved_dir, tmp_path / "saved_model")
    path = folder / "gguf/model-f32.gguf"
    path.write_bytes(damage(path.read_bytes()))
    finished = run_chat(*arguments(folder, tmp_path / "log.txt", "--engine", engine), cwd=tmp_path)
    assert finished.returncode == 1
    (line,) = finished.stderr.decode().splitlines()
    assert line.startswith(f"chat_bot: saved_model/gguf/model-f32.gguf: {words}")
    assert not (tmp_path / "log.txt").exists()


def test_a_device_that_llama_cpp_is_not_asked_for_is_wrong_usage():
    finished = run_chat(sys.executable, str(SCRIPT_PATH), "--engine", "llama.cpp", "--dtype", "float32")
    assert finished.returncode == 2
    assert "--engine llama.cpp computes on the processor" in finished.stderr.decode()
