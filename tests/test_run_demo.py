"""The demo's shell scripts at their door: `--help`, arguments they do not take, and what an earlier demo left."""

import pytest


@pytest.fixture
def project(project_copy):
    """A project whose environment has a fake Python that does nothing."""
    (project_copy / "requirements.txt").write_text("torch==1.2.3\n")
    (project_copy / ".venv/bin").mkdir(parents=True)
    for name in ("python", "python3"):
        (project_copy / ".venv/bin" / name).write_text("#!/bin/sh\n")
        (project_copy / ".venv/bin" / name).chmod(0o755)
    return project_copy


@pytest.mark.parametrize(
    "script", ["src/demo/run_demo.sh", "src/demo/set_up_venv.sh", "src/data_preprocessing/preprocess_start.sh"]
)
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_is_answered_before_anything_is_made_or_deleted(project_copy, run_command, script, flag):
    (project_copy / ".demo").mkdir()
    (project_copy / ".demo/saved_model").touch()
    before = {path for path in project_copy.rglob("*") if "__pycache__" not in path.parts}
    result = run_command(f"bash {script} {flag}", project_copy)
    assert (result.returncode, result.stderr) == (0, "")
    assert script.rpartition("/")[2] in result.stdout or "usage:" in result.stdout
    assert {path for path in project_copy.rglob("*") if "__pycache__" not in path.parts} == before


def test_an_argument_that_the_demo_does_not_take_is_refused(project_copy, run_command):
    result = run_command("bash src/demo/run_demo.sh --quick", project_copy)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "run_demo: takes no arguments, see --help\n"
    assert not (project_copy / ".demo").exists()


def test_a_new_demo_keeps_the_conversations_of_earlier_ones_and_nothing_else(project, run_command):
    demo_dir = project / ".demo"
    (demo_dir / "saved_model").mkdir(parents=True)
    (demo_dir / "saved_model/training_settings.json").touch()
    (demo_dir / "both_engines.txt").touch()
    kept = {"conversation.txt": "said yesterday\n", "conversation.jsonl": "{}\n", "conversation_history.txt": "hi\n"}
    for name, text in kept.items():
        (demo_dir / name).write_text(text)
    result = run_command("bash src/demo/run_demo.sh", project)
    assert result.returncode == 0, result.stderr
    assert {path.name: path.read_text() for path in demo_dir.iterdir() if path.name in kept} == kept
    assert {path.name for path in demo_dir.iterdir()} == kept.keys() | {"what_ruth_types.txt"}
    assert "said yesterday" not in result.stdout  # only what was said in this demo is shown
