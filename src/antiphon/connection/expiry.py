"""The expiry of connections: one wheel and one clock per event loop, for any number of connections.

Owns the deadlines, and the notices ahead of them. Knows nothing of connections, nor of ways to end them.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final
from weakref import WeakKeyDictionary, ref

from antiphon.deadlines import Deadlines, keeps_system_time

from .owner import run_in

logger: Final = logging.getLogger("antiphon")

TICK: Final = 0.25
"""Seconds: a deadline is at most two of them late, and one more than 128 s away is looked at that often."""

STEP: Final = 0.25
"""Seconds that the wall clock may run ahead before it counts as set. With two ticks that stays below the promised
second."""

ENDS_PER_TURN: Final = 100
"""Connections that are ended in one turn of the loop, some milliseconds. Tokens issued together, or a clock that jumps,
end thousands at once, and the others should not wait for all of them."""

NEVER: Final = 1e12
"""Unix seconds. A date beyond it is no date."""

WallClock = Callable[[], float]


class ExpiryClock:
    """Time as far as it has passed by the loop's clock, or by the wall clock where that was set forward.

    A wall clock that is set back gives nobody more time. One that jumps ahead, as after a suspended machine wakes up,
    takes it.
    """

    def __init__(self, monotonic: Callable[[], float], wall: WallClock, step: float = STEP) -> None:
        self._monotonic = monotonic
        self._wall = wall
        self._step = step
        self._skipped = 0.0
        self._ahead = wall() - monotonic()

    def __call__(self) -> float:
        now = self._monotonic()
        ahead = self._wall() - now
        moved = ahead - self._ahead
        if abs(moved) > self._step:
            self._ahead = ahead
            self._skipped += max(moved, 0.0)
        return now + self._skipped

    def at(self, expires_at: float) -> float:
        """The Unix time `expires_at` by this clock."""
        return self() + max(-NEVER, min(expires_at, NEVER)) - self._wall()


class Expiries:
    """The expiries of one event loop. `wall` gives Unix seconds. It steps where it runs off by more than `step`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, wall: WallClock = time.time, step: float = STEP) -> None:
        weak = ref(loop)  # the table below holds these by their loop
        empty = contextvars.Context()  # the timer would keep that of the first connection

        def running() -> asyncio.AbstractEventLoop:
            alive = weak()
            assert alive is not None, "who arms, and who is called, runs in it"
            return alive

        self.clock: Final = ExpiryClock(lambda: running().time(), wall, step)
        self.deadlines: Final = Deadlines(
            TICK, self.clock, lambda delay, call: running().call_later(delay, call, context=empty)
        )
        self._due: deque[Expiry] = deque()
        self._call_soon: Callable[[], object] = lambda: running().call_soon(self._end_some, context=empty)

    def end_soon(self, expiry: Expiry) -> None:
        """It is due: end it in its turn, unless it is renewed before."""
        self._due.append(expiry)
        if len(self._due) == 1:
            self._call_soon()

    def _end_some(self) -> None:
        for _ in range(min(ENDS_PER_TURN, len(self._due))):
            expiry = self._due.popleft()
            try:
                expiry.end_if_due()
            except Exception as exc:  # the others still end
                logger.error("a connection that has expired could not be ended", exc_info=exc)
        if self._due:
            self._call_soon()


class Expiry:
    """When one connection expires. `end` is called then, in the thread of `loop`."""

    __slots__ = ("_ahead", "_expiries", "_loop", "_tell", "_told_at", "due", "end", "is_over", "slot")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, end: Callable[[], None], expiries: Expiries | None = None
    ) -> None:
        self._loop = loop
        self._expiries = expiries or expiries_of(loop)
        self.end: Callable[[], None] = end
        self.slot: int = -1
        self.due: float | None = None
        """By the clock of the expiries. None: never."""
        self.is_over: bool = False
        """It has expired, or its connection has ended otherwise."""
        self._ahead = 0.0
        self._tell: Callable[[float], None] | None = None
        self._told_at: float | None = None
        """The time of the notice ahead of the end. None: no notice, or it is done."""

    def expire_at(self, expires_at: float | None) -> None:
        """From now on it expires at this Unix time, earlier or later than before. None: never. From any thread."""
        run_in(self._loop, lambda: self._arm(expires_at))

    def tell_ahead(self, seconds: float | None, tell: Callable[[float], None] | None) -> None:
        """Call `tell` with the seconds left, this long ahead, but not in the first half of the time left now."""
        self._ahead = seconds or 0.0
        self._tell = tell
        self._plan()

    def leave(self) -> None:
        """The connection is over: forget it. From any thread."""
        if not self.is_over:
            self.is_over = True
            run_in(self._loop, self._forget)

    def _forget(self) -> None:
        deadlines = self._expiries.deadlines
        deadlines.leave(self)
        if not deadlines:
            deadlines.stop()  # a timer would hold its loop, and the loop's expiries would outlive it
        self._tell = None

    def _arm(self, expires_at: float | None) -> None:
        if self.is_over:
            return
        self.due = None if expires_at is None or expires_at >= NEVER else self._expiries.clock.at(expires_at)
        self._plan()

    def _plan(self) -> None:
        """Enter the first event into the wheel. An older entry that comes too early is entered again."""
        self._told_at = None
        if self.is_over or self.due is None:
            return
        left = self.due - self._expiries.clock()
        if self._tell is not None and self._ahead > 0 and left > 0:
            self._told_at = self.due - min(self._ahead, left / 2)
        self._expiries.deadlines.enter(self, self.due if self._told_at is None else self._told_at)

    def end_if_due(self) -> None:
        """`Expiries`: its turn has come."""
        if not self.is_over and self.due is not None and self._expiries.clock() >= self.due:
            self.is_over = True
            self._tell = None
            self.end()

    def on_deadline(self, now: float) -> float | None:
        """`deadlines.Due`."""
        if self.is_over or self.due is None:
            return None
        if now >= self.due:
            self._expiries.end_soon(self)
            return None
        if self._told_at is None:
            return self.due
        if now < self._told_at:
            return self._told_at
        self._told_at = None
        if self._tell is not None:
            self._tell(self.due - now)
        return self.due


_all: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, Expiries]] = WeakKeyDictionary()
_making = threading.Lock()


def expiries_of(loop: asyncio.AbstractEventLoop) -> Expiries:
    """The expiries of an event loop. Those of loops that were closed in the middle are forgotten here."""
    found = _all.get(loop)
    if found is None:
        with _making:
            for closed in [one for one in _all if one.is_closed()]:
                del _all[closed]
            found = _all[loop] = Expiries(loop, step=_step_of(loop))
    return found


def _step_of(loop: asyncio.AbstractEventLoop) -> float:
    """No step in virtual time: there the wall clock runs while a test computes, and time stands still."""
    return STEP if keeps_system_time(loop) else math.inf
