"""Pings, their pongs, and the blame for a missing pong.

Calls nobody: takes the connection's visible state and the time, and returns verdicts.
"""

from __future__ import annotations

import struct
from typing import Any, Final, NamedTuple, Protocol

from antiphon.events import KeepaliveTimeout
from antiphon.wire import encode_frame
from antiphon.wire.frames import PING

from .verdict import Abort, Verdict


class PingTimes(NamedTuple):
    """Of all connections of a server, in seconds."""

    after: float
    """From the opening, or a ping, to the next ping."""
    timeout: float | None
    """For the pong of a ping that could not be expected sooner. None: no pong is expected."""
    answer: float
    """For the pong of one that could."""


def ping_times(interval: float | None, timeout: float | None, tick: float) -> PingTimes | None:
    """The configured times, adjusted for deadlines that are up to two ticks late. None: no pings."""
    if interval is None:
        return None
    return PingTimes(max(0.0, interval - 2 * tick), timeout, max(0.0, (timeout or 0.0) - 2 * tick))


class Line(Protocol):
    """The visible state of a connection. `backend.Pipe` implements it."""

    handed: bool
    """Frames wait for the peer."""
    stopped: bool
    """We do not read."""
    was_paused: bool
    """We did not read at some time since this was cleared."""
    received: int
    """Chunks."""
    parser: Any


class Keepalive:
    """Of one open connection."""

    __slots__ = ("_number", "_pong_due", "_received", "_sent", "_since", "_times", "rtt")

    def __init__(self, times: PingTimes, now: float) -> None:
        self._times: Final = times
        self._since = now  # the opening, or the last ping; the watch holds the same float (benchmarks: idle)
        self.rtt: float | None = None
        """Seconds from the last answered ping to its pong. None before the first."""
        self._pong_due = 0.0  # 0.0: none is expected
        self._sent = 0.0  # the ping that is not answered; 0.0: there is none
        self._number = 0  # which is its payload
        self._received = 0  # chunks before it

    @property
    def due(self) -> float:
        """When the next ping is."""
        return self._since + self._times.after

    def check(self, now: float, line: Line, path: str) -> Verdict:
        """Is a ping due, or its pong?"""
        times = self._times
        if self._pong_due and now >= self._pong_due:
            if not self._is_excused(line):
                waited = now - self._sent
                return Verdict(
                    ending=Abort(f"no pong since {waited:.1f} s", KeepaliveTimeout(path=path, waited=waited))
                )
            assert times.timeout is not None
            self._pong_due = now + times.timeout
            self._received = line.received
            line.was_paused = line.stopped
        frame = None
        if now >= self.due and not self._pong_due:
            self._since = now
            if not line.stopped and not line.handed:
                frame = self._ping(now, line)
        if self._pong_due:
            return Verdict(min(self.due, self._pong_due) if self.due > now else self._pong_due, frame)
        return Verdict(self.due, frame)

    def note_pong(self, payload: bytes, now: float) -> bool:
        """A pong came. Returns whether a ping has waited for it."""
        if not self._sent or payload != struct.pack("!I", self._number):
            return False  # nobody has asked for it, or not lately (RFC 6455 §5.5.3)
        self.rtt = now - self._sent
        self._sent = 0.0
        self._pong_due = 0.0
        return self.due <= now

    def _ping(self, now: float, line: Line) -> bytes:
        self._number = (self._number + 1) & 0xFFFFFFFF
        self._sent = now
        self._received = line.received
        line.was_paused = False
        if self._times.timeout is not None:
            self._pong_due = now + self._times.answer
        return encode_frame(PING, struct.pack("!I", self._number))

    def _is_excused(self, line: Line) -> bool:
        """The missing pong is not the peer's fault: we did not read, could not send, or it is amid a long frame."""
        if line.stopped or line.was_paused or line.handed:
            return True
        return line.parser is not None and line.parser.buffered > 0 and line.received != self._received
