"""What a user can get wrong with each script: one line before anything is loaded, nothing written or changed.

One or two cases a script; all cases are in the tests of the modules.
"""

import re

import pytest
from make_sample_chat import sample_export

STAGE_1 = "bash preprocess_start.sh"
STAGE_2 = "python3 src/training/fine_tuning_model.py"
STAGE_3 = "python3 src/chat/chat_bot.py"
EXPORT = "src/data_preprocessing/WhatsappChatOriginal.txt"
DATA = "src/data_preprocessing/final_outputs/formatted_data.jsonl"
CONVERSATION = '{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]}\n'


def contents_of(folder):
    return {
        path.relative_to(folder): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
        if "__pycache__" not in path.parts
    }


@pytest.fixture
def refuse(project_copy, run_command):
    """A function that puts files in place, runs a command, and returns the error once it is a proper refusal."""

    def run_and_check(command, files=None):
        for name, content in (files or {}).items():
            path = project_copy / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        before = contents_of(project_copy)
        result = run_command(command, project_copy)
        assert result.returncode == 1, result.stderr + result.stdout
        assert "Traceback" not in result.stderr
        lines = result.stderr.removesuffix("\n").split("\n")
        first_line, *details = [line for line in lines if not line.startswith("warning: ")]
        assert re.match(r"(load_whatsapp|fine_tuning_model|chat_bot): .+: .+; .+", first_line), result.stderr
        assert all(line.startswith(" ") for line in details), result.stderr
        assert contents_of(project_copy) == before
        return result.stderr

    return run_and_check


def test_stage_1_without_an_export_says_where_to_put_one(refuse):
    assert EXPORT in refuse(STAGE_1)


def test_stage_1_lists_who_is_in_the_chat_and_keeps_the_old_data(refuse):
    error = refuse(f"{STAGE_1} --imitate Noan", {EXPORT: sample_export(5, seed=0), DATA: CONVERSATION})
    assert "Noan" in error
    assert "Noam" in error
    assert "Ruth" in error


def test_stage_2_without_data_names_the_script_that_writes_it_and_the_block_that_differs(refuse, project_copy):
    script = project_copy / "src/training/fine_tuning_model.py"
    block = script.read_text(encoding="utf-8").replace("final_outputs/formatted_data", "data/chat")
    error = refuse(STAGE_2, {"src/training/fine_tuning_model.py": block})
    assert "warning: path_to_data" in error
    assert "src/data_preprocessing/data/chat.jsonl: no training data" in error
    assert "preprocess_start.sh" in error


def test_stage_2_takes_no_mistyped_folder_for_a_hub_id(refuse):
    error = refuse(f"{STAGE_2} --base-model-id ./models/mistyped", {DATA: CONVERSATION * 20})
    assert "models/mistyped" in error


def test_stage_3_refuses_an_unfinished_model(refuse):
    assert "fine_tuning_model.py" in refuse(STAGE_3, {"saved_model/adapter_config.json": "{}"})
