"""What every script promises at its door (`common.script`): errors, exit codes, whole and private files."""

import os
import re
import resource
import signal
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import processes
import pytest
from terminal import show_notice

from common import fill_in_block
from common import script as contract
from common.command_line import make_parser
from common.fill_in_block import SCRIPTS_WITH_A_BLOCK, block_path, check_blocks
from common.private_files import exclusive_use, remove_abandoned_files, replacing


def script(body):
    return (
        "from common.script import *\nfrom common.private_files import *\nfrom pathlib import Path\nimport os, signal, sys, time\n"
        "def main():\n"
        + textwrap.indent(textwrap.dedent(body), "    ")
        + "\nsys.argv[0] = 'script.py'\nrun_script(main)"
    )


@pytest.fixture
def run_code(start_python):
    """A function that runs a script whose main() has this body, under the guard, as its own process."""

    def run(body, *arguments, **options):
        process = start_python(script(body), *arguments, **options)
        output, errors = process.communicate(timeout=60)
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)

    return run


def test_an_interrupt_before_the_guard_leaves_no_traceback(start_python):
    process = start_python("import common\nraise KeyboardInterrupt")
    assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == -signal.SIGINT  # 130 in a shell


def test_a_users_mistake_is_one_line_and_status_1(run_code):
    done = run_code("raise ScriptError('chat.txt: is empty; export again')")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "script: chat.txt: is empty; export again\n")


def test_debug_shows_the_traceback_of_a_users_mistake(run_code):
    assert "Traceback" in run_code("raise ScriptError('x')", "--debug").stderr


def test_our_own_bug_asks_for_a_report_and_shows_the_traceback(run_code):
    done = run_code("{}['missing']")
    assert done.returncode == 1
    assert "please report" in done.stderr.splitlines()[0]
    assert "KeyError" in done.stderr


def test_a_panic_of_a_library_that_is_no_exception_asks_for_a_report_too(run_code):
    done = run_code("""
        class PanicException(BaseException):
            pass
        raise PanicException
    """)
    assert done.returncode == 1
    assert "please report" in done.stderr.splitlines()[0]


def test_a_refusal_of_the_file_system_names_the_file_and_the_cure(run_code, tmp_path):
    done = run_code(f"open({str(tmp_path / 'nothing.txt')!r})")
    assert done.returncode == 1
    assert "nothing.txt: not found; check the path" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        ("Path.cwd()", "the current folder is no longer there; change"),
        ("open('chat.txt')", "chat.txt: not found; check"),
    ],
)
def test_a_folder_that_was_deleted_around_the_script_is_one_line(run_code, tmp_path, call, problem):
    done = run_code(f"os.chdir({str(tmp_path)!r})\nos.rmdir({str(tmp_path)!r})\n{call}")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert done.stderr.startswith(f"script: {problem}")


@pytest.mark.parametrize(("sent", "status"), [("SIGTERM", 143), ("SIGHUP", 129), ("SIGINT", 130)])
def test_a_signal_ends_the_script_with_its_status_and_takes_the_temporary_file_along(
    start_python, tmp_path, sent, status
):
    body = f"""
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with replacing(Path({str(tmp_path)!r}) / "out.txt") as file:
            file.write("half")
            print("ready", flush=True)
            time.sleep(30)
    """
    process = start_python(script(body))
    assert process.stdout.readline() == "ready\n"
    process.send_signal(getattr(signal, sent))
    _, errors = process.communicate(timeout=20)
    assert process.returncode == status
    assert "Traceback" not in errors
    assert list(tmp_path.iterdir()) == []


def test_a_finished_file_is_whole_and_private(run_code, tmp_path):
    done = run_code(f"""
        with replacing(Path({str(tmp_path)!r}) / "new" / "out.txt") as file:
            file.write("שלום")
    """)
    path = tmp_path / "new" / "out.txt"
    assert done.returncode == 0, done.stderr
    assert path.read_text(encoding="utf-8") == "שלום"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_failure_while_writing_leaves_the_old_file(tmp_path):
    path = tmp_path / "out.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), replacing(path) as file:
        file.write("new")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_one_line_and_leaves_the_old_file(run_code, tmp_path):
    path = tmp_path / "out.txt"
    path.write_text("old")
    done = run_code(
        f"""
        with replacing(Path({str(path)!r})) as file:
            file.write("x" * 100_000)
        """,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)),
    )
    assert done.returncode == 1
    assert "out.txt: the file would be larger than this system allows" in done.stderr
    assert "Traceback" not in done.stderr
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_only_files_of_dead_runs_are_removed(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    abandoned = tmp_path / f".unfinished-{dead.pid}-x"
    alive = tmp_path / f".unfinished-{os.getpid()}-x"
    other = tmp_path / "mine.txt"
    for path in (abandoned, alive, other):
        path.touch()
    abandoned_folder = tmp_path / f".unfinished-{dead.pid}-export"
    abandoned_folder.mkdir()
    (abandoned_folder / "part").touch()
    remove_abandoned_files(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([alive, other])


def test_the_second_run_on_one_folder_says_so(run_code, tmp_path):
    with exclusive_use(tmp_path):
        done = run_code(f"""
            with exclusive_use(Path({str(tmp_path)!r})):
                pass
        """)
    assert done.returncode == 1
    assert "is in use by another run" in done.stderr


def test_a_lock_leaves_no_empty_folder_that_it_made_and_every_other(tmp_path):
    for own, made in (("", "a/b/model"), ("empty", "empty/model"), ("model", "model")):
        (tmp_path / own).mkdir(exist_ok=True)
        with exclusive_use(tmp_path / made):
            assert (tmp_path / made).is_dir()
        assert (tmp_path / own).is_dir()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["empty", "model"]


def test_the_work_ends_well_when_the_reader_of_its_output_leaves(start_python, tmp_path):
    body = f"""
        for number in range(20_000):
            print("a line", number)
        Path({str(tmp_path / "done")!r}).touch()
    """
    process = start_python(script(body))
    process.stdout.readline()
    process.stdout.close()
    errors = process.stderr.read()
    assert (process.wait(timeout=20), errors) == (0, "")
    assert (tmp_path / "done").exists()


def test_closed_standard_streams_do_no_harm(module_environment):
    program = script("print('x'); print('y', file=sys.stderr)")
    closed = ["sh", "-c", 'exec "$@" >&- 2>&-', "sh"]
    assert subprocess.run([*closed, sys.executable, "-c", program], env=module_environment).returncode == 0


def test_a_console_without_unicode_gets_escapes_instead_of_an_error(run_code):
    done = run_code("print('שלום 🟩')", env={"PYTHONIOENCODING": "cp1252"})
    assert (done.returncode, done.stdout) == (0, "שלום 🟩\n")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("רות 🙏🏽", "רות 🙏🏽"),
        ("a\x1b[2Jb", "a\\x1b[2Jb"),
        ("x\u202ey", "x\\u202ey"),
        ("👨\u200d👩", "👨\u200d👩"),
        ("two\nlines", "two\\nlines"),
    ],
)
def test_nothing_shown_can_act_on_a_terminal(text, shown):
    assert contract.printable(text) == shown


def test_a_block_that_differs_is_named(tmp_path, capsys, monkeypatch):
    scripts = {
        "src/data_preprocessing/load_whatsapp.py": 'saved_model_path = "saved_model"\n',
        "src/chat/chat_bot.py": 'saved_model_path = "other"\n',
    }
    for name, block in scripts.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(block)
    monkeypatch.setattr(fill_in_block, "PROJECT_ROOT", tmp_path)
    check_blocks(tmp_path / "src/data_preprocessing/load_whatsapp.py")
    assert capsys.readouterr().err == (
        'warning: saved_model_path is "saved_model" in load_whatsapp.py but "other" in src/chat/chat_bot.py; '
        "make them the same\n"
    )


BLOCK = """################# FILL IN #################
base_model_id = "/models/my base"  # on this disk
path_to_data = '{folder}/new/folder/data.jsonl'
saved_model_path = "{folder}/also new/model"
###########################################
"""
SCRIPTS = SCRIPTS_WITH_A_BLOCK
OLD_BLOCK_RE = re.compile(
    r"^# Fill in .*\nbase_model_id = .*\npath_to_data = .*\nsaved_model_path = .*\n", re.MULTILINE
)


@pytest.fixture
def block_on_top(project_copy, tmp_path):
    """A copy whose three scripts have the block, with absolute paths and lines of ####, above everything."""
    for name in SCRIPTS:
        source = (project_copy / name).read_text(encoding="utf-8")
        assert len(OLD_BLOCK_RE.findall(source)) == 1
        block = BLOCK.format(folder=tmp_path)
        (project_copy / name).write_text(block + OLD_BLOCK_RE.sub("", source), encoding="utf-8")
    return project_copy


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_is_the_same_with_the_block_above_the_docstring(block_on_top, name):
    texts = []
    for project in (contract.PROJECT_ROOT, block_on_top):
        done = subprocess.run([sys.executable, project / name, "--help"], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        texts.append(done.stdout.partition("\n\n")[2].partition("\n\n")[0])
    assert texts[0] == texts[1]
    assert texts[0].startswith("Stage ")


def test_the_block_may_stand_above_everything_and_hold_absolute_paths(block_on_top, tmp_path, run_command):
    chat = "20/03/2023, 09:00 - Dan: hi\n20/03/2023, 09:01 - Rut: hey\n"
    (block_on_top / "src/data_preprocessing/WhatsappChatOriginal.txt").write_text(chat, encoding="utf-8")
    done = run_command("python3 src/data_preprocessing/load_whatsapp.py --imitate Rut", block_on_top)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "new/folder/data.jsonl").is_file()
    done = run_command("python3 src/training/fine_tuning_model.py", block_on_top)
    assert (done.returncode, "/models/my base: no such folder" in done.stderr) == (1, True), done.stderr
    done = run_command("python3 src/chat/chat_bot.py", block_on_top)
    assert f"{tmp_path}/also new/model: no trained model yet" in done.stderr


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_constant_assigned_twice_is_refused_with_both_lines(project_copy, run_command, name):
    source = (project_copy / name).read_text(encoding="utf-8")
    (project_copy / name).write_text('saved_model_path = "other"\n' + source, encoding="utf-8")
    line = source.split("\n").index('saved_model_path = "saved_model"') + 2
    done = run_command(f"python3 {name}", project_copy)
    assert done.returncode == 1
    assert done.stderr == (
        f"{Path(name).stem}: {name}: saved_model_path is assigned in line 1 and again in line {line}; delete one\n"
    )


@pytest.mark.parametrize("value", [r'r"C:\Users\dan\data.jsonl"', r'"C:\new\data.jsonl"', '"C:/Users/dan/data.jsonl"'])
def test_a_windows_path_is_refused_with_the_cure(project_copy, run_command, value):
    name = SCRIPTS[0]
    source = re.sub("(?m)^path_to_data = .*", lambda _: f"path_to_data = {value}", (project_copy / name).read_text())
    (project_copy / name).write_text(source, encoding="utf-8")
    done = run_command(f"python3 {name}", project_copy)
    assert done.returncode == 1
    assert "path_to_data in line 11 is a Windows path; under WSL write C:\\Users as /mnt/c/Users" in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_block_in_a_docstring_is_no_second_assignment(tmp_path, monkeypatch):
    path = tmp_path / "script.py"
    path.write_text('"""Fill in:\n\nsaved_model_path = "x"\n"""\nsaved_model_path = "saved_model"\n')
    monkeypatch.setattr(fill_in_block, "PROJECT_ROOT", tmp_path)
    check_blocks(path)


def test_values_are_compared_not_their_spelling(project_copy, run_command):
    name = "src/chat/chat_bot.py"
    source = (project_copy / name).read_text(encoding="utf-8")
    source = source.replace('saved_model_path = "saved_model"', "saved_model_path: str = 'saved_model'  # mine")
    (project_copy / name).write_text(source, encoding="utf-8")
    assert "warning" not in run_command(f"python3 {name}", project_copy).stderr


def test_the_home_folder_may_be_written_as_a_tilde(monkeypatch):
    monkeypatch.setenv("HOME", "/home/dan")
    assert block_path("~/data.jsonl") == Path("/home/dan/data.jsonl")
    assert block_path("data.jsonl") == contract.PROJECT_ROOT / "data.jsonl"


def test_the_nearest_path_is_found_at_any_depth(tmp_path):
    (tmp_path / "final_outputs").mkdir()
    (tmp_path / "final_outputs/formatted_data.jsonl").touch()
    assert contract.nearest_path(tmp_path / "final_output/formated_data.jsonl") == (
        tmp_path / "final_outputs/formatted_data.jsonl"
    )
    assert contract.nearest_path(tmp_path / "final_outputs/other.txt") is None


def test_it_loads_no_library(run_code):
    loaded = run_code("print(sorted(set(sys.modules) & {'torch', 'transformers', 'regex', 'emoji', 'numpy'}))").stdout
    assert loaded == "[]\n"


# As a hostile file may hold it: clear the screen, a second set of controls, letters reversed, another line.
HOSTILE_NAME = "x\x1b[2J\x9b1m\u202e\nscript: all is well"
SHOWN_NAME = "x\\x1b[2J\\x9b1m\\u202e\\nscript: all is well"


def test_a_name_from_a_file_can_neither_act_on_the_terminal_nor_forge_a_line(run_code):
    done = run_code(f"raise ScriptError({HOSTILE_NAME + ': is damaged'!r} + '\\n  a detail\\x1b')")
    assert done.stderr == f"script: {SHOWN_NAME}: is damaged\n  a detail\\x1b\n"
    assert len(run_code("raise ScriptError('x' * 1_000_000)").stderr) < 10_000


def test_the_traceback_of_our_own_bug_cannot_act_on_the_terminal(run_code):
    done = run_code(f"raise KeyError({HOSTILE_NAME!r}, ValueError({HOSTILE_NAME!r})) from ValueError({HOSTILE_NAME!r})")
    assert not {"\x1b", "\x9b", "\u202e"} & set(done.stderr)
    assert "KeyError" in done.stderr


def test_what_was_typed_cannot_act_on_the_terminal_in_a_usage_error(capsys):
    with pytest.raises(SystemExit):
        make_parser("a script", "").parse_args([f"--{HOSTILE_NAME}"])
    assert capsys.readouterr().err.endswith(f"unrecognized arguments: --{SHOWN_NAME}\n")


def test_warnings_and_notices_cannot_act_on_the_terminal(capsys):
    for show in (processes.say, processes.warn, show_notice):
        show(f"a line\n  {HOSTILE_NAME}")
    assert not {"\x1b", "\x9b", "\u202e"} & set("".join(capsys.readouterr()))


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        ("bytearray(10**15)", "the memory is full"),
        ("raise ImportError('libtorch_cpu.so: failed to map segment from shared object')", "the memory is full"),
        ("raise RuntimeError('no model') from MemoryError()", "the memory is full"),
        (
            "raise RuntimeError('CUDA out of memory. Tried to allocate 2.00 GiB.')",
            "the memory of the graphics card is full",
        ),
        ('raise RuntimeError("can\'t start new thread")', "no further thread or process may be started"),
        ("raise BlockingIOError(11, os.strerror(11))", "no further thread or process may be started"),
    ],
)
def test_no_memory_and_no_threads_are_one_line_with_the_cure(run_code, failure, words):
    done = run_code(failure)
    assert done.returncode == 1
    assert done.stderr.startswith(f"script: {words}; ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("before", "words"),
    [
        (
            "sys.version_info = (3, 9, 18)",
            "Python 3.11 or newer is needed, this one is 3.9; type source .venv/bin/activate",
        ),
        ("sys.modules['fcntl'] = None", "needs Linux or macOS; on Windows, use WSL2"),
    ],
)
def test_an_old_python_and_windows_are_refused_before_anything_is_imported(start_python, before, words):
    process = start_python(f"import sys\nsys.argv[0] = 'src/chat/chat_bot.py'\n{before}\nimport common.script")
    _output, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors.startswith(f"chat_bot: {words}")
    assert errors.count("\n") == 1


def test_a_missing_package_is_one_line_with_the_command_of_the_own_environment(run_code, monkeypatch, tmp_path):
    done = run_code("import no_such_package.inner")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith(f"script: no_such_package: is not installed for {sys.executable}; run ")

    monkeypatch.setattr(sys, "argv", ["src/chat/chat_bot.py", "-p", "hi you"])
    monkeypatch.setattr(sys, "prefix", str(tmp_path))  # of another Python
    monkeypatch.setattr(contract, "OWN_PYTHON_PATH", tmp_path / ".venv/bin/python")
    monkeypatch.chdir(tmp_path)
    assert contract.how_to_install().endswith("set_up_venv.sh requirements.txt, then source .venv/bin/activate")
    contract.OWN_PYTHON_PATH.parent.mkdir(parents=True)
    contract.OWN_PYTHON_PATH.touch()
    assert contract.how_to_install() == "run .venv/bin/python src/chat/chat_bot.py -p 'hi you'"


@pytest.mark.parametrize(("pinned", "is_bug"), [("peft==0.1", False), ("peft==0.21.2", True), ("torch==2.13.0", True)])
def test_another_version_of_a_library_that_lacks_a_name_is_said(run_code, tmp_path, pinned, is_bug):
    """A name that the pinned version lacks, too, is our own bug."""
    (tmp_path / "requirements.txt").write_text(f"{pinned}\n", encoding="utf-8")
    done = run_code(f"""
        import importlib.metadata
        import common.script
        importlib.metadata.version = lambda package: {{"peft": "0.21.2", "torch": "2.13.0+cpu"}}[package]
        common.script.REQUIREMENTS_PATH = Path({str(tmp_path / "requirements.txt")!r})
        raise ImportError("cannot import name 'X'", name={pinned.split("=")[0]!r})
    """)
    assert ("please report" in done.stderr) == is_bug
    said = "script: peft: is version 0.21.2 instead of 0.1, which lacks what is needed (cannot import name 'X'); run "
    assert done.stderr.startswith(said) or is_bug


@pytest.mark.parametrize(
    "body",
    [
        "import common.lost",
        "raise ModuleNotFoundError('lost', name='bubbles')",
        "sys.modules['torch'] = None\nimport torch",
    ],
)
def test_a_module_of_ours_or_one_kept_from_being_imported_is_our_own_bug(run_code, body):
    assert "please report" in run_code(body).stderr


def test_the_home_of_an_unknown_user_stays_as_it_was_typed():
    assert block_path("~nosuchuser/data") == contract.PROJECT_ROOT / "~nosuchuser/data"
