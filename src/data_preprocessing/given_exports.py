"""The exports that a script was given: found, read once, and told of. Used by each script that reads exports."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from common.script import (
    PROJECT_ROOT,
    ScriptError,
    counted,
    did_you_mean,
    how_to_install,
    printable,
    shown_command,
    shown_path,
)

if TYPE_CHECKING:
    from export_survey import ExportSurvey

DEFAULT_EXPORT_PATHS = (
    PROJECT_ROOT / "src/data_preprocessing/WhatsappChatOriginal.txt",
    PROJECT_ROOT / "src/data_preprocessing/WhatsappChatOriginal.zip",
)
PROGRESS_DELAY_SECONDS = 2  # before the bar appears

T = TypeVar("T")


def find_export_paths(given: list[Path], own_script: Path) -> list[Path]:
    """Return the export files to read, each once; raise ScriptError when one is not there.

    `own_script` is the script that reads them, for the errors.
    """
    from export_file import ExportError
    from export_source import find_exports

    if not given:
        there = [path for path in DEFAULT_EXPORT_PATHS if path.exists()]
        given = there[:1]
        for path in there[1:]:
            reason = f"is not read, since {given[0].name} lies beside it; remove one of them, or give both as arguments"
            print(f"warning: {shown_path(path)}: {reason}", file=sys.stderr)
        if not given:
            raise ScriptError(
                f"{shown_path(DEFAULT_EXPORT_PATHS[0])}: not found; put the export of a chat there (in WhatsApp: the chat > "
                f"More > Export chat > Without media), or give its path: {shown_command(own_script)} EXPORT"
                f"{did_you_mean(DEFAULT_EXPORT_PATHS[0])}"
            )
    found: dict[tuple[int, int], Path] = {}
    for path in given:
        path.lstat()  # raises FileNotFoundError, which names the path
        try:
            for export_path in find_exports(path):
                state = export_path.stat()
                found.setdefault((state.st_dev, state.st_ino), export_path)
        except ExportError as error:
            raise ScriptError(f"{shown_path(path)}: {error}") from error
    return list(found.values())


def check_packages(packages: Mapping[str, str]) -> None:
    """Raise ScriptError when a package of requirements.txt is missing; `packages` names the module in each."""
    missing = [package for package, module in packages.items() if find_spec(module) is None]
    if missing:
        raise ScriptError(
            f"requirements.txt: {', '.join(missing)} not installed for {sys.executable}; {how_to_install()}"
        )


def survey_exports(
    export_paths: list[Path], arguments: argparse.Namespace, max_kept_bytes: int = 0
) -> list[ExportSurvey]:
    """Read each export once and print what was found.

    The messages of the first exports are kept, as far as they take `max_kept_bytes` together: they need no second parsing.
    """
    from export_survey import ExportFile, survey_export
    from packed_messages import PackedMessages

    surveys = []
    for path in export_paths:
        file = ExportFile(path, arguments.day_first, arguments.encoding, arguments.chat)
        export = file.open()
        messages = with_progress(file.read(export), f"Reading {printable(path.name)}")
        packed = PackedMessages(max_kept_bytes)
        survey = survey_export(file, packed.keep(messages) if max_kept_bytes else messages, export)
        if packed.is_complete:
            survey.packed = packed
            max_kept_bytes -= packed.num_bytes
        order = "proven" if export.is_order_proven else "guessed; set it with --day-first or --month-first"
        print(
            f"Read {shown_path(path)}: {counted(survey.num_messages, 'message')}, {survey.first:%Y-%m-%d} to {survey.last:%Y-%m-%d}; "
            f"{export.format_description}, {export.date_order} ({order})"
        )
        for warning in export.warnings:
            print(f"warning: {shown_path(path)}: {printable(warning)}", file=sys.stderr)
        surveys.append(survey)
    return surveys


def with_progress(items: Iterable[T], what: str, total: int | None = None) -> Iterable[T]:
    """Return `items`, at a terminal with a progress bar that appears when they take long."""
    if not sys.stderr.isatty():
        return items
    from tqdm import tqdm

    bar: Iterable[T] = tqdm(
        items, what, total, leave=False, delay=PROGRESS_DELAY_SECONDS, unit=" messages", unit_scale=True
    )
    return bar
