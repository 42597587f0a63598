"""The protocol between workers and the relay process: one frame is a length and a marshalled tuple.

Pure, no I/O. `marshal`, because both ends are processes of one user on one host, have proved to know a key (trust.py),
and run the same interpreter. One C call per frame is all the codec a fast path wants. It is unsafe for untrusted peers,
and none can send here.
"""

from __future__ import annotations

import marshal
import struct
from typing import Any, Final, TypeAlias

from ...records import Entry, Page, Position
from ..unfinished import Unfinished

MAX_REQUEST: Final = 64 << 20
"""Bytes of one request. Larger ones can only be damage, or a payload no WebSocket would take."""

FORMAT: Final = 2
"""The last version of marshal without back references: nothing here repeats, and looking for repetitions costs."""

Words: TypeAlias = tuple[Any, ...]

_LENGTH = struct.Struct(">I")


class Op:
    """First word of a frame. Plain numbers, no enum: marshal takes exact types only."""

    # worker to relay: (op, request number, ...)
    HELLO = 1
    PUBLISH = 2
    SUBSCRIBE = 3
    UNSUBSCRIBE = 4
    HISTORY = 5
    TRACK = 6
    UNTRACK = 7
    PRESENCE = 8
    CONTROL = 9
    RENEW = 10
    GOODBYE = 11
    STATS = 12
    COUNT = 13
    PUT = 14
    TAKE = 15
    CLAIM = 16
    RELEASE = 17
    NOTE = 18
    NOTED = 19
    # relay to worker
    REPLY = 32
    FAILED = 33
    ENTRY = 34
    CHANGE = 35
    CONTROLLED = 36
    FORGOTTEN = 37


class DamagedStream(Exception):
    """A frame that none of ours can have sent."""


def frame(*words: Any) -> bytes:
    """One frame. Words are None, int, float, str, bytes, and plain tuples or dicts of them."""
    body = marshal.dumps(words, FORMAT)
    return _LENGTH.pack(len(body)) + body


class Splitter:
    """Cuts a byte stream into frames."""

    __slots__ = ("_limit", "_unfinished")

    def __init__(self, limit: int = (1 << 32) - 1) -> None:
        self._limit = limit
        self._unfinished = Unfinished()

    def feed(self, data: bytes) -> list[Words]:
        """The frames that are complete now. Raises DamagedStream."""
        data = self._unfinished.joined(data)
        found = []
        view = memoryview(data)
        start, size = 0, len(data)
        wanted = 4
        while size - start >= 4:
            length = _LENGTH.unpack_from(data, start)[0]
            if length > self._limit:
                raise DamagedStream(f"a frame of {length} bytes; at most {self._limit} are taken")
            end = start + 4 + length
            if end > size:
                wanted = 4 + length
                break
            found.append(_words(view[start + 4 : end]))
            start = end
        if start < size:
            self._unfinished.keep(view[start:], wanted)
        return found


def _words(body: memoryview) -> Words:
    try:
        words = marshal.loads(body)
    except (EOFError, ValueError, TypeError) as error:
        raise DamagedStream(f"a frame that is not marshalled: {error}") from error
    if not isinstance(words, tuple) or not words:
        raise DamagedStream(f"expected a tuple of words, got {type(words).__name__}")
    return words


def pack_page(page: Page) -> Words:
    return (
        tuple((entry.data, None if entry.position is None else entry.position.offset) for entry in page.entries),
        tuple(page.position),
        page.recovered,
        page.rest,
    )


def unpack_page(words: Words) -> Page:
    entries, (offset, epoch), recovered, rest = words
    made = tuple(Entry(data, None if number is None else Position(number, epoch)) for data, number in entries)
    return Page(made, Position(offset, epoch), recovered, rest)


def native_address(address: str) -> str:
    """As the socket module wants it: `@name` is an abstract one (Linux), anything else a path."""
    return "\0" + address[1:] if address.startswith("@") else address
