"""The environment is made once, torch first, made again when the requirements change, and refuses an old Python."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "src/demo/set_up_venv.sh"


@pytest.fixture
def project(tmp_path):
    """A project with an environment whose Python is a fake that writes down how it was called."""
    root = tmp_path / "project"
    (root / "src/demo").mkdir(parents=True)
    shutil.copy2(SCRIPT, root / "src/demo")
    (root / "requirements.txt").write_text("# torch first\ntorch==1.2.3\nother==4.5\n")
    (root / ".venv/bin").mkdir(parents=True)
    write_program(root / ".venv/bin/python", f'echo "$@" >> {root}/calls.txt')
    return root


def write_program(path, line):
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)


def set_up(project, python="python3"):
    return subprocess.run(
        ["bash", project / "src/demo/set_up_venv.sh", "requirements.txt"],
        env={**os.environ, "PYTHON": python},
        capture_output=True,
        text=True,
    )


def installs(project):
    calls = (project / "calls.txt").read_text().splitlines()
    (project / "calls.txt").unlink()
    return [call.split("--quiet ")[1] for call in calls if " install " in call]


def test_installs_torch_first_then_the_file(project):
    assert set_up(project).returncode == 0
    assert installs(project) == ["torch==1.2.3", "-r requirements.txt"]


def test_second_run_installs_nothing_until_the_file_changes(project):
    set_up(project)
    installs(project)
    assert set_up(project).stdout == ""
    assert installs(project) == []
    (project / "requirements.txt").write_text("torch==1.2.4\n")
    set_up(project)
    assert installs(project) == ["torch==1.2.4", "-r requirements.txt"]


def test_a_failed_installation_is_tried_again(project):
    write_program(
        project / ".venv/bin/python", f'echo "$@" >> {project}/calls.txt; [ "$2" != pip ] || [ "$3" != install ]'
    )
    assert set_up(project).returncode != 0
    assert "did not finish (see above); check the network and the disk" in set_up(project).stderr
    assert installs(project) == ["torch==1.2.3", "torch==1.2.3"]


def test_a_python_without_a_build_of_torch_is_refused_in_one_line(project):
    shutil.rmtree(project / ".venv")
    write_program(project / "old_python", "exit 1")
    result = set_up(project, python=str(project / "old_python"))
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "old_python: Python 3.11 to 3.14 is needed" in result.stderr


def test_a_mac_without_a_build_of_torch_is_refused_in_one_line(project, monkeypatch):
    (project / "bin").mkdir()
    write_program(project / "bin/uname", "echo Darwin x86_64")
    monkeypatch.setenv("PATH", f"{project}/bin:{os.environ['PATH']}")
    result = set_up(project)
    assert (result.returncode, result.stderr.count("\n")) == (1, 1)
    assert "no build for a Mac with an Intel processor" in result.stderr


def test_an_environment_of_another_python_is_named(project):
    write_program(project / ".venv/bin/python", 'case "$2" in *sys.version_info*) exit 1 ;; esac')
    result = set_up(project)
    assert result.returncode == 1
    assert result.stderr.startswith("set_up_venv: .venv: was made by another Python than 3.11 to 3.14; remove it")


def test_where_python3_is_another_version_a_suitable_one_is_taken(project, monkeypatch):
    """Ubuntu 22.04 and macOS have an older python3, and keep it when a newer Python is installed."""
    shutil.rmtree(project / ".venv")
    (project / "bin").mkdir()
    for name, line in {
        "python3": "exit 1",
        "python3.14": "exit 1",
        "python3.13": f'echo "$@" >> {project}/calls.txt',
    }.items():
        write_program(project / "bin" / name, line)
    monkeypatch.setenv("PATH", f"{project}/bin:{os.environ['PATH']}")
    set_up(project, python="")
    assert "-m venv --clear .venv" in (project / "calls.txt").read_text()


def test_says_how_to_install_venv_when_it_cannot_be_made(project):
    shutil.rmtree(project / ".venv")
    write_program(project / "python_without_venv", '[ "$1" != -m ]')
    result = set_up(project, python=str(project / "python_without_venv"))
    assert result.returncode == 1
    assert "python3-venv" in result.stderr
