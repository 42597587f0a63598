"""Thousands of handshakes of revoked users leave nothing behind: no memory, no task, no file, no guest."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import time
from typing import Annotated

import pytest

from antiphon import App, Denials, Depends, Hub, WebSocket
from antiphon.gate import QUERY, Identity, WebSocketBearer
from antiphon.testing.hub_sinks import eventually
from tests.server.raw import request
from tests.serving import Served, serve

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="counts the process's files in /proc")

MANY = 2_500
WARM = 700
AT_ONCE = 50
BLOCKS = 1_000
"""Objects that come and go with caches. One object left behind for each handshake would be 1 800."""


async def verify(token: str) -> Identity:
    return Identity(user=token, issued_at=1.0)


bearer = WebSocketBearer([QUERY("token")], verify)


def application(hub: Hub) -> App:
    app = App(hub=hub)

    @app.websocket("/http")
    @app.websocket("/close", denials=Denials.CLOSE)
    async def enter(websocket: WebSocket, identity: Annotated[Identity, Depends(bearer)]) -> None:
        await websocket.accept()

    return app


async def knock(served: Served, path: str) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(request(path))
    answer = await reader.readuntil(b"\r\n\r\n")
    if answer.startswith(b"HTTP/1.1 101"):
        answer += await reader.readuntil(b"revoked")
    writer.transport.abort()
    return answer


async def storm(served: Served, count: int) -> None:
    left = iter(range(count))

    async def some() -> None:
        for number in left:
            answer = await knock(served, f"/http?token=ann{number % 100}")
            assert answer.startswith(b"HTTP/1.1 401"), answer
            answer = await knock(served, f"/close?token=ann{number % 100}")
            assert answer.startswith(b"HTTP/1.1 101"), answer
            assert b"\x0b\xb8" in answer, answer  # Close 3000

    await asyncio.gather(*(some() for _ in range(AT_ONCE)))


def standing() -> tuple[int, int, int]:
    gc.collect()
    return sys.getallocatedblocks(), len(asyncio.all_tasks()), len(os.listdir("/proc/self/fd"))


async def test_handshakes_of_who_was_revoked_leave_nothing_behind(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("WARNING", "antiphon")  # pytest keeps every line of a log
    hub = Hub()
    async with serve(application(hub), ws="antiphon.server:WebSocketProtocol") as served:
        for number in range(100):
            await hub.revoke(user=f"ann{number}", issued_before=time.time())
        await storm(served, WARM // 2)
        await eventually(lambda: not hub._rooms.stations)
        blocks, tasks, files = standing()
        await storm(served, (MANY - WARM) // 2)
        await eventually(lambda: not hub._rooms.stations)
        # the last of the first storm may not have gone yet when they were counted: there can be fewer now, and not more
        await eventually(lambda: all(now <= before for now, before in zip(standing()[1:], (tasks, files), strict=True)))
        assert standing()[0] < blocks + BLOCKS
