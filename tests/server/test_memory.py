"""The memory of a connection: while nothing happens on it, and while its app never quite catches up."""

from __future__ import annotations

import asyncio
import tracemalloc
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import antiphon
from antiphon.server.backend import PURE_TWIN, Pipe, Twin
from antiphon.types import CARRIER_EXTENSION

from .raw import TEXT, echo, frame, opened, serving

CONNECTIONS = 50
OURS = [tracemalloc.Filter(True, str(Path(antiphon.__file__).parent / part / "*")) for part in ("server", "wire")]


async def test_an_idle_connection_keeps_two_and_a_quarter_kilobytes_of_ours_at_most(twin: Twin) -> None:
    async with serving(echo) as served, AsyncExitStack() as clients:
        await clients.enter_async_context(opened(served.port))
        tracemalloc.start()
        try:
            for _ in range(CONNECTIONS):
                await clients.enter_async_context(opened(served.port))
            kept = tracemalloc.take_snapshot().filter_traces(OURS).statistics("lineno")
        finally:
            tracemalloc.stop()
    bound = 3000 if twin is PURE_TWIN else 2250  # without allocations of uvicorn's own lines
    assert sum(line.size for line in kept) / CONNECTIONS <= bound, "\n".join(map(str, kept))


async def test_an_app_that_is_always_some_messages_behind_does_not_cost_more_with_each_of_them() -> None:
    grown: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        session: Pipe = scope["extensions"][CARRIER_EXTENSION]
        session.data_received(100 * frame(TEXT, b"x"))
        tracemalloc.start()
        try:
            for _ in range(500):
                session.data_received(100 * frame(TEXT, b"x"))
                for _ in range(100):
                    assert await session.read() == "x"
                await asyncio.sleep(0)
            grown.append(tracemalloc.get_traced_memory()[0])
        finally:
            tracemalloc.stop()

    async with serving(app, lifespan="off") as served:
        async with opened(served.port) as raw:
            await raw.ended()
    assert grown
    assert grown[0] < 100 << 10
