"""Common parts of tests of faults: a bystander on the same server that nothing may disturb, and apps that sleep."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator
from typing import Any

import websockets

from antiphon.server import ServerConfig
from antiphon.server.backend import Pipe
from antiphon.types import CARRIER_EXTENSION
from tests.server.raw import echo, serving, until
from tests.serving import Served

BEFORE_ANY_DEFAULT = 15.0
"""Seconds: ends by a time that a test has set to less than one come before this, those of a default do not."""


@contextlib.asynccontextmanager
async def watched(app: Any, limits: ServerConfig, caplog: Any, **config: Any) -> AsyncGenerator[tuple[Served, Any]]:
    """A server with a bystander whose echo must go on; afterwards nothing is left and nothing was logged."""
    caplog.set_level(logging.INFO, "uvicorn.error")

    async def routed(scope: Any, receive: Any, send: Any) -> None:
        await (echo if scope["path"] == "/bystander" else app)(scope, receive, send)

    async with serving(routed, limits, lifespan="off", **config) as served:
        async with websockets.connect(f"{served}/bystander", compression=None) as bystander:
            beating = asyncio.create_task(_beat(bystander))
            yield served, bystander
            assert served.server is not None
            state = served.server.server_state
            await until(lambda: len(state.connections) <= 1 and len(state.tasks) <= 1)
            beating.cancel()
            assert await beating < 2.0
    assert "Traceback" not in caplog.text
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def _beat(client: Any) -> float:
    """Echo until cancelled. Returns the longest round trip, in time that this thread was busy. Client and server live
    in it, so the clock counts code that makes the bystander wait, and not the machine's other work."""
    slowest = 0.0
    with contextlib.suppress(asyncio.CancelledError):
        while True:
            started = time.thread_time()
            await client.send("beat")
            assert await client.recv() == "beat"
            slowest = max(slowest, time.thread_time() - started)
            await asyncio.sleep(0.01)
    return slowest


def sleeper(sessions: list[Pipe], go: asyncio.Event, seen: list[Any]) -> Any:
    """An app that reads nothing until it may, and then everything: `seen` gets the sizes and the close code."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        sessions.append(scope["extensions"][CARRIER_EXTENSION])
        await go.wait()
        while (message := await receive())["type"] == "websocket.receive":
            seen.append(len(message.get("text") or message["bytes"]))
        seen.append(message["code"])

    return app
