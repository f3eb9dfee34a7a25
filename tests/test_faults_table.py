"""The table of faults cannot rot: every row is there once, and every test that it names exists."""

import ast
import functools
import re
from pathlib import Path

TESTS = Path(__file__).parent
TABLE = (TESTS / "FAULTS.md").read_text(encoding="utf-8")
ROW_RE = re.compile(r"^\| ([PDTCX]\d+) \| .+ \| (.+) \|$", re.MULTILINE)
NUM_ROWS = {"P": 52, "D": 11, "T": 44, "C": 39, "X": 9}


@functools.cache
def names_in(path):
    """The names of all tests of a file, those of a class behind the class's."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        methods = node.body if isinstance(node, ast.ClassDef) else []
        found |= {f"{node.name}::{method.name}" for method in methods if isinstance(method, ast.FunctionDef)}
        found |= {node.name} if isinstance(node, ast.FunctionDef) else set()
    return found


def test_every_fault_has_one_row():
    expected = [f"{kind}{number}" for kind, count in NUM_ROWS.items() for number in range(1, count + 1)]
    assert [number for number, _ in ROW_RE.findall(TABLE)] == expected


def test_every_row_names_tests_that_exist_or_a_reason():
    for number, shown_by in ROW_RE.findall(TABLE):
        names = re.findall(r"`(test_\w+\.py)::(test_\w+|\w+::test_\w+)`", shown_by)
        assert names or shown_by.startswith("not tested: "), number
        for file_name, test_name in names:
            assert test_name in names_in(TESTS / file_name), f"{number}: {file_name}::{test_name}"
