"""The lifespan of an app under test, and the hubs that end with its process. Knows nothing of connections."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from antiphon.app import App
from antiphon.hub import Hub
from antiphon.types import ASGIApp, Message


class Lifespan:
    """An app's lifespan (ASGI lifespan spec 2.0) in a task of its own. An app that has none is served without."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.state: dict[str, Any] = {}
        self._to_app: asyncio.Queue[Message] = asyncio.Queue()
        self._from_app: asyncio.Queue[Message] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    async def startup(self) -> None:
        self._task = asyncio.create_task(self._run())
        await self._exchange("startup")

    async def shutdown(self) -> None:
        assert self._task is not None
        if not self._task.done():
            await self._exchange("shutdown")
            await self._task

    async def _run(self) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        await self._app(scope, self._to_app.get, self._from_app.put)

    async def _exchange(self, what: str) -> None:
        assert self._task is not None
        self._to_app.put_nowait({"type": f"lifespan.{what}"})
        answer = asyncio.ensure_future(self._from_app.get())
        await asyncio.wait((answer, self._task), return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            answer.cancel()
            self._task.exception()  # it returned or raised without an answer: it has no lifespan (ASGI lifespan spec)
            return
        message = answer.result()
        if message["type"] == f"lifespan.{what}.failed":
            await asyncio.wait((self._task,))
            self._task.exception()
            raise RuntimeError(f"the app's {what} failed: {message.get('message', '')}")


async def empty_mounted_hubs(app: object) -> None:
    """Empty the in-memory hubs of mounted apps, as the end of a process does: they have no lifespan of their own."""
    for hub in {id(hub): hub for hub in _mounted_hubs(app, set())}.values():
        if hub.backend.in_process:
            await hub.stop()


def _mounted_hubs(app: object, seen: set[int]) -> Iterator[Hub]:
    if id(app) in seen:
        return
    seen.add(id(app))
    for route in getattr(app, "routes", None) or ():
        mounted = getattr(route, "app", None)
        if isinstance(mounted, App):
            yield mounted.hub
        yield from _mounted_hubs(mounted, seen)
