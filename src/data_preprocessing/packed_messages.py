"""Messages kept small in memory: an export that is read twice, and is not too large, is parsed once."""

from __future__ import annotations

import marshal
from collections.abc import Iterable, Iterator
from datetime import datetime

from whatsapp_export import Message

BYTES_OF_MESSAGE = 64  # its time, and where time and sender are
BLOCK_MESSAGES = 500
BLOCK_CHARS = 1_000_000

Block = tuple[tuple[datetime, ...], tuple[str | None, ...], bytes]  # times, senders and the packed texts


class PackedMessages:
    """Keeps the messages of one reading, in half the memory that the messages themselves would take."""

    def __init__(self, max_bytes: int) -> None:
        """Begin without a message."""
        self.is_complete = False  # until all messages were kept
        self.num_bytes = 0
        self._max_bytes = max_bytes
        self._blocks: list[Block] = []

    def keep(self, messages: Iterable[Message]) -> Iterator[Message]:
        """Yield `messages`, and keep them all, or none when they take more than `max_bytes`."""
        block: list[Message] = []
        num_chars = 0
        for message in messages:
            block.append(message)
            num_chars += len(message[2])
            if len(block) == BLOCK_MESSAGES or num_chars > BLOCK_CHARS:
                self._pack(block)
                block, num_chars = [], 0
            yield message
        self._pack(block)
        self.is_complete = self.num_bytes <= self._max_bytes

    def __iter__(self) -> Iterator[Message]:
        """Yield the messages once more."""
        for times, senders, texts in self._blocks:
            yield from map(Message._make, zip(times, senders, marshal.loads(texts), strict=True))

    def _pack(self, block: list[Message]) -> None:
        if not block or self.num_bytes > self._max_bytes:
            return
        times, senders, texts = zip(*block, strict=True)
        packed = marshal.dumps(texts)
        self.num_bytes += len(packed) + BYTES_OF_MESSAGE * len(block)
        self._blocks.append((times, senders, packed))
        if self.num_bytes > self._max_bytes:
            self._blocks.clear()
