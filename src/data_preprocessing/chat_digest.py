"""The digest of a chat: questions without an answer, promises, days ahead and figures, each with the words themselves.

Reads   the exports given, as stage 1 does: .txt, .zip, folders of them; default: WhatsappChatOriginal.txt beside this script
Writes  a page to the terminal, or --json; --html FILE and --ics FILE write files that only you can read. Nothing is hidden in them
Run     python3 src/data_preprocessing/chat_digest.py [EXPORT ...] --me NAME [--since 7d]
Takes   a few seconds for 40,000 messages, the most that WhatsApp exports; needs no model, no GPU and no network
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import re
import sys
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))  # for `common`

from given_exports import check_packages, find_export_paths, survey_exports, with_progress
from participants import find_people, listed_participants, number_unsaved, readable_name, shown_exports
from preprocessing_options import add_exports

from common.command_line import check_folder_of, make_parser, typed_path, whole_number
from common.private_files import remove_abandoned_files, replacing
from common.script import ScriptError, counted, printable, read_description, run_script, shown_command, shown_path

if TYPE_CHECKING:
    from digest_reading import ChatDigest
    from export_survey import ExportSurvey

OWN_PATH = Path(__file__).resolve()
NUM_SHOWN = 20  # entries of a list on the page of the terminal
MAX_KEPT_BYTES = 36_000_000  # of messages between the two readings: 200,000 of 55 Hebrew letters
PACKAGES = {"tqdm": "tqdm"}  # and the modules in them
HTML_PACKAGES = {"Jinja2": "jinja2"}
CALENDAR_PACKAGES = {"icalendar": "icalendar"}
DAYS_RE = re.compile(r"[0-9]{1,5}d")

EXAMPLES = """examples:
  python3 src/data_preprocessing/chat_digest.py "WhatsApp Chat with Ruth.zip" --me Noam --since 7d
      the last week of the export
  python3 src/data_preprocessing/chat_digest.py --me Noam --html digest.html --ics plans.ics
      a page for the browser, and the days ahead for the calendar
"""


def main(typed: list[str] | None = None) -> None:
    """Read the exports twice: to learn who wrote, then to find what is open, promised and dated."""
    arguments = parse_arguments(read_description(OWN_PATH), typed)
    check_packages(PACKAGES | (HTML_PACKAGES if arguments.html else {}) | (CALENDAR_PACKAGES if arguments.ics else {}))
    export_paths = find_export_paths(arguments.exports, OWN_PATH)
    check_outputs([path for path in (arguments.html, arguments.ics) if path is not None], export_paths)
    # Standard output carries the digest alone where a program reads it.
    with contextlib.redirect_stdout(sys.stderr) if arguments.json else contextlib.nullcontext():
        surveys = survey_exports(export_paths, arguments, MAX_KEPT_BYTES)
    me = find_me(surveys, arguments.me)
    end = max(survey.last for survey in surveys)
    since = begin_of_period(arguments.since, end)
    digests = digest_exports(surveys, me, since, end)
    check_read(surveys, digests, since, end)

    from digest_report import make_report

    report = make_report(digests, me, since, end)
    write_calendar(arguments.ics, report, is_quiet=arguments.json)
    if arguments.html is not None:
        from digest_pages import make_html_page

        write_file(arguments.html, make_html_page(report).encode("utf-8"))
        print(f"Wrote {shown_path(arguments.html)}. It is private: it quotes the chat.")
    elif arguments.json:
        print(json.dumps(report, ensure_ascii=False, indent=2))
    else:
        from digest_pages import make_text_page

        print(make_text_page(report, arguments.show), end="")


def parse_arguments(description: str, typed: list[str] | None) -> argparse.Namespace:
    """Read the command line, or `typed`; exit with 2 when it is wrong."""
    parser = make_parser(description, EXAMPLES)
    add_exports(parser)
    parser.add_argument(
        "--me", action="append", metavar="NAME", help="your name in the chat; repeat it for your other names"
    )
    parser.add_argument(
        "--since", type=period, metavar="DATE|7d", help="leave out earlier messages; 7d: the last 7 days of the export"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print the digest as JSON")
    form.add_argument("--html", type=typed_path, metavar="FILE", help="write it as a private page for the browser")
    parser.add_argument(
        "--ics", type=typed_path, metavar="FILE", help="write the days ahead of the export's end as a calendar"
    )
    parser.add_argument(
        "--show",
        type=whole_number(1),
        default=NUM_SHOWN,
        metavar="N",
        help="entries of each list on the page; default: %(default)s",
    )
    return parser.parse_args(typed)


def period(text: str) -> date | timedelta:
    """Parse the value of `--since`: a day such as 2024-01-31, or a number of days such as 7d."""
    if DAYS_RE.fullmatch(text):
        return timedelta(days=int(text[:-1]))
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"must be a day such as 2024-01-31 or a number of days such as 7d, not {text!r}"
        ) from None


def check_outputs(paths: list[Path], export_paths: list[Path]) -> None:
    """Raise ScriptError unless each of `paths` can be written without harm to an export or to another of them."""
    for path in paths:
        check_folder_of(path)
        if not os.access(path.parent, os.W_OK | os.X_OK):
            raise ScriptError(f"{shown_path(path.parent)}: permission denied; choose another place, or change its mode")
        if not path.exists():
            continue
        if not path.is_file():
            raise ScriptError(f"{shown_path(path)}: is not a regular file; choose another place")
        if any(path.samefile(export_path) for export_path in export_paths):
            raise ScriptError(f"{shown_path(path)}: would overwrite the export itself; choose another place")
    if len({path.parent.resolve() / path.name for path in paths}) < len(paths):
        raise ScriptError(f"{shown_path(paths[0])}: is named twice, by --html and by --ics; give two files")


def find_me(surveys: list[ExportSurvey], names: list[str] | None) -> set[str]:
    """Return every sender name of the person who asks.

    Raises ScriptError with the nearest names when there is none, and when everybody of a chat is named.
    """
    exports = {survey.file.path: survey.participants for survey in surveys}
    placeholders = number_unsaved(exports)
    if not names:
        raise ScriptError(
            f"{shown_exports(exports)}: --me NAME is missing; name yourself, who are one of the participants"
            f"{listed_participants(exports, placeholders)}\n  as in: {shown_command(OWN_PATH)} ... --me NAME"
        )
    me = {sender for name in names for sender in find_people(exports, name, placeholders)}
    for path, participants in exports.items():
        if participants.keys() <= me and len(set(map(readable_name, participants))) > 1:
            raise ScriptError(f"{shown_path(path)}: --me names everybody who writes here; give your own names alone")
    return me


def begin_of_period(since: date | timedelta | None, end: datetime) -> datetime:
    """Return the first moment of the period; a number of days counts back from the exports' end."""
    if since is None:
        return datetime.min
    if isinstance(since, timedelta):
        return end - since if end - datetime.min > since else datetime.min
    return datetime.combine(since, time())


def digest_exports(surveys: list[ExportSurvey], me: set[str], since: datetime, end: datetime) -> list[ChatDigest]:
    """Read the exports once more, chat by chat."""
    from digest_reading import Circle, digest_chat
    from export_survey import find_text_facts
    from merged_exports import group_by_chat, merge_exports

    facts = find_text_facts(surveys)
    chats, doubts = group_by_chat(surveys, me)
    for doubt in doubts:
        print(f"warning: {printable(doubt)}", file=sys.stderr)
    digests = []
    for chat in chats:
        messages = [
            view.apply(with_progress(survey.read(), f"Reading {printable(survey.file.path.name)}", survey.num_messages))
            for survey, view in zip(chat.surveys, chat.views, strict=True)
        ]
        circle = Circle(me=chat.senders & me, others=chat.senders - me - facts.assistants)
        merged = merge_exports(messages, chat.is_exact, chat.may_repeat)
        digests.append(digest_chat(chat.title, merged, circle, facts, is_day_first(chat.surveys[0]), since, end))
        for survey in chat.surveys:
            survey.packed = None  # the report needs the memory
    return digests


def is_day_first(survey: ExportSurvey) -> bool:
    """Tell whether the export writes the day before the month, as its people may do in their messages."""
    order = survey.export.date_order
    return order.index("day") < order.index("month")


def check_read(surveys: list[ExportSurvey], digests: list[ChatDigest], since: datetime, end: datetime) -> None:
    """Raise ScriptError when an export was changed meanwhile or the period has no message."""
    for survey in surveys:
        if survey.export.has_changed():
            raise ScriptError(f"{shown_path(survey.file.path)}: was changed while it was read; run again")
    if all(digest.figures.first is None for digest in digests):
        paths = [survey.file.path for survey in surveys]
        raise ScriptError(
            f"{shown_exports(paths)}: no message since {since:%Y-%m-%d}; the last one is of {end:%Y-%m-%d %H:%M}, "
            "give an earlier --since"
        )


def write_calendar(path: Path | None, report: dict[str, Any], is_quiet: bool) -> None:
    """Write the days ahead to `path`, if it is given; a calendar without an event is not written, since none may be empty."""
    if path is None:
        return
    plans = report["plans"]["ahead"]
    said = f"No day ahead: {shown_path(path)} was not written."
    if plans:
        from plan_calendar import make_calendar

        write_file(path, make_calendar(plans))
        said = f"Wrote {shown_path(path)}: {counted(len(plans), 'day')} ahead. It is private: it quotes the chat."
    print(said, file=sys.stderr if is_quiet else sys.stdout)


def write_file(path: Path, content: bytes) -> None:
    """Write a private file, whole or not at all."""
    remove_abandoned_files(path.parent)
    with replacing(path, "wb") as file:
        file.write(content)


if __name__ == "__main__":
    gc.disable()  # reading makes no reference cycles; looking for them takes time
    run_script(main)
