"""Accidents outside the scripts: folders that may not be written, files that change, names nobody expected."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import load_whatsapp
import pytest
from calls_of_stage1 import call_script
from make_sample_chat import sample_export

ROOT = Path(__file__).resolve().parents[1]
STAGE_1, STAGE_2, STAGE_3 = (
    ROOT / "src" / name
    for name in ("data_preprocessing/load_whatsapp.py", "training/fine_tuning_model.py", "chat/chat_bot.py")
)
DIGEST = ROOT / "src/data_preprocessing/chat_digest.py"
NOBODY = 65534
IS_ROOT = os.geteuid() == 0
CONVERSATION = '{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]}\n'
IMITATE = ("--imitate", "Noam", "--day-first", "--path-to-data", "out/formatted_data.jsonl")


def run(folder, script, *arguments, before=(), **options):
    """Run a script of the project in `folder`; `before` are commands in front of it."""
    command = [*before, sys.executable, str(script), *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, **options)


def convert(folder, *arguments):
    """Run stage 1 within this process, which is much faster; it must succeed. Return all that it printed."""
    done = call_script(load_whatsapp, folder, arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def assert_refused(finished, *words):
    first_line, *details = finished.stderr.rstrip("\n").split("\n")
    assert finished.returncode == 1, finished.stderr
    assert all(word in first_line for word in words), finished.stderr
    assert all(line.startswith("  ") for line in details), finished.stderr


# ---- Folders and files that may not be touched ----


# Root keeps the right to read, for the Python of a machine may lie where nobody else reads.
READING = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")


def as_user(number, *rights):
    """Return the commands in front of one that a user without root's rights runs; skip where there is no such user."""
    if not IS_ROOT:
        return []
    before = ["setpriv", f"--reuid={number}", f"--regid={number}", "--clear-groups", *rights]
    if shutil.which("setpriv") is None:
        pytest.skip("root, and no setpriv to give that up")
    if run("/", STAGE_1, "--help", before=before).returncode:
        pytest.skip("another user may not run this checkout with this Python")
    return before


def make_runner(before):
    """Return a function that runs a script of the project after these commands, at home in its folder."""

    def run_script(folder, script, *arguments):
        environment = os.environ | {"HOME": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
        return run(folder, script, *arguments, before=before, env=environment)

    return run_script


@pytest.fixture
def run_unprivileged():
    """A function that runs a script as a user who may not write everywhere; root does not notice such limits."""
    return make_runner(as_user(NOBODY, *READING))


@pytest.fixture
def run_without_rights():
    """The same, as a user who may not read everywhere either."""
    return make_runner(as_user(NOBODY))


@pytest.fixture
def shared_dir():
    """A folder that the unprivileged user may enter and read: those of pytest are closed to others."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def put(path, content, mode=0o644):
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    path.write_text(content, encoding="utf-8")
    path.chmod(mode)


def test_stage_1_refuses_a_read_only_folder(run_unprivileged, shared_dir):
    put(shared_dir / "chat.txt", sample_export(5, seed=1))
    put(shared_dir / "locked/formatted_data.jsonl", "old\n")
    (shared_dir / "locked").chmod(0o555)
    path_to_data = shared_dir / "locked/formatted_data.jsonl"
    finished = run_unprivileged(shared_dir, STAGE_1, "chat.txt", *IMITATE, "--path-to-data", path_to_data)
    assert_refused(finished, "locked: permission denied")
    assert finished.stdout == ""  # before the work
    assert path_to_data.read_text() == "old\n"


def test_stage_1_refuses_an_unreadable_export(run_without_rights, shared_dir):
    put(shared_dir / "chat.txt", sample_export(5, seed=1), mode=0o000)
    (shared_dir / "out").mkdir()
    (shared_dir / "out").chmod(0o777)
    finished = run_without_rights(shared_dir, STAGE_1, "chat.txt", *IMITATE)
    assert_refused(finished, "chat.txt: cannot be read", "permissions")


def test_the_digest_refuses_a_read_only_folder(run_unprivileged, shared_dir):
    put(shared_dir / "chat.txt", sample_export(5, seed=1))
    (shared_dir / "locked").mkdir(mode=0o555)
    finished = run_unprivileged(shared_dir, DIGEST, "chat.txt", "--me", "Noam", "--html", "locked/digest.html")
    assert_refused(finished, "locked: permission denied")
    assert finished.stdout == ""  # before the work


def test_stage_2_refuses_a_read_only_folder_before_a_library_loads(run_unprivileged, shared_dir):
    put(shared_dir / "data.jsonl", CONVERSATION * 20)
    (shared_dir / "locked").mkdir(mode=0o555)
    flags = ("--path-to-data", "data.jsonl", "--saved-model-path", "locked/model")
    finished = run_unprivileged(shared_dir, "-S", STAGE_2, *flags)  # -S leaves the installed libraries out
    assert_refused(finished, "locked/model: permission denied")
    assert list((shared_dir / "locked").iterdir()) == []


def test_stage_2_refuses_unreadable_data(run_without_rights, shared_dir):
    put(shared_dir / "data.jsonl", CONVERSATION * 20, mode=0o000)
    finished = run_without_rights(shared_dir, STAGE_2, "--path-to-data", "data.jsonl", "--saved-model-path", "model")
    assert_refused(finished, "data.jsonl: permission denied")


@pytest.mark.slow
def test_stage_3_refuses_a_log_it_may_not_write_before_the_model_loads(
    run_unprivileged, shared_dir, tiny_saved_model_dir, tiny_base_dir
):
    for name, folder in (("model", tiny_saved_model_dir), ("base", tiny_base_dir)):
        shutil.copytree(folder, shared_dir / name)
        for path in (shared_dir / name, *(shared_dir / name).iterdir()):
            path.chmod(0o755)
    put(shared_dir / "locked/log.txt", "old\n", mode=0o444)
    (shared_dir / "locked").chmod(0o555)
    for name in ("log.txt", "new.txt"):
        flags = ("--base-model-id", "base", "--saved-model-path", "model", "--conversation-path", f"locked/{name}")
        assert_refused(run_unprivileged(shared_dir, STAGE_3, *flags), f"locked/{name}: permission denied")
    assert [path.name for path in (shared_dir / "locked").iterdir()] == ["log.txt"]


# ---- Inputs that change, and inputs that stay ----


CHANGES = {  # of chat.txt
    "grown": "open('chat.txt', 'a').write('1.1.2025, 10:00 - Noam: one more')",
    "cut": "os.truncate('chat.txt', 1000)",
    "replaced": "os.replace('other.txt', 'chat.txt')",
}
# Changes the export at the moment at which the first output is opened: between its two readings.
CHANGING = """
import os, runpy, sys
change, *sys.argv = sys.argv[1:]
waiting = [change]
def look(event, details):
    if waiting and event == "open" and ".unfinished-" in str(details[0]):
        exec(waiting.pop())
sys.addaudithook(look)
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize("change", CHANGES)
def test_an_export_that_changes_while_it_is_read_gives_no_data(tmp_path, start_python, change):
    for name in ("chat.txt", "other.txt"):
        put(tmp_path / name, sample_export(20, seed=1))
    put(tmp_path / "out/formatted_data.jsonl", "old\n")
    process = start_python(CHANGING, CHANGES[change], STAGE_1, "chat.txt", *IMITATE, cwd=tmp_path)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "changed while it was read; run again" in errors
    assert {path.name: path.read_text() for path in (tmp_path / "out").iterdir()} == {"formatted_data.jsonl": "old\n"}


ODD_NAMES = [
    "new\nline.txt",
    "\x1b[2J.txt",
    "-n.txt",
    "א" * 120 + ".txt",
    "👨\u200d👩\u200d👧 chat.txt",
    "..txt",
    "a b'c\".txt",
    os.fsdecode("אבא.txt".encode("cp1255")),  # no UTF-8
]


@pytest.mark.parametrize("name", ODD_NAMES, ids=ascii)
def test_odd_file_names_work_and_cannot_act_on_the_terminal(tmp_path, name):
    (tmp_path / name).write_text(sample_export(5, seed=1), encoding="utf-8")
    output = tmp_path / "out" / name.replace(".txt", ".jsonl")
    shown = convert(tmp_path, f"./{name}", *IMITATE, "--path-to-data", output)
    assert output.stat().st_size > 0
    assert not {"\x1b", "\x9b"} & set(shown)
    assert not list(output.parent.glob(".unfinished-*"))


HOSTILE_NAMES = ["../../evil", "/etc/evil", "<script>alert(1)</script>", "x" * 300, "a/b\\c", "${HOME}", "%s%n", "CON"]


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_no_path_is_made_of_a_participants_name(tmp_path, name):
    lines = [f"{day}/3/2024, 10:0{day} - {name if day % 2 else 'Dan'}: hello {day}\n" for day in range(1, 9)]
    (tmp_path / "chat.txt").write_text("".join(lines), encoding="utf-8")
    flags = ("--conversation-gap-seconds", "999999", "--day-first", "--path-to-data", "out/formatted_data.jsonl")
    convert(tmp_path, "chat.txt", "--imitate", name, *flags)
    made = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
    assert made == {
        "chat.txt", "out", "out/formatted_data.jsonl", "out/dropped_messages.jsonl", "out/preprocessing_report.json"
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["zip", "txt"])
def test_the_same_chat_from_anywhere_is_the_same_bytes(tmp_path, kind, monkeypatch):
    """Relative path, home folder's sign, link, a folder with spaces: never another output."""
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = tmp_path / "a folder"
    folder.mkdir()
    export = folder / f"chat.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(export, "w") as archive:
            archive.writestr("_chat.txt", sample_export(5, seed=1))
    else:
        export.write_text(sample_export(5, seed=1), encoding="utf-8")
    (folder / "link").symlink_to(export.name)
    before = export.read_bytes()
    outputs = []
    root, from_home = Path("/"), f"~/a folder/{export.name}"
    ways = [(folder, export.name), (tmp_path, "a folder/link"), (root, export), (root, from_home)]
    for number, (cwd, given) in enumerate(ways):
        data_path = tmp_path / f"{number}/formatted_data.jsonl"
        convert(cwd, given, *IMITATE, f"--path-to-data=~/{number}/formatted_data.jsonl")
        lines = data_path.read_text(encoding="utf-8").splitlines()
        outputs.append([line.partition('"chat": ')[0] for line in lines])  # the chat is named by its file
    assert outputs == [outputs[0]] * len(ways)
    assert export.read_bytes() == before


# ---- Links to the project, and a user whom the system does not know ----


def test_a_project_behind_a_link_works_as_it_does_itself(tmp_path, project_copy, run_command):
    (tmp_path / "link").symlink_to(project_copy)
    (tmp_path / "chat").symlink_to(project_copy / "src/chat/chat_bot.py")
    put(project_copy / "src/data_preprocessing/WhatsappChatOriginal.txt", sample_export(5, seed=1))
    data_path = project_copy / "src/data_preprocessing/final_outputs/formatted_data.jsonl"
    commands = [
        "python3 link/src/data_preprocessing/load_whatsapp.py --imitate Noam --day-first",
        "bash link/preprocess_start.sh --imitate Noam --day-first",
    ]
    for command in commands:
        done = run_command(command, tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        assert data_path.stat().st_size > 0
        data_path.unlink()
    for command in ("python3 link/src/chat/chat_bot.py", "python3 chat"):
        done = run_command(command, tmp_path)
        assert done.stderr.startswith(
            f"{Path(command).stem.removeprefix('python3 ')}: project/saved_model: no trained model yet;"
        )


UNKNOWN_USER = 12_345


@pytest.mark.skipif(not IS_ROOT, reason="only root can become a user without a name")
def test_every_script_works_or_is_one_line_for_a_user_without_name_and_home_and_with_a_read_only_project(
    project_copy, shared_dir, tiny_saved_model_dir, tiny_base_dir
):
    root = shared_dir / "project"
    shutil.copytree(project_copy, root)
    for name, folder in (("model", tiny_saved_model_dir), ("base", tiny_base_dir)):
        shutil.copytree(folder, shared_dir / name)
    (shared_dir / "out").mkdir()
    put(shared_dir / "chat.txt", sample_export(5, seed=1))
    for path in [shared_dir, *shared_dir.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    (shared_dir / "out").chmod(0o777)
    before = as_user(UNKNOWN_USER, *READING)
    homeless = {name: value for name, value in os.environ.items() if name not in ("HOME", "XDG_CACHE_HOME", "HF_HOME")}

    def run_as_nobody(script, *arguments):
        return run(shared_dir, root / "src" / script, *arguments, before=before, env=homeless)

    stage_1 = ("data_preprocessing/load_whatsapp.py", "chat.txt", "--imitate", "Noam", "--day-first")
    assert_refused(run_as_nobody(*stage_1), "src/data_preprocessing: permission denied")
    done = run_as_nobody(*stage_1, "--path-to-data", "out/formatted_data.jsonl")
    assert (done.returncode, done.stderr) == (0, "")
    stage_2 = ("training/fine_tuning_model.py", "--path-to-data", "out/formatted_data.jsonl")
    assert_refused(run_as_nobody(*stage_2, "--base-model-id", "base"), "project/saved_model: permission denied")
    assert_refused(
        run_as_nobody(*stage_2, "--base-model-id", "~/base", "--saved-model-path", "out/m"), "~/base: no such folder"
    )
    chat = ("chat/chat_bot.py", "--saved-model-path", "model", "--base-model-id", "base")
    assert_refused(run_as_nobody(*chat), "src/chat/conversation.txt: permission denied")
    assert_refused(run_as_nobody(*chat[:3], "--base-model-id", "~nobody/base"), "/base: no such folder")
    done = run_as_nobody("data_preprocessing/chat_digest.py", "chat.txt", "--me", "Noam")
    assert (done.returncode, done.stderr) == (0, "")
    assert {path.name for path in root.iterdir()} == {"src", "preprocess_start.sh"}


# ---- Stage 2: the signals that its own tests leave out ----


def test_stage_2_is_asked_to_stop_when_the_window_is_closed_and_leaves_at_once_at_the_second_signal(capfd):
    from adapter_trainer import StopRequest  # here: the libraries load only for this test

    with StopRequest() as stop:
        signal.raise_signal(signal.SIGHUP)
        assert stop.exit_status == 129
        assert "stopping after this step, then saving" in capfd.readouterr().err
        with pytest.raises(SystemExit) as leaving:
            signal.raise_signal(signal.SIGHUP)
    assert leaving.value.code == 129
