"""The end of a connection, and its deadlines: those of the outbox, the ping, the Close.

Knows the end (`close_code`, the tasks that wait for it), the fate of the socket then, and the signs of the peer's
fault. Knows nothing of handshakes, of ASGI, or of when one says Close.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from antiphon.deadlines import Due
from antiphon.events import ConnectionClosed
from antiphon.shown import shown
from antiphon.status import WS_1006_ABNORMAL_CLOSURE
from antiphon.types import ClosedBy
from antiphon.wire import Phase, Ping, Pong, closing, encode_frame
from antiphon.wire import frames as opcodes
from antiphon.wire.closing import ClosingStep

from .backend import Pipe
from .engine import Engine
from .errors import ClientDisconnected
from .keepalive import Keepalive
from .sockets import look_at_peer, probe_silence, unacknowledged
from .stalls import InboxStall, OutboxStall, send_timed_out
from .state import move
from .verdict import Abort, Verdict
from .waiters import Waiters

_LINGER_TLS = 1.0  # TLS cannot half-close: a peer that may still be sending has this long to read why it is refused


class Watch:
    """Over one connection's pipe. An entry of the engine's `Deadlines`."""

    __slots__ = (
        "_close_due",
        "_engine",
        "_inbox_stall",
        "_opened_at",
        "_outbox_stall",
        "_pipe",
        "_waiters",
        "keepalive",
        "path",
        "slot",
    )

    def __init__(self, engine: Engine, pipe: Pipe) -> None:
        self.slot: int = -1
        self.path: str = ""
        """The request's, for log and observers; "" until it is known."""
        self.keepalive: Keepalive | None = None
        """From the opening on, where there are pings."""
        self._engine = engine
        self._pipe = pipe
        self._waiters: Waiters | None = None  # from the first who waits
        self._outbox_stall: OutboxStall | None = None  # while the transport holds bytes
        self._inbox_stall: InboxStall | None = None  # while the app does not read
        self._opened_at = 0.0
        self._close_due = 0.0

    # ------------------------------------------------------------ the end

    def do(self, step: ClosingStep) -> None:
        """Follow the table of the closing handshake. TCP is left to the caller."""
        pipe = self._pipe
        if step.payload is not None:
            pipe.put(encode_frame(opcodes.CLOSE, step.payload))
        pipe.state = step.phase
        if step.end is not None:
            self.finish(*step.end)

    def lose(self) -> None:
        """The TCP connection ends. Without a Close frame before, that is the end (1006)."""
        pipe = self._pipe
        if pipe.state >= Phase.OPEN:
            self.do(closing.eof(closing.PHASES[pipe.state]))
        else:
            move(pipe, Phase.GONE)
            self.finish(WS_1006_ABNORMAL_CLOSURE, "", ClosedBy.NOBODY)

    def finish(self, code: int, reason: str, by: ClosedBy) -> None:
        """Note how the connection ended, and tell all who wait. Only the first call counts."""
        pipe, engine = self._pipe, self._engine
        if pipe.close_code is not None:
            return
        pipe.close_code = code
        pipe.close_reason = reason
        pipe.closed_by = by
        if self._opened_at and engine.observed:
            duration = engine.clock() - self._opened_at
            rtt = None if self.keepalive is None else self.keepalive.rtt
            engine.emit(ConnectionClosed(path=self.path, code=code, closed_by=by, duration=duration, rtt=rtt))
        waiters, self._waiters = self._waiters, None
        if waiters is not None:
            error = ClientDisconnected("the connection ended while the outbox was full")
            waiters.tell_of_the_end(error, engine.logger)
        pipe.wake()

    def abort(self) -> None:
        """Drop the connection and its buffer, at once."""
        pipe = self._pipe
        pipe.fd = -1
        self.lose()
        self._engine.deadlines.leave(self)
        if pipe.transport is not None:
            pipe.transport.abort()

    def end_transport(self) -> None:
        """Close the TCP connection behind its buffer, or without it when that takes too long."""
        pipe = self._pipe
        pipe.flush()
        pipe.fd = -1
        transport = pipe.transport
        if transport is not None:
            transport.close()
            if pipe.handed or not transport.can_write_eof():  # TLS waits for the peer's word, half a minute
                self.close_within(self._engine.config.close_timeout)

    def end_sending(self) -> None:
        """Half-close behind the buffer, and read on until the peer has closed: it may be sending, and unread
        bytes are answered with a reset that can overtake our last words."""
        pipe = self._pipe
        pipe.flush()
        transport = pipe.transport
        if transport is None or transport.is_closing():
            return
        timeout = self._engine.config.close_timeout
        if transport.can_write_eof():
            pipe.fd = -1
            transport.write_eof()
            self.close_within(timeout)
        else:
            self.close_within(min(_LINGER_TLS, timeout))

    def close_within(self, seconds: float) -> None:
        """Abort the connection if it lasts longer."""
        engine = self._engine
        self._close_due = engine.clock() + seconds
        engine.deadlines.enter(self, self._close_due)

    # ------------------------------------------------------------ waiting for the end

    def on_handed(self) -> None:
        """`PipeWatch`: see that the peer takes something from time to time."""
        engine = self._engine
        stall = self._outbox_stall = OutboxStall(engine.clock(), engine.config.send_timeout)
        engine.deadlines.enter(self, stall.due)

    def on_drained(self) -> None:
        """The transport holds nothing any more."""
        pipe, waiters = self._pipe, self._waiters
        pipe.handed = False
        stall, self._outbox_stall = self._outbox_stall, None
        if stall is not None and stall.pong is not None and pipe.state == Phase.OPEN:
            pipe.put(encode_frame(opcodes.PONG, stall.pong))
        if waiters is not None:
            waiters.tell_of_room(self._engine.logger)

    async def drain_slowly(self) -> None:
        """`PipeWatch`: wait until the outbox has drained, to half at least; abort after `send_timeout`."""
        loop = self._pipe.loop
        waiters = self._waiting()
        future = loop.create_future()
        waiters.add_drainer(future)
        timer = loop.call_later(self._engine.config.send_timeout, self._send_timed_out)
        try:
            await future
        finally:
            timer.cancel()
            waiters.remove_drainer(future)

    async def yield_to_loop(self) -> None:
        """`PipeWatch`: let the loop turn once. It may find out that the peer is gone."""
        await asyncio.sleep(0)
        if self._pipe.state != Phase.OPEN:
            raise ClientDisconnected("the WebSocket is not open")

    def on_writable(self, callback: Callable[[], None]) -> None:
        """`PipeWatch`."""
        self._waiting().add_writable(callback)

    def on_close(self, callback: Callable[[], None]) -> None:
        """`PipeWatch`."""
        self._waiting().add_closer(callback)

    def off_close(self, callback: Callable[[], None]) -> None:
        """`PipeWatch`."""
        if self._waiters is not None:
            self._waiters.remove_closer(callback)

    def _waiting(self) -> Waiters:
        if self._waiters is None:
            self._waiters = Waiters()
        return self._waiters

    def _send_timed_out(self) -> None:
        pipe = self._pipe
        if pipe.transport is not None and pipe.state != Phase.GONE:
            self._end_by(send_timed_out(self.path, pipe.buffered))

    # ------------------------------------------------------------ deadlines

    def on_deadline(self, now: float) -> float | None:
        """`Deadlines`: do the work that is due, return the time of the next."""
        pipe = self._pipe
        if pipe.transport is None:
            return None
        if self._close_due:
            if now >= self._close_due:
                self.abort()
                return None
            return self._close_due
        if pipe.state == Phase.GONE:
            return None
        dues = []
        for verdict in (self._look_at_outbox(now), self._look_at_peer(now), self._look_at_inbox(now)):
            if verdict is None:
                continue
            if verdict.ending is not None:
                self._end_by(verdict.ending)
                return None
            if verdict.frame is not None:
                pipe.put(verdict.frame)
            if verdict.due is not None:
                dues.append(verdict.due)
        return min(dues, default=None)

    def _end_by(self, ending: Abort) -> None:
        engine = self._engine
        engine.logger.log(ending.level, "WebSocket %s aborted: %s", shown(self.path), ending.what)
        if ending.event is not None:
            engine.emit(ending.event)
        self.abort()

    def on_opened(self, handshake: Due) -> None:
        """The connection has opened: pings from now on, and no deadline of the handshake's any more."""
        engine = self._engine
        self._opened_at = now = engine.clock()
        times = engine.ping_times
        if times is not None:
            self.keepalive = Keepalive(times, now)
            engine.deadlines.succeed(handshake, self, self.keepalive.due)
        else:
            engine.deadlines.leave(handshake)

    def _look_at_outbox(self, now: float) -> Verdict | None:
        """Whether the peer takes our bytes."""
        stall, pipe = self._outbox_stall, self._pipe
        if stall is None or pipe.transport is None:
            return None
        if now < stall.due:
            return Verdict(stall.due)
        if self._waiters is not None and pipe.buffered * 2 <= pipe.outbox_limit:
            self._waiters.wake_drainers()
        taken = pipe.handed_bytes - pipe.transport.get_write_buffer_size() - unacknowledged(pipe.transport)
        return stall.check(now, taken, self.path, pipe.buffered)

    def _look_at_peer(self, now: float) -> Verdict | None:
        """Does the peer answer?"""
        if self.keepalive is None or self._pipe.state != Phase.OPEN:
            return None
        return self.keepalive.check(now, self._pipe, self.path)

    def _look_at_inbox(self, now: float) -> Verdict | None:
        """Is the peer there, while the app does not read?"""
        stall, pipe = self._inbox_stall, self._pipe
        if stall is None or not pipe.reading_paused or pipe.transport is None or pipe.state != Phase.OPEN:
            self._inbox_stall = None
            return None
        if now < stall.due:
            return Verdict(stall.due)
        return stall.check(now, look_at_peer(pipe.transport), pipe.inbox_bytes)

    def on_paused(self) -> None:
        """`PipeWatch`: look after the peer from time to time, since the loop does not tell the fate of a socket it
        does not read."""
        pipe, config = self._pipe, self._engine.config
        assert pipe.transport is not None
        if config.ping_interval is not None and config.ping_timeout is not None:
            probe_silence(pipe.transport, config.ping_interval, config.ping_timeout)
        stall = self._inbox_stall = InboxStall(self._engine.clock(), config.send_timeout, pipe.inbox_bytes)
        self._engine.deadlines.enter(self, stall.due)

    # ------------------------------------------------------------ control frames

    def on_ping(self, ping: Ping) -> None:
        """Answer; while the outbox is full, only the latest (RFC 6455 §5.5.3)."""
        stall, pipe = self._outbox_stall, self._pipe
        if stall is not None and pipe.buffered > pipe.outbox_limit:
            stall.pong = ping.payload
            return
        if stall is not None:
            stall.pong = None  # older than this one
        pipe.put(encode_frame(opcodes.PONG, ping.payload))

    def on_pong(self, pong: Pong) -> None:
        """Does it answer our latest ping?"""
        engine = self._engine
        now = engine.clock()
        if self.keepalive is not None and self.keepalive.note_pong(pong.payload, now):
            engine.deadlines.enter(self, now)  # the next ping has waited for it
