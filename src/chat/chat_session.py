"""One run of the chat: each line is a message or a command, and is logged before anything else happens.

The model is left to `live_conversation`, the files to `conversation_log`, input and output to `terminal`.
"""

from __future__ import annotations

import shlex
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import FrameType

from conversation_log import YOU, ConversationLog, SavedConversation, read_conversation, save_conversation
from corrections import append_correction, as_reply
from live_conversation import Conversation, FinishedReply, MessageTooLong
from terminal import (
    COMMANDS,
    REMARKS,
    Command,
    OneMessage,
    PipedInput,
    PipedScreen,
    TerminalInput,
    TerminalScreen,
    help_text,
    read_line_as_command,
    show_notice,
)
from turns import replace_reply, take_back_reply
from who_and_when import NO_HEADER, UnknownName

from common.command_line import check_folder_of, typed_path
from common.conversation_data import CORRECTIONS_PATH
from common.script import ScriptError, counted, is_memory_full, printable, shown_path
from common.template_rendering import ChatFormatError
from common.text_safety import remove_unsafe_characters

MAX_LINE_CHARS = 200_000  # more than any model's context; avoids tokenizing megabytes


class ChatSession:
    """Connects a conversation with its log, its screen and the user's lines."""

    def __init__(
        self,
        conversation: Conversation,
        log: ConversationLog,
        screen: PipedScreen | TerminalScreen,
        models: Sequence[str] = (),
    ) -> None:
        """Begin the log; `conversation` may hold messages of an earlier chat, whose replies `models` wrote."""
        self._conversation = conversation
        self._log = log
        self._screen = screen
        self._models = list(models)  # that wrote replies of this conversation
        self._last_reply: FinishedReply | None = None
        self._was_interrupted = False
        self._is_typed = False  # at a terminal
        log.names["assistant"] = conversation.trained.person
        log.start(asdict(conversation.sampling) | {"seed": conversation.seed}, conversation.trained.name)
        if conversation.messages:
            log.add_event("load", conversation.messages, self._models)
            self._log_header()
            self._show_earlier()

    def run(self, lines: TerminalInput | PipedInput | OneMessage) -> int:
        """Process `lines` until they end or one is `exit`; return the exit status."""
        self._is_typed = isinstance(lines, TerminalInput)
        while (line := lines.read()) is not None:
            if len(line) > MAX_LINE_CHARS:
                show_notice(f"this line has {len(line):,} characters; at most {MAX_LINE_CHARS:,} are accepted")
                continue
            meaning = read_line_as_command(remove_unsafe_characters(line))
            if isinstance(meaning, Command):
                if meaning.name == "exit":
                    break
                self._carry_out(meaning)
            elif meaning:
                self._say(meaning)
            if self._was_interrupted and not self._is_typed:  # Ctrl-C during piped input stops the whole chat
                return 130
        else:
            if self._is_typed:
                show_notice("")  # Ctrl-D leaves the cursor after the prompt
        return 0

    def _say(self, text: str) -> None:
        is_first = not self._conversation.messages
        text = self._conversation.who_and_when.as_in_training(text, self._conversation.messages)
        try:
            self._conversation.add(text)
        except MessageTooLong as error:
            show_notice(str(error))
            return
        if is_first:
            self._log_header()
        self._log.add_bubble("user", text)
        self._answer()

    def _log_header(self) -> None:
        who_and_when = self._conversation.who_and_when
        self._log.names["user"] = printable(who_and_when.member) if who_and_when.member else YOU
        if who_and_when.began_at is None:  # of a conversation that continues and does not say when it began
            who_and_when.begin()
        if who_and_when.shown():
            self._log.add_header(who_and_when.shown(), who_and_when.to_record())

    def _has_room(self) -> bool:
        """Return whether the model's context has room for the next reply; say why not."""
        try:
            self._conversation.fit_prompt()
        except MessageTooLong as error:
            show_notice(str(error))
            return False
        return True

    def _answer(self) -> None:
        self._screen.begin_reply()
        num_bubbles, is_full = 0, False

        def end_bubble(text: str, cut_by: str | None) -> None:
            nonlocal num_bubbles
            num_bubbles += 1
            remark = REMARKS[cut_by] if cut_by else None
            self._log.add_bubble("assistant", text, remark)
            self._screen.end_bubble(text, remark)

        with _stopping_on_interrupt() as stop:
            try:
                self._last_reply = self._conversation.answer(self._screen.add_text, end_bubble, stop)
            except KeyboardInterrupt:  # pressed twice: do not wait for the next token
                self._last_reply = None
            except (MemoryError, RuntimeError) as error:  # torch raises a RuntimeError
                if not (self._is_typed and is_memory_full(error)):
                    raise
                self._last_reply, is_full = None, True
        self._was_interrupted = stop.is_set()
        self._screen.end_reply(num_bubbles)
        if is_full:
            show_notice(
                "the memory is full (on a card, a browser or a game takes it too): close other programs, then /regenerate; or "
                "/exit, and start again with --resume"
            )
        if num_bubbles and self._conversation.trained.name not in self._models:
            self._models.append(self._conversation.trained.name)

    def _show_earlier(self) -> None:
        """Show the last lines of the conversation that continues, and which other models wrote in it."""
        self._screen.show_earlier(self._conversation.messages)
        others = [name for name in self._models if name != self._conversation.trained.name]
        if others:
            show_notice(
                f"replies so far are by another model ({'; '.join(others)}); from here on: {self._conversation.trained.name}"
            )

    def _carry_out(self, command: Command) -> None:
        if command.name not in COMMANDS:
            show_notice(f"no command /{command.name}; /help lists them, // sends a line that begins with a slash")
            return
        actions: dict[str, Callable[[str], None]] = {
            "help": lambda _: show_notice(help_text()),
            "begin": self._begin,
            "undo": self._undo,
            "regenerate": self._regenerate,
            "better": self._better,
            "reset": self._reset,
            "swap": self._swap,
            "with": self._choose_partner,
            "as": self._choose_member,
            "set": self._set,
            "params": self._show_params,
            "stats": self._show_stats,
            "save": self._save,
            "load": self._load,
        }
        wanted_argument = COMMANDS[command.name][0]
        if wanted_argument and not wanted_argument.startswith("[") and not command.argument:
            show_notice(f"usage: /{command.name} {wanted_argument}")
            return
        actions[command.name](command.argument)

    def _begin(self, _argument: str) -> None:
        if self._conversation.messages:
            show_notice("this conversation has begun already; /reset begins a new one")
            return
        self._conversation.who_and_when.begin()
        if self._can_write_first():
            self._log_header()
            self._answer()

    def _can_write_first(self) -> bool:
        """Return whether the imitated person may begin a conversation; say why not."""
        try:
            self._conversation.trained.encode_prompt([], self._conversation.who_and_when.header)
        except ChatFormatError as error:  # of a base whose training data had no such conversation
            show_notice(f"with this base the imitated person cannot write first: {error}")
            return False
        return True

    def _undo(self, _argument: str) -> None:
        if self._conversation.undo():
            self._log.add_event("undo")
            show_notice("last turn taken back")
        else:
            show_notice("no message yet")

    def _regenerate(self, _argument: str) -> None:
        messages = self._conversation.messages
        if not messages:
            show_notice("no message yet")
            return
        before = list(messages)
        has_reply = take_back_reply(messages)
        if not self._has_room():
            messages[:] = before
            return
        if has_reply:
            self._log.add_event("regenerate")
        self._answer()

    def _better(self, argument: str) -> None:
        messages, text = self._conversation.messages, as_reply(argument)
        if not text or not messages or messages[-1]["role"] != "assistant":
            show_notice("no reply to replace" if text else "a reply needs words")
            return
        path = self._log.path.with_name(Path(CORRECTIONS_PATH).name)
        try:
            append_correction(path, messages[:-1], text, self._conversation.who_and_when.to_training_keys())
        except (OSError, ScriptError) as error:
            reason = error if isinstance(error, ScriptError) else f"{shown_path(path)}: not written, {error.strerror}"
            show_notice(f"{reason}; the reply stays")
            return
        replace_reply(messages, text)
        self._log.replace_reply(text)
        kept = shlex.quote(shown_path(path))
        show_notice(f"replaced, and kept; to teach it, train again with --corrections {kept}")

    def _reset(self, _argument: str) -> None:
        self._conversation.reset()
        self._models.clear()
        self._log.add_event("reset")
        show_notice("new conversation")

    def _swap(self, _argument: str) -> None:
        roles = [message["role"] for message in self._conversation.messages]
        if roles[:1] == ["user"] and not self._can_write_first():
            return
        self._conversation.swap()
        self._log.add_event("swap")
        show_notice("roles swapped")
        if roles[-1:] == ["assistant"] and self._has_room():  # it is the user's now
            self._answer()

    def _choose_partner(self, argument: str) -> None:
        who_and_when = self._conversation.who_and_when
        if not argument:
            show_notice(who_and_when.describe())
        elif not who_and_when.has_header:
            show_notice(NO_HEADER)
        else:
            try:
                who_and_when.choose(argument)
            except UnknownName as error:
                show_notice(str(error))
                return
            if self._conversation.messages:
                self._reset("")
            show_notice(who_and_when.shown())

    def _choose_member(self, argument: str) -> None:
        who_and_when = self._conversation.who_and_when
        before = who_and_when.partner
        try:
            who_and_when.choose_member(argument)
        except UnknownName as error:
            show_notice(str(error))
            return
        if self._conversation.messages:
            if who_and_when.partner != before:
                self._reset("")
            else:
                self._log_header()
        show_notice(who_and_when.shown())

    def _set(self, argument: str) -> None:
        name, _space, value = argument.partition(" ")
        try:
            self._conversation.sampling = self._conversation.sampling.changed(name, value.strip())
        except ValueError as error:
            show_notice(str(error))
        else:
            show_notice(f"{name} {getattr(self._conversation.sampling, name)}")

    def _show_params(self, _argument: str) -> None:
        trained = self._conversation.trained
        values = asdict(self._conversation.sampling) | {
            "seed": self._conversation.seed,
            "context_tokens": trained.context_tokens,
            "computed_on": trained.computed_on,
        }
        show_notice("\n".join(f"{name} {value}" for name, value in values.items()))

    def _show_stats(self, _argument: str) -> None:
        reply = self._last_reply
        if reply is None:
            show_notice("no reply yet")
            return
        seconds_writing = max(reply.seconds - reply.first_token_seconds, 1e-9)
        show_notice(
            f"first token after {reply.first_token_seconds:.2f} s; prompt: {counted(reply.num_prompt_tokens, 'token')}, "
            f"{reply.num_reused_tokens:,} of them from the cache\n"
            f"{counted(reply.num_new_tokens, 'new token')}, {max(0, reply.num_new_tokens - 1) / seconds_writing:.1f} "
            f"tokens/s, ending: {reply.ending}\n"
            f"context: {self._conversation.num_prompt_tokens:,} of {self._conversation.trained.context_tokens:,} tokens"
        )
        if self._conversation.cache.why_direct:
            show_notice(f"steps launched one by one, not as a CUDA graph: {self._conversation.cache.why_direct}")

    def _save(self, argument: str) -> None:
        path = typed_path(argument)
        try:
            if path.exists():
                show_notice(f"{shown_path(path)}: exists; choose another name")
                return
            check_folder_of(path)
            who_and_when = self._conversation.who_and_when
            header_record = who_and_when.to_record() if who_and_when.shown() else None
            save_conversation(path, self._conversation.messages, self._models, header_record)
        except ScriptError as error:
            show_notice(str(error))
        except OSError as error:
            show_notice(f"{shown_path(path)}: not written, {error.strerror}")
        else:
            show_notice(f"{shown_path(path)}: {counted(len(self._conversation.messages), 'message')}")

    def _load(self, argument: str) -> None:
        path = typed_path(argument)
        saved = read_saved(path)
        if saved.messages:
            self._conversation.reset(saved.messages)
            self._conversation.who_and_when.restore(saved.header_record)
            self._models = saved.models
            self._log.add_event("load", saved.messages, saved.models)
            self._log_header()
            show_notice(f"{shown_path(path)}: {counted(len(saved.messages), 'message')}, the conversation continues")
            self._show_earlier()


def read_saved(path: Path) -> SavedConversation:
    """Return the conversation in `path`; show a notice when there is none."""
    try:
        saved = read_conversation(path)
    except OSError as error:
        show_notice(f"{shown_path(path)}: not read, {error.strerror}")
        return SavedConversation()
    if not saved.messages:
        show_notice(f"{shown_path(path)}: holds no conversation")
    return saved


@contextmanager
def _stopping_on_interrupt() -> Iterator[threading.Event]:
    """Within the block, Ctrl-C sets the event; a second Ctrl-C raises KeyboardInterrupt."""
    stop = threading.Event()

    def on_interrupt(_signal_number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    previous_handler = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, previous_handler)
