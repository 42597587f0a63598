"""`memory://`: one process. A store and a lock; what is published comes back before `publish` returns.

Any thread may call it, with no `start` needed: two event loops in two threads (as two test-client sessions are) share
it. The lock is held for the bookkeeping only, never while something is delivered.
"""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from collections.abc import Callable

from ..errors import UnknownBackend
from ..store import Store
from .base import BackendConfig, Change, Entry, Keep, Listener, Page, Position, Roster, Track, redact

PROCESS = "memory"

SLACK = 0.01
"""Seconds a sweep runs behind its deadline: the loop's clock and ours need not agree to the millisecond."""


class MemoryBackend:
    """The backend of one process. It cannot be in trouble."""

    loop = None

    def __init__(self, url: str, config: BackendConfig, *, clock: Callable[[], float] = time.monotonic) -> None:
        if url != "memory://":
            raise UnknownBackend(f"expected memory:// and nothing behind it; got {redact(url)!r}")
        self._clock = clock
        self._lock = threading.Lock()
        self._store = Store(epoch=uuid.uuid4().hex[:12], version=time.time_ns() // 1000)
        self._listener: Listener | None = None
        self._armed = 0.0
        """When the next sweep will run by itself."""

    @property
    def store(self) -> Store:
        return self._store

    def listen(self, listener: Listener) -> None:
        """What `start` does, for a hub that is used without being started."""
        self._listener = listener

    async def start(self, listener: Listener) -> None:
        self.listen(listener)

    async def stop(self) -> None:
        with self._lock:
            self._tell(self._store.drop_process(PROCESS))
        self._flush()

    async def subscribe(self, topic: str, keep: Keep | None) -> Position | None:
        if keep is None:
            return None
        with self._lock:
            return self._store.head(topic)

    def unsubscribe(self, topic: str) -> None:
        """Nothing: the hub drops entries of topics it has no room for."""

    async def publish(self, topic: str, data: bytes, keep: Keep | None) -> Position | None:
        listener = self._listener
        with self._lock:
            entry = Entry(data, None) if keep is None else self._store.publish(topic, data, keep, self._clock())
            if listener is not None:
                listener.deliver(topic, entry)
        if listener is not None:
            listener.flush()
        if keep is not None:
            self._arm(keep.ttl)
        return entry.position

    async def history(
        self, topic: str, keep: Keep, since: Position | None, limit: int | None, size: int | None = None
    ) -> Page:
        with self._lock:
            return self._store.page(topic, since, limit, self._clock(), size)

    async def track(self, topic: str, track: Track) -> None:
        self.sweep()
        with self._lock:
            change = self._store.track(topic, track, PROCESS)
            if change is not None:
                self._tell([(topic, change)])
        self._flush()

    async def untrack(self, topic: str, ref: str, grace: float) -> None:
        with self._lock:
            change = self._store.untrack(topic, ref, grace, self._clock())
            if change is not None:
                self._tell([(topic, change)])
        self._flush()
        if grace > 0:
            self._arm(grace)

    async def presence(self, topic: str) -> Roster:
        self.sweep()
        with self._lock:
            return self._store.roster(topic)

    async def presence_count(self, topic: str) -> int:
        self.sweep()
        with self._lock:
            return self._store.count(topic)

    async def control(self, payload: bytes) -> None:
        with self._lock:
            if self._listener is not None:
                self._listener.controlled(payload)
        self._flush()

    def sweep(self) -> None:
        """Let go of what is over by the clock. Runs by itself where a loop runs; more calls harm nothing."""
        with self._lock:
            self._tell(self._store.sweep(self._clock()))
        self._flush()

    def _arm(self, delay: float) -> None:
        """Sweep in `delay` seconds, unless that is going to happen earlier.

        The timer lives in the caller's loop. A loop that ends takes it along; the next call then arms another.
        """
        now = self._clock()
        if now < self._armed <= now + delay:
            return
        self._armed = now + delay + SLACK
        asyncio.get_running_loop().call_later(delay + SLACK, self._sweep_and_arm)

    def _sweep_and_arm(self) -> None:
        self._armed = 0.0
        self.sweep()
        with self._lock:
            deadline = self._store.deadline
        if deadline is not None:
            self._arm(max(deadline - self._clock(), 0.0))

    def _tell(self, changes: list[tuple[str, Change]]) -> None:
        if self._listener is not None:
            for topic, change in changes:
                self._listener.presence_changed(topic, change)

    def _flush(self) -> None:
        if self._listener is not None:
            self._listener.flush()
