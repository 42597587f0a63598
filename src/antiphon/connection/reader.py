"""Reading from a plain ASGI server: one reader at a time, ahead of the application when somebody watches for the end.

A server tells of a disconnect only in answer to `receive`. As long as nobody asks, the reader hands the application's
`receive` straight through. From the first question on (`watch`), one task reads ahead, at most `limit` bytes, and the
application receives from there.

Knows nothing of states or senders; messages pass as the server gave them.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable

from antiphon.types import Message, Receive


class AsgiReader:
    """The receiving side of one connection. All methods are called in the connection's loop."""

    def __init__(self, receive: Receive, *, limit: int, on_disconnect: Callable[[Message], None]) -> None:
        self._receive = receive
        self._context = contextvars.copy_context()
        self._limit = limit
        self._on_disconnect = on_disconnect
        self._busy = False
        self._watched = False
        self._ready: deque[Message] = deque()
        self._ready_bytes = 0
        self._error: Exception | None = None
        self._reader: asyncio.Task[None] | None = None
        self._arrival: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None

    async def get(self) -> Message:
        """The next message. Raises RuntimeError when another task is waiting for one."""
        if self._busy:
            raise RuntimeError(
                "two tasks receive from one WebSocket at the same time: let one task receive and pass messages on"
            )
        self._busy = True
        try:
            if self._reader is None:
                message = await self._receive()
            else:
                message = await self._take()
        except BaseException:
            self._free()
            raise
        if message["type"] == "websocket.disconnect":
            self._busy = False
            self._on_disconnect(message)
        else:
            self._free()
        return message

    def _free(self) -> None:
        self._busy = False
        if self._watched and self._reader is None:
            self._begin()

    def watch(self) -> None:
        """Notice a disconnect from now on, whether or not the application receives.

        Reading ahead begins behind a `get` that is under way.
        """
        if not self._watched:
            self._watched = True
            if not self._busy:
                self._begin()

    def stop(self) -> None:
        """End the reader: the connection's task is over."""
        self._watched = False
        if self._reader is not None:
            self._reader.cancel()

    def _begin(self) -> None:
        loop = asyncio.get_running_loop()
        # In the connection's context, not the caller's: middleware around `receive` may rely on it.
        self._reader = loop.create_task(self._read(), name="antiphon.reader", context=self._context.copy())
        self._reader.add_done_callback(lambda _: _wake(self._arrival))

    async def _take(self) -> Message:
        while not self._ready:
            if self._reader is None or self._reader.done():
                raise self._error or ConnectionResetError("the server ended the connection without a message")
            self._arrival = asyncio.get_running_loop().create_future()
            await self._arrival
        message = self._ready.popleft()
        self._ready_bytes -= _size(message)
        _wake(self._room)
        return message

    async def _read(self) -> None:
        try:
            while True:
                while self._ready_bytes >= self._limit:
                    self._room = asyncio.get_running_loop().create_future()
                    await self._room
                message = await self._receive()
                self._ready.append(message)
                self._ready_bytes += _size(message)
                _wake(self._arrival)
                if message["type"] == "websocket.disconnect":
                    self._on_disconnect(message)
                    return
        except Exception as exc:
            self._error = exc
            self._on_disconnect({"type": "websocket.disconnect", "code": 1006})


def _size(message: Message) -> int:
    return len(message.get("text") or message.get("bytes") or b"") + 1


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
