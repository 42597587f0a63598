"""The server that the clients' tests talk to: rooms of the hub, and by hand the wire of channels.

In a process of its own, so that it can be killed. `HUB` names the backend.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any

from antiphon import (
    App,
    ChannelOptions,
    Depends,
    HTTPException,
    Hub,
    Position,
    Response,
    TopicOptions,
    WebSocket,
    WebSocketException,
)
from antiphon.clients import javascript
from antiphon.gate import Identity, admit
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
    """Sends every frame of a message, as it is: a hostile server."""
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


# --- tokens ----------------------------------------------------------------------------------------------------------


async def verify(token: str) -> Identity:
    """`ann-5` is ann's for five seconds."""
    user, _, seconds = token.partition("-")
    if not seconds:
        raise HTTPException(401, "this token is not good")
    return Identity(user=user, expires_at=time.time() + float(seconds), claims={"token": token})


class Bearer:
    """Takes a token from every place where a client may put it. A bad one is refused after accept, so that a page hears
    of it."""

    def __init__(self) -> None:
        self.verify = verify

    async def __call__(self, websocket: WebSocket, token: str | None = None) -> Identity:
        offered = websocket.scope["subprotocols"]
        header = websocket.headers.get("authorization", "").removeprefix("Bearer ")
        bearer = offered[0] if offered[:1] == ["bearer"] else None
        await websocket.accept(bearer)
        came = f"query {token}" if token else f"subprotocol {offered[1]}" if bearer else f"header {header}"
        if came == "header ":
            message = await websocket.receive_json()
            assert message.keys() == {"type", "token"}
            came = f"{message['type']} {message['token']}"
        websocket.state.came = [came]
        try:
            return await admit(websocket, await verify(came.partition(" ")[2]), verify)
        except HTTPException as refused:
            raise WebSocketException(3000, refused.detail) from None


bearer = Bearer()


@app.channel("/account", options=ChannelOptions(auth_expiring=10))
async def account(websocket: WebSocket, identity: Annotated[Identity, Depends(bearer)]) -> AsyncIterator[None]:
    yield


@account.on("came")
async def came(websocket: WebSocket) -> list[str]:
    """The tokens of this connection: the source of the first, and the newest."""
    now: Identity = websocket.scope["antiphon.identity"]
    return [*websocket.state.came, now.claims["token"]]


@app.websocket("/refuses")
async def refuses(websocket: WebSocket, token: str = "", word: bool = False) -> None:
    """Unauthorized right behind accept, as `Denials.CLOSE` says it. With a message in between or without."""
    await websocket.accept()
    if word:
        await websocket.send_json({"type": "hello"})
    else:
        await websocket.send_json({"type": "error", "code": "unauthorized", "message": token})
    await websocket.close(3000, token)


@app.websocket("/expires")
async def expires(websocket: WebSocket) -> None:
    """All messages of a server about expiry. Keeps the client's messages."""
    got: list[Any] = []
    await websocket.accept()
    async for message in websocket.iter_json():
        got.append(message)
        match message["type"]:
            case "say":
                await websocket.send_json(message["event"])
            case "got":
                await websocket.send_json({"type": "reply", "ref": message["ref"], "data": got})
            case "auth" if code := message["token"].partition("!")[2]:
                await websocket.send_json({"type": "error", "ref": message["ref"], "code": code, "message": code})
            case "auth":
                await websocket.send_json({"type": "reply", "ref": message["ref"]})
