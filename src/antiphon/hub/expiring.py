"""Values kept by name until they expire, and no more of them than a bound. Pure: the clock is passed in."""

from __future__ import annotations

import heapq
import logging
from collections.abc import Iterator
from typing import Final, Generic, TypeVar

V = TypeVar("V")

logger: Final = logging.getLogger("antiphon.hub")

MOST: Final = 100_000
"""Entries of one kind: some tens of megabytes."""

STALE: Final = 64
"""Stale deadlines that are always tolerated."""


class Expiring(Generic[V]):
    """Values with an end. When there are too many, the one that would end first goes, and the log says so, once."""

    def __init__(self, what: str, most: int = MOST) -> None:
        """`what`: a noun for the values, for the log."""
        self._what = what
        self._most = most
        self._values: dict[str, tuple[V, float]] = {}
        self._deadlines: list[tuple[float, str]] = []
        """Also of values that are gone or were extended: up to as many as there are values."""
        self._warned = False

    def __len__(self) -> int:
        return len(self._values)

    def put(self, key: str, value: V, until: float) -> None:
        """Keep it until then, in place of a value of the same name."""
        self._values[key] = value, until
        heapq.heappush(self._deadlines, (until, key))
        if len(self._deadlines) > 2 * len(self._values) + STALE:
            self._deadlines = [(end, name) for name, (_, end) in self._values.items()]
            heapq.heapify(self._deadlines)
        if len(self._values) > self._most:
            self._drop_first()

    def get(self, key: str, now: float) -> V | None:
        found = self._values.get(key)
        return None if found is None or found[1] <= now else found[0]

    def until(self, key: str) -> float:
        """When it ends; 0 for an unknown key."""
        found = self._values.get(key)
        return 0.0 if found is None else found[1]

    def take(self, key: str, now: float) -> V | None:
        """The value, which is gone with this."""
        value, until = self._values.pop(key, (None, 0.0))
        return value if until > now else None

    def items(self, now: float) -> Iterator[tuple[str, V, float]]:
        """Name, value, and the seconds that are left, of all that is there."""
        for key, (value, until) in self._values.items():
            if until > now:
                yield key, value, until - now

    @property
    def deadline(self) -> float | None:
        """When `sweep` may have something to do. None: nothing is waiting."""
        return self._deadlines[0][0] if self._deadlines else None

    def sweep(self, now: float) -> None:
        """Drop expired values."""
        while self._deadlines and self._deadlines[0][0] <= now:
            self._forget(*heapq.heappop(self._deadlines))

    def _drop_first(self) -> None:
        while len(self._values) > self._most:
            self._forget(*heapq.heappop(self._deadlines))
        if not self._warned:
            self._warned = True
            logger.warning("more than %d %s: those that end first are forgotten", self._most, self._what)

    def _forget(self, until: float, key: str) -> None:
        found = self._values.get(key)
        if found is not None and found[1] == until:  # else it was put again since
            del self._values[key]
