"""Publishing in order: one batch of commands is under way at a time, what comes meanwhile is the next batch.

That keeps one process's publishes in their order whatever the pool does, and makes many at once cheap.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import ConnectionError, RedisError

from .redis_scripts import Command, call_all

MAX_BATCH: Final = 256
"""Commands per batch: enough to hide the round trip, few enough that others get their turn."""


class Publisher:
    """The queue in front of Redis. Lives in one loop."""

    def __init__(self, client: Redis) -> None:
        self._client = client
        self._queue: list[tuple[Command, asyncio.Future[Any]]] = []
        self._task: asyncio.Task[None] | None = None

    async def publish(self, command: Command) -> Any:
        """The command's reply. Raises RedisError."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._queue.append((command, future))
        if self._task is None:
            self._task = loop.create_task(self._work())
        return await future

    async def close(self) -> None:
        """What has not been answered fails."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _work(self) -> None:
        batch: list[tuple[Command, asyncio.Future[Any]]] = []
        try:
            while self._queue:
                batch, self._queue = self._queue[:MAX_BATCH], self._queue[MAX_BATCH:]
                # what nobody waits for any more has timed out before it left
                batch = [(command, future) for command, future in batch if not future.done()]
                await self._send(batch)
        finally:
            self._task = None
            for _, future in (*batch, *self._queue):
                if not future.done():
                    future.set_exception(ConnectionError("the redis backend is stopped"))
                    future.exception()
            self._queue.clear()

    async def _send(self, batch: list[tuple[Command, asyncio.Future[Any]]]) -> None:
        replies: list[Any]
        try:
            replies = await call_all(self._client, [command for command, _ in batch])
        except RedisError as error:
            replies = [error] * len(batch)
        for (_, future), reply in zip(batch, replies, strict=True):
            if future.done():
                continue
            if isinstance(reply, RedisError):
                future.set_exception(reply)
            else:
                future.set_result(reply)
