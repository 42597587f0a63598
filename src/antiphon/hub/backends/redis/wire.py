"""Redis's own protocol (RESP 2), for the two connections that carry messages. Pure, no I/O.

redis-py makes connections (TLS, passwords, names) and serves rare commands. It reads each reply by itself through
several coroutines. Here all replies of one read are split at once, at a tenth of the cost.
"""

from __future__ import annotations

import struct
from typing import Any, Final, TypeAlias

from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    InvalidResponse,
    MasterDownError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

from ...records import Entry, Page, Position
from ..unfinished import Unfinished

_ENTRY_HEAD: Final = struct.Struct(">dd")

Word: TypeAlias = str | bytes | int | float
Command: TypeAlias = tuple[Word, ...]
Reply: TypeAlias = Any
"""bytes, int, None, a list of replies, or a RedisError that the server answered with."""

_ERRORS: Final[dict[str, type[RedisError]]] = {
    "NOSCRIPT": NoScriptError,
    "LOADING": BusyLoadingError,
    "READONLY": ReadOnlyError,
    "MASTERDOWN": MasterDownError,
    "NOAUTH": AuthenticationError,
    "OOM": OutOfMemoryError,
}
"""As redis-py names them, for those that mean something to us."""

_BULK, _ARRAY, _NUMBER, _SIMPLE, _ERROR = b"$*:+-"


def pack(command: Command) -> bytes:
    """A command as the server reads it."""
    parts = [b"*%d\r\n" % len(command)]
    for word in command:
        data = word if isinstance(word, bytes) else str(word).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(parts)


class _Incomplete(Exception):
    """The reply ends behind this many bytes, or later."""

    def __init__(self, wanted: int) -> None:
        super().__init__()
        self.wanted = wanted


class Replies:
    """Cuts a byte stream into replies."""

    __slots__ = ("_unfinished",)

    def __init__(self) -> None:
        self._unfinished = Unfinished()

    def feed(self, data: bytes) -> list[Reply]:
        """The replies that are complete now. Raises InvalidResponse."""
        data = self._unfinished.joined(data)
        found = []
        at, size = 0, len(data)
        while at < size:
            try:
                reply, end = _parse(data, at)
            except _Incomplete as error:
                self._unfinished.keep(data[at:] if at else data, error.wanted - at)
                break
            found.append(reply)
            at = end
        return found


def _parse(data: bytes, at: int) -> tuple[Reply, int]:
    """One reply and where the next begins."""
    end = data.find(b"\r\n", at)
    if end < 0:
        raise _Incomplete(len(data) + 1)
    kind = data[at]
    if kind == _BULK:
        start = end + 2
        stop = start + int(data[at + 1 : end])
        if stop < start:
            return None, start
        if len(data) < stop + 2:
            raise _Incomplete(stop + 2)
        return data[start:stop], stop + 2
    if kind == _ARRAY:
        count, next_at = int(data[at + 1 : end]), end + 2
        items = []
        for _ in range(count):
            item, next_at = _parse(data, next_at)
            items.append(item)
        return (None if count < 0 else items), next_at
    if kind == _NUMBER:
        return int(data[at + 1 : end]), end + 2
    if kind == _SIMPLE:
        return data[at + 1 : end], end + 2
    if kind == _ERROR:
        return _error(data[at + 1 : end].decode(errors="replace")), end + 2
    raise InvalidResponse(f"expected a reply, got {data[at : at + 20]!r}")


def _error(text: str) -> RedisError:
    word, _, rest = text.partition(" ")
    return _ERRORS.get(word, ResponseError)(rest if word == "ERR" else text)


def page_of(raw: list[bytes], position: Position, recovered: bool, rest: int) -> Page:
    """The result of history.lua, as the hub's record."""
    entries = []
    for each in raw:
        offset, _ = _ENTRY_HEAD.unpack_from(each)
        entries.append(Entry(each[_ENTRY_HEAD.size :], Position(int(offset), position.epoch)))
    return Page(tuple(entries), position, recovered, rest)
