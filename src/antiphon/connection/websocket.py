"""`WebSocket`: what an endpoint holds.

Payloads to and from Python values, opening and closing, on top of the states and ways of `Channel`. The hot path is
here: on antiphon's own server a message costs one coroutine each way (benchmarks: echo).
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterable
from threading import get_ident
from typing import Any, Generic

import anyio.lowlevel
import starlette.websockets
from starlette.requests import StateT
from starlette.responses import Response

from antiphon.exceptions import NotAccepted, PeerError, UnencodableText, UnexpectedMessageKind, WebSocketDisconnect
from antiphon.shown import shown
from antiphon.types import Carrier

from . import codec
from .channel import Channel, current_owner, running_loop
from .excuse import excuse_disconnects
from .state import CONNECTED, CONNECTING, DISCONNECTED, LOST, check_method

logger = logging.getLogger("antiphon")


class WebSocket(Channel[StateT], Generic[StateT]):
    """One WebSocket connection, as FastAPI users know it.

    One task may receive while others send. A sender is *foreign* when it runs neither in the task that made the
    `WebSocket` nor in one started from there: its sends never wait and never raise for a peer that is gone or slow.
    A foreign sender may run in another thread or event loop.

    `WebSocket(scope, receive, send)` takes a connection of any ASGI server. Raises ValueError for a scope that is not
    a WebSocket's.
    """

    # Opening and closing

    async def accept(
        self, subprotocol: str | None = None, headers: Iterable[tuple[bytes, bytes]] | None = None
    ) -> None:
        """Open the connection. Reads the connect message if nobody has.

        A subprotocol that the client did not offer may not be selected (RFC 6455 §4.1): the connection opens without
        one. Raises `WebSocketDisconnect` when the client is gone already, TypeError or ValueError for headers that are
        not pairs of bytes fit for HTTP, RuntimeError the second time.
        """
        pairs = codec.check_headers(headers)
        check_method(self.application_state, "websocket.accept")
        if self.client_state is CONNECTING:
            try:
                await self.receive()
            except RuntimeError as exc:
                if self._closed is not None:  # a disconnect came instead
                    raise self._gone("accept") from exc
                raise
        if subprotocol is not None and subprotocol not in (offered := self.scope.get("subprotocols") or ()):
            logger.warning(
                "%s: subprotocol '%s' is not among those the client offers (%s); opening without one",
                shown(self.scope.get("path", "")),
                shown(subprotocol),
                shown(", ".join(offered) or "none"),
            )
            subprotocol = None
        await self.send({"type": "websocket.accept", "subprotocol": subprotocol, "headers": pairs})

    async def close(self, code: int = 1000, reason: str | None = None) -> None:
        """Send a Close frame; before `accept`, refuse the handshake with HTTP 403.

        On a connection that the peer or a foreign sender has ended nothing happens. Raises ValueError for a code that
        may not go on the wire, `WebSocketDisconnected` on a connection that the endpoint has closed.
        """
        await self.send({"type": "websocket.close", "code": code, "reason": reason})

    async def send_denial_response(self, response: Response) -> None:
        """Refuse the handshake with this HTTP response (ASGI extension `websocket.http.response`).

        Raises RuntimeError on a server without the extension and after `accept`, TypeError for what is no response.
        """
        if not callable(response):
            raise TypeError(f"send_denial_response takes a Response, as JSONResponse({{...}}, 403), got {response!r}")
        if "websocket.http.response" not in (self.scope.get("extensions") or {}):
            raise RuntimeError("The server doesn't support the Websocket Denial Response extension.")
        check_method(self.application_state, "websocket.http.response.start")
        if self.client_state is CONNECTING:
            await self.receive()
        await response(self.scope, self.receive, self.send)

    # Receiving

    async def receive_text(self) -> str:
        """The next message, a text one.

        Raises `WebSocketDisconnect` when the connection ends, `UnexpectedMessageKind` for a binary message,
        `NotAccepted` before `accept`, RuntimeError for two receives at one time.
        """
        if self._carrier is not None and self.application_state is CONNECTED and self.client_state is CONNECTED:
            data = await self._carrier.read()
        else:
            data = await self._next("receive_text")
        if type(data) is str:
            self._read_at = self._clock()
            return data
        raise self._not_this(data, "text")

    async def receive_bytes(self) -> bytes:
        """The next message, a binary one. Errors as `receive_text`."""
        if self._carrier is not None and self.application_state is CONNECTED and self.client_state is CONNECTED:
            data = await self._carrier.read()
        else:
            data = await self._next("receive_bytes")
        if type(data) is bytes:
            self._read_at = self._clock()
            return data
        raise self._not_this(data, "binary")

    async def receive_json(self, mode: str = "text") -> Any:
        """The value of the next message, JSON in text or binary. Errors as `receive_text`, and `InvalidJSON`."""
        if mode == "text":
            return _decoded(await self.receive_text())
        if mode == "binary":
            return _decoded(await self.receive_bytes())
        raise _bad_mode(mode)

    async def _next(self, method: str) -> str | bytes | None:
        if self.application_state is not CONNECTED:
            if self.application_state is DISCONNECTED:
                raise self._gone(method)
            raise NotAccepted(f"{method}() before the connection is accepted: call accept() first")
        message = await self.receive()
        if message["type"] == "websocket.disconnect":
            return None
        text: str | None = message.get("text")
        return text if text is not None else bytes(message["bytes"])

    def _not_this(self, data: str | bytes | None, expected: str) -> Exception:
        excuse_disconnects(running_loop())
        if data is None:
            self.client_state = DISCONNECTED
            closed = self.closed or LOST
            return WebSocketDisconnect(closed.code, closed.reason)
        return UnexpectedMessageKind(expected, "text" if isinstance(data, str) else "binary")

    async def iter_text(self) -> AsyncIterator[str]:
        """Text messages until the connection ends. Raises `WebSocketDisconnected` when it has ended before."""
        self._require_open("iter_text")
        try:
            while True:
                yield await self.receive_text()
        except WebSocketDisconnect:
            pass

    async def iter_bytes(self) -> AsyncIterator[bytes]:
        """Binary messages until the connection ends. Raises `WebSocketDisconnected` when it has ended before."""
        self._require_open("iter_bytes")
        try:
            while True:
                yield await self.receive_bytes()
        except WebSocketDisconnect:
            pass

    async def iter_json(self, mode: str = "text") -> AsyncIterator[Any]:
        """JSON values until the connection ends. Raises `WebSocketDisconnected` when it has ended before."""
        self._require_open("iter_json")
        try:
            while True:
                yield await self.receive_json(mode)
        except WebSocketDisconnect:
            pass

    # Sending

    async def send_text(self, data: str) -> None:
        """Send a text message.

        Raises TypeError for anything but str, UnencodableText (a UnicodeEncodeError) for lone surrogates (the
        connection stays open), `NotAccepted` before `accept`. Own senders wait for room, up to `send_timeout`, and get
        `WebSocketDisconnect` when the peer is gone (not in the first moments after a message of the peer was read: what
        it said last is handled to the end); foreign senders never wait and never see the peer's end.
        """
        carrier = self._carrier_for_own()
        if carrier is None or type(data) is not str:
            await self._send_payload(codec.check_text(data))
        elif not self._write(carrier, data):
            await self._drain(carrier)

    async def send_bytes(self, data: bytes | bytearray | memoryview) -> None:
        """Send a binary message. Raises TypeError for anything but bytes-like data; otherwise as `send_text`."""
        data = codec.check_bytes(data)
        carrier = self._carrier_for_own()
        if carrier is None:
            await self._send_payload(data)
        elif not self._write(carrier, data):
            await self._drain(carrier)

    async def send_json(self, data: Any, mode: str = "text") -> None:
        """Send the value as JSON (compact, UTF-8, only lone surrogates escaped) in a text or a binary message.

        pydantic models, dataclasses, datetimes and the like are taken too. Raises TypeError for what JSON cannot hold;
        otherwise as `send_text`.
        """
        if mode == "text":
            text = codec.encode_json(data)
            try:
                await self.send_text(text)
            except UnencodableText:
                await self.send_text(codec.escaped(text))
        elif mode == "binary":
            await self.send_bytes(codec.encode_json_bytes(data))
        else:
            raise _bad_mode(mode)

    def _carrier_for_own(self) -> Carrier | None:
        """The short way, where it is open and the sender the connection's own."""
        if (
            self._carrier is not None
            and self.application_state is CONNECTED
            and current_owner.get() is self._owner
            and get_ident() == self._thread  # to ask for the running loop is a system call (benchmarks: echo)
        ):
            return self._carrier
        return None

    def _write(self, carrier: Carrier, data: str | bytes) -> bool:
        """Leave the message with the server. False: it is to be drained before the next."""
        try:
            return carrier.write(data)
        except OSError as exc:
            if not self._is_handling():
                raise self._lost() from exc
            return True
        except UnicodeEncodeError as exc:
            raise UnencodableText(*exc.args) from None

    async def _drain(self, carrier: Carrier) -> None:
        try:
            await carrier.drain()
            await anyio.lowlevel.checkpoint()  # what drains at once may be a socket that is gone
        except OSError as exc:
            if not self._is_handling():
                raise self._lost() from exc

    async def _send_payload(self, data: str | bytes) -> None:
        if self.application_state is CONNECTING:
            raise NotAccepted("a message was sent before the connection is accepted: call accept() first")
        if not self._is_own():
            await self._offer_foreign(data)
            return
        await self.send({"type": "websocket.send", "text" if isinstance(data, str) else "bytes": data})


def _decoded(data: str | bytes) -> Any:
    try:
        return codec.decode_json(data)
    except PeerError:
        excuse_disconnects(running_loop())
        raise


def _bad_mode(mode: str) -> RuntimeError:
    return RuntimeError(f'mode is "text" or "binary", not {mode!r}')


# Starlette's own code (`requires`, FastAPI's analysis of parameters) asks for its class by isinstance.
starlette.websockets.WebSocket.register(WebSocket)
