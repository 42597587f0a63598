"""What a connection keeps while nothing happens on it."""

from __future__ import annotations

import tracemalloc
from contextlib import AsyncExitStack
from pathlib import Path

import antiphon
from antiphon.wire.backend import NATIVE

from .raw import echo, opened, serving

CONNECTIONS = 50
KEPT = 2000 if NATIVE else 2450
OURS = [tracemalloc.Filter(True, str(Path(antiphon.__file__).parent / part / "*")) for part in ("server", "wire")]


async def test_an_idle_connection_keeps_two_kilobytes_of_ours_at_most() -> None:
    async with serving(echo) as served, AsyncExitStack() as clients:
        await clients.enter_async_context(opened(served.port))
        tracemalloc.start()
        try:
            for _ in range(CONNECTIONS):
                await clients.enter_async_context(opened(served.port))
            kept = tracemalloc.take_snapshot().filter_traces(OURS).statistics("lineno")
        finally:
            tracemalloc.stop()
    assert sum(line.size for line in kept) / CONNECTIONS <= KEPT, "\n".join(map(str, kept))
