"""A conversation as a list of messages `{"role", "content"}`: adding, taking back, changing seats.

A reply may carry `"ids"`, the token ids it was generated as. It leaves what a model makes of them to
`live_conversation`.
"""

from __future__ import annotations

from typing import Any

Messages = list[dict[str, Any]]


def add_to_turn(messages: Messages, role: str, text: str) -> None:
    """Append `text` to `messages`: as a new line of the last turn when that is the same role's."""
    if messages and messages[-1]["role"] == role:
        text = f"{messages.pop()['content']}\n{text}"
    messages.append({"role": role, "content": text})


def take_back_reply(messages: Messages) -> bool:
    """Remove the last message when it is a reply; return whether it was."""
    if not messages or messages[-1]["role"] != "assistant":
        return False
    messages.pop()
    return True


def take_back_turn(messages: Messages) -> bool:
    """Remove the last message of the user and the reply to it; return whether there was something to remove."""
    has_taken = take_back_reply(messages)
    if messages:
        messages.pop()
        has_taken = True
    return has_taken


def with_roles_swapped(messages: Messages) -> Messages:
    """Return `messages` with each of them the other role's; `"ids"` go, since they are of a reply's place."""
    other = {"user": "assistant", "assistant": "user"}
    return [{"role": other[message["role"]], "content": message["content"]} for message in messages]
