"""Messages delivered and lost by all event loops of a process, added up for `HubStats`. Knows none of its callers."""

from __future__ import annotations

import threading


class Counters:
    """Messages delivered and lost by all event loops of a process. Behind a lock: the loops may run in several
    threads."""

    def __init__(self) -> None:
        self.delivered: int = 0
        self.dropped: int = 0
        self.disconnected: int = 0
        self.high_water: int = 0
        """Bytes in the fullest outbox that ever refused a message."""
        self._lock = threading.Lock()

    def add(self, *, delivered: int = 0, dropped: int = 0, disconnected: int = 0) -> None:
        with self._lock:
            self.delivered += delivered
            self.dropped += dropped
            self.disconnected += disconnected

    def fill(self, size: int) -> bool:
        """True when no outbox was so full before."""
        with self._lock:
            higher = size > self.high_water
            if higher:
                self.high_water = size
            return higher
