"""The receivers in one event loop that watch a topic's members: their knowledge, and the effect of a change on it.

Pure. Knows neither sinks nor backlogs. `audience.Audience` asks for the diffs and their receivers.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from functools import cached_property
from typing import Generic, TypeVar

from .presence import Diff, Listed, Replica
from .records import Change, Roster

R = TypeVar("R", bound=Hashable)


class Known:
    """The members at some time, for all watchers that have been told nothing since."""

    def __init__(self, members: dict[str, Listed]) -> None:
        """They are not changed any more."""
        self._members = members
        self._missed: Diff[Listed] = Diff()
        self._serial = 0

    @cached_property
    def all(self) -> Diff[Listed]:
        """For one who knows nothing yet. The same object for all."""
        return Diff(joins=self._members)

    def missed(self, replica: Replica[Listed], serial: int) -> Diff[Listed]:
        """The changes since then. The same object until `serial` changes, which it does with the replica."""
        if self._serial != serial:
            self._missed = Replica(0, self._members).replace(0, replica.members)
            self._serial = serial
        return self._missed


class Notice:
    """The news for watchers that know everything told before."""

    def __init__(self, diff: Diff[Listed], before: Mapping[str, Listed | None], members: Mapping[str, Listed]) -> None:
        """`before`: how the members in `diff` were. None: not there. `members`: all of them, as they are now."""
        self.diff = diff
        self._before = before
        self._members = members

    @cached_property
    def known(self) -> Known:
        """The members as known to watchers that are not told. To be asked for before anything else is heard."""
        members = dict(self._members)
        for user, listed in self._before.items():
            if listed:
                members[user] = listed
            else:
                members.pop(user, None)
        return Known(members)


class Watchers(Generic[R]):
    """The receivers that watch one topic's members, and those members."""

    __slots__ = ("_asking", "_before", "_here", "_known", "_now", "_replica", "_serial")

    def __init__(self) -> None:
        self._replica: Replica[Listed] | None = None
        """The members, as far as anybody here has heard."""
        self._serial = 0
        """Grows with every change of the replica."""
        self._before: dict[str, Listed | None] = {}
        """The members that have changed since the last diff, as they were then. None: not there."""
        self._now: Known | None = None
        """The replica, for newcomers. None: to be made again."""
        self._here: dict[R, None] = {}
        self._known: dict[R, Known] = {}
        """Watchers whose knowledge is not the last told: they came later, or have more to take first."""
        self._asking: list[list[Change]] = []

    @property
    def watching(self) -> bool:
        """Somebody was shown the members, so that they have to stay true."""
        return self._replica is not None

    @property
    def members(self) -> int:
        """How many, as far as anybody here has heard."""
        return 0 if self._replica is None else len(self._replica.members)

    def expect(self, came: list[Change]) -> None:
        """The changes that come before an answer are noted in `came`."""
        self._asking.append(came)

    def give_up(self, came: list[Change]) -> None:
        self._asking = [one for one in self._asking if one is not came]

    def refresh(self, roster: Roster, came: list[Change], *, first: bool = False) -> bool:
        """Replace the members by this roster and the changes since it was asked for. `first`: also when nobody watches.

        True: there is something to `tell`.
        """
        self.give_up(came)
        if self._replica is None:
            if not first:
                return False
            self._replica = Replica(0, {})
        listed = {user: Listed(metas, roster.more.get(user, 0)) for user, metas in roster.members.items()}
        fresh = Replica(roster.version, listed)
        for change in came:
            fresh.change(change.version, change.user, Listed(change.metas, change.more))
        before = dict(self._replica.members)
        diff = self._replica.replace(fresh.version, fresh.members)
        return self._changed({user: before.get(user) for part in diff.parts for user in part})

    def hear(self, change: Change) -> bool:
        """A member came, went, or changed. True: there is something to `tell`."""
        for came in self._asking:
            came.append(change)
        if self._replica is None:
            return False
        before = self._replica.members.get(change.user)
        diff = self._replica.change(change.version, change.user, Listed(change.metas, change.more))
        return self._changed({change.user: before} if diff else {})

    def _changed(self, before: Mapping[str, Listed | None]) -> bool:
        if not before:
            return False
        self._serial += 1
        self._now = None
        for user, listed in before.items():
            self._before.setdefault(user, listed)
        return True

    def tell(self) -> Notice | None:
        """All changes since the last diff. For each receiver that is `here`, call `due` or `fall_behind`."""
        if self._replica is None or not self._before:
            return None
        before, self._before = self._before, {}
        now = self._replica.members
        diff: Diff[Listed] = Diff()
        for user, was in before.items():
            listed = now.get(user)
            if listed != was:
                if not listed:
                    assert was is not None
                    diff.leaves[user] = was
                else:
                    (diff.updates if was else diff.joins)[user] = listed
        return Notice(diff, before, now)

    def here(self, notice: Notice) -> Iterator[R]:
        """The receivers that this concerns, except those that leave meanwhile."""
        concerned = self._here if notice.diff else self._known
        return (receiver for receiver in tuple(concerned) if receiver in self._here)

    def due(self, receiver: R, notice: Notice) -> Diff[Listed]:
        """The changes unknown to this watcher, which gets them now. There may be none."""
        known = self._known.pop(receiver, None)
        return notice.diff if known is None else self._missed(known)

    def fall_behind(self, receiver: R, notice: Notice) -> None:
        """This watcher gets no diff now, and the difference when it has caught up."""
        if receiver not in self._known:
            self._known[receiver] = notice.known

    def add(self, receiver: R) -> Diff[Listed]:
        """From now on it watches. Returns its first knowledge: all members. After `refresh`.

        The same object for all that come before the next change.
        """
        self._here[receiver] = None
        return self._know_all(receiver).all

    def catch_up(self, receiver: R) -> Diff[Listed] | None:
        """The changes that a watcher behind the others has missed. The same object for all that missed the same."""
        known = self._known.get(receiver)
        if known is None:
            return None
        self._know_all(receiver)
        return self._missed(known)

    def forget(self) -> None:
        """Newcomers share nothing with those that came before."""
        self._now = None

    def remove(self, receiver: R) -> None:
        self._here.pop(receiver, None)
        self._known.pop(receiver, None)

    def _missed(self, known: Known) -> Diff[Listed]:
        assert self._replica is not None
        return known.missed(self._replica, self._serial)

    def _know_all(self, receiver: R) -> Known:
        """It knows all members, whether the others have been told of them or not."""
        assert self._replica is not None, "nobody knows the members yet"
        if self._now is None:
            self._now = Known(dict(self._replica.members))
        if self._before:
            self._known[receiver] = self._now
        else:
            self._known.pop(receiver, None)
        return self._now
