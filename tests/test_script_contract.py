"""What every script promises at its door (`common.script`): errors, exit codes, whole and private files."""

import os
import resource
import signal
import stat
import subprocess
import sys
import textwrap

import pytest

from common import script as contract


def script(body):
    return (
        "from common.script import *\nfrom pathlib import Path\nimport os, signal, sys, time\n"
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
    with pytest.raises(RuntimeError), contract.replacing(path) as file:
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
    contract.remove_abandoned_files(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([alive, other])


def test_the_second_run_on_one_folder_says_so(run_code, tmp_path):
    with contract.exclusive_use(tmp_path, "training"):
        done = run_code(f"""
            with exclusive_use(Path({str(tmp_path)!r}), "training"):
                pass
        """)
    assert done.returncode == 1
    assert "another run is training here" in done.stderr


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
    monkeypatch.setattr(contract, "PROJECT_ROOT", tmp_path)
    contract.warn_of_other_blocks(tmp_path / "src/data_preprocessing/load_whatsapp.py")
    assert capsys.readouterr().err == (
        'warning: saved_model_path is "saved_model" in load_whatsapp.py but "other" in src/chat/chat_bot.py; '
        "make them the same\n"
    )


def test_it_loads_no_library(run_code):
    loaded = run_code("print(sorted(set(sys.modules) & {'torch', 'transformers', 'regex', 'emoji', 'numpy'}))").stdout
    assert loaded == "[]\n"
