"""One connection from first byte to last: its parts, the app's task, and the closing handshake.

A `Session` is composed: its `Pipe` has the messages, its `Watch` the ends and deadlines, its `Handshake` the state
until the app has answered. README.md holds the table of states. The connections of one server share an `engine`. Knows
nothing of uvicorn.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Callable
from typing import Any, Final

from antiphon.events import ConnectionOpened, ProtocolViolated
from antiphon.shown import shown
from antiphon.status import (
    WS_1006_ABNORMAL_CLOSURE,
    WS_1008_POLICY_VIOLATION,
    WS_1011_INTERNAL_ERROR,
    WS_1012_SERVICE_RESTART,
    WS_1013_TRY_AGAIN_LATER,
)
from antiphon.types import STOPPING, ClosedBy, Message, Scope
from antiphon.wire import Close, Phase, Ping, Pong, ProtocolError, Role, closing

from .backend import Pipe
from .engine import Engine
from .errors import TOLD_OF_THE_END
from .handshake import Handshake
from .limits import FrameRate, limit_behind
from .sockets import PeerState, look_at_peer
from .state import APP_MAY_SEND, Opening, move
from .watch import Watch


class Session(asyncio.Protocol):
    """An asyncio protocol that speaks WebSocket to the peer and ASGI to the app, for which its pipe is the
    `Carrier`."""

    __slots__ = ("_rate", "_violation", "address", "data_received", "engine", "handshake", "pipe", "task", "watch")

    data_received: Callable[[bytes], None]  # type: ignore[assignment]
    """asyncio's callback: bytes came. The pipe's own, with nothing between (benchmarks: echo-32)."""

    def __init__(self, engine: Engine) -> None:
        self.engine: Final = engine
        self.pipe: Final[Pipe] = engine.twin.Pipe(engine, self)
        self.watch: Final = Watch(engine, self.pipe)
        self.pipe.watch = self.watch
        self.data_received = self.pipe.data_received
        self.task: asyncio.Task[Any] | None = None
        """The app's."""
        self.address: str | None = None
        """The client's, as counted by the engine's admission."""
        self.handshake: Handshake | None = None
        """Until it is answered."""
        self._rate: FrameRate | None = None
        self._violation: ProtocolError | None = None  # until the app has had its turn with earlier messages

    # ------------------------------------------------------------ transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio's callback: there is a transport, and the next bytes are a request."""
        engine = self.engine
        self.pipe.transport = transport  # type: ignore[assignment]
        engine.sessions[self] = None
        engine.connections.add(self)
        self.handshake = Handshake(engine, self.pipe, self.watch, self)

    def eof_received(self) -> bool:
        """asyncio's callback: the peer will send nothing more. Returns whether the transport stays open (a plain one),
        until the bytes before that have been parsed."""
        pipe = self.pipe
        if pipe.finish_later():
            assert pipe.transport is not None
            return pipe.transport.can_write_eof()  # TLS closes anyway, and warns of True
        self._end_of_input()
        return False

    def on_finished(self) -> None:
        """`PipeOwner`: all bytes before the peer's end have been parsed."""
        self._end_of_input()
        if self.pipe.transport is None:
            self._end_of_connection()
        else:
            self.pipe.transport.close()

    def drop_if_gone(self) -> bool:
        """`PipeOwner`: many wait for a turn. Nobody else should wait for a peer that sent much and is gone."""
        transport = self.pipe.transport
        if transport is None:
            self._end_of_connection()
            return True
        state = look_at_peer(transport)
        if state is PeerState.GONE or (state is PeerState.FINISHED and self.engine.turns.thronged):
            self.abort()
            return True
        return False

    def _end_of_input(self) -> None:
        """A WebSocket without a Close frame is lost (1006)."""
        pipe, watch = self.pipe, self.watch
        self._fail_for_violation()
        if pipe.state == Opening.DENYING:
            return  # it has sent its request, and its answer is under way
        open_or_before = pipe.state <= Phase.OPEN
        if not open_or_before:
            pipe.flush()
        watch.lose()
        if open_or_before:
            watch.end_transport()  # the loop's own close waits for ever for a peer that takes nothing

    def resume_writing(self) -> None:
        """asyncio's callback: the transport holds nothing any more. (That it does, the pipe has seen by itself.)"""
        self.watch.on_drained()

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio's callback: the end, however it came. Where the peer had finished before, all it said is there."""
        pipe = self.pipe
        pipe.fd = -1
        pipe.transport = None
        if not pipe.finished or pipe.state > Phase.CLOSING or pipe.reading_paused:
            self._end_of_connection()

    def _end_of_connection(self) -> None:
        engine, pipe = self.engine, self.pipe
        pipe.finished = False
        self.watch.lose()
        pipe.parser = None
        pipe.deflate = None
        self._drop_handshake()
        engine.deadlines.leave(self.watch)
        if pipe.hoards:
            self.on_unfinished(0)
        if self.address is not None:
            engine.admission.leave(self.address)
            self.address = None
        if self.task is None:
            self._leave()

    def abort(self) -> None:
        """Drop the connection and its buffers, at once."""
        self.watch.abort()

    # ------------------------------------------------------------ handshake

    def on_early_data(self, data: bytes) -> None:
        """`PipeOwner`: bytes while the connection is not open."""
        if self.handshake is not None:
            self.handshake.receive(data)

    def refuse(
        self, status: int, reason: str = "", headers: Any = (), *, body: bytes | None = None, expected: bool = True
    ) -> None:
        """Answer the handshake with a whole HTTP response and end the connection."""
        if self.handshake is not None and self.pipe.state <= Opening.WAITING_APP:
            self.handshake.refuse(status, reason, headers, body=body, expected=expected)

    def answered(self, *, half_close: bool) -> None:
        """`Handshake`: with an HTTP response, which is whole."""
        self._drop_handshake()
        self.watch.finish(WS_1006_ABNORMAL_CLOSURE, "", ClosedBy.US)
        if half_close:
            self.watch.end_sending()
        else:
            self.watch.end_transport()

    def _drop_handshake(self) -> None:
        if self.handshake is not None:
            self.engine.deadlines.leave(self.handshake)
            self.handshake = None

    def _open(self, handshake: Handshake, early: bytes | None) -> None:
        """The app has accepted: frames from now on, and those that came early."""
        self.handshake = None
        engine, pipe = self.engine, self.pipe
        config = engine.config
        pipe.parser = engine.twin.Parser(
            role=Role.SERVER, max_message_size=config.max_message_size, inflater=pipe.deflate
        )
        if config.max_frames_per_second is not None or config.max_bytes_per_second is not None:
            self._rate = FrameRate(config.max_frames_per_second, config.max_bytes_per_second, engine.clock())
            pipe.rated = True
        move(pipe, Phase.OPEN)
        self.watch.on_opened(handshake)
        if engine.observed:
            engine.emit(ConnectionOpened(path=self.watch.path))
        if early:
            pipe.data_received(early)  # now: later bytes must not overtake these

    # ------------------------------------------------------------ the app

    def run_app(self, scope: Scope) -> None:
        """`Handshake`: the request is whole."""
        engine, pipe = self.engine, self.pipe
        coroutine = engine.call_app(scope, pipe.asgi_receive, pipe.asgi_send)
        context = contextvars.Context() if engine.reset_contextvars else None
        task = engine.loop.create_task(coroutine, name=shown(self.watch.path), context=context)
        self.task = task
        engine.tasks.add(task)
        task.add_done_callback(self, context=engine.context)

    def __call__(self, task: asyncio.Task[Any]) -> None:
        """The app's task is over: close as docs/closing.md says, for an app that leaves the connection as it is.

        The session is its task's callback itself: a method of it would be an object more (benchmarks: idle).
        """
        engine, pipe = self.engine, self.pipe
        engine.tasks.discard(task)
        self.task = None
        error = None if task.cancelled() else task.exception()
        if error is not None and not (pipe.close_code is not None and isinstance(error, TOLD_OF_THE_END)):
            engine.logger.error("Exception in ASGI application\n", exc_info=error)
        failed = error is not None or task.cancelled()
        if pipe.state == Opening.WAITING_APP:
            if not failed:
                engine.logger.error("ASGI callable returned without completing handshake.")
            self.refuse(500, "Internal Server Error", expected=False)
        elif pipe.state == Phase.OPEN:
            self.close(WS_1011_INTERNAL_ERROR if failed else 1000)
        elif pipe.state == Opening.DENYING and self.handshake is not None:
            self.abort()  # a response cut short must not look whole
        if not failed and task.result() is not None:
            engine.logger.error("ASGI callable should return None, but returned '%s'.", task.result())
        if pipe.transport is None and not pipe.finished:
            self._leave()

    def _leave(self) -> None:
        """The connection is over and so is the app: until then a stop has to hear of both."""
        self.pipe.forget_inbox()
        self.pipe.let_go()
        self.engine.connections.discard(self)
        self.engine.sessions.pop(self, None)

    async def send_other(self, message: Message) -> None:
        """`PipeOwner`: everything the app may send but a message on an open connection."""
        kind, pipe, handshake = message["type"], self.pipe, self.handshake
        allowed = APP_MAY_SEND[pipe.state]
        if kind not in allowed:
            raise RuntimeError(f"expected ASGI message {' or '.join(map(repr, sorted(allowed)))}, but got {kind!r}")
        if kind == "websocket.close":
            if pipe.state == Phase.OPEN:
                code = message.get("code")
                self.close(1000 if code is None else code, message.get("reason") or "")
            else:
                self.refuse(403)
            pipe.told = True
            return
        assert handshake is not None
        if kind == "websocket.accept":
            self._open(handshake, handshake.accept(message))
        elif kind == "websocket.http.response.start":
            handshake.deny(message)
        elif await handshake.deny_body(message):
            pipe.told = True

    # ------------------------------------------------------------ closing

    def close(self, code: int, reason: str = "", *, timeout: float | None = None) -> None:
        """Say Close behind the buffered messages, and wait for the peer's, at most `timeout` (`close_timeout`)."""
        pipe, watch = self.pipe, self.watch
        if pipe.state == Opening.WAITING_APP:
            self.refuse(403, reason)
        if pipe.state != Phase.OPEN:
            return
        step = closing.close(Phase.OPEN, code, reason)  # a ValueError leaves all as it was
        pipe.forget_inbox()
        watch.do(step)
        watch.close_within(self.engine.config.close_timeout if timeout is None else timeout)
        pipe.resume_reading()  # the peer's Close is behind the unread messages

    def stop(self) -> None:
        """`Engine`: the server stops. An app that is at work on a message, and says so, closes when it has answered."""
        at_stop = self.pipe.at_stop
        if at_stop is None or not at_stop.defers_stop():
            self.close(WS_1012_SERVICE_RESTART, STOPPING)

    def disconnect(self, code: int, reason: str) -> None:
        """`PipeOwner`: close for a reason of ours. Abort when `send_timeout` passes first."""
        config = self.engine.config
        self.close(code, reason, timeout=config.send_timeout if self.pipe.handed else config.close_timeout)

    def on_control(self, event: Ping | Close) -> None:
        """`PipeOwner`: answer a ping, note a pong, complete or answer the closing handshake."""
        pipe, watch = self.pipe, self.watch
        if isinstance(event, Close):
            if pipe.state <= Phase.CLOSING:
                watch.do(closing.closed_by_peer(closing.PHASES[pipe.state], event))
                watch.end_transport()  # servers close first: RFC 6455 §7.1.1
        elif isinstance(event, Pong):
            watch.on_pong(event)
        elif pipe.state == Phase.OPEN:
            watch.on_ping(event)

    def on_violation(self, error: ProtocolError) -> None:
        """`PipeOwner`: fail the connection (RFC 6455 §7.1.7), once the app has had a turn with the messages before."""
        self.pipe.parser = None
        self._violation = error
        self.engine.loop.call_soon(self._fail_for_violation)

    def _fail_for_violation(self) -> None:
        error, self._violation = self._violation, None
        if error is not None and self.pipe.state <= Phase.CLOSING:
            self._fail(error.close_code, error.reason)

    def on_rate(self, size: int) -> None:
        """`PipeOwner`: a chunk came. Is the peer too fast?"""
        pipe = self.pipe
        assert self._rate is not None
        assert pipe.parser is not None
        if pipe.state == Phase.OPEN and not self._rate.spend(pipe.parser.frames, size, self.engine.clock()):
            self._fail(WS_1008_POLICY_VIOLATION, "too many messages")

    def on_unfinished(self, size: int) -> None:
        """`PipeOwner`: a large message grows, or is complete."""
        self.pipe.hoards = size > 0
        self.engine.note_unfinished(self, self.address or "", size)

    def give_up_message(self) -> None:
        """`Engine`: the unfinished messages of all are too much, and this one is the greediest."""
        self.pipe.hoards = False
        if self.pipe.state == Phase.OPEN:
            self._fail(WS_1013_TRY_AGAIN_LATER, "no room for another large message")
        else:
            self.abort()

    def on_unread(self, size: int) -> None:
        """`PipeOwner`: the app's unread messages are too many for this connection, or no longer."""
        self.engine.note_unread(self, self.address or "", size)

    def give_up_inbox(self) -> None:
        """`Engine`: the unread messages of all apps are too many, and this one has the most."""
        self.pipe.overfull = False
        self.pipe.forget_inbox()
        if self.pipe.state == Phase.OPEN:
            self._fail(WS_1013_TRY_AGAIN_LATER, "no room for messages that wait unread")

    def _fail(self, code: int, reason: str) -> None:
        """Close for the peer's fault. Earlier messages are still delivered, later bytes are dropped unread.

        Closing the socket now would answer unread bytes with a reset, which may overtake our Close.
        """
        engine, pipe, watch = self.engine, self.pipe, self.watch
        step = closing.failed(Phase(pipe.state), code, reason)
        if step.end is not None:
            limit = limit_behind(code, engine.config)
            level = logging.INFO if limit else logging.DEBUG
            engine.logger.log(level, "WebSocket %s closed: %d %s", shown(watch.path), code, shown(limit or reason))
            engine.emit(ProtocolViolated(path=watch.path, code=code, reason=reason))
        pipe.parser = None
        watch.do(step)
        pipe.resume_reading()
        watch.end_sending()
