"""What can be wrong at each door is said in one line before anything is loaded, and nothing is written or changed."""

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


def test_no_export(refuse):
    assert EXPORT in refuse(STAGE_1)


def test_empty_export(refuse):
    assert "empty" in refuse(STAGE_1, {EXPORT: ""})


@pytest.mark.parametrize("content", ["just some notes\nof mine\n", b"\x89PNG\r\n\x1a\n\0\0\0", "a,b\n1,2\n"])
def test_not_an_export(refuse, content):
    error = refuse(STAGE_1, {EXPORT: content})
    assert "notes" not in error  # no text of the file: it may be private


def test_name_not_in_the_chat_shows_who_is_in_it(refuse):
    error = refuse(f"{STAGE_1} --imitate Noan", {EXPORT: sample_export(5, seed=0)})
    assert "Noan" in error
    assert "Noam" in error
    assert "Ruth" in error


def test_nobody_named_without_a_terminal_shows_the_command(refuse):
    error = refuse(STAGE_1, {EXPORT: sample_export(5, seed=0)})
    assert "--imitate" in error
    assert "Ruth" in error


def test_no_reply_of_the_person_is_an_error(refuse):
    export = "3.3.2024, 08:49 - Noam: <המדיה לא נכללה>\n3.3.2024, 08:50 - Ruth: hello\n" * 3
    refuse(f"{STAGE_1} --imitate Noam", {EXPORT: export})


def test_old_data_survives_a_refused_run(refuse):
    refuse(f"{STAGE_1} --imitate Nobody", {EXPORT: sample_export(5, seed=0), DATA: CONVERSATION})


def test_no_data_yet_names_the_script_that_writes_it(refuse):
    error = refuse(STAGE_2)
    assert DATA in error
    assert "preprocess_start.sh" in error


def test_no_model_yet_names_the_script_that_writes_it(refuse):
    assert "fine_tuning_model.py" in refuse(STAGE_3)


def test_mistyped_base_folder_is_not_taken_for_a_hub_id(refuse):
    error = refuse(f"{STAGE_2} --base-model-id ./models/mistyped", {DATA: CONVERSATION * 20})
    assert "models/mistyped" in error


def test_unfinished_model_is_refused(refuse):
    assert "fine_tuning_model.py" in refuse(STAGE_3, {"saved_model/adapter_config.json": "{}"})


def test_other_blocks_are_pointed_out(project_copy, run_command):
    script = project_copy / "src/training/fine_tuning_model.py"
    script.write_text(
        script.read_text(encoding="utf-8").replace("final_outputs/formatted_data", "data/chat"), encoding="utf-8"
    )
    result = run_command(STAGE_2, project_copy)
    assert result.returncode == 1
    assert "warning: path_to_data" in result.stderr
    assert "src/data_preprocessing/data/chat.jsonl" in result.stderr
