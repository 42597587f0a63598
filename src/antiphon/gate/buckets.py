"""Token buckets: pure arithmetic, the time is passed in (seconds of a clock that never goes back).

A bucket is one number, the time at which it will be full again (the "theoretical arrival time" of ITU-T I.371's generic
cell rate algorithm). An untouched bucket costs nothing, and a full one need not be kept.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final

from .backend import Bucket, Table

__all__ = ["ALONE", "Bucket", "Buckets", "Measure"]

TOLERANCE: Final = 1e-7
"""Seconds by which sums of floating-point numbers may be off: an arrival exactly on time is in time."""


class Measure:
    """How large a bucket is and how quickly it fills. The arithmetic for all buckets of one rate."""

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


class Buckets(Table):
    """Of users, addresses or topics: those that are not full, at most `most`.

    Kept in two generations. A bucket that is looked up goes into the young one. When a bucket has had time to fill
    since the generations changed, or the young one has half of `most`, the old one is dropped and the young one becomes
    the old one. That takes no timer and no work in parts. A bucket that is dropped too early counts as full.

    A caller may keep a bucket until `turn`, the number of changes of generations, goes up. Then it may be in no
    generation any more.
    """

    __slots__ = ("_began", "_half", "_old", "_young", "measure")

    def __init__(self, measure: Measure, most: int) -> None:
        super().__init__()
        self.measure: Final = measure
        self._half: Final = max(1, most // 2)
        self._young: dict[Hashable, Bucket] = {}
        self._old: dict[Hashable, Bucket] = {}
        self._began = 0.0

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def find(self, key: Hashable, now: float) -> Bucket:
        """The bucket of this key, a full one where none is remembered."""
        is_over = not 0 <= now - self._began <= self.measure.longest
        found = None if is_over else self._young.get(key)
        if found is None:
            if is_over or len(self._young) >= self._half:
                self._old, self._young, self._began = self._young, {}, now
                table: Table = self
                table.turn += 1
            found = self._young[key] = self._old.pop(key) if key in self._old else Bucket()
        return found


ALONE: Final = Buckets(Measure(1, 1, 1, 0), 2)
"""A placeholder for no table, whose turn never changes."""
