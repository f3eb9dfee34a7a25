"""The examples in the docstrings of the chat's modules and of the report's hold."""

import doctest
import importlib
from pathlib import Path

import pytest

CHAT_DIR = Path(__file__).resolve().parents[1] / "src" / "chat"
WITH_EXAMPLES = sorted(
    ".".join(path.relative_to(CHAT_DIR).with_suffix("").parts)
    for path in CHAT_DIR.rglob("*.py")
    if ">>>" in path.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_in_the_docstrings_hold(name):
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0
    assert result.failed == 0
