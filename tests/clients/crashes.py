"""A server that is killed and started again under traffic that does not stop, and a client's view of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Final

from antiphon import Hub
from tests.browser.cable import Cable
from tests.commands import ANTIPHON
from tests.redis_server import redis_server
from tests.serving import ServedProcess, serve_process

from .app import ROOMS
from .conftest import APP

KILLS: Final = 3


def serving(hub: str = "memory://") -> contextlib.AbstractAsyncContextManager[ServedProcess]:
    return serve_process(str(APP), command=(*ANTIPHON, "run"), env={"HUB": hub})


class Crashing:
    """A server behind an address that stays, and a publisher that goes on regardless of the server."""

    def __init__(self, cable: Cable, hub: Hub, url: str, stack: contextlib.AsyncExitStack) -> None:
        self.cable = cable
        self.url = f"ws://127.0.0.1:{cable.port}/rooms/x"
        self.published = 0
        self._hub = hub
        self._hub_url = url
        self._stack = stack
        self._server: ServedProcess | None = None
        self._going = True
        self._publishing = asyncio.create_task(self._publish())

    async def start(self) -> None:
        self._server = await self._stack.enter_async_context(serving(self._hub_url))
        self.cable.target = self._server.port

    async def kill(self) -> None:
        assert self._server is not None
        self._server.process.kill()
        await self._server.process.wait()

    async def stop(self) -> int:
        """How many were published, in all."""
        self._going = False
        await self._publishing
        return self.published

    async def _publish(self) -> None:
        while self._going:
            await self._hub.publish("room/x", {"n": self.published})
            self.published += 1
            await asyncio.sleep(0.002)

    async def go_through(self, received: Callable[[], Awaitable[int]]) -> int:
        """Kill it again and again, each time when some more have come. Returns how many were published.

        `received()` is the newest number that the client has, and one.
        """
        for _ in range(KILLS):
            await self._more(received)
            await self.kill()
            await self.start()
        await self._more(received)
        total = await self.stop()
        while await received() < total:  # noqa: ASYNC110  whoever is asked knows nothing of events here
            await asyncio.sleep(0.02)
        return total

    async def _more(self, received: Callable[[], Awaitable[int]]) -> None:
        enough = await received() + 50
        while await received() < enough:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def crashing() -> AsyncGenerator[Crashing]:
    with redis_server() as redis:
        async with (
            contextlib.AsyncExitStack() as stack,
            Cable(0) as cable,
            Hub(redis.url, topics={"room/*": ROOMS}) as hub,
        ):
            server = Crashing(cable, hub, redis.url, stack)
            await server.start()
            try:
                yield server
            finally:
                await server.stop()
