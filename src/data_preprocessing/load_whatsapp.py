"""Stage 1: WhatsApp exports -> training conversations, with a report that says where every message went.

Reads   src/data_preprocessing/WhatsappChatOriginal.txt (or .zip), or the exports given: .txt, .zip, folders of them
Writes  formatted_data.jsonl, and beside it preprocessing_report.json and dropped_messages.jsonl
Run     python3 src/data_preprocessing/load_whatsapp.py [EXPORT ...] --imitate NAME
Takes   a few seconds for 40,000 messages, the most that WhatsApp exports; needs no GPU and no network
"""

# Fill in (the same three lines stand in load_whatsapp.py, fine_tuning_model.py and chat_bot.py):
base_model_id = "yam-peleg/Hebrew-Mistral-7B"
path_to_data = "src/data_preprocessing/final_outputs/formatted_data.jsonl"
saved_model_path = "saved_model"

import argparse
import gc
import json
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))  # for `common`

from given_exports import check_packages, find_export_paths, survey_exports, with_progress
from participants import choose_imitated, hide_private_names, number_unsaved, readable_name, shown_exports
from preprocessing_options import parse_arguments

from common.conversation_data import PREPROCESSING_REPORT_NAME
from common.fill_in_block import block_path, check_blocks
from common.private_files import exclusive_use, remove_abandoned_files, replacing
from common.script import (
    PROJECT_ROOT,
    ScriptError,
    counted,
    printable,
    read_description,
    run_script,
    shown_path,
    shown_python,
)

if TYPE_CHECKING:
    from export_survey import ExportSurvey
    from preprocessing_report import Ledger
    from redaction import Redactor

OWN_PATH = Path(__file__).resolve()
NEXT_SCRIPT_PATH = PROJECT_ROOT / "src/training/fine_tuning_model.py"
PACKAGES = {"phonenumberslite": "phonenumbers", "python-stdnum": "stdnum", "tqdm": "tqdm"}  # and the modules in them
DROPPED_NAME = "dropped_messages.jsonl"


def main(typed: list[str] | None = None) -> None:
    """Read the exports twice: to learn who wrote and which placeholders are unknown, then to write the outputs."""
    arguments = parse_arguments(read_description(OWN_PATH), path_to_data, typed)
    check_blocks(OWN_PATH)
    data_path = arguments.path_to_data or block_path(path_to_data)  # typed ones count from the current folder
    check_reason(arguments.show_dropped)
    export_paths = find_export_paths(arguments.exports, OWN_PATH)
    check_outputs(data_path, export_paths)
    check_packages(PACKAGES)
    surveys = survey_exports(export_paths, arguments)
    imitated = choose_imitated({survey.file.path: survey.participants for survey in surveys}, arguments.imitate)
    redactor = make_redactor(surveys, arguments)
    ledger, report = write_outputs(data_path, surveys, imitated, redactor, arguments)
    print_outcome(ledger, report, data_path)
    print(f"Next: {printable(next_command(arguments))}")


# ---- Paths -----------------------------------------------------------------------------------------------------------


def check_outputs(data_path: Path, export_paths: list[Path]) -> None:
    """Raise ScriptError unless the three outputs can be written without harm to an export."""
    folder = data_path.parent
    if data_path.name in (PREPROCESSING_REPORT_NAME, DROPPED_NAME):
        raise ScriptError(
            f"{shown_path(data_path)}: is the name of a file of the ledger; choose another --path-to-data"
        )
    for path in (data_path, folder / PREPROCESSING_REPORT_NAME, folder / DROPPED_NAME):
        if path.exists():
            for export_path in export_paths:
                if path.samefile(export_path):
                    raise ScriptError(
                        f"{shown_path(path)}: would overwrite the export itself; choose another --path-to-data"
                    )
            if not path.is_file():
                raise ScriptError(f"{shown_path(path)}: is not a regular file; choose another --path-to-data")
        elif path.is_symlink():
            raise ScriptError(
                f"{shown_path(path)}: is a link to a missing file; remove it, or choose another --path-to-data"
            )
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        raise ScriptError(f"{shown_path(folder)}: is a file, but a folder is needed; choose another --path-to-data")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ScriptError(f"{shown_path(folder)}: permission denied; choose another --path-to-data, or change its mode")


def check_reason(reason: str | None) -> None:
    """Raise ScriptError when no message is ever dropped for `reason`."""
    from preprocessing_report import REASONS

    if reason is not None and reason not in ("all", *REASONS):
        raise ScriptError(
            f"--show-dropped: {printable(reason)} is not a reason; name one of these, or all"
            + "".join(f"\n  {name:<24} {description}" for name, description in REASONS.items())
        )


# ---- Writing ---------------------------------------------------------------------------------------------------------


def make_redactor(surveys: "list[ExportSurvey]", arguments: argparse.Namespace) -> "Redactor | None":
    """Return the redactor that the flags ask for, None with `--no-redaction`."""
    from phonenumbers import SUPPORTED_REGIONS
    from redaction import Redactor, guess_phone_region

    if arguments.no_redaction:
        print(
            "warning: phone numbers, addresses and codes stay in the data, and the model may repeat them",
            file=sys.stderr,
        )
        return None
    hidden_words = []
    if arguments.hide is not None:
        try:
            hidden_words = arguments.hide.read_text(encoding="utf-8-sig").split("\n")
        except UnicodeDecodeError as error:
            raise ScriptError(f"{shown_path(arguments.hide)}: is not UTF-8 text; save it as UTF-8") from error
    region = arguments.phone_region
    if region is None:
        region = guess_phone_region(text for survey in surveys for text in survey.number_samples)
    elif region not in SUPPORTED_REGIONS:
        raise ScriptError(f"--phone-region: {printable(region)} is not a country; give its two letters, such as IL")
    return Redactor(region, [word.strip() for word in hidden_words if word.strip()])


def write_names(surveys: "list[ExportSurvey]", redactor: "Redactor | None") -> dict[str, str]:
    """Return the name under which each sender is written; two unsaved numbers stay two people."""
    exports = {survey.file.path: survey.participants | survey.assistants for survey in surveys}
    senders = list(dict.fromkeys(sender for participants in exports.values() for sender in participants))
    if redactor is None:
        return {sender: readable_name(sender) for sender in senders}
    placeholders = number_unsaved(exports)
    redactor.counts.update({"PHONE": len(placeholders)} if placeholders else {})
    return hide_private_names(senders, placeholders, redactor.redact)


def write_outputs(
    data_path: Path,
    surveys: "list[ExportSurvey]",
    imitated: set[str],
    redactor: "Redactor | None",
    arguments: argparse.Namespace,
) -> "tuple[Ledger, dict[str, Any]]":
    """Write the data, the dropped messages and the report, all or none; return the ledger and the report."""
    from conversations import ConversationWriter, Settings
    from export_survey import find_text_facts
    from merged_exports import group_by_chat
    from preprocessing_report import Ledger, make_report

    redact = redactor.redact if redactor else str
    settings = Settings(
        imitated=imitated,
        facts=find_text_facts(surveys),
        turn_gap_seconds=arguments.turn_gap_seconds,
        conversation_gap_seconds=arguments.conversation_gap_seconds,
        max_messages_per_chat=arguments.max_messages_per_chat,
        since=arguments.since,
        until=arguments.until,
        keeps_media=arguments.keep_media_marks,
    )
    chats, doubts = group_by_chat(surveys, imitated)
    for doubt in doubts:
        print(f"warning: {printable(doubt)}", file=sys.stderr)
    names = write_names(surveys, redactor)
    by_readable_name = {readable_name(sender): name for sender, name in names.items()}
    titles = {chat.title: by_readable_name.get(chat.title) or redact(chat.title) for chat in chats}
    folder = data_path.parent
    with (
        exclusive_use(folder),
        # The last one opened is renamed into place first, so the data comes last.
        replacing(data_path) as data_file,
        replacing(folder / DROPPED_NAME) as dropped_file,
        replacing(folder / PREPROCESSING_REPORT_NAME) as report_file,
    ):
        remove_abandoned_files(folder)
        ledger = Ledger(dropped_file, arguments.show_dropped)
        writer = ConversationWriter(data_file, ledger, redact, settings)
        for chat in chats:
            messages = [
                view.apply(
                    with_progress(survey.read(), f"Writing {printable(survey.file.path.name)}", survey.num_messages)
                )
                for survey, view in zip(chat.surveys, chat.views, strict=True)
            ]
            writer.write_chat(
                titles[chat.title], messages, names, chat.is_group(imitated), chat.is_exact, chat.may_repeat
            )
        check_written(surveys, ledger, writer.num_replies)
        report = make_report(
            chats, names, titles, imitated, settings.facts.placeholders, ledger, writer.totals(), redactor
        ) | {"data_sha256": writer.data_sha256}
        json.dump(report, report_file, ensure_ascii=False, indent=2)
        for file in (data_file, dropped_file, report_file):  # a full disk is noticed before any file is replaced
            file.flush()
            os.fsync(file.fileno())
    return ledger, report


def check_written(surveys: "list[ExportSurvey]", ledger: "Ledger", num_replies: int) -> None:
    """Raise ScriptError when an export was changed meanwhile or no reply is left to learn from."""
    for survey in surveys:
        if survey.export.has_changed():
            raise ScriptError(f"{shown_path(survey.file.path)}: was changed while it was read; run again")
    ledger.check(sum(survey.num_messages for survey in surveys))
    if not num_replies:
        raise ScriptError(
            f"{shown_exports([survey.file.path for survey in surveys])}: "
            "no message of the imitated person is left to learn from; the table shows where they went"
            + "".join(f"\n{line}" for line in ledger.table())
        )


def print_outcome(ledger: "Ledger", report: dict[str, Any], data_path: Path) -> None:
    """Print the ledger, what was left out as unknown or hidden, what was written and the advice."""
    print(*ledger.table(), sep="\n")
    for body, number in report["unknown_placeholders"].items():
        print(f"Left out as WhatsApp's own text: {printable(body)} ({number:,} times)")
    if report["redactions"]:
        numbers = ", ".join(f"{number:,} [{kind}]" for kind, number in report["redactions"].items())
        print(f"Private data replaced, in kept messages, dropped messages and names: {numbers}")
    made = report["conversations"]
    print(
        f"{counted(made['num_conversations'], 'conversation')}, {counted(made['num_turns'], 'turn')}; "
        f"{counted(made['num_replies'], 'reply')} of {', '.join(map(printable, report['person']))} with "
        f"{counted(made['num_reply_chars'], 'character')}, "
        f"{made['num_openers']:,} of which open a conversation"
    )
    print(*report["advice"], sep="\n")
    print(f"Wrote {shown_path(data_path)}, and beside it {PREPROCESSING_REPORT_NAME} and {DROPPED_NAME}.")


def next_command(arguments: argparse.Namespace) -> str:
    """Return the command that trains on this data, with the paths that were typed."""
    flags = {
        "--base-model-id": arguments.base_model_id,
        "--path-to-data": arguments.path_to_data,
        "--saved-model-path": arguments.saved_model_path,
    }
    typed = [part for flag, value in flags.items() if value is not None for part in (flag, str(value))]
    return shlex.join([shown_python(), shown_path(NEXT_SCRIPT_PATH), *typed])


if __name__ == "__main__":
    gc.disable()  # this stage makes no reference cycles; looking for them took 10 % of the time
    run_script(main)
