"""How a connection ends, and what has a deadline: the outbox, the ping, the Close. Between `Pipe` and `Session`.

Knows what an end is (`close_code`, who waits for it) and what counts as the peer's fault; knows nothing of handshakes,
of ASGI, or of when one says Close.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

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
from .state import MOVES, Opening, State, state_of
from .verdict import Abort, Verdict

_LINGER_TLS = 1.0  # TLS cannot half-close: a peer that may still be sending has this long to read why it is refused


class Watched(Pipe, asyncio.Protocol):
    """A pipe with deadlines, whose end is told once to all who wait."""

    __slots__ = (
        "_close_due",
        "_closers",
        "_drainers",
        "_inbox_stall",
        "_opened_at",
        "_outbox_stall",
        "_writables",
        "closed_by",
        "engine",
        "keepalive",
        "path",
        "slot",
    )

    # As `Reading` declares them, for type checkers that look at assignments here.
    state: int
    fd: int
    close_code: int | None

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self.engine: Engine = engine
        self.slot: int = -1
        self.path: str = ""
        self.closed_by: ClosedBy | None = None
        self.keepalive: Keepalive | None = None
        """From the opening on, where there are pings."""
        self._outbox_stall: OutboxStall | None = None  # while the transport holds bytes
        self._inbox_stall: InboxStall | None = None  # while the app does not read
        self._drainers: list[asyncio.Future[None]] | None = None
        self._writables: list[Callable[[], None]] | None = None
        self._closers: list[Callable[[], None]] | None = None
        self._opened_at = 0.0
        self._close_due = 0.0

    # ------------------------------------------------------------ the end

    def move(self, state: State) -> None:
        """Enter a state before the connection is open, or open it."""
        assert state in MOVES[self.state], f"{state_of(self.state).name} -> {state.name}"
        self.state = state

    def _do(self, step: ClosingStep) -> None:
        """Do what the table of the closing handshake says; what becomes of TCP is the caller's."""
        if step.payload is not None:
            self.put(encode_frame(opcodes.CLOSE, step.payload))
        self.state = step.phase
        if step.end is not None:
            self._finish(*step.end)

    def _lost(self) -> None:
        """The TCP connection ends. Without a Close frame before, that is the end (1006)."""
        if self.state >= Phase.OPEN:
            self._do(closing.eof(Phase(self.state)))
        else:
            self.move(Phase.GONE)
            self._finish(WS_1006_ABNORMAL_CLOSURE, "", ClosedBy.NOBODY)

    def _finish(self, code: int, reason: str, by: ClosedBy) -> None:
        """Note how the connection ended, and tell all who wait. Only the first call counts."""
        if self.close_code is not None:
            return
        self.close_code = code
        self.close_reason = reason
        self.closed_by = by
        if self._opened_at:
            duration = self.engine.clock() - self._opened_at
            rtt = None if self.keepalive is None else self.keepalive.rtt
            self.engine.emit(ConnectionClosed(path=self.path, code=code, closed_by=by, duration=duration, rtt=rtt))
        for future in self._emptied("_drainers"):
            if not future.done():
                future.set_exception(ClientDisconnected("the connection ended while the outbox was full"))
        self._call_all("_writables")
        self._call_all("_closers")
        self.wake()

    def _call_all(self, name: str) -> None:
        for callback in self._emptied(name):
            try:
                callback()
            except Exception:
                self.engine.logger.exception("a callback of a WebSocket failed")

    def _emptied(self, name: str) -> list[Any]:
        """The list in that attribute, which becomes None."""
        entries: list[Any] | None = getattr(self, name)
        if entries is None:
            return []
        setattr(self, name, None)
        return entries

    def abort(self) -> None:
        """Drop the connection and what is buffered, at once."""
        self.fd = -1
        self._lost()
        self.engine.deadlines.leave(self)
        if self.transport is not None:
            self.transport.abort()

    def _end_transport(self) -> None:
        """Close the TCP connection behind what is buffered, or without it when that takes too long."""
        self.flush()
        self.fd = -1
        transport = self.transport
        if transport is not None:
            transport.close()
            if self.handed or not transport.can_write_eof():  # TLS waits for the peer's word, half a minute
                self._close_within(self.engine.config.close_timeout)

    def _end_sending(self) -> None:
        """Half-close behind what is buffered, and read on until the peer has closed: it may be sending, and unread
        bytes are answered with a reset that can overtake what we said last."""
        self.flush()
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        timeout = self.engine.config.close_timeout
        if transport.can_write_eof():
            self.fd = -1
            transport.write_eof()
            self._close_within(timeout)
        else:
            self._close_within(min(_LINGER_TLS, timeout))

    # ------------------------------------------------------------ outbox: who waits

    def pause_writing(self) -> None:
        """asyncio's callback: the transport holds bytes, which `flush` knows already."""

    def resume_writing(self) -> None:
        """asyncio's callback: the transport holds nothing any more."""
        self.handed = False
        stall, self._outbox_stall = self._outbox_stall, None
        if stall is not None and stall.pong is not None and self.state == Phase.OPEN:
            self.put(encode_frame(opcodes.PONG, stall.pong))
        self._wake_drainers()
        self._call_all("_writables")

    def on_handed(self) -> None:
        """Watch that the peer takes something from time to time."""
        engine = self.engine
        stall = self._outbox_stall = OutboxStall(engine.clock(), engine.config.send_timeout)
        engine.deadlines.enter(self, stall.due)

    async def drain_slowly(self) -> None:
        """Wait until the outbox has drained, to half at least; abort after `send_timeout`."""
        future = self.loop.create_future()
        if self._drainers is None:
            self._drainers = []
        self._drainers.append(future)
        timer = self.loop.call_later(self.engine.config.send_timeout, self._send_timed_out)
        try:
            await future
        finally:
            timer.cancel()
            if self._drainers is not None and future in self._drainers:
                self._drainers.remove(future)

    async def breathe(self) -> None:
        """Let the loop turn once; it may find out that the peer is gone."""
        await asyncio.sleep(0)
        if self.state != Phase.OPEN:
            raise ClientDisconnected("the WebSocket is not open")

    def _wake_drainers(self) -> None:
        for future in self._emptied("_drainers"):
            if not future.done():
                future.set_result(None)

    def _send_timed_out(self) -> None:
        if self.transport is not None and self.state != Phase.GONE:
            self._end_by(send_timed_out(self.path, self.buffered))

    def on_writable(self, callback: Callable[[], None]) -> None:
        """`types.Sink`: call back once, when the outbox has drained or the connection is over."""
        self.flush()
        if self.close_code is not None or not self.handed:
            self.loop.call_soon(callback)
        elif self._writables is None:
            self._writables = [callback]
        else:
            self._writables.append(callback)

    def on_close(self, callback: Callable[[], None]) -> None:
        """`types.Sink`: call back once, when the connection is over; at once if it is."""
        if self.close_code is not None:
            callback()
        elif self._closers is None:
            self._closers = [callback]
        else:
            self._closers.append(callback)

    def off_close(self, callback: Callable[[], None]) -> None:
        """`types.Sink`: forget a callback given to `on_close`."""
        if self._closers is not None and callback in self._closers:
            self._closers.remove(callback)
            self._closers = self._closers or None

    # ------------------------------------------------------------ deadlines

    def _close_within(self, seconds: float) -> None:
        self._close_due = self.engine.clock() + seconds
        self.engine.deadlines.enter(self, self._close_due)

    def on_deadline(self, now: float) -> float | None:
        """`Deadlines`: do what is due, say when to come back."""
        if self.transport is None:
            return None
        if self.state <= Opening.WAITING_APP:
            return self.on_handshake_deadline(now)
        if self._close_due:
            if now >= self._close_due:
                self.abort()
                return None
            return self._close_due
        if self.state == Phase.GONE:
            return None
        dues = []
        for verdict in (self._look_at_outbox(now), self._look_at_peer(now), self._look_at_inbox(now)):
            if verdict is None:
                continue
            if verdict.ending is not None:
                self._end_by(verdict.ending)
                return None
            if verdict.frame is not None:
                self.put(verdict.frame)
            if verdict.due is not None:
                dues.append(verdict.due)
        return min(dues, default=None)

    def _end_by(self, ending: Abort) -> None:
        engine = self.engine
        engine.logger.log(ending.level, "WebSocket %s aborted: %s", shown(self.path), ending.what)
        if ending.event is not None:
            engine.emit(ending.event)
        self.abort()

    def on_handshake_deadline(self, now: float) -> float | None:
        """There is a deadline, and the handshake is not over."""
        raise NotImplementedError

    def watch_pings(self, now: float) -> None:
        """The connection has opened: pings from now on."""
        self._opened_at = now
        times = self.engine.ping_times
        if times is not None:
            self.keepalive = Keepalive(times, now)
            self.engine.deadlines.enter(self, self.keepalive.due)

    def _look_at_outbox(self, now: float) -> Verdict | None:
        """Does the peer take what we send?"""
        stall = self._outbox_stall
        if stall is None or self.transport is None:
            return None
        if now < stall.due:
            return Verdict(stall.due)
        if self.buffered * 2 <= self.outbox_limit:
            self._wake_drainers()
        taken = self.handed_bytes - self.transport.get_write_buffer_size() - unacknowledged(self.transport)
        return stall.check(now, taken, self.path, self.buffered)

    def _look_at_peer(self, now: float) -> Verdict | None:
        """Does the peer answer?"""
        if self.keepalive is None or self.state != Phase.OPEN:
            return None
        return self.keepalive.check(now, self, self.path)

    def _look_at_inbox(self, now: float) -> Verdict | None:
        """Is the peer there, while the app does not read?"""
        stall = self._inbox_stall
        if stall is None or not self.reading_paused or self.transport is None or self.state != Phase.OPEN:
            self._inbox_stall = None
            return None
        if now < stall.due:
            return Verdict(stall.due)
        return stall.check(now, look_at_peer(self.transport), self.inbox_bytes)

    def on_paused(self) -> None:
        """Look after the peer from time to time: the loop does not tell what happens to a socket it does not read."""
        config = self.engine.config
        assert self.transport is not None
        if config.ping_interval is not None and config.ping_timeout is not None:
            probe_silence(self.transport, config.ping_interval, config.ping_timeout)
        stall = self._inbox_stall = InboxStall(self.engine.clock(), config.send_timeout, self.inbox_bytes)
        self.engine.deadlines.enter(self, stall.due)

    def note_ping(self, ping: Ping) -> None:
        """Answer; while the outbox is full, only the latest (RFC 6455 §5.5.3)."""
        stall = self._outbox_stall
        if stall is not None and self.buffered > self.outbox_limit:
            stall.pong = ping.payload
            return
        if stall is not None:
            stall.pong = None  # older than this one
        self.put(encode_frame(opcodes.PONG, ping.payload))

    def note_pong(self, pong: Pong) -> None:
        """Does it answer our latest ping?"""
        now = self.engine.clock()
        if self.keepalive is not None and self.keepalive.note_pong(pong.payload, now):
            self.engine.deadlines.enter(self, now)  # the next ping has waited for it
