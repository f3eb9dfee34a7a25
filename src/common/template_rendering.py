"""Rendering a chat template of a stranger, within limits of time, memory and size.

The words of the messages are left out: a placeholder stands for each.
"""

from __future__ import annotations

import os
import re
import resource
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn

from jinja2.exceptions import TemplateError

from common.script import MAX_REASON_CHARS, ScriptError, printable

MAX_TEMPLATE_CHARS = 100_000  # the longest published templates have about 30,000
MAX_STRUCTURE_CHARS_PER_TURN = 20_000  # no chat template writes more around one message
# The sandbox stops neither nested loops nor huge texts. The time holds for the trial, for one conversation, and for all of
# a run together beyond what a message may take (published templates: under 1 ms).
RENDER_LIMIT_SECONDS = 10.0
RENDER_LIMIT_BYTES = 2**30
ALLOWED_SECONDS_PER_MESSAGE = 0.02
# What rendering a broken template raises: jinja's own, and whatever its expressions do.
TEMPLATE_ERRORS = (
    TemplateError, ValueError, TypeError, ArithmeticError, LookupError, AttributeError, RecursionError,
)  # fmt: skip
SAMPLE_LENGTHS = (1, 2, 3, 4, 8, 65)

# The placeholder of a message: its number between two private-use characters.
WORDS_MARK_RE = re.compile("\ue000([0-9]+)\ue001")


class ChatFormatError(ScriptError):
    """The tokenizer or its chat template cannot be used: `what is wrong; what to do`."""


def render_structure(tokenizer: Any, messages: Sequence[Mapping[str, str]], add_generation_prompt: bool) -> str:
    """Return what the template writes for `messages`, with a placeholder for the words of each; raise ChatFormatError."""
    template = tokenizer.chat_template
    if not isinstance(template, str) or len(template) > MAX_TEMPLATE_CHARS:
        raise ChatFormatError("the tokenizer has no single chat template of a usable size; choose another base model")
    _try_in_child(tokenizer, template)
    marked = _mark([message["role"] for message in messages])
    started_at = time.perf_counter()
    try:
        with _time_limit():
            try:
                rendered = _apply(tokenizer, marked, add_generation_prompt)
            except TemplateError:
                first = 1 if marked and marked[0]["role"] == "system" else 0
                if [message["role"] for message in marked[first : first + 1]] != ["assistant"]:
                    raise
                # Many templates demand that the user begins; an empty turn of the user keeps the reply.
                begun = [*marked[:first], {"role": "user", "content": ""}, *marked[first:]]
                rendered = _apply(tokenizer, begun, add_generation_prompt)
    except ChatFormatError:
        raise
    except TEMPLATE_ERRORS as error:
        reason = printable(" ".join(str(error).split())[:MAX_REASON_CHARS]) or type(error).__name__
        raise ChatFormatError(
            f"the chat template refuses a conversation ({reason}); choose another base model"
        ) from None
    _count_slow_seconds(template, time.perf_counter() - started_at, len(messages))
    if len(rendered) > MAX_STRUCTURE_CHARS_PER_TURN * (len(messages) + 2):
        raise ChatFormatError("the chat template writes too much around each message; choose another base model")
    return rendered


def _mark(roles: Sequence[str]) -> list[dict[str, str]]:
    """Return messages of these roles, with a placeholder for the words of each."""
    return [{"role": role, "content": f"\ue000{number}\ue001"} for number, role in enumerate(roles)]


def _apply(tokenizer: Any, messages: list[dict[str, str]], add_generation_prompt: bool) -> str:
    rendered: str = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=add_generation_prompt)
    return rendered


@lru_cache(maxsize=8)
def _try_in_child(tokenizer: Any, _template: str) -> None:
    """Render conversations of several lengths in a child process; raise ChatFormatError if it takes too long or dies.

    Only a process can be stopped within one call that builds a huge text. The child does nothing but render.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of fork beside threads, which the child never uses
        child_id = os.fork()
    if child_id == 0:
        _render_samples_and_exit(tokenizer)
    deadline = time.monotonic() + RENDER_LIMIT_SECONDS
    ended_id, status, pause_seconds = 0, 0, 0.001
    while not ended_id and time.monotonic() < deadline:
        ended_id, status = os.waitpid(child_id, os.WNOHANG)
        if not ended_id:
            time.sleep(pause_seconds)
            pause_seconds = min(0.05, 2 * pause_seconds)
    if not ended_id:
        os.kill(child_id, signal.SIGKILL)
        os.waitpid(child_id, 0)
        raise _too_slow()
    if status:
        raise ChatFormatError("the chat template needs too much memory; choose another base model")


def _render_samples_and_exit(tokenizer: Any) -> NoReturn:
    status = 1
    try:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
            signal.signal(number, signal.SIG_DFL)
        if sys.platform == "linux":  # elsewhere the system does not count what is only reserved
            in_use = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
            _soft, hard = resource.getrlimit(resource.RLIMIT_AS)  # a lower limit that is set already stays
            limit = in_use + RENDER_LIMIT_BYTES
            resource.setrlimit(
                resource.RLIMIT_AS, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard)
            )
        for length in SAMPLE_LENGTHS:
            roles = [("user", "assistant")[number % 2] for number in range(length)]
            with suppress(*TEMPLATE_ERRORS):
                _apply(tokenizer, _mark(roles), add_generation_prompt=roles[-1] == "user")
        status = 0
    finally:
        os._exit(status)  # without the parent's handlers and buffers


_slow_seconds: dict[str, float] = {}  # for each template, how long its slow renderings took so far


def _count_slow_seconds(template: str, seconds: float, num_messages: int) -> None:
    """Raise ChatFormatError once a template has been slow for too long in all."""
    too_slow_by = seconds - ALLOWED_SECONDS_PER_MESSAGE * (num_messages + 2)
    if too_slow_by <= 0:
        return
    total = _slow_seconds[template] = _slow_seconds.get(template, 0.0) + too_slow_by
    if total > RENDER_LIMIT_SECONDS:
        raise _too_slow()


def _too_slow() -> ChatFormatError:
    return ChatFormatError(
        f"the chat template takes more than {RENDER_LIMIT_SECONDS:.0f} seconds; choose another base model"
    )


@contextmanager
def _time_limit() -> Iterator[None]:
    """Raise ChatFormatError when the block takes too long (in the main thread only, where Python handles signals)."""

    def give_up(_signal_number: int, _frame: object) -> None:
        raise _too_slow()

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous_handler = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, RENDER_LIMIT_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous_handler)
