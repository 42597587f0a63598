"""One timer for any number of connections: a wheel of slots, each for the entries due in its stretch of time.

Knows nothing of the entries: each is called with the time, and returns the time of its next call. The clock and the
timer are passed in. Also tells whether a loop's clock is the system's.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final, Protocol

SLOTS: Final = 512
SAME_CLOCK: Final = 1.0
"""Seconds that a loop's `time()` may be off the system's monotonic clock and still be that clock (uvloop rounds, and
remembers the time of its latest turn)."""


def keeps_system_time(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether the loop's clock is the system's. `VirtualTimeLoop` has one of its own."""
    return abs(loop.time() - time.monotonic()) < SAME_CLOCK


class Due(Protocol):
    """Something with a deadline. `slot` is the wheel's own note: -1 while it is in none."""

    slot: int

    def on_deadline(self, now: float) -> float | None:
        """Do the work due at `now`. Return the time of the next deadline, None for no more."""


Timer = Callable[[float, Callable[[], None]], asyncio.TimerHandle]


class Deadlines:
    """Calls an entry at most two ticks after its time, one for its slot and one for the timer, and never before.

    A deadline beyond the wheel's reach comes round early, and is asked again: entries must bear being called early.
    """

    def __init__(self, tick: float, clock: Callable[[], float], call_later: Timer) -> None:
        self.tick: Final = tick
        self._clock = clock
        self._call_later = call_later
        self._slots: list[dict[Due, None] | None] = [None] * SLOTS  # of many entries a third of a set's size
        self._position = 0  # ticks since the start of the clock, up to which everything is done
        self._count = 0
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return self._count

    def enter(self, entry: Due, when: float) -> None:
        """Call `entry` at `when`, or earlier if it is entered for earlier already."""
        if self._timer is None:
            self._position = int(self._clock() / self.tick)
            self._timer = self._call_later(self.tick, self._turn)
        ahead = max(1, min(int(when / self.tick) + 1 - self._position, SLOTS - 1))
        slot = (self._position + ahead) % SLOTS
        if entry.slot >= 0:
            entered = (entry.slot - self._position) % SLOTS or SLOTS
            if entered <= ahead:
                return
            self.leave(entry)
        entries = self._slots[slot]
        if entries is None:
            entries = self._slots[slot] = {}
        entries[entry] = None
        entry.slot = slot
        self._count += 1

    def succeed(self, entry: Due, heir: Due, when: float) -> None:
        """`entry` leaves, and `heir` is called at `when` or earlier: in the place that becomes free, if that is early
        enough, which costs less than to look for another."""
        slot = entry.slot
        if slot < 0 or heir.slot >= 0 or (slot - self._position) % SLOTS > int(when / self.tick) - self._position:
            self.leave(entry)
            self.enter(heir, when)
            return
        entries = self._slots[slot]
        assert entries is not None
        del entries[entry]
        entries[heir] = None
        entry.slot, heir.slot = -1, slot

    def leave(self, entry: Due) -> None:
        """Forget `entry`, if it is entered."""
        if entry.slot < 0:
            return
        entries = self._slots[entry.slot]
        assert entries is not None
        entries.pop(entry, None)
        if not entries:
            self._slots[entry.slot] = None
        entry.slot = -1
        self._count -= 1

    def _turn(self) -> None:
        now = self._clock()
        target = int(now / self.tick)
        steps = min(target - self._position, SLOTS)
        first = self._position + 1
        self._position = max(target, self._position)
        failure: Exception | None = None
        for position in range(first, first + steps):
            entries = self._slots[position % SLOTS]
            if entries is None:
                continue
            self._slots[position % SLOTS] = None
            self._count -= len(entries)
            for entry in entries:
                entry.slot = -1
            for entry in entries:
                try:
                    when = entry.on_deadline(now)
                except Exception as error:  # all others are still called
                    failure = error
                    continue
                if when is not None:
                    self.enter(entry, when)
        self._timer = self._call_later(self.tick, self._turn) if self._count else None
        if failure is not None:
            raise failure

    def stop(self) -> None:
        """Call nobody any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
