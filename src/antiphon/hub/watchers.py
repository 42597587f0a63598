"""Who in one event loop watches the members of a topic: what they know, and what a change means to them.

Pure. Knows neither sinks nor backlogs; `delivery.LocalTopic` asks what to send, and to whom.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from typing import Generic, NamedTuple, TypeVar

from .presence import Diff, Listed, Replica
from .records import Change, Roster

R = TypeVar("R", bound=Hashable)


class Notice(NamedTuple):
    """What all watchers are to be told."""

    diff: Diff[Listed]
    before: Mapping[str, Listed | None]
    """How the members in `diff` were; None: not there."""


class Watchers(Generic[R]):
    """The receivers that watch one topic's members, and those members."""

    __slots__ = ("_asking", "_known", "_replica")

    def __init__(self) -> None:
        self._replica: Replica[Listed] | None = None
        """The members as every watcher knows them that is not behind."""
        self._known: dict[R, dict[str, Listed] | None] = {}
        """The watchers. A slow one has the members as it knows them; it gets the difference when it has caught up."""
        self._asking: list[list[Change]] = []

    @property
    def watching(self) -> bool:
        """Somebody was shown the members, so that they have to stay true."""
        return self._replica is not None

    def expect(self, came: list[Change]) -> None:
        """The changes that come before an answer are noted in `came`."""
        self._asking.append(came)

    def give_up(self, came: list[Change]) -> None:
        self._asking = [one for one in self._asking if one is not came]

    def refresh(self, roster: Roster, came: list[Change], *, first: bool = False) -> Notice | None:
        """Now the members are this roster, and what came since it was asked for. `first`: also when nobody watches."""
        self.give_up(came)
        if self._replica is None:
            if not first:
                return None
            self._replica = Replica(0, {})
        listed = {user: Listed(metas, roster.more.get(user, 0)) for user, metas in roster.members.items()}
        fresh = Replica(roster.version, listed)
        for change in came:
            fresh.change(change.version, change.user, Listed(change.metas, change.more))
        before = dict(self._replica.members)
        diff = self._replica.replace(fresh.version, fresh.members)
        users = diff.joins.keys() | diff.leaves.keys() | diff.updates.keys()
        return Notice(diff, {user: before.get(user) for user in users}) if diff else None

    def change(self, change: Change) -> Notice | None:
        """A member came, went, or changed."""
        for came in self._asking:
            came.append(change)
        if self._replica is None:
            return None
        before = self._replica.members.get(change.user)
        diff = self._replica.change(change.version, change.user, Listed(change.metas, change.more))
        return Notice(diff, {change.user: before}) if diff else None

    def add(self, receiver: R) -> Diff[Listed]:
        """From now on it watches. Returns what it has to know first: all members. After `refresh`."""
        assert self._replica is not None, "nobody knows the members yet"
        self._known[receiver] = None
        return Diff(joins=dict(self._replica.members))

    def remove(self, receiver: R) -> None:
        self._known.pop(receiver, None)

    def here(self) -> Iterator[R]:
        """All watchers, but for those who go meanwhile."""
        return (receiver for receiver in tuple(self._known) if receiver in self._known)

    def fall_behind(self, receiver: R, notice: Notice) -> None:
        """This watcher is not told now."""
        if self._known[receiver] is not None or self._replica is None:
            return
        known = self._known[receiver] = dict(self._replica.members)
        for user, listed in notice.before.items():
            if listed:
                known[user] = listed
            else:
                known.pop(user, None)

    def catch_up(self, receiver: R) -> Diff[Listed] | None:
        """What a watcher that was behind has missed."""
        known = self._known.get(receiver)
        if known is None or self._replica is None:
            return None
        self._known[receiver] = None
        return Replica(0, known).replace(0, self._replica.members)
