"""Conversation -> pieces of token ids that fit the model's limit; no reply is ever lost.

A conversation that is too long is cut between exchanges (what was said and the reply to it); each piece but the first
opens with the end of the one before, as context on which no loss is taken.
It leaves the template to `chat_format` and filling rows to `packing`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from common.chat_format import EncodedConversation

Encode = Callable[[list[dict[str, str]]], EncodedConversation]

HISTORY_SHARE = 0.25  # of the limit: enough to know what the talk is about, little enough to waste no quarter more


@dataclass(frozen=True)
class Piece:
    """Token ids that are read together. The lists are equally long."""

    input_ids: list[int]
    is_supervised: list[bool]
    num_reply_chars: int  # characters of the replies in it: losses are told per character


def cut_into_pieces(
    encode: Encode, messages: list[dict[str, str]], max_length: int, is_cut_turn: Callable[[], None] = lambda: None
) -> list[Piece]:
    """Encode a conversation and cut it into pieces of at most `max_length` tokens.

    Every supervised token is supervised in exactly one piece. `is_cut_turn` is called when an exchange is so long
    that it had to be cut inside.
    """
    whole = encode(messages)
    if len(whole.input_ids) <= max_length:
        return [_as_piece(whole, messages)]
    borders = [0, *(whole.turn_ends[number] for number in _last_turns(messages))]
    exchange_tokens = [end - start for start, end in zip(borders, borders[1:], strict=False)]
    first_messages = [0, *(number + 1 for number in _last_turns(messages))]
    pieces: list[Piece] = []
    new = 0
    while new < len(exchange_tokens):
        first, end = _choose_window(exchange_tokens, new, max_length)
        window = messages[first_messages[first] : first_messages[end]]
        encoded = encode(window)
        num_old = first_messages[new] - first_messages[first]
        start = encoded.turn_ends[num_old - 1] if num_old else 0
        piece = _as_piece(encoded, window[num_old:])
        piece = replace(piece, is_supervised=[False] * start + piece.is_supervised[start:])
        if len(piece.input_ids) > max_length:
            is_cut_turn()
        pieces.extend(_cut_inside(piece, max_length))
        new = end
    return pieces


def _last_turns(messages: Sequence[dict[str, str]]) -> list[int]:
    """Return the numbers of the messages that end an exchange: the replies."""
    return [number for number, message in enumerate(messages) if message["role"] == "assistant"]


def _as_piece(encoded: EncodedConversation, messages: Sequence[dict[str, str]]) -> Piece:
    num_chars = sum(len(message["content"]) for message in messages if message["role"] == "assistant")
    return Piece(encoded.input_ids, encoded.is_supervised, num_chars)


def _choose_window(exchange_tokens: list[int], new: int, max_length: int) -> tuple[int, int]:
    """Return the first exchange (of the history) and the end of a window whose first new exchange is `new`."""
    first = new
    while first > 0 and sum(exchange_tokens[first - 1 : new]) <= HISTORY_SHARE * max_length:
        first -= 1
    while first < new and sum(exchange_tokens[first : new + 1]) > max_length:
        first += 1
    end = new + 1
    while end < len(exchange_tokens) and sum(exchange_tokens[first : end + 1]) <= max_length:
        end += 1
    return first, end


def _cut_inside(piece: Piece, max_length: int) -> list[Piece]:
    """Cut a piece that holds one overlong exchange: each part sees as much of what went before as fits."""
    pieces: list[Piece] = []
    supervised = [place for place, is_supervised in enumerate(piece.is_supervised) if is_supervised]
    length = len(piece.input_ids)
    if length <= max_length:
        return [piece]
    done = 0
    while supervised and supervised[-1] >= done:
        next_place = next(place for place in supervised if place >= done)
        end = min(length, next_place + int((1 - HISTORY_SHARE) * max_length))
        start = max(0, end - max_length)
        # The first token (where there is one, the mark that opens a text) stays first.
        ids = piece.input_ids[:1] + piece.input_ids[start + 1 : end]
        mask = [False] + [piece.is_supervised[place] and place >= done for place in range(start + 1, end)]
        pieces.append(Piece(ids, mask, 0))
        done = end
    pieces[-1] = replace(pieces[-1], num_reply_chars=piece.num_reply_chars)
    return pieces
