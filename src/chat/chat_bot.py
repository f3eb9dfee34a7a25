"""Stage 3: a chat in the terminal with the trained model, written down as it goes.

Reads   the folder saved_model (stage 2 writes it) and the base model that it was trained on
Writes  conversation.txt (bubbles, for people) and conversation.jsonl (the same, to continue from), both only appended
Run     python3 src/chat/chat_bot.py            lines piped in work too: stdout then carries the replies alone
Takes   some seconds to load a small base, a minute for 7B; 6 GB of GPU memory for 7B, or patience on a processor

Exit status: 0 left by exit, Ctrl-D or the end of input; 1 refused, failed, or something said is not on disk;
2 wrong usage; 130 Ctrl-C on an empty line; 129, 143 when closed from outside.
"""

# Fill in (the same three lines stand in load_whatsapp.py, fine_tuning_model.py and chat_bot.py):
base_model_id = "yam-peleg/Hebrew-Mistral-7B"
path_to_data = "src/data_preprocessing/final_outputs/formatted_data.jsonl"
saved_model_path = "saved_model"

import argparse
import secrets
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))  # for `common`

from chat_commands import help_text
from chat_screen import PipedScreen, TerminalScreen, VisualScreen, showing_progress, tell
from saved_model_checks import SavedModel, check_saved_model

from common.base_model_files import prepare_environment, work_offline
from common.command_line import add_device, add_trained_model, check_folder_of, make_parser, typed_path, whole_number
from common.model_folder import RANGES, Sampling, range_of
from common.script import PROJECT_ROOT, check_blocks, printable, read_description, run_script, shown_path

if TYPE_CHECKING:
    from conversation_log import ConversationLog
    from terminal_input import OneMessage, PipedInput, TerminalInput

DEFAULT_LOG_PATH = "src/chat/conversation.txt"  # counted from the project, like the block
EXAMPLES = """examples:
  python3 src/chat/chat_bot.py
  python3 src/chat/chat_bot.py --resume
      go on where the last conversation ended
  python3 src/chat/chat_bot.py -p "are you coming?"
      one message, one reply
  python3 src/chat/chat_bot.py --saved-model-path other_model --temperature 0.7 < lines.txt > replies.txt
      each line of a file a turn
"""
DTYPES = ("auto", "float32", "bfloat16", "float16", "nf4")


def main() -> int:
    """Chat until the user leaves, and return the exit status."""
    options = parse_arguments()
    check_blocks(Path(__file__))
    prepare_environment()
    work_offline()
    saved = check_saved_model(options.saved_model_path, options.base_model_id)
    sampling = choose_sampling(options, saved)
    with closing(open_log(options)) as log:
        status = chat(options, saved, sampling, log)
    return 1 if log.has_unwritten else status


def parse_arguments() -> argparse.Namespace:
    """Read the command line; paths typed there count from the current folder, the block's from the project's."""
    parser = make_parser(read_description(Path(__file__)), f"in the chat:\n{help_text()}\n\n{EXAMPLES}")
    add_trained_model(parser, saved_model_path)
    parser.add_argument("--path-to-data", metavar="FILE", help="not used here; accepted by all three scripts")
    parser.add_argument(
        "--conversation-path",
        type=typed_path,
        default=PROJECT_ROOT / DEFAULT_LOG_PATH,
        metavar="FILE",
        help=f"the log; its twin .jsonl lies beside it (default: {DEFAULT_LOG_PATH})",
    )
    parser.add_argument("-p", "--prompt", metavar="TEXT", help="say TEXT, write the reply, leave")
    parser.add_argument("--resume", action="store_true", help="go on with the last conversation of the log")
    parser.add_argument("--no-history", action="store_true", help="keep no file of what was typed")
    parser.add_argument(
        "--bidi",
        choices=("logical", "visual"),
        default="logical",
        help="visual: turn Hebrew here, for a terminal that cannot (kitty, Alacritty, iTerm2, Windows, xterm)",
    )
    drawing = parser.add_argument_group("how replies are drawn", "default: as the trained folder says")
    for name in RANGES:
        flag = f"--{name.replace('_', '-')}"
        drawing.add_argument(flag, type=setting(name), metavar="N", help=range_of(name))
    drawing.add_argument(
        "--seed", type=whole_number(0), metavar="N", help="draw the same replies each time (default: new)"
    )
    drawing.add_argument("--greedy", action="store_true", help="always take the likeliest token")
    add_device(parser)
    parser.add_argument("--dtype", choices=DTYPES, default="auto", help="default: what suits the device")
    return parser.parse_args()


def setting(name: str) -> Callable[[str], int | float]:
    """Return the reader of the flag that sets `name` of the sampling."""

    def read(text: str) -> int | float:
        try:
            value: int | float = getattr(Sampling().changed(name, text), name)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        return value

    return read


def choose_sampling(options: argparse.Namespace, saved: SavedModel) -> Sampling:
    """Take the trained folder's values, changed by the command line."""
    sampling = saved.sampling
    for name in RANGES:
        if getattr(options, name) is not None:
            sampling = sampling.changed(name, str(getattr(options, name)))
    return sampling.changed("do_sample", "off") if options.greedy else sampling


def open_log(options: argparse.Namespace) -> "ConversationLog":
    """Open the log before the model is loaded: who cannot write finds out at once."""
    from conversation_log import ConversationLog

    check_folder_of(options.conversation_path)
    return ConversationLog(options.conversation_path, tell)


def chat(options: argparse.Namespace, saved: SavedModel, sampling: Sampling, log: "ConversationLog") -> int:
    """Load the model and talk."""
    with showing_progress("loading the model"):
        from chat_session import ChatSession, read_saved
        from live_conversation import Conversation
        from trained_model import load_trained_model

        from common.compute_device import is_slow

        trained = load_trained_model(saved, device=options.device, dtype=options.dtype, is_merged=True)
    if is_slow(trained.device, saved.base_dir):
        tell(
            "a base of this size takes minutes for a reply without a GPU; src/chat/export_model.py makes a faster file"
        )
    twin_path = options.conversation_path.with_suffix(".jsonl")
    conversation = Conversation(
        trained,
        seed=secrets.randbelow(2**31) if options.seed is None else options.seed,
        sampling=sampling,
        messages=read_saved(twin_path) if options.resume else [],
        on_forget=lambda: tell("the conversation is longer than the model's memory: its oldest turns are forgotten"),
    )
    is_terminal = options.prompt is None and sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()
    if is_terminal:
        person = printable(str(saved.settings.get("person") or "the person of the chat"))
        tell(
            f"imitating {person} on {trained.device}; log: {shown_path(log.path)}; /help lists the commands, exit leaves"
        )
    lines = open_input(options, log, is_terminal)
    with closing(lines):
        return ChatSession(conversation, log, open_screen(options, is_terminal)).run(lines)


def open_screen(options: argparse.Namespace, is_terminal: bool) -> PipedScreen | TerminalScreen:
    """Choose how replies are shown."""
    if not is_terminal:
        return PipedScreen()
    return VisualScreen() if options.bidi == "visual" else TerminalScreen()


def open_input(
    options: argparse.Namespace, log: "ConversationLog", is_terminal: bool
) -> "TerminalInput | PipedInput | OneMessage":
    """Choose where the user's lines come from."""
    from terminal_input import OneMessage, PipedInput, TerminalInput

    if options.prompt is not None:
        return OneMessage(options.prompt)
    if not is_terminal:
        return PipedInput()
    # The name is covered by the same line of .gitignore as the log itself.
    history_path = log.path.with_name(f"{options.conversation_path.stem}_history.txt")
    return TerminalInput(None if options.no_history else history_path, tell)


if __name__ == "__main__":
    run_script(main)
