"""The fill-in block: the same three constants at the top of three scripts, edited by hand.

Standard library only: it is read before `--help` is answered.
"""

from __future__ import annotations

import os
import re
import sys
from contextlib import suppress
from pathlib import Path

from common.script import PROJECT_ROOT, ScriptError, printable, shown_path

SCRIPTS_WITH_A_BLOCK = (
    "src/data_preprocessing/load_whatsapp.py",
    "src/training/fine_tuning_model.py",
    "src/chat/chat_bot.py",
)
BLOCK_NAMES = ("base_model_id", "path_to_data", "saved_model_path")
BLOCK_LINE_RE = re.compile(rf"^({'|'.join(BLOCK_NAMES)})\s*(?::[^=\n]*)?=(?!=)\s*(.+)$", re.MULTILINE)
WINDOWS_PATH_RE = re.compile(r"[A-Za-z]:[\\/]|[\x00-\x1f]")  # "C:\new" holds a line break


def block_path(value: str) -> Path:
    """Return the path that a value of the fill-in block means: relative ones count from the project, `~` is the home."""
    return PROJECT_ROOT / os.path.expanduser(value)


def check_blocks(own_script: Path) -> None:
    """Check the fill-in block of `own_script`, and print a warning for each value that another script's block sets differently.

    Raises ScriptError when a value is assigned twice or is a Windows path. A script without a block of its own gives the one
    it takes its values from.
    """
    own = _read_block(own_script)
    for name, assignments in own.items():
        lines = [line for line, _, _ in assignments]
        if len(lines) > 1:
            raise ScriptError(
                f"{shown_path(own_script)}: {name} is assigned in line {lines[0]} and again in line {lines[1]}; delete one"
            )
        line, _, value = assignments[0]
        if isinstance(value, str) and WINDOWS_PATH_RE.search(value):
            raise ScriptError(
                f"{shown_path(own_script)}: {name} in line {line} is a Windows path; under WSL write C:\\Users as /mnt/c/Users, "
                "with forward slashes"
            )
    for relative_path in SCRIPTS_WITH_A_BLOCK:
        script_path = PROJECT_ROOT / relative_path
        if not script_path.is_file() or script_path.samefile(own_script):
            continue
        for name, assignments in _read_block(script_path).items():
            _, shown, value = assignments[-1]
            if name in own and value != own[name][-1][2]:
                print(
                    f"warning: {name} is {own[name][-1][1]} in {own_script.name} but {shown} in {relative_path}; "
                    "make them the same",
                    file=sys.stderr,
                )


def _read_block(script_path: Path) -> dict[str, list[tuple[int, str, object]]]:
    """Return (line, value as written, value) of each assignment to the three names; a value that is computed stays as written."""
    import ast

    source = script_path.read_text(encoding="utf-8")
    lines_in_text: set[int] = set()  # of strings over several lines, such as the docstring
    found = [(source.count("\n", 0, match.start()) + 1, match) for match in BLOCK_LINE_RE.finditer(source)]
    if len({match[1] for _, match in found}) < len(found):  # only then: parsing a script takes 10 ms
        try:
            for node in ast.walk(ast.parse(source)):
                if isinstance(node, ast.Constant) and node.end_lineno is not None:
                    lines_in_text.update(range(node.lineno + 1, node.end_lineno + 1))
        except (SyntaxError, ValueError):  # of another script, which says so itself when it is run
            return {}
    block: dict[str, list[tuple[int, str, object]]] = {}
    for line, match in found:
        if line in lines_in_text:
            continue
        shown: str = match[2].rstrip()
        value: object = shown
        with suppress(SyntaxError, ValueError):
            node = ast.parse(shown, mode="eval").body  # without a comment behind it
            shown = ast.get_source_segment(shown, node) or shown
            value = node.value if isinstance(node, ast.Constant) else shown
        block.setdefault(match[1], []).append((line, printable(shown), value))
    return block
