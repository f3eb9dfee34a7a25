"""Who may import whom: `common` no stage, no stage another, and nobody himself by way of others."""

import ast
import graphlib
import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

SRC_DIR = Path(__file__).resolve().parents[1] / "src"
REQUIREMENTS = SRC_DIR.parent / "requirements.txt"


def test_module_names_are_unique_across_the_house():
    names = [path.name for path in SRC_DIR.rglob("*.py") if path.name != "__init__.py"]
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


def test_common_imports_no_stage_and_no_stage_another():
    stage_of = {path.stem: path.relative_to(SRC_DIR).parts[0] for path in SRC_DIR.rglob("*.py")}
    for name, imported in imports_by_module().items():
        allowed = {"common", stage_of[name]}
        assert {stage_of[other] for other in imported} <= allowed, name


def test_of_the_chat_the_report_alone_uses_the_report():
    reports = {path.stem for path in (SRC_DIR / "chat/writing_style").glob("*.py")}
    users = {name for name, imported in imports_by_module().items() if imported & reports}
    assert users - reports == {"style_report"}


def test_every_library_is_in_the_requirements():
    optional = {"liger_kernel", "xllamacpp"}  # used where they are installed
    names = {
        name.lower() for name in re.findall(r"^([\w-]+)==", REQUIREMENTS.read_text(encoding="utf-8"), re.MULTILINE)
    }
    own = {path.stem for path in SRC_DIR.rglob("*.py")} | {path.name for path in SRC_DIR.rglob("*") if path.is_dir()}
    imported = {
        module.split(".")[0]
        for path in SRC_DIR.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for module in (
            [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
        )
    }
    libraries = imported - own - set(sys.stdlib_module_names) - optional
    distributions = importlib.metadata.packages_distributions()
    assert {name for name in libraries if not names & {found.lower() for found in distributions[name]}} == set()
    assert len(libraries) > 10


def test_the_examples_in_docstrings_are_tests():
    """Of one stage, for time; `.pytest.ini` names all of src."""
    stage_dir = SRC_DIR / "data_preprocessing"
    listed = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", str(stage_dir)],
        cwd=SRC_DIR.parent, capture_output=True, text=True,
    ).stdout  # fmt: skip
    with_examples = {path.name for path in stage_dir.glob("*.py") if ">>> " in path.read_text(encoding="utf-8")}
    assert with_examples
    assert with_examples <= {line.partition("::")[0].rpartition("/")[2] for line in listed.splitlines()}
    assert "testpaths = tests src\n" in (SRC_DIR.parent / ".pytest.ini").read_text(encoding="utf-8")
