"""One small message per interval to each connection that was added, so that a page sees that its link is alive.

A browser shows its page no pings. Each event loop has one `Heart`: a wheel of connections that one timer turns, so that
they are not all served in the same moment. A heartbeat belongs to no topic: it is no entry, has no position, waits for
nobody and counts as nothing that was lost. The hub has its own for connections with events, a channel with
`ChannelOptions(heartbeat=)` another.
"""

from __future__ import annotations

import asyncio
import math
from typing import Final

from antiphon.types import PreparedMessage, Sink

HEARTBEAT: Final = PreparedMessage('{"type":"heartbeat"}')
"""The hub's, encoded once for all connections."""

TURNS: Final = 8
"""Parts of an interval, each with its share of the connections."""

SHORTEST: Final = 1.0
"""Seconds: more often says nothing more about a link, and costs a phone its sleep."""

LONGEST: Final = 3600.0


def check_heartbeat(seconds: object) -> float | None:
    """The interval, or None for no heartbeat. Raises TypeError, ValueError."""
    if seconds is None:
        return None
    if not isinstance(seconds, int | float):
        raise TypeError(f"heartbeat: expected a number, got {type(seconds).__name__}")
    if not math.isfinite(seconds) or not SHORTEST <= seconds <= LONGEST:
        raise ValueError(f"heartbeat: expected {SHORTEST:g} to {LONGEST:g} seconds, or None; got {seconds!r}")
    return seconds


class Hearts:
    """The hearts of all event loops."""

    def __init__(self, interval: float, message: PreparedMessage = HEARTBEAT) -> None:
        self._interval = interval
        self._message = message
        self._hearts: dict[asyncio.AbstractEventLoop, Heart] = {}

    def add(self, sink: Sink) -> None:
        """From now on and until it closes, the connection gets a heartbeat each interval; once, however often added.

        It goes on when the connection leaves its topics: the page expects it. In the thread of its loop.
        """
        heart = self._hearts.get(sink.loop)
        if heart is None:
            for loop in tuple(self._hearts):
                if loop.is_closed():
                    self._hearts.pop(loop, None)
            heart = self._hearts[sink.loop] = Heart(sink.loop, self._interval, self._message)
        heart.add(sink)


class Heart:
    """The connections of one event loop, in the turn in which each gets its heartbeat."""

    def __init__(self, loop: asyncio.AbstractEventLoop, interval: float, message: PreparedMessage) -> None:
        self._loop = loop
        self._message = message
        self._pause = interval / TURNS
        self._wheel: list[dict[Sink, None]] = [{} for _ in range(TURNS)]
        self._turn = 0
        """The latest turn: a new connection is served in it next, when nearly an interval has passed."""
        self._turns: dict[Sink, int] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, sink: Sink) -> None:
        if sink in self._turns or not sink.alive:
            return
        self._turns[sink] = self._turn
        self._wheel[self._turn][sink] = None
        if self._timer is None:
            self._timer = self._loop.call_later(self._pause, self._beat)
        sink.on_close(lambda: self._remove(sink))

    def _remove(self, sink: Sink) -> None:
        turn = self._turns.pop(sink, None)
        if turn is not None:
            del self._wheel[turn][sink]
        if not self._turns and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _beat(self) -> None:
        self._timer = self._loop.call_later(self._pause, self._beat)
        self._turn = (self._turn + 1) % TURNS
        for sink in tuple(self._wheel[self._turn]):
            if not sink.buffered:  # waiting messages tell this peer as much, and a peer that is stuck gets no more
                sink.offer(self._message, 1)
