"""One connection from first byte to last, as far as it is rare: handshake, denial, closing, deadlines, the app.

The hot path (messages) is the base class, which has a native twin. README.md holds the table of states; `engine` is
what the connections of one server share. Knows nothing of uvicorn.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Coroutine
from typing import Any, ClassVar

from antiphon.events import ConnectionOpened, ProtocolViolated
from antiphon.shown import shown
from antiphon.status import (
    WS_1006_ABNORMAL_CLOSURE,
    WS_1008_POLICY_VIOLATION,
    WS_1011_INTERNAL_ERROR,
    WS_1013_TRY_AGAIN_LATER,
)
from antiphon.types import CARRIER_EXTENSION, ClosedBy, Message, Scope
from antiphon.wire import Close, HandshakeError, Parser, Phase, Ping, Pong, ProtocolError, Role, closing
from antiphon.wire.handshake import Request, accept_response, parse_request, refuse_response, subprotocols, validate

from .denial import Denial
from .engine import Engine
from .errors import TOLD_OF_THE_END, ClientDisconnected
from .limits import Rate, limit_behind
from .scope import build_scope, path_of
from .sockets import direct_fd
from .state import APP_MAY_SEND, Opening
from .watched import Watched

Addresses = tuple[tuple[str, int] | None, tuple[str, int | None] | None]


class Session(Watched):
    """An `asyncio.Protocol` that speaks WebSocket to the peer and ASGI to the app, and is the app's `Carrier`."""

    __slots__ = (
        "_address",
        "_addresses",
        "_delivered",
        "_denial",
        "_early",
        "_extensions",
        "_handshake_due",
        "_key",
        "_rate",
        "_scope",
        "_told",
        "_violation",
        "task",
    )

    scheme: ClassVar[tuple[str, str]] = ("ws", "wss")

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self.task: asyncio.Task[Any] | None = None
        self._address: str | None = None  # as counted by the engine's admission
        self._addresses: Addresses | None = None  # until the handshake: what somebody has asked the transport already
        self._scope: Scope | None = None  # until the handshake is answered
        self._key = b""
        self._extensions: bytes | None = None
        self._early: bytearray | None = None
        self._denial: Denial | None = None
        self._told = False  # the app knows of the end: by its websocket.disconnect, or since it was the one to end it
        self._delivered = False  # its websocket.disconnect
        self._rate: Rate | None = None
        self._violation: ProtocolError | None = None  # until the app has had its turn with what came before
        self._handshake_due = 0.0

    # ------------------------------------------------------------ transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio's callback: there is a transport, and the next bytes are a request."""
        engine = self.engine
        self.transport = transport  # type: ignore[assignment]
        engine.sessions[self] = None
        engine.connections.add(self)
        timeout = engine.config.handshake_timeout
        if timeout is not None:
            self._handshake_due = engine.clock() + timeout
            engine.deadlines.enter(self, self._handshake_due)

    def eof_received(self) -> None:
        """asyncio's callback: the peer will send nothing more. A WebSocket without a Close frame is lost (1006)."""
        self.parse_rest()
        self._fail_for_violation()
        if self.state == Opening.DENYING:
            return  # it has sent its request, and its answer is under way
        open_or_before = self.state <= Phase.OPEN
        if not open_or_before:
            self.flush()
        self._lost()
        if open_or_before:
            self._end_transport()  # the loop's own close waits for ever for a peer that takes nothing

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio's callback: the end, however it came."""
        self.fd = -1
        self._lost()
        self.transport = None
        self.parser = None
        self.deflate = None
        self._early = None
        self._scope = None
        engine = self.engine
        engine.deadlines.leave(self)
        if self.hoards:
            self.on_unfinished(0)
        if self._address is not None:
            engine.admission.leave(self._address)
            self._address = None
        if self.task is None:
            self._leave()

    # ------------------------------------------------------------ handshake

    def on_early_data(self, data: bytes) -> None:
        """Bytes while the connection is not open: the request, or frames of a client in a hurry."""
        if self.state > Opening.WAITING_APP:
            return
        if self._early is None:
            self._early = bytearray()
        self._early += data
        limit = self.engine.config.handshake_size
        if self.state == Opening.WAITING_APP:
            if len(self._early) > limit:
                self.abort()
            return
        try:
            request = parse_request(self._early, max_head=limit)
            if request is None:
                return
            rest = self._early[request.consumed :]
            self._early = rest or None
            self.begin(request)
        except HandshakeError as error:
            self.refuse(error.status, error.reason, error.headers)

    def begin(self, request: Request) -> None:
        """Start the app for a request, whose bytes have been taken off. Raises HandshakeError for one that is no
        handshake."""
        engine = self.engine
        self._key = validate(request)
        offered = request.values(b"sec-websocket-extensions")
        if offered:
            self.deflate, self._extensions = engine.agree_on_compression(offered)
        transport = self.transport
        assert transport is not None
        client, server = self._addresses or _addresses_of(transport)
        self._addresses = None
        if client is None and server is not None and server[1] is not None:
            # Only a socket that was reset already does not know its peer. No app expects that, and nobody would answer.
            self.abort()
            return
        tls = transport.get_extra_info("sslcontext") is not None
        status = engine.admit(client[0] if client is not None else "")
        if status is not None:
            self.path = path_of(request.target)
            raise HandshakeError(status, engine.refusals[status], engine.retry_headers)
        self._address = client[0] if client is not None else ""
        scope = build_scope(
            request,
            engine.headers.share(request.headers),
            subprotocols(request),
            asgi=engine.asgi,
            scheme=self.scheme[tls],
            root_path=engine.root_path,
            client=client,
            server=engine.shared_address(server),
            state=engine.app_state.copy(),
            extensions={"websocket.http.response": {}, CARRIER_EXTENSION: self},
        )
        self.path = scope["path"]
        self._scope = scope
        if not tls:
            self.fd = direct_fd(transport)
        transport.set_write_buffer_limits(high=0)
        if transport.get_write_buffer_size():  # a response to a request before this one is still on its way
            self.handed = True
            self.on_handed()
        self._move(Opening.WAITING_APP)
        self._run_app(scope)

    def refuse(
        self, status: int, reason: str = "", headers: Any = (), *, body: bytes | None = None, expected: bool = True
    ) -> None:
        """Answer the handshake with a whole HTTP response and end the connection."""
        engine = self.engine
        if self.state > Opening.WAITING_APP:
            return
        body = reason.encode() if body is None else body
        content_type = b"text/plain; charset=utf-8" if body else None
        self._note_answer(status, reason if expected else "the app failed")
        self.put(refuse_response(status, (*engine.default_headers(), *headers), body, content_type=content_type))
        unfinished = self.state == Opening.HANDSHAKE
        self._move(Opening.DENYING)
        self._finish(WS_1006_ABNORMAL_CLOSURE, "", ClosedBy.US)
        if unfinished:
            self._end_sending()
        else:
            self._end_transport()

    def _note_answer(self, status: int, reason: str) -> None:
        """Log and report that the handshake was answered with something else than an open connection."""
        engine = self.engine
        if self._scope is None:  # no app, and no access line
            engine.logger.info("WebSocket %s refused: %d %s", shown(self.path) or "?", status, shown(reason))
        engine.log_answer(self._scope, str(status))
        engine.note_refusal(self.path, status, reason)
        self._scope = None

    def on_handshake_deadline(self, now: float) -> float | None:
        """The request, or the app's answer to it, has not come in time."""
        if not self._handshake_due or now < self._handshake_due:
            return self._handshake_due or None
        if self.state == Opening.HANDSHAKE:
            self.refuse(408, "the request did not come in time")
        else:
            self.engine.logger.warning("WebSocket %s refused: the app did not accept in time", shown(self.path))
            self.refuse(503, "no answer in time", self.engine.retry_headers)
        return self._close_due or None

    # ------------------------------------------------------------ the app

    def _run_app(self, scope: Scope) -> None:
        engine = self.engine
        coroutine: Coroutine[Any, Any, Any]
        if engine.app_is_coroutine_function:
            coroutine = engine.app(scope, self.asgi_receive, self.asgi_send)  # type: ignore[assignment]
        else:
            coroutine = _call(engine.app, scope, self.asgi_receive, self.asgi_send)
        context = contextvars.Context() if engine.reset_contextvars else None
        task = self.loop.create_task(coroutine, name=shown(self.path), context=context)
        self.task = task
        engine.tasks.add(task)
        task.add_done_callback(self._app_ended, context=engine.context)

    def _app_ended(self, task: asyncio.Task[Any]) -> None:
        """Close as docs/closing.md says, for an app that leaves the connection as it is."""
        engine = self.engine
        engine.tasks.discard(task)
        self.task = None
        error = None if task.cancelled() else task.exception()
        if error is not None and not (self.close_code is not None and isinstance(error, TOLD_OF_THE_END)):
            engine.logger.error("Exception in ASGI application\n", exc_info=error)
        failed = error is not None or task.cancelled()
        if self.state == Opening.WAITING_APP:
            if not failed:
                engine.logger.error("ASGI callable returned without completing handshake.")
            self.refuse(500, "Internal Server Error", expected=False)
        elif self.state == Phase.OPEN:
            self.close(WS_1011_INTERNAL_ERROR if failed else 1000)
        elif self.state == Opening.DENYING and self._denial is not None:
            self.abort()  # a response cut short must not look whole
        if not failed and task.result() is not None:
            engine.logger.error("ASGI callable should return None, but returned '%s'.", task.result())
        if self.transport is None:
            self._leave()

    def _leave(self) -> None:
        """The connection is over and so is the app: until then a stop has to hear of both."""
        self.forget_inbox()
        self.engine.connections.discard(self)
        self.engine.sessions.pop(self, None)

    async def send_rarely(self, message: Message) -> None:
        """Everything the app may send but a message on an open connection."""
        kind = message["type"]
        allowed = APP_MAY_SEND.get(self.state)
        if allowed is None or (self.state == Opening.DENYING and self._denial is None):
            if self.closed_by is ClosedBy.US and self._told:
                raise RuntimeError(f"unexpected ASGI message {kind!r}: the app has ended the connection already")
            raise ClientDisconnected(f"the WebSocket is closed: {kind!r} cannot be sent")
        if kind not in allowed:
            raise RuntimeError(f"expected ASGI message {' or '.join(map(repr, sorted(allowed)))}, but got {kind!r}")
        if kind == "websocket.accept":
            self._accept(message)
        elif kind == "websocket.close":
            if self.state == Phase.OPEN:
                code = message.get("code")
                self.close(1000 if code is None else code, message.get("reason") or "")
            else:
                self.refuse(403)
            self._told = True
        elif kind == "websocket.http.response.start":
            self._deny(message)
        else:
            await self._deny_body(message)

    def _accept(self, message: Message) -> None:
        engine = self.engine
        scope = self._scope
        assert scope is not None
        subprotocol = message.get("subprotocol")
        if subprotocol is not None and subprotocol not in scope["subprotocols"]:
            engine.logger.warning(
                "WebSocket %s: the app chose subprotocol '%s', which the client did not offer; it is left out",
                shown(self.path),
                shown(subprotocol),
            )
            subprotocol = None
        headers = [*engine.default_headers(), *(message.get("headers") or ())]
        self.put(accept_response(self._key, subprotocol=subprotocol, extensions=self._extensions, headers=headers))
        engine.log_answer(scope, "[accepted]")
        self._scope = None
        self._key = b""
        self._extensions = None
        config = engine.config
        self.parser = Parser(role=Role.SERVER, max_message_size=config.max_message_size, inflater=self.deflate)
        if config.max_frames_per_second is not None or config.max_bytes_per_second is not None:
            self._rate = Rate(config.max_frames_per_second, config.max_bytes_per_second, engine.clock())
            self.rated = True
        self._move(Phase.OPEN)
        self._handshake_due = 0.0
        self.watch_pings(engine.clock())
        engine.emit(ConnectionOpened(path=self.path))
        early, self._early = self._early, None
        if early:
            self.data_received(bytes(early))  # now: what comes next must not overtake it

    def _deny(self, message: Message) -> None:
        """The app answers with a response of its own (ASGI extension `websocket.http.response`)."""
        status = message["status"]
        if not 200 <= status < 600:
            raise RuntimeError(f"the status of a denial response is between 200 and 599, not {status}")
        self._denial = Denial(status, [*self.engine.default_headers(), *(message.get("headers") or ())])
        self._note_answer(status, "denied by the app")
        self._move(Opening.DENYING)

    async def _deny_body(self, message: Message) -> None:
        denial = self._denial
        assert denial is not None
        body = message.get("body", b"")
        more = message.get("more_body", False)
        self.put(denial.chunk(body, more))
        if more:
            self.flush()
            if self.buffered > self.outbox_limit:
                await self.drain_slowly()
            return
        self._denial = None
        self._told = True
        self._finish(WS_1006_ABNORMAL_CLOSURE, "", ClosedBy.US)
        self._end_transport()

    def take_disconnect(self) -> dict[str, Any]:
        """`websocket.disconnect` (ASGI WebSocket spec 2.5), once: an app that goes on receiving must not spin."""
        if self._delivered:
            raise ClientDisconnected("the WebSocket is closed: nothing more will be received")
        self._told = self._delivered = True
        return {"type": "websocket.disconnect", "code": self.close_code, "reason": self.close_reason}

    # ------------------------------------------------------------ closing

    def close(self, code: int, reason: str = "", *, timeout: float | None = None) -> None:
        """Say Close behind what is buffered, and wait for the peer's, at most `timeout` (`close_timeout`)."""
        if self.state == Opening.WAITING_APP:
            self.refuse(403, reason)
        if self.state != Phase.OPEN:
            return
        step = closing.close(Phase.OPEN, code, reason)  # a ValueError leaves all as it was
        self.forget_inbox()
        self._do(step)
        self._close_within(self.engine.config.close_timeout if timeout is None else timeout)
        self.resume_reading()  # the peer's Close is behind what the app did not read

    def disconnect(self, code: int, reason: str) -> None:
        """`types.Sink`: close for a reason of ours; abort when `send_timeout` passes first."""
        config = self.engine.config
        self.close(code, reason, timeout=config.send_timeout if self.handed else config.close_timeout)

    def on_control(self, event: Ping | Close) -> None:
        """Answer a ping, note a pong, complete or answer the closing handshake."""
        if isinstance(event, Close):
            self._closed_by_peer(event)
        elif isinstance(event, Pong):
            self.note_pong(event)
        elif self.state == Phase.OPEN:
            self.note_ping(event)

    def _closed_by_peer(self, close: Close) -> None:
        if self.state <= Phase.CLOSING:
            self._do(closing.closed_by_peer(Phase(self.state), close))
            self._end_transport()  # servers close first: RFC 6455 §7.1.1

    def on_violation(self, error: ProtocolError) -> None:
        """Fail the connection (RFC 6455 §7.1.7), once the app has had a turn to answer what came before."""
        self.parser = None
        self._violation = error
        self.loop.call_soon(self._fail_for_violation)

    def _fail_for_violation(self) -> None:
        error, self._violation = self._violation, None
        if error is not None and self.state <= Phase.CLOSING:
            self._fail(error.close_code, error.reason)

    def on_rate(self, size: int) -> None:
        """A chunk came: is the peer too fast?"""
        assert self._rate is not None
        assert self.parser is not None
        if self.state == Phase.OPEN and not self._rate.spend(self.parser.frames, size, self.engine.clock()):
            self._fail(WS_1008_POLICY_VIOLATION, "too many messages")

    def on_unfinished(self, size: int) -> None:
        """A large message grows, or is complete."""
        self.hoards = size > 0
        self.engine.note_unfinished(self, self._address or "", size)

    def give_up_message(self) -> None:
        """`Engine`: the unfinished messages of all are too much, and this one is the greediest."""
        self.hoards = False
        if self.state == Phase.OPEN:
            self._fail(WS_1013_TRY_AGAIN_LATER, "no room for another large message")
        else:
            self.abort()

    def on_unread(self, size: int) -> None:
        """What the app has not read is too much for this connection, or no longer."""
        self.engine.note_unread(self, self._address or "", size)

    def give_up_inbox(self) -> None:
        """`Engine`: what all apps have not read is too much, and this one's is the most."""
        self.overfull = False
        self.forget_inbox()
        if self.state == Phase.OPEN:
            self._fail(WS_1013_TRY_AGAIN_LATER, "no room for messages that wait unread")

    def _fail(self, code: int, reason: str) -> None:
        """Close for the peer's fault. What came before is still delivered; what comes after is dropped unread.

        Closing the socket now would answer unread bytes with a reset, which may overtake our Close.
        """
        step = closing.failed(Phase(self.state), code, reason)
        if step.end is not None:
            limit = limit_behind(code, self.engine.config)
            level = logging.INFO if limit else logging.DEBUG
            self.engine.logger.log(level, "WebSocket %s closed: %d %s", shown(self.path), code, shown(limit or reason))
            self.engine.emit(ProtocolViolated(path=self.path, code=code, reason=reason))
        self.parser = None
        self._do(step)
        self.resume_reading()
        self._end_sending()


async def _call(app: Any, scope: Scope, receive: Any, send: Any) -> Any:
    """For an app that is no coroutine function itself: call it inside its task."""
    return await app(scope, receive, send)


def _addresses_of(transport: asyncio.BaseTransport) -> Addresses:
    """The scope's `client` and `server`."""
    server = transport.get_extra_info("sockname")
    return (
        _address(transport.get_extra_info("peername")),
        (server, None) if isinstance(server, str) else _address(server),
    )


def _address(info: Any) -> tuple[str, int] | None:
    return info[:2] if isinstance(info, tuple) and len(info) >= 2 else None
