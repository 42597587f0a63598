"""A server under a test's control: its messages to one connection after the other, before it closes with 1012."""

from __future__ import annotations

import json
from typing import Any

from websockets.asyncio.server import Server, ServerConnection
from websockets.asyncio.server import serve as serve_websockets


class Scripted:
    """A server under a test's control, which keeps the queries."""

    def __init__(self) -> None:
        self.queries: list[str] = []
        self.frames: list[list[dict[str, Any]]] = []
        self.server: Server | None = None

    async def __aenter__(self) -> Scripted:
        self.server = await serve_websockets(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self.server is not None
        self.server.close()
        await self.server.wait_closed()

    @property
    def url(self) -> str:
        assert self.server is not None
        return f"ws://127.0.0.1:{next(iter(self.server.sockets)).getsockname()[1]}/x"

    async def _serve(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        self.queries.append(connection.request.path.partition("?")[2])
        if not self.frames:
            await connection.wait_closed()
            return
        for frame in self.frames.pop(0):
            await connection.send(json.dumps(frame))
        await connection.close(1012)


def joined(offset: int, *, recovered: bool = False, epoch: str = "e", topic: str = "room/a") -> dict[str, Any]:
    return {"type": "joined", "topic": topic, "offset": offset, "epoch": epoch, "recovered": recovered}


def message(offset: int, *, epoch: str = "e", topic: str = "room/a", data: object = None) -> dict[str, Any]:
    return {"type": "message", "topic": topic, "offset": offset, "epoch": epoch, "data": data}


BEAT = {"type": "heartbeat"}

RESYNC = {"type": "resync", "topic": "room/a"}

RETURNS = {
    "in the middle of the history": ([joined(9), message(7), message(8)], "since=8-e"),
    "before any of the history": ([joined(9)], ""),
    "in a topic in which nothing was said": ([joined(9), BEAT], "since=9-e"),
    "after live messages": ([joined(9), message(10), message(12)], "since=12-e"),
    "after other topics": ([joined(3, topic="x"), joined(9), message(10)], "since=3-e"),
    "after a new epoch": ([joined(9), message(10), message(1, epoch="f")], "since=1-f"),
    "after a loss": ([joined(9), message(10), RESYNC, BEAT], "since=10-e"),
    "after a loss and a message behind it": ([joined(9), message(10), RESYNC, message(15)], ""),
    "after a loss of the history itself": ([joined(9), RESYNC, BEAT], ""),
    "after a loss that another topic had": (
        [joined(9), message(10), {**RESYNC, "topic": "x"}, message(15)],
        "since=15-e",
    ),
    "with a position that is none": ([{**joined(9), "offset": "9"}, {**joined(9), "epoch": "e" * 65}], ""),
}
