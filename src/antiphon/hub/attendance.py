"""The members of this process in each topic, and the changes of them that the backend does not know yet.

Untold changes of a topic go out together, in one round. A topic has one round at a time, so that no change of a
connection overtakes an earlier one. A failed change is sent again until it succeeds or the backend is lost. After a
loss, all members are announced anew.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable
from itertools import islice
from typing import Any, Final, Protocol, TypeAlias

from .backends.base import Backend
from .errors import BackendUnavailable
from .records import Track
from .telling import TOGETHER, Telling, Upkeep

logger: Final = logging.getLogger("antiphon.hub")

Untold: TypeAlias = Track | float
"""A connection that is here, or one that left with this grace."""


class Once(Protocol):
    """One attempt at one call. Raises `BackendUnavailable`."""

    async def __call__(self, name: str, method: Callable[..., Awaitable[None]], /, *args: Any) -> None: ...


class _Topic:
    """The untold changes of one topic. It is forgotten when there are none, and nobody waits for it."""

    __slots__ = ("failures", "order", "refs", "telling", "waiting")

    def __init__(self) -> None:
        self.refs: dict[str, Untold] = {}
        self.order = asyncio.Lock()
        self.waiting = 0
        self.failures = 0
        self.telling: Telling | None = None


class Attendance:
    """This process's members. `join` and `forget` in any thread, all else in the backend's loop."""

    def __init__(self, backend: Backend, once: Once, upkeep: Upkeep) -> None:
        self._backend = backend
        self._once = once
        self._upkeep = upkeep
        self._present: dict[str, tuple[str, Track]] = {}
        self._topics: dict[str, _Topic] = {}
        self._guard = threading.Lock()

    def join(self, topic: str, track: Track) -> None:
        """The member is announced again after an outage, until `forget`."""
        with self._guard:
            self._present[track.ref] = topic, track

    def forget(self, topic: str, ref: str, grace: float | None) -> None:
        """The member is no longer present. None: the backend need not know."""
        with self._guard:
            self._present.pop(ref, None)
            if grace is not None:
                self._topics.setdefault(topic, _Topic()).refs[ref] = grace

    def clear(self) -> None:
        """The backend has removed all of them."""
        with self._guard:
            self._topics.clear()

    def untold(self, topic: str) -> bool:
        # Not whether it has an entry: one whose last waiter was cancelled has it until that one has run.
        entry = self._topics.get(topic)
        return entry is not None and bool(entry.refs)

    # Telling

    async def tell_here(self, topic: str) -> None:
        """For a backend that any thread may call: it never suspends."""
        entry = self._topics.get(topic)
        while entry is not None and (untold := self._some(entry)):
            for ref, what in untold:
                await self._tell(topic, ref, what)
                self._done(topic, entry, ref, what)
            entry = self._topics.get(topic)

    async def tell(self, topic: str) -> BackendUnavailable | None:
        """Tell the untold changes of a topic now. Returns the error that kept some of them from being told."""
        with self._guard:
            entry = self._topics.get(topic)
            if entry is None:
                return None
            entry.waiting += 1
        failures = entry.failures
        try:
            async with entry.order:
                if entry.failures > failures:
                    return BackendUnavailable("the attempt before has failed")
                failed = await self._round(topic, entry)
                entry.failures += failed is not None
                return failed
        finally:
            self._leave(topic, entry)

    def tell_soon(self, topic: str) -> None:
        """Nobody waits for it."""
        entry = self._topics.get(topic)
        if entry is None or not entry.refs:
            return
        if entry.telling is None:
            what = f"members of {topic!r}"
            entry.telling = Telling(self._upkeep, what, lambda: entry.refs, lambda: self._tell_or_raise(topic))
        entry.telling.soon()

    async def _tell_or_raise(self, topic: str) -> None:
        if (failed := await self.tell(topic)) is not None:
            raise failed

    async def tell_all_anew(self) -> None:
        """The backend has forgotten the members, or may have. Raises `BackendUnavailable`: nothing is given up."""
        with self._guard:
            for ref, (topic, track) in self._present.items():
                self._topics.setdefault(topic, _Topic()).refs[ref] = track
            topics = iter(tuple(self._topics))
        while some := tuple(islice(topics, TOGETHER)):
            for failed in await asyncio.gather(*(self.tell(topic) for topic in some)):
                if failed is not None:
                    raise failed

    async def _round(self, topic: str, entry: _Topic) -> BackendUnavailable | None:
        untold = iter(self._some(entry))
        while some := tuple(islice(untold, TOGETHER)):
            telling = (self._tell(topic, ref, what) for ref, what in some)
            failed = None
            for (ref, what), error in zip(some, await asyncio.gather(*telling), strict=True):
                if error is None:
                    self._done(topic, entry, ref, what)
                failed = failed or error
            if failed is not None:
                return failed
        return None

    async def _tell(self, topic: str, ref: str, what: Untold) -> BackendUnavailable | None:
        try:
            if isinstance(what, Track):
                await self._once("track", self._backend.track, topic, what)
            else:
                await self._once("untrack", self._backend.untrack, topic, ref, what)
        except BackendUnavailable as error:
            return error
        except Exception:
            # Asked once more it would fail once more.
            logger.exception("the backend failed at a member of %r", topic)
        return None

    # Bookkeeping

    def _some(self, entry: _Topic) -> tuple[tuple[str, Untold], ...]:
        with self._guard:
            return tuple(entry.refs.items())

    def _done(self, topic: str, entry: _Topic, ref: str, what: Untold) -> None:
        with self._guard:
            if entry.refs.get(ref) is what:  # else: it has left since
                del entry.refs[ref]
            self._forget_if_told(topic, entry)

    def _leave(self, topic: str, entry: _Topic) -> None:
        with self._guard:
            entry.waiting -= 1
            self._forget_if_told(topic, entry)

    def _forget_if_told(self, topic: str, entry: _Topic) -> None:
        if not entry.refs and not entry.waiting and self._topics.get(topic) is entry:
            del self._topics[topic]
