"""How a connection ends, and what has a deadline: the outbox, the ping, the Close. Between `Channel` and `Session`.

Knows what an end is (`close_code`, who waits for it) and what counts as the peer's fault; knows nothing of handshakes,
of ASGI, or of when one says Close.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from typing import Any

from antiphon.events import ConnectionClosed, KeepaliveTimeout, SendTimeout
from antiphon.shown import shown
from antiphon.status import WS_1006_ABNORMAL_CLOSURE
from antiphon.types import ClosedBy
from antiphon.wire import Phase, Ping, Pong, closing, encode_frame
from antiphon.wire import frames as opcodes
from antiphon.wire.closing import Step

from .backend import Channel
from .engine import Engine
from .errors import ClientDisconnected
from .sockets import Peer, look_at_peer, probe_silence, unacknowledged
from .state import MOVES, Opening, State, state_of

_LINGER_TLS = 1.0  # TLS cannot half-close: a peer that may still be sending has this long to read why it is refused
_STALL_CHECKS = 4  # a stalled outbox is looked at so often per send_timeout
_LONGEST_UNSEEN = 1.0  # seconds until the end of a peer that we do not read from is noticed


class Watched(Channel, asyncio.Protocol):
    """A channel with deadlines, whose end is told once to all who wait."""

    __slots__ = (
        "_close_due",
        "_closers",
        "_drainers",
        "_opened_at",
        "_ping_due",
        "_ping_number",
        "_ping_sent",
        "_pong",
        "_pong_due",
        "_received_at_ping",
        "_stall_due",
        "_stall_since",
        "_taken",
        "_unread",
        "_unread_due",
        "_unread_since",
        "_writables",
        "closed_by",
        "engine",
        "path",
        "rtt",
        "slot",
    )

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self.engine = engine
        self.slot = -1
        self.path = ""
        self.rtt: float | None = None
        """Seconds from the last answered ping to its pong; None before the first."""
        self.closed_by: ClosedBy | None = None
        self._drainers: list[asyncio.Future[None]] | None = None
        self._writables: list[Callable[[], None]] | None = None
        self._closers: list[Callable[[], None]] | None = None
        self._pong: bytes | None = None  # the latest ping's payload, while the outbox is full
        self._opened_at = 0.0
        self._close_due = 0.0
        self._ping_due = 0.0
        self._pong_due = 0.0
        self._ping_sent = 0.0
        self._ping_number = 0
        self._received_at_ping = 0
        self._stall_due = 0.0
        self._stall_since = 0.0
        self._taken: int | None = None  # bytes the peer had taken when we looked last
        self._unread_due = 0.0
        self._unread_since = 0.0
        self._unread = 0  # bytes the app had not read when we looked last

    # ------------------------------------------------------------ the end

    def move(self, state: State) -> None:
        """Enter a state before the connection is open, or open it."""
        assert state in MOVES[self.state], f"{state_of(self.state).name} -> {state.name}"
        self.state = state

    def _do(self, step: Step) -> None:
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
            self.engine.emit(ConnectionClosed(path=self.path, code=code, closed_by=by, duration=duration))
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
        if self._pong is not None and self.state == Phase.OPEN:
            self.put(encode_frame(opcodes.PONG, self._pong))
        self._pong = None
        self._wake_drainers()
        self._call_all("_writables")

    def on_handed(self) -> None:
        """Watch that the peer takes something from time to time."""
        engine = self.engine
        now = engine.clock()
        self._stall_since = now
        self._taken = None
        self._stall_due = now + engine.config.send_timeout / _STALL_CHECKS
        engine.deadlines.enter(self, self._stall_due)

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
        engine = self.engine
        if self.transport is not None and self.state != Phase.GONE:
            engine.logger.info("WebSocket %s aborted: the peer does not read", shown(self.path))
            engine.emit(SendTimeout(path=self.path, buffered=self.buffered))
            self.abort()

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
        dues = (self._check_outbox(now), self._check_ping(now), self._check_unread(now))
        return min((due for due in dues if due), default=None)

    def on_handshake_deadline(self, now: float) -> float | None:
        """There is a deadline, and the handshake is not over."""
        raise NotImplementedError

    def watch_pings(self, now: float) -> None:
        """The connection has opened: pings from now on."""
        self._opened_at = now
        if self.engine.config.ping_interval is not None:
            self._ping_due = now + self.engine.ping_after
            self.engine.deadlines.enter(self, self._ping_due)

    def _check_outbox(self, now: float) -> float | None:
        """Abort when the peer has taken nothing for `send_timeout`."""
        if not self.handed or self.state == Phase.GONE or self.transport is None:
            return None
        if now < self._stall_due:
            return self._stall_due
        if self.buffered * 2 <= self.outbox_limit:
            self._wake_drainers()
        taken = self.handed_bytes - self.transport.get_write_buffer_size() - unacknowledged(self.transport)
        timeout = self.engine.config.send_timeout
        if taken != self._taken:
            if self._taken is not None:
                self._stall_since = now
            self._taken = taken
        elif now - self._stall_since >= timeout:
            self._send_timed_out()
            return None
        self._stall_due = min(now + timeout / _STALL_CHECKS, max(self._stall_since + timeout, now))
        return self._stall_due

    def _check_ping(self, now: float) -> float | None:
        """Send a ping when one is due; abort when its pong is."""
        config = self.engine.config
        if self.state != Phase.OPEN or config.ping_interval is None:
            return None
        if self._pong_due and now >= self._pong_due:
            if not self._is_excused():
                self._keepalive_failed(now)
                return None
            assert config.ping_timeout is not None
            self._pong_due = now + config.ping_timeout
            self._received_at_ping = self.received
            self.was_paused = self.stopped
        if now >= self._ping_due and not self._pong_due:
            if self.stopped or self.handed:
                self._ping_due = now + self.engine.ping_after
            else:
                self._send_ping(now)
        if self._pong_due and self._ping_due > now:
            return min(self._ping_due, self._pong_due)
        return self._pong_due or self._ping_due

    def on_paused(self) -> None:
        """Look after the peer from time to time: the loop does not tell what happens to a socket it does not read."""
        config = self.engine.config
        assert self.transport is not None
        if config.ping_interval is not None and config.ping_timeout is not None:
            probe_silence(self.transport, config.ping_interval, config.ping_timeout)
        self._unread_since = self.engine.clock()
        self._unread = self.inbox_bytes
        self._unread_due = self._unread_since + min(_LONGEST_UNSEEN, config.send_timeout / _STALL_CHECKS)
        self.engine.deadlines.enter(self, self._unread_due)

    def _check_unread(self, now: float) -> float | None:
        """Abort when the peer is gone; when it has only finished, if the app reads nothing for `send_timeout`."""
        if not self.reading_paused or self.transport is None or self.state != Phase.OPEN:
            return None
        if now < self._unread_due:
            return self._unread_due
        timeout = self.engine.config.send_timeout
        peer = look_at_peer(self.transport)
        if peer is Peer.THERE or self.inbox_bytes != self._unread:
            self._unread_since = now
            self._unread = self.inbox_bytes
        if peer is Peer.GONE or now - self._unread_since >= timeout:
            self.engine.logger.debug(
                "WebSocket %s aborted: the peer is gone, and the app does not read", shown(self.path)
            )
            self.abort()
            return None
        self._unread_due = now + min(_LONGEST_UNSEEN, timeout / _STALL_CHECKS)
        return self._unread_due

    def note_ping(self, ping: Ping) -> None:
        """Answer; while the outbox is full, only the latest (RFC 6455 §5.5.3)."""
        if self.handed and self.buffered > self.outbox_limit:
            self._pong = ping.payload
        else:
            self._pong = None  # older than this one
            self.put(encode_frame(opcodes.PONG, ping.payload))

    def note_pong(self, pong: Pong) -> None:
        """Does it answer our latest ping?"""
        if self._ping_sent and pong.payload == struct.pack("!I", self._ping_number):
            now = self.engine.clock()
            self.rtt = now - self._ping_sent
            self._ping_sent = 0.0
            self._pong_due = 0.0
            if self._ping_due <= now:  # the next ping has waited for this pong
                self.engine.deadlines.enter(self, now)

    def _is_excused(self) -> bool:
        """The missing pong is not the peer's fault: we did not read, could not send, or it is amid a long frame."""
        if self.stopped or self.was_paused or self.handed:
            return True
        return self.parser is not None and self.parser.buffered > 0 and self.received != self._received_at_ping

    def _send_ping(self, now: float) -> None:
        config = self.engine.config
        self._ping_number = (self._ping_number + 1) & 0xFFFFFFFF
        self._ping_sent = now
        self._received_at_ping = self.received
        self.was_paused = False
        self.put(encode_frame(opcodes.PING, struct.pack("!I", self._ping_number)))
        self._ping_due = now + self.engine.ping_after
        if config.ping_timeout is not None:
            self._pong_due = now + max(config.ping_timeout - 2 * self.engine.deadlines.tick, 0.0)

    def _keepalive_failed(self, now: float) -> None:
        self.engine.logger.info("WebSocket %s aborted: no pong since %.1f s", shown(self.path), now - self._ping_sent)
        self.engine.emit(KeepaliveTimeout(path=self.path, waited=now - self._ping_sent))
        self.abort()
