"""Class-based WebSocket endpoints: Starlette's `WebSocketEndpoint` on our `WebSocket`.

The peer's faults are typed errors here, so that the close matrix logs them in one line instead of a traceback.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from starlette.endpoints import HTTPEndpoint as HTTPEndpoint
from starlette.types import Message, Receive, Scope, Send

from .connection import WebSocket
from .connection.codec import decode_json
from .exceptions import InvalidJSON, WrongEncoding
from .status import WS_1000_NORMAL_CLOSURE, WS_1011_INTERNAL_ERROR

__all__ = [
    "HTTPEndpoint",
    "WebSocketEndpoint",
]

if TYPE_CHECKING:

    class StarletteWebSocketEndpoint:
        """Starlette's without its methods, whose parameters are Starlette's `WebSocket`: users annotate ours."""

        encoding: str | None
        scope: Scope
        receive: Receive
        send: Send

        def __init__(self, scope: Scope, receive: Receive, send: Send) -> None: ...
        def __await__(self) -> Generator[Any]: ...
else:
    from starlette.endpoints import WebSocketEndpoint as StarletteWebSocketEndpoint


class WebSocketEndpoint(StarletteWebSocketEndpoint):
    """Set `encoding` to "text", "bytes" or "json", and override `on_connect`, `on_receive`, `on_disconnect`.

    Register the class with `websocket_route`. `on_disconnect` always runs, with the close code.

        from antiphon.endpoints import WebSocketEndpoint

        @app.websocket_route("/echo")
        class Echo(WebSocketEndpoint):
            encoding = "text"

            async def on_receive(self, websocket: WebSocket, data: str) -> None:
                await websocket.send_text(data)
    """

    async def dispatch(self) -> None:
        """Run one connection from connect to disconnect."""
        websocket: WebSocket = WebSocket(self.scope, self.receive, self.send)
        await self.on_connect(websocket)
        code = WS_1000_NORMAL_CLOSURE
        try:
            while (message := await websocket.receive())["type"] == "websocket.receive":
                await self.on_receive(websocket, await self.decode(websocket, message))
            code = int(message.get("code") or WS_1000_NORMAL_CLOSURE)
        except Exception as error:
            code = getattr(error, "close_code", WS_1011_INTERNAL_ERROR)
            raise
        finally:
            await self.on_disconnect(websocket, code)

    async def on_connect(self, websocket: WebSocket) -> None:
        """Accept the connection, or not."""
        await websocket.accept()

    async def on_receive(self, websocket: WebSocket, data: Any) -> None:
        """Take a message: str, bytes, or the value of JSON, as `encoding` says."""

    async def on_disconnect(self, websocket: WebSocket, close_code: int) -> None:
        """Clean up."""

    async def decode(self, websocket: WebSocket, message: Message) -> Any:
        """The message's payload as `encoding` wants it. Otherwise closes with 1003 and raises WrongEncoding."""
        kind = "bytes" if message.get("text") is None else "text"
        payload: Any = message[kind]
        try:
            if self.encoding in ("text", "bytes") and kind != self.encoding:
                raise WrongEncoding(f"Expected {self.encoding} websocket messages, but got {kind}")
            return decode_json(payload, websocket.options.json_values) if self.encoding == "json" else payload
        except InvalidJSON as error:
            await websocket.close(WrongEncoding.close_code)
            raise WrongEncoding("Malformed JSON data received.") from error
        except WrongEncoding:
            await websocket.close(WrongEncoding.close_code)
            raise
