"""The one connection on which a process hears from Redis: subscriptions out, messages in.

Knows channels, not topics, and nothing of histories. It is used once: a feed that broke is replaced by another.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError, RedisError, ResponseError

from .wire import Replies, Reply

log: Final = logging.getLogger("antiphon.hub.redis")

CHUNK: Final = 1 << 16
"""Bytes read at a time."""

MAX_CHANNELS: Final = 1000
"""Channels per SUBSCRIBE: more in one command would keep the server from everything else for too long."""


class Feed:
    """A subscribing connection. All methods in the thread of the loop that built it."""

    def __init__(
        self,
        connection: AbstractConnection,
        *,
        received: Callable[[bytes, bytes], None],
        batch_over: Callable[[], None],
        broken: Callable[[Feed], None],
    ) -> None:
        """`received(channel, data)` per message, `batch_over()` behind those that came together, `broken` once."""
        self._connection = connection
        self._received = received
        self._batch_over = batch_over
        self._broken = broken
        self._loop = asyncio.get_running_loop()
        self._outgoing: list[tuple[str, bytes, asyncio.Future[None] | None]] = []
        self._confirmations: deque[asyncio.Future[None] | None] = deque()
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._closed = False
        self._pinged: float | None = None
        self.refused: str = ""
        """The server's words, if it ended this: it takes no such command, or not of this user."""

    @property
    def closed(self) -> bool:
        """It broke, or was closed."""
        return self._closed

    async def connect(self) -> None:
        """Raises RedisError."""
        await self._connection.connect()  # type: ignore[no-untyped-call]
        self._tasks = [self._loop.create_task(self._run(part())) for part in (self._read, self._write)]

    async def subscribe(self, channels: Iterable[bytes]) -> None:
        """Return when the server has confirmed all. Raises RedisError (of the loss) or CancelledError."""
        futures = []
        for channel in channels:
            future: asyncio.Future[None] = self._loop.create_future()
            futures.append(future)
            self._send("SUBSCRIBE", channel, future)
        for future in futures:
            await future

    def unsubscribe(self, channel: bytes) -> None:
        self._send("UNSUBSCRIBE", channel, None)

    def check(self, patience: float) -> None:
        """Called now and then: ask for a sign of life, and give up on a server that has not given one in time."""
        if self._pinged is None:
            self._pinged = self._loop.time()
            self._send("PING", b"", None)
        elif self._loop.time() - self._pinged > patience:
            self.give_up()

    async def close(self) -> None:
        """Idempotent; does not call `broken`."""
        self._closed = True
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._fail()
        await self._connection.disconnect(nowait=True)

    def _send(self, command: str, channel: bytes, future: asyncio.Future[None] | None) -> None:
        if self._closed:
            if future is not None:
                future.set_exception(_lost(self.refused))
                future.exception()  # an awaiting caller gets it; nobody awaits a forgotten one
            return
        self._outgoing.append((command, channel, future))
        self._wake.set()

    async def _run(self, part: Any) -> None:
        try:
            await part
        except (RedisError, OSError) as error:
            if isinstance(error, ResponseError):
                self.refused = str(error)
            self.give_up()

    def give_up(self) -> None:
        """Break: this server is of no use."""
        if self._closed:
            return
        self._closed = True
        for task in self._tasks:
            if task is not asyncio.current_task(self._loop):
                task.cancel()
        self._fail()
        self._broken(self)

    def _fail(self) -> None:
        waiting = [*self._confirmations, *(future for _, _, future in self._outgoing)]
        self._confirmations.clear()
        self._outgoing.clear()
        for future in waiting:
            if future is not None and not future.done():
                future.set_exception(_lost(self.refused))
                future.exception()

    async def _write(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            outgoing, self._outgoing = self._outgoing, []
            start = 0
            while start < len(outgoing):
                command = outgoing[start][0]
                end = start + 1
                while end < len(outgoing) and outgoing[end][0] == command and end - start < MAX_CHANNELS:
                    end += 1
                part = outgoing[start:end]
                start = end
                if command == "SUBSCRIBE":
                    self._confirmations.extend(future for _, _, future in part)
                words = [channel for _, channel, _ in part if channel]
                await self._connection.send_command(command, *words, check_health=False)

    async def _read(self) -> None:
        """The bytes of one read are one batch. This bypasses redis-py's own reading, which takes each message through
        several coroutines (benchmarks: fanout-64 on antiphon-hub-redis)."""
        stream, replies = self._connection._reader, Replies()
        assert stream is not None
        while data := await stream.read(CHUNK):
            for message in replies.feed(data):
                self._handle(message)
            self._batch_over()
        raise _lost()

    def _handle(self, message: Reply) -> None:
        if isinstance(message, RedisError):
            raise message
        kind = message[0] if isinstance(message, list) else None
        if kind == b"message":
            try:
                self._received(message[1], message[2])
            except Exception:
                # Anybody may publish anything to our channels; the messages behind it are still to be heard.
                log.warning("a malformed message came over channel %r", message[1], exc_info=True)
        elif kind == b"subscribe":
            future = self._confirmations.popleft()
            if future is not None and not future.done():
                future.set_result(None)
        elif kind == b"pong":
            self._pinged = None


def _lost(refused: str = "") -> RedisError:
    return ConnectionError(f"the subscribing connection was lost{refused and f': {refused}'}")
