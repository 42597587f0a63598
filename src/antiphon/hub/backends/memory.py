"""`memory://`: one process. A store and a lock. A published entry comes back before `publish` returns.

Any thread may call it, with no `start` needed: two event loops in two threads (as two test-client sessions are) share
it. The lock is held for the bookkeeping only, never during delivery.
"""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ..clock import LoopClock
from ..errors import UnknownBackend
from ..records import Change, Claimed, Entry, Keep, Note, Page, Position, Roster, Track
from ..store import Store
from . import handover
from .base import BackendConfig, Listener, redact

PROCESS = "memory"

SLACK = 0.01
"""Seconds a sweep runs behind its deadline: a loop's timers are no more exact than its clock, which may round."""


class MemoryBackend:
    """The backend of one process, an `InProcessBackend`. A subclass that may suspend or fail takes that back."""

    loop = None
    in_process = True
    refusing = False

    def __init__(self, url: str, config: BackendConfig, *, clock: Callable[[], float] | None = None) -> None:
        """`clock`: seconds, instead of the running loop's. Raises `UnknownBackend` for another URL."""
        if url != "memory://":
            raise UnknownBackend(f"expected memory:// and nothing behind it; got {redact(url)!r}")
        self._clock = LoopClock() if clock is None else clock
        self._lock = threading.Lock()
        self._store = _store(0)
        self._handover: handover.Handover | None = None
        self._listener: Listener | None = None
        self._armed: _Timer | None = None
        """The next sweep that will run by itself."""

    @property
    def store(self) -> Store:
        return self._store

    def listen(self, listener: Listener) -> None:
        self._listener = listener

    async def start(self, listener: Listener) -> None:
        self.listen(listener)
        self._take_over()

    async def stop(self) -> None:
        """Drop everything, histories included: the next start is empty, with a new epoch."""
        with self._lock:
            self._tell(self._store.drop_process(PROCESS))
            left, self._store = self._store, _store(self._store.version)
            armed, self._armed = self._armed, None
        self._flush()
        if armed is not None and armed.loop is asyncio._get_running_loop():
            armed.handle.cancel()
        place, self._handover = self._handover, None
        if place is not None:
            place.leave(left.snapshot(self._clock()))
            handover.give_back(place)

    def _take_over(self) -> None:
        """Go on with the histories of the server before, if this hub is the one to do so."""
        if self._handover is None:
            self._handover = handover.claim()
        if self._handover is None or not self._store.untouched:
            return
        snapshot = self._handover.take()
        if snapshot is None:
            return
        now = self._clock()
        with self._lock:
            self._store = Store.restored(snapshot, version=time.time_ns() // 1000, now=now)
            deadline = self._store.deadline
        if deadline is not None:
            self._arm(max(deadline - now, 0.0), now)

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
            if keep is None:
                now, entry = 0.0, Entry(data, None)
            else:
                now = self._clock()
                entry = self._store.publish(topic, data, keep, now)
            if listener is not None:
                listener.deliver(topic, entry)
        if listener is not None:
            listener.flush()
        if keep is not None:
            self._arm(keep.ttl, now)
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
            now = self._clock()
            change = self._store.untrack(topic, ref, grace, now)
            if change is not None:
                self._tell([(topic, change)])
        self._flush()
        if grace > 0:
            self._arm(grace, now)

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

    async def put(self, key: str, value: bytes, ttl: float) -> None:
        with self._lock:
            now = self._clock()
            self._store.put(key, value, ttl, now)
        self._arm(ttl, now)

    async def take(self, key: str) -> bytes | None:
        with self._lock:
            return self._store.take(key, self._clock())

    async def claim(self, key: str, ref: str, limit: int | None, evict: bool) -> Claimed:
        with self._lock:
            return self._store.claim(key, ref, PROCESS, limit, evict, self._clock())

    async def release(self, key: str, ref: str) -> None:
        with self._lock:
            self._store.release(key, ref)

    async def note(self, notes: Sequence[Note]) -> None:
        with self._lock:
            now = self._clock()
            self._store.note(notes, now)
        for one in notes:
            self._arm(one.ttl, now)

    async def noted(self) -> Sequence[Note]:
        with self._lock:
            return self._store.noted(self._clock())

    def sweep(self) -> None:
        """Drop expired state. Runs by itself where a loop runs. More calls do no harm."""
        with self._lock:
            self._tell(self._store.sweep(self._clock()))
        self._flush()

    def _arm(self, delay: float, now: float) -> None:
        """Sweep `delay` seconds after `now`, unless a sweep is due earlier.

        The timer lives in the caller's loop. A loop that ends takes it along. The next call then arms another, for the
        first deadline.
        """
        armed = self._armed
        if armed is not None and now < armed.when <= now + delay + SLACK and armed.loop.is_running():
            return
        loop = asyncio.get_running_loop()
        with self._lock:
            deadline = self._store.deadline
            if deadline is None:
                return
            delay = max(deadline - now, 0.0) + SLACK
            self._armed = _Timer(now + delay, loop, loop.call_later(delay, self._sweep_and_arm))
        if armed is not None and armed.loop is loop:
            armed.handle.cancel()

    def _sweep_and_arm(self) -> None:
        self._armed = None
        self.sweep()
        with self._lock:
            deadline = self._store.deadline
        if deadline is not None:
            now = self._clock()
            self._arm(max(deadline - now, 0.0), now)

    def _tell(self, changes: list[tuple[str, Change]]) -> None:
        if self._listener is not None:
            for topic, change in changes:
                self._listener.presence_changed(topic, change)

    def _flush(self) -> None:
        if self._listener is not None:
            self._listener.flush()


class _Timer(NamedTuple):
    when: float
    """By the backend's clock."""
    loop: asyncio.AbstractEventLoop
    handle: asyncio.TimerHandle


def _store(version: int) -> Store:
    """An empty one, whose presence versions are behind `version`."""
    return Store(epoch=uuid.uuid4().hex[:12], version=max(version, time.time_ns() // 1000))
