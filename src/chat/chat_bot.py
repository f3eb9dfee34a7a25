"""Stage 3: chat with the trained model in the terminal, with a log of the conversation.

Reads   the folder saved_model (written by stage 2) and the base model it was trained on; without an NVIDIA card, the GGUF
        file in saved_model/gguf where there is one (written by export_model.py); then no base model is needed
Writes  conversation.txt (bubbles, to read) and conversation.jsonl (the JSONL log, to continue from); append-only
Run     python3 src/chat/chat_bot.py            input may be piped; stdout then carries only the replies
Takes   some seconds to load a small base, a minute for a 7B; a 7B needs 6 GB of GPU memory, or, as q4_0, 5 GB without

Exit status: 0 left by exit, Ctrl-D or the end of input; 1 refused, failed, or part of the conversation is not on disk;
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
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))  # for `common`

from chat_engine import add_engine, choose_engine, command_to_export, work_without_torch
from saved_model_checks import SavedModel, check_trained_folder
from terminal import (
    OneMessage,
    PipedInput,
    PipedScreen,
    TerminalInput,
    TerminalScreen,
    VisualScreen,
    help_text,
    show_notice,
    showing_progress,
)

from common.base_model_files import prepare_environment, work_offline
from common.command_line import add_device, add_trained_model, check_folder_of, make_parser, typed_path, whole_number
from common.fill_in_block import check_blocks
from common.model_folder import RANGES, Sampling, range_of
from common.script import PROJECT_ROOT, ScriptError, read_description, run_script, shown_path

if TYPE_CHECKING:
    from conversation_log import ConversationLog
    from gguf_header import ModelFiles
    from trained_chat import ConversationCache, TrainedChat
    from who_and_when import WhoAndWhen

DEFAULT_LOG_PATH = "src/chat/conversation.txt"  # counted from the project, like the block
EXAMPLES = """examples:
  python3 src/chat/chat_bot.py
  python3 src/chat/chat_bot.py --resume
      continue the last conversation
  python3 src/chat/chat_bot.py -p "are you coming?"
      one message, one reply
  python3 src/chat/chat_bot.py --saved-model-path other_model --temperature 0.7 < lines.txt > replies.txt
      one turn for each line of a file
"""
DTYPES = ("auto", "float32", "bfloat16", "float16", "nf4")


def main() -> int:
    """Chat until the user leaves, and return the exit status."""
    options = parse_arguments()
    check_blocks(Path(__file__))
    prepare_environment()
    work_offline()
    saved = check_trained_folder(options.saved_model_path)
    who_and_when = choose_partner(options, saved)
    export_command = command_to_export(saved, saved_model_path, options.base_model_id)
    may_be_processor = options.device in ("auto", "cpu") and options.dtype == "auto"
    choice = choose_engine(options.engine, saved, options.base_model_id, may_be_processor, export_command)
    saved = choice.saved
    sampling = choose_sampling(options, saved)
    with closing(open_log(options)) as log, ExitStack() as running:
        trained, cache = load_model(options, saved, choice.model_files, running)
        if choice.notice is not None:
            show_notice(choice.notice)
        status = chat(options, saved, sampling, log, trained, cache, who_and_when)
    return 1 if log.has_unwritten else status


def parse_arguments() -> argparse.Namespace:
    """Read the command line; typed paths count from the current folder, the block's from the project's."""
    parser = make_parser(read_description(Path(__file__)), f"in the chat:\n{help_text()}\n\n{EXAMPLES}")
    add_trained_model(parser, saved_model_path)
    parser.add_argument("--path-to-data", metavar="FILE", help="unused here; all three scripts accept it")
    parser.add_argument(
        "--conversation-path",
        type=typed_path,
        default=PROJECT_ROOT / DEFAULT_LOG_PATH,
        metavar="FILE",
        help=f"the log; the JSONL log lies beside it (default: {DEFAULT_LOG_PATH})",
    )
    parser.add_argument("-p", "--prompt", metavar="TEXT", help="send TEXT, print the reply, exit")
    parser.add_argument(
        "--with",
        dest="partner",
        metavar="NAME",
        help="who you are to the bot: a person or group of its chats (default: the one who wrote most)",
    )
    parser.add_argument("--resume", action="store_true", help="continue the last conversation of the log")
    parser.add_argument("--no-history", action="store_true", help="keep no file of typed lines")
    parser.add_argument(
        "--bidi",
        choices=("logical", "visual"),
        default="logical",
        help="visual: reorder Hebrew for terminals that do not (kitty, Alacritty, iTerm2, Windows, xterm)",
    )
    drawing = parser.add_argument_group("sampling", "default: the values in the trained folder")
    for name in RANGES:
        flag = f"--{name.replace('_', '-')}"
        drawing.add_argument(flag, type=setting(name), metavar="N", help=range_of(name))
    drawing.add_argument("--seed", type=whole_number(0), metavar="N", help="same seed, same replies (default: random)")
    drawing.add_argument("--greedy", action="store_true", help="always take the most likely token")
    add_device(parser)
    parser.add_argument("--dtype", choices=DTYPES, default="auto", help="default: chosen for the device")
    add_engine(parser)
    options = parser.parse_args()
    if options.engine == "llama.cpp" and (options.device not in ("auto", "cpu") or options.dtype != "auto"):
        parser.error("--engine llama.cpp computes on the processor, in the number type of its file")
    return options


def setting(name: str) -> Callable[[str], int | float]:
    """Return the argparse type of the flag that sets the sampling value `name`."""

    def read(text: str) -> int | float:
        try:
            value: int | float = getattr(Sampling().changed(name, text), name)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        return value

    return read


def choose_sampling(options: argparse.Namespace, saved: SavedModel) -> Sampling:
    """Return the trained folder's values, overridden by the command line."""
    sampling = saved.sampling
    for name in RANGES:
        if getattr(options, name) is not None:
            sampling = sampling.changed(name, str(getattr(options, name)))
    return sampling.changed("do_sample", "off") if options.greedy else sampling


def choose_partner(options: argparse.Namespace, saved: SavedModel) -> "WhoAndWhen":
    """Return with whom the chat is; raise ScriptError for a name that the training data do not have."""
    from who_and_when import NO_HEADER, UnknownName, WhoAndWhen

    who_and_when = WhoAndWhen(saved.settings)
    if options.partner is not None and not who_and_when.has_header:
        raise ScriptError(f"--with: {NO_HEADER}; leave it out, or train with --context who")
    if options.partner is not None:
        try:
            who_and_when.choose(options.partner)
        except UnknownName as error:
            raise ScriptError(f"--with: {error}") from None
    return who_and_when


def open_log(options: argparse.Namespace) -> "ConversationLog":
    """Open the log before the model is loaded, so that a log that cannot be written is reported at once."""
    from conversation_log import ConversationLog

    check_folder_of(options.conversation_path)
    return ConversationLog(options.conversation_path, show_notice)


def load_model(
    options: argparse.Namespace, saved: SavedModel, model_files: "ModelFiles | None", running: ExitStack
) -> "tuple[TrainedChat, ConversationCache | None]":
    """Load the model by transformers, or `model_files` by llama.cpp, which `running` stops at the end."""
    with showing_progress("loading the model"):
        if model_files is not None:
            work_without_torch()
            from llama_cpp_model import run_llama_cpp_model

            model = running.enter_context(run_llama_cpp_model(saved, model_files))
            return model, model.open_cache()
        from trained_model import load_trained_model

        from common.compute_device import is_slow, unused_gpu_notice

        trained = load_trained_model(saved, device=options.device, dtype=options.dtype, is_merged=True)
    idle_gpu = unused_gpu_notice() if options.device == "auto" else None
    if idle_gpu:
        show_notice(idle_gpu)
    if is_slow(trained.device, saved.base_dir):
        show_notice("without a GPU, a base of this size takes minutes per reply")
    return trained, None


def chat(
    options: argparse.Namespace,
    saved: SavedModel,
    sampling: Sampling,
    log: "ConversationLog",
    trained: "TrainedChat",
    cache: "ConversationCache | None",
    who_and_when: "WhoAndWhen",
) -> int:
    """Run the chat; return the exit status."""
    from chat_session import ChatSession, read_saved
    from conversation_log import SavedConversation
    from live_conversation import Conversation

    jsonl_path = options.conversation_path.with_suffix(".jsonl")
    earlier = read_saved(jsonl_path) if options.resume else SavedConversation()
    if earlier.messages and options.partner is None:
        who_and_when.restore(earlier.header_record)
    conversation = Conversation(
        trained,
        seed=secrets.randbelow(2**31) if options.seed is None else options.seed,
        sampling=sampling,
        messages=earlier.messages,
        on_context_full=lambda: show_notice(
            "the conversation no longer fits the model's context; its oldest turns are left out from now on"
        ),
        cache=cache,
        who_and_when=who_and_when,
    )
    is_terminal = options.prompt is None and sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()
    if is_terminal:
        who = " ".join(filter(None, (trained.person, who_and_when.shown())))
        banner = [f"imitating {who} on {trained.computed_on}", f"log: {shown_path(log.path)}"]
        show_notice("; ".join([*banner, "/help lists the commands, exit leaves"]))
    lines = open_input(options, log, is_terminal)
    with closing(lines):
        return ChatSession(conversation, log, open_screen(options, is_terminal), earlier.models).run(lines)


def open_screen(options: argparse.Namespace, is_terminal: bool) -> PipedScreen | TerminalScreen:
    """Choose how replies are shown."""
    if not is_terminal:
        return PipedScreen()
    return VisualScreen() if options.bidi == "visual" else TerminalScreen()


def open_input(
    options: argparse.Namespace, log: "ConversationLog", is_terminal: bool
) -> TerminalInput | PipedInput | OneMessage:
    """Choose where the user's lines come from."""
    if options.prompt is not None:
        return OneMessage(options.prompt)
    if not is_terminal:
        return PipedInput()
    # The line of .gitignore that covers the log also covers this name.
    history_path = log.path.with_name(f"{options.conversation_path.stem}_history.txt")
    return TerminalInput(None if options.no_history else history_path)


if __name__ == "__main__":
    run_script(main)
