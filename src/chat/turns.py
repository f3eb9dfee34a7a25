"""A conversation as a list of messages `{"role", "content"}`: adding, taking back, swapping roles.

A reply may carry `"ids"`, the token ids it was generated as. Prompts are left to `live_conversation`.
"""

from __future__ import annotations

from typing import Any

Messages = list[dict[str, Any]]


def add_to_turn(messages: Messages, role: str, text: str) -> None:
    """Append `text` to `messages`, as a new line of the last message when that has the same role."""
    if messages and messages[-1]["role"] == role:
        text = f"{messages.pop()['content']}\n{text}"
    messages.append({"role": role, "content": text})


def take_back_reply(messages: Messages) -> bool:
    """Remove the last message if it is a reply; return whether it was."""
    if not messages or messages[-1]["role"] != "assistant":
        return False
    messages.pop()
    return True


def replace_reply(messages: Messages, text: str) -> None:
    """Put `text` in the place of the last message if it is a reply."""
    if take_back_reply(messages):
        messages.append({"role": "assistant", "content": text})


def take_back_turn(messages: Messages) -> bool:
    """Remove the user's last message and the reply to it; return whether anything was removed."""
    has_taken = take_back_reply(messages)
    if messages:
        messages.pop()
        has_taken = True
    return has_taken


def with_roles_swapped(messages: Messages) -> Messages:
    """Return `messages` with the two roles swapped; `"ids"` are left out, because they belong to a reply."""
    other = {"user": "assistant", "assistant": "user"}
    return [{"role": other[message["role"]], "content": message["content"]} for message in messages]
