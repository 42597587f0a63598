"""An ASGI server's end of one connection, in memory: a test scripts the incoming messages and reads the outgoing
ones."""

from __future__ import annotations

import asyncio
from typing import Any

from antiphon.connection import WebSocket
from antiphon.types import Message


class Peer:
    """Give it messages with `come`. The application's messages are in `sent`.

    `blocked` makes `send` wait, as a server does whose client reads nothing. `lost` makes it raise OSError.
    """

    def __init__(self, **scope: Any) -> None:
        self.scope: dict[str, Any] = {
            "type": "websocket",
            "path": "/",
            "headers": [],
            "query_string": b"",
            "subprotocols": [],
            "extensions": {"websocket.http.response": {}},
            "asgi": {"version": "3.0", "spec_version": "2.4"},
        } | scope
        self.sent: list[Message] = []
        self.lost = False
        self.receives = 0
        self._open = asyncio.Event()
        self._open.set()
        self._coming: asyncio.Queue[Message] = asyncio.Queue()

    @property
    def blocked(self) -> bool:
        return not self._open.is_set()

    @blocked.setter
    def blocked(self, value: bool) -> None:
        if value:
            self._open.clear()
        else:
            self._open.set()

    @property
    def unread(self) -> int:
        return self._coming.qsize()

    def come(self, *messages: Message | str | bytes) -> None:
        for message in messages:
            if isinstance(message, str):
                message = {"type": "websocket.receive", "text": message}
            elif isinstance(message, bytes):
                message = {"type": "websocket.receive", "bytes": message}
            self._coming.put_nowait(message)

    def leave(self, code: int = 1000, **more: Any) -> None:
        self.come({"type": "websocket.disconnect", "code": code, **more})

    async def receive(self) -> Message:
        self.receives += 1
        return await self._coming.get()

    async def send(self, message: Message) -> None:
        await self._open.wait()
        if self.lost:
            raise OSError("the client is gone")
        self.sent.append(message)

    def websocket(self, cls: type[WebSocket] = WebSocket) -> WebSocket:
        """A WebSocket that nobody has accepted. The calling task is its owner."""
        self.come({"type": "websocket.connect"})
        return cls(self.scope, self.receive, self.send)

    async def accepted(self, cls: type[WebSocket] = WebSocket) -> WebSocket:
        """A WebSocket that is open. The calling task is its owner."""
        websocket = self.websocket(cls)
        await websocket.accept()
        self.sent.clear()
        return websocket

    @property
    def texts(self) -> list[str]:
        return [message["text"] for message in self.sent if "text" in message]
