"""Commands in their order: one batch is under way at a time, and commands that come meanwhile are the next batch.

Over a pool, commands overtake each other, above all those still on their way after their sender gave up: a member that
has left would be back. A batch also makes many commands cheap.
"""

from __future__ import annotations

import asyncio
import copy
from typing import Any, Final, TypeAlias

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError, NoScriptError, RedisError

from .scripts import LOADS, NotSent
from .wire import Command, Replies, Reply, pack

CHUNK: Final = 1 << 16
"""Bytes read at a time."""

MAX_BATCH: Final = 256
"""Commands per batch: enough to hide the round trip, few enough that others get their turn."""

_Waiting: TypeAlias = tuple[Command, "asyncio.Future[Any]"]


class Pipeline:
    """The queue in front of one connection of its own. Lives in one loop."""

    def __init__(self, connection: AbstractConnection, timeout: float, *, repeatable: bool) -> None:
        """`timeout`: seconds after which a batch without an answer has failed.

        `repeatable`: its commands may be done twice. Then a batch whose connection breaks is sent again, once.
        """
        self._connection = connection
        self._repeatable = repeatable
        self._timeout = timeout
        self._replies = Replies()
        self._queue: list[_Waiting] = []
        self._task: asyncio.Task[None] | None = None

    async def call(self, command: Command) -> Any:
        """The command's reply. Raises RedisError or TimeoutError."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._queue.append((command, future))
        if self._task is None:
            self._task = loop.create_task(self._work())
        return await future

    async def check(self) -> None:
        """Called now and then: a connection that has gone without a word is found before it is needed.

        Raises RedisError, TimeoutError.
        """
        if self._connection.is_connected and self._task is None:
            await self.call(("PING",))

    async def disconnect(self) -> None:
        """Commands under way fail. The next call connects again."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        await self._connection.disconnect(nowait=True)

    async def _work(self) -> None:
        batch: list[_Waiting] = []
        try:
            while self._queue:
                # a future that is done already was cancelled before its command left
                batch = [waiting for waiting in self._queue[:MAX_BATCH] if not waiting[1].done()]
                del self._queue[:MAX_BATCH]
                await self._send(batch)
        finally:
            if self._task is asyncio.current_task():
                self._task = None
            _fail(batch, ConnectionError("the connection to redis was given up"))
            if self._task is None:
                _fail(self._queue, NotSent("the connection to redis was given up"))
                self._queue.clear()

    async def _send(self, batch: list[_Waiting]) -> None:
        commands = [command for command, _ in batch]
        try:
            async with asyncio.timeout(self._timeout):
                replies = await self._replies_to(commands)
        except (RedisError, OSError, TimeoutError) as error:
            await self._connection.disconnect(nowait=True)
            known = isinstance(error, (RedisError, TimeoutError))
            _fail(batch, error if known else ConnectionError(str(error)))
        except asyncio.CancelledError:
            await self._connection.disconnect(nowait=True)  # else the next batch would read the replies to this one
            raise
        else:
            _resolve(batch, replies)

    async def _replies_to(self, commands: list[Command]) -> list[Reply]:
        try:
            return await self._exchange_known(commands)
        except (ConnectionError, OSError) as error:
            if not self._repeatable or isinstance(error, NotSent):
                raise
            await self._connection.disconnect(nowait=True)
            return await self._exchange_known(commands)

    async def _exchange_known(self, commands: list[Command]) -> list[Reply]:
        replies = await self._exchange(commands)
        unknown = [index for index, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if unknown:
            await self._exchange(list(LOADS))
            again = await self._exchange([commands[index] for index in unknown])
            for index, reply in zip(unknown, again, strict=True):
                replies[index] = reply
        return replies

    async def _exchange(self, commands: list[Command]) -> list[Reply]:
        connection = self._connection
        if connection.is_connected and self._ended():
            await connection.disconnect(nowait=True)
        if not connection.is_connected:
            await self._connect()
        await connection.send_packed_command([pack(command) for command in commands], check_health=False)
        stream = connection._reader
        if stream is None:
            raise ConnectionError("the connection to redis was given up")
        replies: list[Reply] = []
        while len(replies) < len(commands):
            data = await stream.read(CHUNK)
            if not data:
                raise ConnectionError("redis closed the connection")
            replies += self._replies.feed(data)
        return replies

    def _ended(self) -> bool:
        """The server closed it while it was idle; redis-py finds out when it reads."""
        stream = self._connection._reader
        return stream is None or stream.at_eof() or stream.exception() is not None

    async def _connect(self) -> None:
        self._replies = Replies()
        try:
            await self._connection.connect()  # type: ignore[no-untyped-call]
        except RedisError as error:
            raise NotSent(str(error)) from error


def _fail(batch: list[_Waiting], error: Exception) -> None:
    """One error, raised by many, would collect the traces of all of them: each gets its own."""
    _resolve(batch, [copy.copy(error) for _ in batch])


def _resolve(batch: list[_Waiting], replies: list[Any]) -> None:
    for (_, future), reply in zip(batch, replies, strict=True):
        if future.done():
            continue
        if isinstance(reply, Exception):
            future.set_exception(reply)
            future.exception()  # an awaiting caller gets it; nobody awaits a forgotten one
        else:
            future.set_result(reply)
