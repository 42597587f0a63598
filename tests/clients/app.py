"""The server that the clients' tests talk to: rooms of the hub, and by hand the wire of channels.

In a process of its own, so that it can be killed. `HUB` names the backend.
"""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

from antiphon import App, Hub, Position, Response, TopicOptions, WebSocket
from antiphon.clients import javascript
from antiphon.hub import Framing

ROOMS = TopicOptions(history=10_000, presence=True, framing=Framing.EVENT)
SHORT = TopicOptions(history=3, framing=Framing.EVENT)
app: App = App(hub=Hub(os.environ.get("HUB", "memory://"), heartbeat=1, topics={"room/*": ROOMS, "short/*": SHORT}))
app.add_route("/antiphon.js", javascript)


@app.get("/")
async def page() -> Response:
    return Response("<!doctype html><title>a page</title>", media_type="text/html")


@app.websocket("/rooms/{room}")
async def rooms(websocket: WebSocket, hub: Hub, room: str, since: Position | None = None, history: int = 0) -> None:
    await websocket.accept()
    async with hub.join(f"room/{room}", websocket, since=since, history=history):
        async for message in websocket.iter_json():
            await hub.publish(f"room/{room}", message)


@app.websocket("/short/{room}")
async def short(websocket: WebSocket, hub: Hub, room: str, since: Position | None = None) -> None:
    await websocket.accept()
    async with hub.join(f"short/{room}", websocket, since=since, history=3):
        await websocket.wait_closed()


@app.websocket("/closes/{code}")
async def closes(websocket: WebSocket, code: int, reason: str = "") -> None:
    await websocket.accept()
    await websocket.close(code, reason)


seen: list[str | None] = []


@app.websocket("/token")
async def token(websocket: WebSocket, token: str | None = None) -> None:
    seen.append(token or websocket.headers.get("authorization"))
    await websocket.accept()
    await websocket.send_json({"type": "tokens", "seen": seen})
    await websocket.receive()
    await websocket.close(1012)


@app.websocket("/says")
async def says(websocket: WebSocket) -> None:
    """Sends whatever it is told to, as it is: a hostile server."""
    await websocket.accept()
    async for message in websocket.iter_json():
        for frame in message["frames"]:
            await websocket.send_text(frame)
        if "bytes" in message:
            await websocket.send_bytes(bytes(message["bytes"]))


class Talk:
    """The wire of a channel, by hand."""

    def __init__(self, websocket: WebSocket) -> None:
        self.websocket = websocket
        self.streams: dict[Any, asyncio.Task[None]] = {}
        self.got: list[Any] = []
        self.over = 0

    async def run(self) -> None:
        await self.websocket.accept()
        try:
            async for text in self.websocket.iter_text():
                await self.handle(json.loads(text))
        finally:
            for task in self.streams.values():
                task.cancel()

    async def handle(self, message: dict[str, Any]) -> None:
        ref = message.get("ref")
        self.got.append(message)
        match message["type"]:
            case "say":
                await self.send({"type": "said", "text": message["text"]})
                await self.reply(ref, len(message["text"]))
            case "fail":
                error = {"code": "muted", "message": "be quiet", "detail": {"seconds": 30}}
                await self.send({"type": "error", "ref": ref, **error})
            case "got":
                await self.reply(ref, {"messages": self.got, "over": self.over})
            case "bye":
                await self.websocket.close(message["code"])
            case "search":
                self.streams[ref] = asyncio.create_task(self.stream(ref, message["count"], message.get("size", 0)))
            case "cancel" if task := self.streams.pop(ref, None):
                task.cancel()
            case _:  # "silence"
                pass

    async def stream(self, ref: Any, count: int, size: int) -> None:
        try:
            for number in range(count):
                await self.send({"type": "item", "ref": ref, "data": {"n": number, "pad": "x" * size}})
                await asyncio.sleep(0)
        finally:
            self.over += 1
            self.streams.pop(ref, None)
        await self.send({"type": "end", "ref": ref})

    async def reply(self, ref: Any, data: Any) -> None:
        if ref is not None:
            await self.send({"type": "reply", "ref": ref, "data": data})

    async def send(self, message: dict[str, Any]) -> None:
        await self.websocket.send_json(message)


@app.websocket("/talk")
async def talk(websocket: WebSocket) -> None:
    await Talk(websocket).run()
