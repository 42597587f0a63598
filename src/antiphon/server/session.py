"""One connection from first byte to last, as far as it is rare: handshake, denial, closing, deadlines, the app.

The hot path (messages) is the base class, which has a native twin. README.md holds the table of states; `engine` is
what the connections of one server share. Knows nothing of uvicorn.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Coroutine
from typing import Any

from antiphon.events import ConnectionOpened, ProtocolViolated
from antiphon.shown import shown
from antiphon.status import (
    WS_1006_ABNORMAL_CLOSURE,
    WS_1008_POLICY_VIOLATION,
    WS_1011_INTERNAL_ERROR,
    WS_1012_SERVICE_RESTART,
    WS_1013_TRY_AGAIN_LATER,
)
from antiphon.types import STOPPING, ClosedBy, Message, Scope, StopListener
from antiphon.wire import Close, Parser, Phase, Ping, Pong, ProtocolError, Role, closing

from .engine import Engine
from .errors import TOLD_OF_THE_END, ClientDisconnected
from .handshake import Handshake
from .limits import Rate, limit_behind
from .state import APP_MAY_SEND, Opening
from .watched import Watched


class Session(Watched):
    """An `asyncio.Protocol` that speaks WebSocket to the peer and ASGI to the app, and is the app's `Carrier`."""

    __slots__ = ("_delivered", "_rate", "_told", "_violation", "address", "at_stop", "handshake", "task")

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self.task: asyncio.Task[Any] | None = None
        self.address: str | None = None
        """The client's, as counted by the engine's admission."""
        self.handshake: Handshake | None = None
        """Until it is answered."""
        self.at_stop: StopListener | None = None
        """Asked when the server stops: whether the app is at work on a message, and ends the connection itself."""
        self._told = False  # the app knows of the end: by its websocket.disconnect, or since it was the one to end it
        self._delivered = False  # its websocket.disconnect
        self._rate: Rate | None = None
        self._violation: ProtocolError | None = None  # until the app has had its turn with what came before

    # ------------------------------------------------------------ transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio's callback: there is a transport, and the next bytes are a request."""
        engine = self.engine
        self.transport = transport  # type: ignore[assignment]
        engine.sessions[self] = None
        engine.connections.add(self)
        timeout = engine.config.handshake_timeout
        due = 0.0 if timeout is None else engine.clock() + timeout
        self.handshake = Handshake(engine, self, due)
        if due:
            engine.deadlines.enter(self, due)

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
        self.handshake = None
        engine = self.engine
        engine.deadlines.leave(self)
        if self.hoards:
            self.on_unfinished(0)
        if self.address is not None:
            engine.admission.leave(self.address)
            self.address = None
        if self.task is None:
            self._leave()

    # ------------------------------------------------------------ handshake

    def on_early_data(self, data: bytes) -> None:
        """Bytes while the connection is not open."""
        if self.handshake is not None:
            self.handshake.receive(data)

    def on_handshake_deadline(self, now: float) -> float | None:
        """The request, or the app's answer to it, has perhaps not come in time."""
        handshake = self.handshake
        if handshake is None or not handshake.due or now < handshake.due:
            return (handshake and handshake.due) or None
        handshake.expire()
        return self._close_due or None

    def refuse(
        self, status: int, reason: str = "", headers: Any = (), *, body: bytes | None = None, expected: bool = True
    ) -> None:
        """Answer the handshake with a whole HTTP response and end the connection."""
        if self.handshake is not None and self.state <= Opening.WAITING_APP:
            self.handshake.refuse(status, reason, headers, body=body, expected=expected)

    def answered(self, *, half_close: bool) -> None:
        """`Handshake`: with an HTTP response, which is whole."""
        self.handshake = None
        self._finish(WS_1006_ABNORMAL_CLOSURE, "", ClosedBy.US)
        if half_close:
            self._end_sending()
        else:
            self._end_transport()

    def _open(self, early: bytes | None) -> None:
        """The app has accepted: frames from now on, and those that came early."""
        self.handshake = None
        engine = self.engine
        config = engine.config
        self.parser = Parser(role=Role.SERVER, max_message_size=config.max_message_size, inflater=self.deflate)
        if config.max_frames_per_second is not None or config.max_bytes_per_second is not None:
            self._rate = Rate(config.max_frames_per_second, config.max_bytes_per_second, engine.clock())
            self.rated = True
        self.move(Phase.OPEN)
        self.watch_pings(engine.clock())
        engine.emit(ConnectionOpened(path=self.path))
        if early:
            self.data_received(early)  # now: what comes next must not overtake it

    # ------------------------------------------------------------ the app

    def run_app(self, scope: Scope) -> None:
        """`Handshake`: the request is whole."""
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
        elif self.state == Opening.DENYING and self.handshake is not None:
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
        handshake = self.handshake
        if allowed is None or (self.state == Opening.DENYING and handshake is None):
            if self.closed_by is ClosedBy.US and self._told:
                raise RuntimeError(f"unexpected ASGI message {kind!r}: the app has ended the connection already")
            raise ClientDisconnected(f"the WebSocket is closed: {kind!r} cannot be sent")
        if kind not in allowed:
            raise RuntimeError(f"expected ASGI message {' or '.join(map(repr, sorted(allowed)))}, but got {kind!r}")
        if kind == "websocket.close":
            if self.state == Phase.OPEN:
                code = message.get("code")
                self.close(1000 if code is None else code, message.get("reason") or "")
            else:
                self.refuse(403)
            self._told = True
            return
        assert handshake is not None
        if kind == "websocket.accept":
            self._open(handshake.accept(message))
        elif kind == "websocket.http.response.start":
            handshake.deny(message)
        elif await handshake.deny_body(message):
            self._told = True

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

    def stop(self) -> None:
        """`Engine`: the server stops. An app that is at work on a message, and says so, closes when it has answered."""
        if self.at_stop is None or not self.at_stop.defers_stop():
            self.close(WS_1012_SERVICE_RESTART, STOPPING)

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
        self.engine.note_unfinished(self, self.address or "", size)

    def give_up_message(self) -> None:
        """`Engine`: the unfinished messages of all are too much, and this one is the greediest."""
        self.hoards = False
        if self.state == Phase.OPEN:
            self._fail(WS_1013_TRY_AGAIN_LATER, "no room for another large message")
        else:
            self.abort()

    def on_unread(self, size: int) -> None:
        """What the app has not read is too much for this connection, or no longer."""
        self.engine.note_unread(self, self.address or "", size)

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
