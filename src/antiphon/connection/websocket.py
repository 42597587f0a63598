"""`WebSocket`: the object in an endpoint's hands.

Payloads to and from Python values, opening and closing, on top of the raw messages of `RawWebSocket`. The hot path is
here: on antiphon's own server a message costs one coroutine each way (benchmarks: echo-32).
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from threading import get_ident
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, TypeAlias, TypeVar

import anyio.lowlevel
import starlette.websockets
from starlette.requests import StateT
from starlette.responses import Response

from antiphon.exceptions import (
    InvalidMessage,
    NotAccepted,
    PeerError,
    UnencodableText,
    UnexpectedMessageKind,
    WebSocketDisconnect,
    WebSocketDisconnected,
)
from antiphon.identity import Identity
from antiphon.masking import masked_subprotocols
from antiphon.shown import shown
from antiphon.status import WS_1008_POLICY_VIOLATION, WS_3003_FORBIDDEN, check_close_code
from antiphon.types import ACCEPTED_KEY, ANSWER_KEY, WRITE_KEY, Carrier, ClosedBy, Scope

from . import codec
from .denials import closes, offered_subprotocols, subprotocol_to_answer
from .life import Life
from .owner import current_owner, running_loop
from .raw import RawWebSocket
from .state import CONNECTED, CONNECTING, DISCONNECTED, LOST, Closed, check_method
from .typed import InvalidLimit, OnInvalid, adapter_of, decode, encode, error_reply
from .unretrieved import excuse_disconnects

if TYPE_CHECKING:
    from typing_extensions import TypeForm

T = TypeVar("T")

Renewing: TypeAlias = Callable[["WebSocket[Any]", Identity], Awaitable[Identity]]
RENEWING_KEY: Final = "antiphon.renewing"
"""Key in the scope for the callable behind `renew`, which `admit` leaves there."""

logger: Final = logging.getLogger("antiphon")


class WebSocket(RawWebSocket[StateT], Generic[StateT]):
    """One WebSocket connection, as FastAPI users know it.

        @app.websocket("/echo")
        async def echo(websocket: WebSocket) -> None:
            await websocket.accept()
            async for text in websocket.iter_text():
                await websocket.send_text(text)

    One task may receive while others send. A sender is *foreign* when it runs neither in the task that made the
    `WebSocket` nor in one started from there. Its sends never wait and never raise for a peer that is gone or slow. A
    foreign sender may run in another thread or event loop.

    `WebSocket(scope, receive, send)` takes a connection of any ASGI server. Raises ValueError for a scope that is not
    a WebSocket's.
    """

    _is_paced: ClassVar[bool] = False
    """Incoming messages wait for a rate."""

    # Opening and closing

    async def accept(
        self, subprotocol: str | None = None, headers: Iterable[tuple[bytes, bytes]] | None = None
    ) -> None:
        """Open the connection. Reads the connect message if nobody has.

            await websocket.accept(subprotocol="chat.v2", headers=[(b"x-room", b"7")])

        A subprotocol that the client did not offer may not be selected (RFC 6455 §4.1): the connection opens without
        one. Where a token came as a subprotocol, an endpoint that selects none answers with the one beside the token.
        On a connection that was accepted to read a token from its first message, the first call does nothing. Raises
        `WebSocketDisconnect` when the client is gone already, and RuntimeError the second time. Raises TypeError or
        ValueError for headers that are not pairs of bytes fit for HTTP, and TypeError for a subprotocol that is no
        str.
        """
        if not (subprotocol is None or isinstance(subprotocol, str)):
            raise TypeError(f"accept() takes one subprotocol, a str that the client offers, not {subprotocol!r}")
        pairs = codec.check_headers(headers)
        if self.application_state is CONNECTED and (answered := self.scope.pop(ACCEPTED_KEY, None)) is not None:
            _tell_too_late(self.scope, answered, subprotocol, pairs)
            return
        check_method(self.application_state, "websocket.accept")
        if self.client_state is CONNECTING:
            try:
                await self.receive()
            except RuntimeError as exc:
                if self._life.ended is not None:  # a disconnect came instead
                    raise self._life.gone("accept") from exc
                raise
        if subprotocol is None:
            subprotocol = self.scope.get(ANSWER_KEY)
        elif subprotocol not in (offered := self.scope.get("subprotocols") or ()):
            instead = self.scope.get(ANSWER_KEY)
            logger.warning(
                "%s: subprotocol '%s' is not among those the client offers (%s); opening %s",
                shown(self.scope.get("path", "")),
                "…" if ANSWER_KEY in self.scope else shown(masked_subprotocols([subprotocol])[0]),  # may be the token
                shown(", ".join(masked_subprotocols(offered)) or "none"),
                "without one" if instead is None else f"with '{shown(instead)}'",
            )
            subprotocol = instead
        await self.send({"type": "websocket.accept", "subprotocol": subprotocol, "headers": pairs})

    async def close(self, code: int = 1000, reason: str | None = None) -> None:
        """Send a Close frame. Before `accept`, refuse the handshake with HTTP 403.

            await websocket.close(4001, "one at a time")

        With `Denials.CLOSE` the handshake is accepted for this, so that a page can read code and reason (1000 becomes
        3003).
        On a connection that the peer or a foreign sender has ended nothing happens. Raises ValueError for a code that
        may not go on the wire, `WebSocketDisconnected` on a connection that the endpoint has closed.
        """
        if self._life.application_state is CONNECTING and closes(self.scope) and self._is_own():
            refused = Closed(code=WS_3003_FORBIDDEN if code == 1000 else code, reason=reason or "", by=ClosedBy.US)
            code = check_close_code(refused.code)
            self.scope["subprotocols"] = offered = offered_subprotocols(self.scope)
            await self.accept(subprotocol_to_answer(offered))
            self._note_refused(refused)
        await self.send({"type": "websocket.close", "code": code, "reason": reason})

    async def send_denial_response(self, response: Response) -> None:
        """Refuse the handshake with this HTTP response (ASGI extension `websocket.http.response`).

        Raises RuntimeError on a server without the extension and after `accept`, TypeError for an object that is no
        response.
        """
        if not callable(response):
            raise TypeError(f"send_denial_response takes a Response, as JSONResponse({{...}}, 403), got {response!r}")
        if "websocket.http.response" not in (self.scope.get("extensions") or {}):
            raise RuntimeError("The server doesn't support the Websocket Denial Response extension.")
        check_method(self.application_state, "websocket.http.response.start")
        if self.client_state is CONNECTING:
            await self.receive()
        await response(self.scope, self.receive, self.send)

    async def renew(self, identity: Identity) -> Identity:
        """Go on as the same user with a new identity, whose `expires_at` counts from now on. Returns it.

            await websocket.renew(Identity(user="ann", expires_at=time.time() + 300))

        The dependency that identified the user has called `admit` (antiphon.gate). A channel does all this by itself.
        Raises RuntimeError where no user was admitted, and TypeError for an object that is no Identity. Raises
        `WebSocketException` 3003 for another user, and 3000 for an identity that has expired. Uncaught, they close the
        connection. Caught, they change nothing. Raises `WebSocketDisconnected` on a connection that has ended.
        """
        renewing: Renewing | None = self.scope.get(RENEWING_KEY)
        if renewing is None:
            raise RuntimeError(
                "renew() on a connection without an admitted user: let a dependency admit(websocket, identity) first"
            )
        self._life.require_open("renew")
        await renewing(self, identity)
        self._life.require_open("renew")
        if self._life.closed is not None:  # known to the server alone
            raise self._life.gone("renew")
        return identity

    # Receiving

    async def receive_text(self) -> str:
        """The next message, a text one.

        Raises `WebSocketDisconnect` when the connection ends, `UnexpectedMessageKind` for a binary message,
        `NotAccepted` before `accept`, RuntimeError for two receives at one time.
        """
        life = self._life
        if self._carrier is not None and life.application_state is CONNECTED and life.client_state is CONNECTED:
            data = await self._carrier.read()
        else:
            data = await self._next("receive_text")
        if type(data) is str:
            life.read_at = life.clock()
            return data
        raise not_this(life, data, "text")

    async def receive_bytes(self) -> bytes:
        """The next message, a binary one. Errors as `receive_text`."""
        life = self._life
        if self._carrier is not None and life.application_state is CONNECTED and life.client_state is CONNECTED:
            data = await self._carrier.read()
        else:
            data = await self._next("receive_bytes")
        if type(data) is bytes:
            life.read_at = life.clock()
            return data
        raise not_this(life, data, "binary")

    async def receive_payload(self) -> str | bytes:
        """The next message, text or binary. Errors as `receive_text`, but for the kind."""
        life = self._life
        if self._carrier is not None and life.application_state is CONNECTED and life.client_state is CONNECTED:
            data = await self._carrier.read()
        else:
            data = await self._next("receive_payload")
        if data is None:
            raise not_this(life, data, "")
        life.read_at = life.clock()
        return data

    async def receive_json(self, mode: str = "text") -> Any:
        """The value of the next message, JSON in text or binary. Errors as `receive_text`, and `InvalidJSON`."""
        return _decoded(await _receive_either(self, mode), self.options.json_values)

    async def receive_as(self, kind: TypeForm[T], mode: str = "text") -> T:
        """The next message, JSON in text or binary, as a value of this type.

        The type is anything that pydantic validates: a model, a dataclass, a TypedDict, a union of them, `list[int]`.
        Errors as `receive_text`, and `InvalidMessage` for a message that is not JSON or does not fit, which closes
        with 1007 unless caught. Raises TypeError for any other type.

            hello = await websocket.receive_as(Hello)
        """
        adapter_of(kind)  # a mistake of ours is reported before the peer has to send something
        return _typed(kind, await _receive_either(self, mode), self.options.json_values)

    async def iter_as(
        self, kind: TypeForm[T], mode: str = "text", *, invalid: OnInvalid = OnInvalid.CLOSE
    ) -> AsyncIterator[T]:
        """Messages as values of this type, until the connection ends.

        `invalid` is the policy for a message that does not fit. With `REPLY` and `IGNORE` the iteration goes on. A
        peer that sends more than 20 of those in a minute gets Close 1008, and the iteration ends. Raises
        `WebSocketDisconnected` when the connection has ended before. Other errors as `receive_as`.

            async for message in websocket.iter_as(Move | Quit, invalid=OnInvalid.REPLY):
                match message: ...
        """
        await _require_open(self, "iter_as")
        adapter_of(kind)
        limit = InvalidLimit()
        try:
            while True:
                data = await _receive_either(self, mode)
                try:
                    message = _typed(kind, data, self.options.json_values)
                except InvalidMessage as exc:
                    if invalid is OnInvalid.CLOSE:
                        raise
                    if limit.passed(self._life.clock()):
                        await self.close(WS_1008_POLICY_VIOLATION, "too many invalid messages")
                        return
                    if invalid is OnInvalid.REPLY:
                        await self.send_text(error_reply(exc, data))
                else:
                    yield message
        except WebSocketDisconnect:
            pass

    async def _next(self, method: str) -> str | bytes | None:
        if self.application_state is not CONNECTED:
            if self.application_state is DISCONNECTED:
                await self._life.used_in_vain(self.scope)
                raise self._life.gone(method)
            raise NotAccepted(f"{method}() before the connection is accepted: call accept() first")
        message = await self.receive()
        if message["type"] == "websocket.disconnect":
            return None
        text: str | None = message.get("text")
        return text if text is not None else bytes(message["bytes"])

    async def iter_text(self) -> AsyncIterator[str]:
        """Text messages until the connection ends. Raises `WebSocketDisconnected` when it has ended before."""
        await _require_open(self, "iter_text")
        try:
            while True:
                yield await self.receive_text()
        except WebSocketDisconnect:
            pass

    async def iter_bytes(self) -> AsyncIterator[bytes]:
        """Binary messages until the connection ends. Raises `WebSocketDisconnected` when it has ended before."""
        await _require_open(self, "iter_bytes")
        try:
            while True:
                yield await self.receive_bytes()
        except WebSocketDisconnect:
            pass

    async def iter_json(self, mode: str = "text") -> AsyncIterator[Any]:
        """JSON values until the connection ends. Raises `WebSocketDisconnected` when it has ended before."""
        await _require_open(self, "iter_json")
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
        `WebSocketDisconnect` when the peer is gone. In the first moments after a message of the peer was read they do
        not: its last message is handled to the end. Foreign senders never wait and never see the peer's end.
        """
        carrier = self._carrier_for_own()
        if carrier is None or type(data) is not str:
            await self._send_payload(codec.check_text(data))
        elif not self._write(carrier, data):
            await self._drain(carrier)

    async def send_bytes(self, data: bytes | bytearray | memoryview) -> None:
        """Send a binary message. Raises TypeError for anything but bytes-like data. Otherwise as `send_text`."""
        data = codec.check_bytes(data)
        carrier = self._carrier_for_own()
        if carrier is None:
            await self._send_payload(data)
        elif not self._write(carrier, data):
            await self._drain(carrier)

    async def send_json(self, data: Any, mode: str = "text") -> None:
        """Send the value as JSON (compact, UTF-8, only lone surrogates escaped) in a text or a binary message.

        Takes pydantic models, dataclasses and datetimes, too. Raises TypeError for a value without a JSON form. Other
        errors as `send_text`.
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

    async def send_model(self, message: Any) -> None:
        """Send a pydantic model, a dataclass or another typed value as JSON text, as pydantic writes it.

        Fields go by their aliases, as `receive_as` reads them. Several times quicker than `send_json`. On a channel it
        is an event, with its tag, as `Caller.send` sends it: raises `UndeclaredMessage` for a class that the channel
        does not declare. Raises TypeError for a value without a JSON form. Other errors as `send_text`.
        """
        await self.send_text(self.scope.get(WRITE_KEY, encode)(message))

    def _carrier_for_own(self) -> Carrier | None:
        """The short way, where it is open and the sender the connection's own."""
        if (
            self._carrier is not None
            and self._life.application_state is CONNECTED
            and current_owner.get() is self._owner
            and get_ident() == self._thread  # to ask for the running loop is a system call (benchmarks: echo-32)
        ):
            return self._carrier
        return None

    def _write(self, carrier: Carrier, data: str | bytes) -> bool:
        """Leave the message with the server. False: it is to be drained before the next."""
        try:
            return carrier.write(data)
        except OSError as exc:
            if not self._life.is_handling():
                raise self._life.lost() from exc
            return True
        except UnicodeEncodeError as exc:
            raise UnencodableText(*exc.args) from None

    async def _drain(self, carrier: Carrier) -> None:
        try:
            await carrier.drain()
            await anyio.lowlevel.checkpoint()  # a socket that is gone may drain at once
        except OSError as exc:
            if not self._life.is_handling():
                raise self._life.lost() from exc

    async def _send_payload(self, data: str | bytes) -> None:
        if self.application_state is CONNECTING:
            raise NotAccepted("a message was sent before the connection is accepted: call accept() first")
        if not self._is_own():
            await self._foreign().offer(data)
            return
        await self.send({"type": "websocket.send", "text" if isinstance(data, str) else "bytes": data})


async def _require_open(websocket: WebSocket[Any], method: str) -> None:
    life = websocket.life
    try:
        life.require_open(method)
    except WebSocketDisconnected:
        await life.used_in_vain(websocket.scope)
        raise


def _tell_too_late(scope: Scope, answered: str, subprotocol: str | None, headers: list[tuple[bytes, bytes]]) -> None:
    """The connection was accepted before the endpoint's own accept: log the arguments that come too late."""
    late = [f"subprotocol '{shown(subprotocol)}'"] if subprotocol not in (None, answered) else []
    late += ["headers"] if headers else []
    if late:
        logger.warning(
            "%s: accept() came with %s after FIRST_MESSAGE had accepted with %s: FIRST_MESSAGE(subprotocol=...) "
            "selects one, and headers have no place there",
            shown(scope.get("path", "")),
            " and ".join(late),
            f"'{shown(answered)}'" if answered else "no subprotocol",
        )


def _receive_either(websocket: WebSocket[Any], mode: str) -> Awaitable[str | bytes]:
    if mode == "text":
        return websocket.receive_text()
    if mode == "binary":
        return websocket.receive_bytes()
    raise _bad_mode(mode)


def coming(websocket: WebSocket[Any]) -> Awaitable[str | bytes | None]:
    """The awaitable of `receive_payload`, for callers that pass its result to `came`: an idle connection then holds a
    frame less."""
    life, carrier = websocket._life, websocket._carrier
    if (
        carrier is not None
        and life.application_state is CONNECTED
        and life.client_state is CONNECTED
        and not websocket._is_paced
    ):
        return carrier.read()
    return websocket.receive_payload()


def came(websocket: WebSocket[Any], data: str | bytes | None) -> str | bytes:
    """The message that was awaited. Errors as `receive_payload`."""
    life = websocket._life
    if data is None:
        raise not_this(life, data, "")
    life.read_at = life.clock()
    return data


def not_this(life: Life, data: str | bytes | None, expected: str) -> Exception:
    excuse_disconnects(running_loop())
    if data is None:
        life.client_state = DISCONNECTED
        closed = life.closed or LOST
        return WebSocketDisconnect(closed.code, closed.reason)
    return UnexpectedMessageKind(expected, "text" if isinstance(data, str) else "binary")


def _typed(kind: TypeForm[T], data: str | bytes, values: int | None) -> T:
    try:
        codec.check_values(data, values)
        return decode(kind, data)
    except PeerError:
        excuse_disconnects(running_loop())
        raise


def _decoded(data: str | bytes, values: int | None) -> Any:
    try:
        return codec.decode_json(data, values)
    except PeerError:
        excuse_disconnects(running_loop())
        raise


def _bad_mode(mode: str) -> RuntimeError:
    return RuntimeError(f'mode is "text" or "binary", not {mode!r}')


# Starlette's own code (`requires`, FastAPI's analysis of parameters) asks for its class by isinstance.
starlette.websockets.WebSocket.register(WebSocket)
