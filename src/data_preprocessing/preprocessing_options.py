"""The command line of stage 1: flags, their defaults and examples. It checks numbers and dates, and opens no file."""

from __future__ import annotations

import argparse
from datetime import date
from typing import Any

from common.command_line import make_parser, typed_path, whole_number

TURN_GAP_SECONDS = 600  # messages that follow faster belong to one burst
CONVERSATION_GAP_SECONDS = 3600  # a message after a longer silence rarely answers what stood before

EXAMPLES = """examples:
  bash preprocess_start.sh
      asks whom to imitate
  bash preprocess_start.sh "WhatsApp Chat with Ruth.zip" other_chats/ --imitate Noam --imitate "Noam (work)"
      several exports, and one person under two names
  bash preprocess_start.sh --imitate Noam --since 2023-01-01 --show-dropped all
      leave out older messages; print one dropped message for each reason
  python3 src/data_preprocessing/load_whatsapp.py --imitate Noam
      the same stage without the shell script
"""


def parse_arguments(description: str, path_to_data: str, typed: list[str] | None) -> argparse.Namespace:
    """Read the command line, or `typed`; exit with 2 when it is wrong. `path_to_data` is the fill-in block's value."""
    parser = make_parser(description, EXAMPLES)
    add_exports(parser)
    parser.add_argument(
        "--imitate",
        action="append",
        metavar="NAME",
        help="whose style to learn; repeat it for the person's other names",
    )
    parser.add_argument(
        "--path-to-data", type=typed_path, metavar="FILE", help=f"where to write; default: {path_to_data}"
    )

    making = parser.add_argument_group("making conversations")
    number: dict[str, Any] = {"type": whole_number(1), "metavar": "N"}
    making.add_argument(
        "--turn-gap-seconds",
        **number,
        default=TURN_GAP_SECONDS,
        help="in a group, a sender's name is written again after a longer pause; default: %(default)s",
    )
    making.add_argument(
        "--conversation-gap-seconds",
        **number,
        default=CONVERSATION_GAP_SECONDS,
        help="a longer silence ends a conversation; default: %(default)s",
    )
    making.add_argument("--max-messages-per-chat", **number, help="keep the latest N of each chat; default: all")
    day: dict[str, Any] = {"type": date.fromisoformat, "metavar": "DATE"}
    making.add_argument("--since", **day, default=date.min, help="leave out earlier messages, such as 2024-01-31")
    making.add_argument("--until", **day, default=date.max, help="leave out later messages")
    making.add_argument(
        "--keep-media-marks",
        action="store_true",
        help="keep what was sent instead of words as a word: [voice], [photo], [sticker], ..., or [media] where the export does "
        "not tell (Android, without media); default: left out",
    )

    private = parser.add_argument_group("hiding private data")
    private.add_argument(
        "--no-redaction", action="store_true", help="keep phone numbers, e-mail addresses, codes and the like"
    )
    private.add_argument("--hide", type=typed_path, metavar="FILE", help="further words to hide, one per line")
    private.add_argument(
        "--phone-region",
        metavar="CODE",
        type=str.upper,
        help="country of the phone numbers, such as IL; default: guessed",
    )

    parser.add_argument(
        "--show-dropped", metavar="REASON", help="print the messages dropped for this reason; all: one for each reason"
    )
    parser.add_argument("--base-model-id", metavar="ID", help="only shown in the next command")
    parser.add_argument("--saved-model-path", metavar="DIR", help="only shown in the next command")
    return parser.parse_args(typed)


def add_exports(parser: argparse.ArgumentParser) -> None:
    """Add the exports, and the flags that say how to read them."""
    parser.add_argument(
        "exports",
        nargs="*",
        metavar="EXPORT",
        type=typed_path,
        help=".txt, .zip or a folder; default: WhatsappChatOriginal.txt, or .zip, beside this script",
    )
    reading = parser.add_argument_group("reading the exports")
    reading.add_argument("--chat", metavar="NAME", help="which chat of a zip that holds several")
    reading.add_argument("--encoding", help="such as cp1255; default: detected")
    order = reading.add_mutually_exclusive_group()
    order.add_argument(
        "--day-first", action="store_true", default=None, help="01/02 is 1 February, where the dates allow both orders"
    )
    order.add_argument("--month-first", action="store_false", dest="day_first", help="01/02 is 2 January")
