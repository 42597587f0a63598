"""Token buckets: pure arithmetic, the time is passed in (seconds of a clock that never goes back).

A bucket is one number, the time at which it will be full again (the "theoretical arrival time" of ITU-T I.371's generic
cell rate algorithm): what is not touched costs nothing, and one that is full need not be kept.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final

__all__ = ["Bucket", "Buckets", "Measure"]

TOLERANCE: Final = 1e-7
"""Seconds by which sums of floating-point numbers may be off: an arrival exactly on time is in time."""


class Measure:
    """How large a bucket is and how quickly it fills; the arithmetic for all buckets of one rate."""

    __slots__ = ("depth", "longest", "step")

    def __init__(self, amount: float, seconds: float, burst: float, longest_wait: float) -> None:
        self.step: Final = seconds / amount
        """Seconds for one token."""
        self.depth: Final = burst * self.step + TOLERANCE
        """Seconds for all."""
        self.longest: Final = self.depth + longest_wait
        """How far ahead a bucket's time can be at most."""

    def after(self, due: float, now: float, cost: float) -> float:
        """The bucket's time when `cost` tokens are taken out at `now`, whether or not they are in it."""
        if due < now or due > now + self.longest:  # the latter: another clock (a test's)
            due = now
        return due + cost * self.step


class Bucket:
    """Of one connection. `connection.paced` does what `take` does by itself, so that a message costs no call."""

    __slots__ = ("depth", "due", "measure", "step")

    def __init__(self, measure: Measure) -> None:
        self.measure: Final = measure
        self.step: Final = measure.step
        self.depth: Final = measure.depth
        self.due: float = 0.0

    def lack(self, now: float, cost: float) -> float:
        """Seconds until so many tokens are in it; not positive when they are. Takes nothing."""
        return self.measure.after(self.due, now, cost) - now - self.measure.depth

    def spend(self, now: float, cost: float) -> None:
        """Take the tokens out, also those that are still to come: whoever is next waits behind."""
        self.due = self.measure.after(self.due, now, cost)

    def take(self, now: float, cost: float) -> float:
        """`lack`, and where it lacks nothing `spend`."""
        after = self.measure.after(self.due, now, cost)
        lack = after - now - self.depth
        if lack <= 0:
            self.due = after
        return lack


class Buckets:
    """Of users, addresses or topics: those that are not full, at most `most`.

    Kept in two generations. A bucket that is touched goes into the young one. When a bucket has had time to fill since
    the generations changed, or the young one has half of `most`, the old one is forgotten and the young one is old: the
    work of that is spread by nobody and needs no timer. A bucket that is forgotten too early is a full one.
    """

    __slots__ = ("_began", "_half", "_old", "_young", "measure")

    def __init__(self, measure: Measure, most: int) -> None:
        self.measure: Final = measure
        self._half: Final = max(1, most // 2)
        self._young: dict[Hashable, float] = {}
        self._old: dict[Hashable, float] = {}
        self._began = 0.0

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def lack(self, key: Hashable, now: float, cost: float) -> float:
        """As `Bucket.lack`."""
        due = self._young.get(key) or self._old.get(key, 0.0)
        return self.measure.after(due, now, cost) - now - self.measure.depth

    def spend(self, key: Hashable, now: float, cost: float) -> None:
        """As `Bucket.spend`."""
        due = self._young.get(key) or self._old.get(key, 0.0)
        self._put(key, now, self.measure.after(due, now, cost))

    def take(self, key: Hashable, now: float, cost: float) -> float:
        """As `Bucket.take`."""
        young, measure = self._young, self.measure
        due = young.get(key) or self._old.get(key, 0.0)
        if due < now or due > now + measure.longest:  # as `Measure.after`, without the call
            due = now
        due += cost * measure.step
        lack = due - now - measure.depth
        if lack <= 0:
            if len(young) < self._half and self._began <= now <= self._began + measure.longest:
                young[key] = due
            else:
                self._put(key, now, due)
        return lack

    def _put(self, key: Hashable, now: float, due: float) -> None:
        young = self._young
        if len(young) >= self._half or not 0 <= now - self._began <= self.measure.longest:
            self._old = young
            self._young = young = {}
            self._began = now
        young[key] = due


EMPTY: Final = Bucket(Measure(1, 1, -1, 0))
"""One that nothing is ever taken from."""
