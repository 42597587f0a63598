"""The watchers of a topic's members in one event loop: the time and the content of each diff they get.

Knows no sinks: the owner of the receivers passes the diffs on. hub/README.md: many watchers.
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
"""Seconds of rest for each watcher that got a diff: three or four times the cost of the diff. So diffs take only a part
of the loop's time, however many members come and go."""

REST_PER_MEMBER: Final = 5e-6
"""Seconds of rest for each member of a roster before it is read again: about the cost of reading it. All who join
meanwhile share the next roster."""

REMEMBERED: Final = 1.0
"""Seconds for which a parcel made for one watcher is kept for others, if no change is sent meanwhile."""

SHORTEST_REST: Final = 1e-3
"""Shorter rests are skipped: few watchers get each change at once, and few members are read at any time."""


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
        """No diff goes out before this time."""
        self._reads_until = 0.0
        """The roster is not read before."""
        self._timer: asyncio.TimerHandle | None = None
        self._parcels: dict[int, tuple[Diff[Listed], Parcel]] = {}
        """Parcels of diffs that several watchers may get, by the diff's identity."""
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
        """All watchers get the changes that they missed. The members are this roster, and the changes since the request
        for it.

        `first`: a receiver is about to `watch`, and may be the first.
        """
        if self._watchers.refresh(roster, came, first=first):
            self._news()
        self.read()

    def read(self) -> None:
        """The members are known as they are now: by a roster, or because every change of them is heard here."""
        self._reads_until = self._after(self._watchers.members * REST_PER_MEMBER)

    def watch(self, receiver: R) -> Parcel:
        """From now on the receiver gets changes. Returns its first parcel: all members. Call it after `refresh`."""
        return self._shown(self._watchers.add(receiver))

    def change(self, change: Change) -> None:
        """A member came, went, or changed."""
        if self._watchers.hear(change):
            self._news()

    def caught_up(self, receiver: R) -> Parcel | None:
        """The changes that a receiver missed while it had a backlog."""
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
        """No overflow policy may drop a diff: a slow receiver gets their sum when it has caught up."""
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
            # A sink that raises breaks its contract. The watchers behind it still get the diff.
            logger.exception("a receiver of topic %r failed to take a presence diff", self._topic)

    def _shown(self, diff: Diff[Listed]) -> Parcel:
        """Made once for all watchers that get the same diff at about the same time."""
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
