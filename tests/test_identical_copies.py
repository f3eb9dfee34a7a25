"""Stage folders are self-contained: what they share lies in each of them, and must be the same bytes."""

import ast
import graphlib
import re
from pathlib import Path

import pytest

SRC_DIR = Path(__file__).resolve().parents[1] / "src"

COPIES = [
    ["data_preprocessing/preprocessing_script.py", "training/training_script.py", "chat/chat_script.py"],
    ["training/chat_format.py", "chat/turn_format.py"],
    ["training/base_model_files.py", "chat/model_files.py"],
]


@pytest.mark.parametrize("copies", COPIES, ids=lambda copies: Path(copies[0]).stem)
def test_copies_are_the_same_bytes(copies):
    contents = {(SRC_DIR / copy).read_bytes() for copy in copies}
    assert len(contents) == 1, f"change all of {copies} together"


def test_module_names_are_unique_across_the_house():
    names = [path.name for path in SRC_DIR.rglob("*.py")]
    assert sorted(names) == sorted(set(names))


def test_fill_in_block_is_the_same_bytes_in_the_three_scripts():
    block_re = re.compile(r"^base_model_id = .*\npath_to_data = .*\nsaved_model_path = .*\n", re.MULTILINE)
    scripts = ["data_preprocessing/load_whatsapp.py", "training/fine_tuning_model.py", "chat/chat_bot.py"]
    blocks = [block_re.findall((SRC_DIR / script).read_text(encoding="utf-8")) for script in scripts]
    assert blocks[0] == blocks[1] == blocks[2]
    assert len(blocks[0]) == 1


def imports_by_module():
    """Which modules of `src` each of them imports, wherever in its text."""
    paths = {path.stem: path for path in SRC_DIR.rglob("*.py") if path.stem != "__init__"}
    return {
        name: {
            module.split(".")[-1]
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for module in ([node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
            if module is not None and module.split(".")[-1] in paths
        }
        for name, path in paths.items()
    }


def test_no_module_imports_itself_by_way_of_others():
    assert list(graphlib.TopologicalSorter(imports_by_module()).static_order())


def test_of_the_chat_the_report_alone_uses_the_report():
    reports = {path.stem for path in (SRC_DIR / "chat/writing_style").glob("*.py")}
    users = {name for name, imported in imports_by_module().items() if imported & reports}
    assert users - reports == {"style_report"}
