"""Apps for the tests that need a server in a process of its own."""

from __future__ import annotations

import asyncio
from typing import Any


async def app(scope: Any, receive: Any, send: Any) -> None:
    """`/flood` sends without end, `/deaf` ignores everything, anything else reads."""
    await receive()
    await send({"type": "websocket.accept"})
    if scope["path"] == "/flood":
        while True:
            await send({"type": "websocket.send", "bytes": b"x" * 65536})
            await asyncio.sleep(0.01)
    if scope["path"] == "/deaf":
        await asyncio.Event().wait()
    while (await receive())["type"] == "websocket.receive":
        pass
