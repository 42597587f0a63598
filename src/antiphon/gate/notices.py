"""One log line where there would be thousands: a key is told of once in a while.

Bounded: an attacker who makes up keys fills the table, not the log.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

EVERY: Final = 60.0
"""Seconds between two lines of one key."""

MOST: Final = 100
"""Keys that are told of in that time."""


class Notices:
    """Warnings, each key's at most once in `every` seconds, and of `most` keys in that time."""

    def __init__(
        self,
        logger: logging.Logger,
        *,
        every: float = EVERY,
        most: int = MOST,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._logger = logger
        self._every = every
        self._most = most
        self._clock = clock
        self._told: dict[str, float] = {}  # in the order of time
        self._full_since: float | None = None

    def warn(self, key: str, text: Callable[[], str]) -> None:
        """Log `text()` unless this key was told of lately."""
        now = self._clock()
        while self._told and now - next(iter(self._told.values())) >= self._every:
            del self._told[next(iter(self._told))]
        if key in self._told:
            return
        if len(self._told) < self._most:
            self._told[key] = now
            self._logger.warning("%s", text())
        elif self._full_since is None or now - self._full_since >= self._every:
            self._full_since = now
            self._logger.warning("more than %d different ones in a minute: the rest is not logged", self._most)
