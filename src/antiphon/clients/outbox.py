"""A client's unsent messages, in order. Part of `runtime_py()`."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from .waiting import Pending, ToSend

MOST_TO_SEND: Final = 1 << 20
"""Characters: above it `send` waits for room, or fails where there is no connection."""


class Outbox:
    """Messages that wait to go out. `limit`: how many may wait while there is no connection. `made_room` is called
    whenever there is room again."""

    def __init__(self, limit: int, made_room: Callable[[], None]) -> None:
        self._limit = limit
        self._made_room = made_room
        self._messages: deque[ToSend] = deque()
        self._size = 0
        self._sendable = asyncio.Event()

    def put(self, message: ToSend, *, is_connected: bool) -> bool:
        """False: it neither goes out nor waits."""
        if self._size + len(message.data) > max(MOST_TO_SEND, len(message.data)):
            return False
        if not is_connected and (not message.waits or len(self._messages) >= self._limit):
            return False
        self._messages.append(message)
        self._size += len(message.data)
        self._sendable.set()
        return True

    def put_first(self, message: ToSend) -> None:
        """All waiting messages go out behind it, however many they are."""
        self._messages.appendleft(message)
        self._size += len(message.data)
        self._sendable.set()

    async def write(self, connection: ClientConnection) -> None:
        """Send the waiting and the coming messages, for as long as this connection lasts."""
        self._sendable.set()
        with contextlib.suppress(ConnectionClosed):
            while True:
                while self._messages:
                    message = self._messages.popleft()
                    self._size -= len(message.data)
                    self._made_room()
                    if message.pending is not None:
                        message.pending.sent = time.monotonic()
                    await connection.send(message.data)
                self._sendable.clear()
                await self._sendable.wait()

    def keep_what_waits(self) -> set[Any]:
        """The connection is gone: drop messages that do not wait for another. Returns the refs of the requests that
        do."""
        kept = [message for message in self._messages if message.waits]
        self._messages = deque(kept)
        self._size = sum(len(message.data) for message in kept)
        return {message.pending.ref for message in kept if message.pending is not None}

    def remove(self, pending: Pending) -> None:
        """The request need not go out any more."""
        for message in [one for one in self._messages if one.pending is pending]:
            self._messages.remove(message)
            self._size -= len(message.data)

    def clear(self) -> None:
        """Nothing goes out any more."""
        self._messages.clear()
        self._size = 0
