"""Those in one event loop who are told of a topic's members: when they are told, and what.

Knows no sinks: whoever owns the receivers passes on what comes out here. hub/README.md: many watchers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar

from .errand import Errand
from .message import Parcel, presence_diff
from .presence import Diff, Listed
from .records import Change, Roster
from .watchers import Watchers

logger: Final = logging.getLogger("antiphon.hub")

R = TypeVar("R", bound=Hashable)

REST_PER_WATCHER: Final = 25e-6
"""Seconds of rest for each watcher that was told something: three or four times what telling it took. So telling takes
a part of the loop's time at most, however many come and go."""

REST_PER_MEMBER: Final = 5e-6
"""Seconds of rest for each member of a roster that was read, before it is read again: what reading it took. Who joins
meanwhile is shown the next one together."""

REMEMBERED: Final = 1.0
"""Seconds for which what was shown to one is kept for others, if nothing is told meanwhile."""

SHORTEST_REST: Final = 1e-3
"""Shorter ones are none: few watchers are told of each change by itself, at once, and few members read at any time."""


class Audience(Generic[R]):
    """The watchers of one topic in one loop. In the loop's thread only."""

    def __init__(
        self, topic: str, loop: asyncio.AbstractEventLoop, tell: Callable[[R, Parcel], None], busy: Callable[[R], bool]
    ) -> None:
        """`busy`: the receiver has more to take first. When it has, somebody calls `caught_up`."""
        self.showing: Errand[None] = Errand()
        """Reading the roster for those who joined, and wait to be shown it."""
        self._topic = topic
        self._loop = loop
        self._tell = tell
        self._busy = busy
        self._watchers: Watchers[R] = Watchers()
        self._rests_until = 0.0
        """Nothing is told before."""
        self._reads_until = 0.0
        """The roster is not read before."""
        self._timer: asyncio.TimerHandle | None = None
        self._parcels: dict[int, tuple[Diff[Listed], Parcel]] = {}
        """Of diffs that several may be shown, by identity."""
        self._forgetting: asyncio.TimerHandle | None = None

    @property
    def watching(self) -> bool:
        """Somebody was shown the members, so that they have to stay true."""
        return self._watchers.watching

    def rest(self) -> float:
        """Seconds until the roster may be read again."""
        return max(self._reads_until - self._loop.time(), 0.0)

    def expect(self, came: list[Change]) -> None:
        """A roster is being asked for: the changes that come meanwhile are noted in `came`.

        Ends with `refresh` or `give_up`. The answer may be older than these, or ahead of some still to come.
        """
        self._watchers.expect(came)

    def give_up(self, came: list[Change]) -> None:
        self._watchers.give_up(came)

    def refresh(self, roster: Roster, came: list[Change], *, first: bool = False) -> None:
        """All watchers are told what they missed: the members are this roster, and what came since it was asked for.

        `first`: somebody is about to `watch`, perhaps nobody does yet.
        """
        if self._watchers.refresh(roster, came, first=first):
            self._news()
        self.read()

    def read(self) -> None:
        """The members are known as they are now: by a roster, or because every change of them is heard here."""
        self._reads_until = self._after(self._watchers.members * REST_PER_MEMBER)

    def watch(self, receiver: R) -> Parcel:
        """From now on it is told changes; returns what it is owed first: all members. After `refresh`."""
        return self._shown(self._watchers.add(receiver))

    def change(self, change: Change) -> None:
        """A member came, went, or changed."""
        if self._watchers.hear(change):
            self._news()

    def caught_up(self, receiver: R) -> Parcel | None:
        """What one has missed that had more to take first."""
        diff = self._watchers.catch_up(receiver)
        return self._shown(diff) if diff else None

    def remove(self, receiver: R) -> None:
        self._watchers.remove(receiver)

    def close(self) -> None:
        """The topic has no receivers any more."""
        for timer in (self._timer, self._forgetting):
            if timer is not None:
                timer.cancel()

    def _news(self) -> None:
        if self._timer is None:
            if self._rests_until > self._loop.time():
                self._timer = self._loop.call_at(self._rests_until, self._rest_over)
            else:
                self._tell_all()

    def _rest_over(self) -> None:
        self._timer = None
        self._tell_all()

    def _tell_all(self) -> None:
        """A diff must not be lost to a policy: a slow receiver gets the sum of them when it has caught up."""
        notice = self._watchers.tell()
        if notice is None:
            return
        told = 0
        for receiver in self._watchers.here(notice):
            told += 1
            if self._busy(receiver):
                self._watchers.fall_behind(receiver, notice)
            elif diff := self._watchers.due(receiver, notice):
                self._tell_one(receiver, self._shown(diff))
        self._parcels.clear()
        self._rests_until = self._after(told * REST_PER_WATCHER)

    def _after(self, rest: float) -> float:
        return self._loop.time() + rest if rest >= SHORTEST_REST else 0.0

    def _tell_one(self, receiver: R, parcel: Parcel) -> None:
        try:
            self._tell(receiver, parcel)
        except Exception:
            # A sink that raises breaks its contract; the watchers behind it are told all the same.
            logger.exception("a receiver of topic %r failed to take a presence diff", self._topic)

    def _shown(self, diff: Diff[Listed]) -> Parcel:
        """Made once for all who are shown the same about the same time."""
        known = self._parcels.get(id(diff))
        if known is None:
            known = self._parcels[id(diff)] = diff, presence_diff(self._topic, diff)
            if self._forgetting is None:
                self._forgetting = self._loop.call_later(REMEMBERED, self._forget)
        return known[1]

    def _forget(self) -> None:
        self._forgetting = None
        self._parcels.clear()
        self._watchers.forget()
