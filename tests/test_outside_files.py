"""No reader of a trained folder, of data or of a log waits at a pipe, a socket or an endless device."""

import pytest
from checkpoints import find_newest_complete
from conversation_log import read_conversation
from irregular_files import make_irregular
from output_folder import find_person
from writing_style.blind_quiz import read_key
from writing_style.canaries import plant_into_file, read_canaries
from writing_style.held_out_replies import read_held_out_data

from common.conversation_data import TrainingDataError, read_training_data
from common.outside_files import NotReadableError, loading, open_regular
from common.script import ScriptError

READERS = {
    "formatted_data.jsonl": (read_training_data, TrainingDataError),
    "conversation.jsonl": (read_conversation, OSError),
    "style_quiz_key.json": (lambda path: read_key(path.parent), ScriptError),
    "held_out_conversations.json": (lambda path: read_held_out_data(path.parent, path), ScriptError),
    "planted.jsonl": (lambda path: plant_into_file(path, path.with_name("target.jsonl"), 0), ScriptError),
    "data.canaries.json": (lambda path: read_canaries(path.with_name("data.jsonl")), ScriptError),
}


@pytest.mark.parametrize("kind", ["pipe", "socket", "device"])
@pytest.mark.parametrize("name", READERS)
def test_what_is_no_file_is_refused_without_waiting(tmp_path, name, kind):
    read, error = READERS[name]
    make_irregular(tmp_path / name, kind)
    with pytest.raises(error):
        read(tmp_path / name)


@pytest.mark.parametrize("kind", ["pipe", "socket", "device"])
def test_a_checkpoint_whose_manifest_is_no_file_is_set_aside_and_a_report_that_is_none_names_nobody(tmp_path, kind):
    (tmp_path / "checkpoint-1").mkdir()
    make_irregular(tmp_path / "checkpoint-1" / "COMPLETE.json", kind)
    assert find_newest_complete(tmp_path) == (None, ["checkpoint-1: its COMPLETE.json is damaged"])
    make_irregular(tmp_path / "preprocessing_report.json", kind)
    assert find_person(tmp_path / "formatted_data.jsonl") is None


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(NotReadableError), open_regular(tmp_path):
        pass


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        (RuntimeError("can't start new thread"), "cannot be loaded, no further thread or process may be started; "),
        (
            BlockingIOError(11, "Resource temporarily unavailable"),
            "cannot be loaded, no further thread or process may be started; ",
        ),
        (RuntimeError("unable to mmap: Cannot allocate memory"), "does not fit into the memory; "),
    ],
)
def test_no_file_is_blamed_for_a_computer_without_threads_or_memory(failure, words):
    with (
        pytest.raises(ScriptError, match=f"^model: the base {words}"),
        loading("model", "the base", "download it again"),
    ):
        raise failure
