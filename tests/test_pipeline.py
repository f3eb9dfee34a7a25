"""The three scripts as a user runs them: the block filled in, no flags, one after the other, in a copy of the project."""

import json
import re

import pytest
from forked_scripts import run_forked
from make_sample_chat import sample_export

SCRIPTS = ("src/data_preprocessing/load_whatsapp.py", "src/training/fine_tuning_model.py", "src/chat/chat_bot.py")

pytestmark = pytest.mark.slow


def fill_in_block(project, **values):
    """Edit the block of the three scripts by hand, so to say."""
    for script in SCRIPTS:
        path = project / script
        text = path.read_text(encoding="utf-8")
        for name, value in values.items():
            text, num_replaced = re.subn(rf'^{name} = ".*"$', f'{name} = "{value}"', text, flags=re.MULTILINE)
            assert num_replaced == 1
        path.write_text(text, encoding="utf-8")


def check(result):
    assert result.returncode == 0, result.stderr + result.stdout
    return result.stdout


def test_export_becomes_a_chatbot(project_copy, tiny_base_dir, run_command, tmp_path):
    (project_copy / "models").mkdir()
    (project_copy / "models/tiny").symlink_to(tiny_base_dir)
    fill_in_block(project_copy, base_model_id="models/tiny")
    export_path = project_copy / "src/data_preprocessing/WhatsappChatOriginal.txt"
    export_path.write_text(sample_export(60, seed=5), encoding="utf-8")
    before = set(project_copy.rglob("*"))

    stage_1 = check(run_command("bash preprocess_start.sh --imitate Noam", project_copy))
    assert "python3 src/training/fine_tuning_model.py" in stage_1  # the next command
    data_path = project_copy / "src/data_preprocessing/final_outputs/formatted_data.jsonl"
    conversations = [json.loads(line) for line in data_path.read_text(encoding="utf-8").splitlines()]
    assert len(conversations) > 40
    assert {message["role"] for line in conversations for message in line["messages"]} == {"user", "assistant"}

    # From another folder: what stands in the block counts from the project.
    stage_2 = check(run_forked(project_copy / SCRIPTS[1], "--epochs", 1, "--learning-rate", 1e-3, folder=tmp_path))
    assert "chat_bot.py" in stage_2
    assert (project_copy / "saved_model/training_settings.json").is_file()
    assert (project_copy / "saved_model/adapter_model.safetensors").is_file()

    given = "מה נשמע?\nhello there\nexit\n"
    stage_3 = check(run_forked("src/chat/chat_bot.py", given=given, folder=project_copy))
    log = (project_copy / "src/chat/conversation.txt").read_text(encoding="utf-8")
    assert "hello there" in log
    assert stage_3.count("\n\n") >= 2  # a reply to each line, an empty line after each

    made = [path for path in set(project_copy.rglob("*")) - before if "__pycache__" not in path.parts]
    assert len(made) > 10
    assert not [path for path in made if path.stat().st_mode & 0o077]  # all of it readable by its owner alone
