"""The command line of stage 1: flags, their defaults and examples. Nothing is read or checked here but numbers and dates."""

from __future__ import annotations

import argparse
from datetime import date
from pathlib import Path

from common.command_line import make_parser, whole_number

TURN_GAP_SECONDS = 600  # ten minutes: what one person writes in a row is one thought
CONVERSATION_GAP_SECONDS = 3600  # an hour: what follows is rarely an answer to what stood before

EXAMPLES = """examples:
  bash preprocess_start.sh
      asks whom to imitate
  bash preprocess_start.sh "WhatsApp Chat with Ruth.zip" other_chats/ --imitate Noam --imitate "Noam (work)"
      several exports, and one person under two names
  bash preprocess_start.sh --imitate Noam --since 2023-01-01 --show-dropped all
      leave out what is old; show a message of each kind that was dropped
  python3 src/data_preprocessing/load_whatsapp.py --imitate Noam
      the same without the shell script
"""


def parse_arguments(description: str, path_to_data: str, typed: list[str] | None) -> argparse.Namespace:
    """Read the command line, or `typed`; exit with 2 when it is wrong. `path_to_data` is the fill-in block's value."""
    parser = make_parser(description, EXAMPLES)
    parser.add_argument(
        "exports",
        nargs="*",
        metavar="EXPORT",
        type=Path,
        help=".txt, .zip or a folder; default: WhatsappChatOriginal.txt, or .zip, beside this script",
    )
    parser.add_argument(
        "--imitate",
        action="append",
        metavar="NAME",
        help="whose style to learn; again for another name of the same person",
    )
    parser.add_argument("--path-to-data", type=Path, metavar="FILE", help=f"the conversations; default: {path_to_data}")

    reading = parser.add_argument_group("reading the exports")
    reading.add_argument("--chat", metavar="NAME", help="which chat of a zip that holds several")
    reading.add_argument("--encoding", help="such as cp1255; default: found by its bytes")
    order = reading.add_mutually_exclusive_group()
    order.add_argument(
        "--day-first",
        action="store_true",
        default=None,
        help="01/02 is the first of February, where the export leaves it open",
    )
    order.add_argument("--month-first", action="store_false", dest="day_first", help="01/02 is the second of January")

    making = parser.add_argument_group("making conversations")
    making.add_argument(
        "--turn-gap-seconds",
        type=whole_number(1),
        default=TURN_GAP_SECONDS,
        metavar="N",
        help="a longer pause ends a burst: in a group the name is said again; default: %(default)s",
    )
    making.add_argument(
        "--conversation-gap-seconds",
        type=whole_number(1),
        default=CONVERSATION_GAP_SECONDS,
        metavar="N",
        help="a longer silence ends a conversation; default: %(default)s",
    )
    making.add_argument(
        "--max-messages-per-chat",
        type=whole_number(1),
        metavar="N",
        help="keep the latest N of each chat; default: all",
    )
    making.add_argument(
        "--since",
        type=date.fromisoformat,
        default=date.min,
        metavar="DATE",
        help="leave out what is older than this day, such as 2024-01-31",
    )
    making.add_argument(
        "--until", type=date.fromisoformat, default=date.max, metavar="DATE", help="leave out what is newer"
    )

    private = parser.add_argument_group("hiding private things")
    private.add_argument(
        "--no-redaction", action="store_true", help="keep phone numbers, e-mail addresses, codes and the like"
    )
    private.add_argument("--hide", type=Path, metavar="FILE", help="words to hide as well, one a line")
    private.add_argument(
        "--phone-region",
        metavar="CODE",
        type=str.upper,
        help="country of the phone numbers, such as IL; default: guessed",
    )

    parser.add_argument(
        "--show-dropped", metavar="REASON", help="print dropped messages of a reason, or one of each for all"
    )
    parser.add_argument("--base-model-id", metavar="ID", help="only handed on to the next command")
    parser.add_argument("--saved-model-path", metavar="DIR", help="only handed on to the next command")
    return parser.parse_args(typed)
