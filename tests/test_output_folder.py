"""The model's folder: a finished model is never overwritten, an unfinished one never mistaken, a foreign one never used."""

import errno
import json
import os

import pytest
from output_folder import HELD_OUT_NAME, SETTINGS_NAME, check_folder, is_disk_full, move_aside, write_json
from safetensors import SafetensorError

from common.script import ScriptError


@pytest.fixture
def make_folder(tmp_path):
    """Return a function that makes a folder with empty files of these names."""

    def make(*names):
        path = tmp_path / "model"
        path.mkdir()
        for name in names:
            (path / name).touch()
        return path

    return make


def test_new_and_empty_folders_are_fine(tmp_path, make_folder):
    assert check_folder(tmp_path / "new", resume=False, overwrite=False) is False
    assert check_folder(make_folder(), resume=False, overwrite=False) is False


@pytest.mark.parametrize(
    ("names", "flags", "cure"),
    [
        ([SETTINGS_NAME, HELD_OUT_NAME], {}, "--overwrite"),
        ([HELD_OUT_NAME], {}, "--resume"),
        (["thesis.docx"], {}, "did not write"),
        (["thesis.docx"], {"overwrite": True}, "did not write"),
        ([SETTINGS_NAME], {"resume": True}, "nothing to resume"),
        ([], {"resume": True}, "without --resume"),
    ],
)
def test_refusals_name_the_cure(make_folder, names, flags, cure):
    with pytest.raises(ScriptError, match=cure):
        check_folder(make_folder(*names), **{"resume": False, "overwrite": False} | flags)


@pytest.mark.parametrize("names", [[SETTINGS_NAME, HELD_OUT_NAME], [HELD_OUT_NAME]])
def test_overwrite_moves_what_is_there_aside(make_folder, names):
    path = make_folder(*names)
    assert check_folder(path, resume=False, overwrite=True) is True
    aside = move_aside(path)
    assert aside.name.startswith("model.old-")
    assert sorted(file.name for file in aside.iterdir()) == sorted(names)
    assert not path.exists()


def test_a_file_or_a_dangling_link_is_refused(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name, problem in (("file", "is a file"), ("link", "is a broken link")):
        with pytest.raises(ScriptError, match=f"{name}: {problem}"):
            check_folder(tmp_path / name, resume=False, overwrite=True)


def test_a_folder_whose_name_is_not_utf_8_is_refused_before_anything_is_trained(tmp_path):
    with pytest.raises(ScriptError, match="not UTF-8.*rename"):
        check_folder(tmp_path / os.fsdecode(b"caf\xe9") / "model", resume=False, overwrite=False)


def test_the_settings_name_data_whose_name_is_not_utf_8(tmp_path):
    data_path = os.fsdecode(b"caf\xe9/data.jsonl")
    write_json(tmp_path / "settings.json", {"path_to_data": data_path, "person": "נועם"})
    content = (tmp_path / "settings.json").read_text(encoding="utf-8")
    assert json.loads(content) == {"path_to_data": data_path, "person": "נועם"}
    assert "נועם" in content


def test_a_full_disk_is_known_from_every_library():
    assert is_disk_full(OSError(errno.ENOSPC, "No space left on device"))
    assert is_disk_full(OSError(errno.EFBIG, "File too large"))
    assert is_disk_full(RuntimeError("[enforce fail at inline_container.cc:672] . PytorchStreamWriter failed writing"))
    assert is_disk_full(SafetensorError("I/O error: No space left on device (os error 28)"))
    assert not is_disk_full(RuntimeError("shape mismatch"))
    assert not is_disk_full(OSError(errno.EACCES, "Permission denied"))


def test_in_a_folder_of_others_nothing_is_removed(make_folder):
    path = make_folder(SETTINGS_NAME)
    (path / "checkpoints").mkdir()
    with pytest.raises(ScriptError, match="this model is finished"):
        check_folder(path, resume=True, overwrite=False)
    assert (path / "checkpoints").is_dir()
