"""One log line where there would be thousands: each key is logged once in a while.

Bounded: an attacker who makes up keys fills the table, not the log.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

EVERY: Final = 60.0
"""Seconds between two lines of one key."""

MOST: Final = 100
"""Keys that are logged in that time."""
_TOO_MANY: Final = "more of these, of others, than are logged in a minute"


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
        self._lock = threading.Lock()  # an app may be served by several loops

    def warn(self, key: str, text: Callable[[], str]) -> None:
        """Log `text()` unless this key was logged lately."""
        with self._lock:
            if not self._is_due(key):
                return
        self._logger.warning("%s", text() if key in self._told else _TOO_MANY)

    def _is_due(self, key: str) -> bool:
        now = self._clock()
        while self._told and now - next(iter(self._told.values())) >= self._every:
            del self._told[next(iter(self._told))]
        if key in self._told:
            return False
        if len(self._told) < self._most:
            self._told[key] = now
            return True
        if self._full_since is not None and now - self._full_since < self._every:
            return False
        self._full_since = now
        return True
