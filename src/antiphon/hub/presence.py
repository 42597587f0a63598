"""The members of one topic by user, each with one meta per connection. Pure: the clock is passed in.

Knows nothing of topics, processes or the delivery of changes. Also here: a reader's replica of the members, kept from
changes, and the diff between two replicas.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Generic, NamedTuple, TypeVar

from .records import LISTED, Track

V = TypeVar("V")


class Listed(NamedTuple):
    """A member as watchers see it. False: the member is absent."""

    metas: tuple[bytes, ...]
    """Of its newest `LISTED` connections, oldest first."""
    more: int = 0
    """Older connections besides those."""

    def __bool__(self) -> bool:
        return bool(self.metas)


NOBODY: Final = Listed(())


@dataclass(slots=True)
class _Connection:
    user: str
    meta: bytes
    until: float | None = None
    """When a lingering connection goes. None while it is there."""


class Tracked(NamedTuple):
    """The effect of `Members.track`."""

    changed: bool
    """The user's metas differ now."""
    replaced: str | None
    """The ref whose place was taken. Nobody may ask for it again."""


class Members:
    """The connections of one topic."""

    __slots__ = ("_connections", "_lingering", "_listed", "_users")

    def __init__(self) -> None:
        self._connections: dict[str, _Connection] = {}
        self._users: dict[str, list[str]] = {}
        self._lingering: dict[str, dict[str, None]] = {}
        """By user: those that linger, the first that began to first."""
        self._listed: dict[str, Listed] = {}
        """The results of `listed` by user: readers ask for all of them again and again, and they change one by one."""

    def __len__(self) -> int:
        return len(self._connections)

    def __contains__(self, ref: str) -> bool:
        return ref in self._connections

    @property
    def users(self) -> int:
        return len(self._users)

    def listed(self, user: str) -> Listed:
        return self._listed.get(user, NOBODY)

    def snapshot(self) -> dict[str, Listed]:
        return dict(self._listed)

    def _list_again(self, user: str) -> None:
        refs = self._users.get(user)
        if refs is None:
            self._listed.pop(user, None)
        else:
            metas = tuple(self._connections[ref].meta for ref in refs[-LISTED:])
            self._listed[user] = Listed(metas, max(len(refs) - LISTED, 0))

    def track(self, track: Track) -> Tracked:
        """Add a connection, or replace one: that with the same ref, else a lingering one of the same user.

        Raises ValueError when the ref belongs to another user.
        """
        known = self._connections.get(track.ref)
        if known is not None and known.user != track.user:
            raise ValueError(f"ref {track.ref!r} belongs to {known.user!r}, not to {track.user!r}")
        replaced = track.ref if known is not None else self._place_for(track)
        before = None if replaced is None else self._connections.pop(replaced).meta
        if replaced is not None:
            self._linger_no_more(track.user, replaced)
        refs = self._users.setdefault(track.user, [])
        if replaced is None:
            refs.append(track.ref)
        else:
            refs[refs.index(replaced)] = track.ref
        self._connections[track.ref] = _Connection(track.user, track.meta)
        self._list_again(track.user)
        return Tracked(before != track.meta, replaced)

    def untrack(self, ref: str) -> str | None:
        """Remove a connection at once. Returns its user. Unknown refs change nothing."""
        connection = self._connections.pop(ref, None)
        if connection is None:
            return None
        self._linger_no_more(connection.user, ref)
        refs = self._users[connection.user]
        refs.remove(ref)
        if not refs:
            del self._users[connection.user]
        self._list_again(connection.user)
        return connection.user

    def linger(self, ref: str, until: float) -> bool:
        """Keep a connection listed until then (see `expire`), unless the user comes back. False for unknown refs."""
        connection = self._connections.get(ref)
        if connection is None:
            return False
        connection.until = until
        self._lingering.setdefault(connection.user, {})[ref] = None
        return True

    def expire(self, ref: str, now: float) -> str | None:
        """Remove a connection whose lingering is over. One that is there or lingers on stays."""
        connection = self._connections.get(ref)
        if connection is None or connection.until is None or connection.until > now:
            return None
        return self.untrack(ref)

    def _place_for(self, track: Track) -> str | None:
        """The lingering connection whose place a new one takes: one with the same meta before any other."""
        lingering = self._lingering.get(track.user, {})
        alike = (ref for ref in lingering if self._connections[ref].meta == track.meta)
        return next(alike, next(iter(lingering), None))

    def _linger_no_more(self, user: str, ref: str) -> None:
        lingering = self._lingering.get(user, {})
        lingering.pop(ref, None)
        if not lingering:
            self._lingering.pop(user, None)


@dataclass(frozen=True, slots=True)
class Diff(Generic[V]):
    """The changes between two replicas of the members, by user."""

    joins: dict[str, V] = field(default_factory=dict)
    """Members that were not there."""
    leaves: dict[str, V] = field(default_factory=dict)
    """Members that are gone, as they were last."""
    updates: dict[str, V] = field(default_factory=dict)
    """Members still there with other infos now (one tab more, one less)."""

    def __bool__(self) -> bool:
        return bool(self.joins or self.leaves or self.updates)

    @property
    def parts(self) -> tuple[dict[str, V], dict[str, V], dict[str, V]]:
        """Its three, none of which has a user of another."""
        return self.joins, self.leaves, self.updates


class Replica(Generic[V]):
    """A reader's copy of the members, kept true by changes that carry a member's whole state. A false state: it
    left."""

    __slots__ = ("_members", "_version")

    def __init__(self, version: int, members: Mapping[str, V]) -> None:
        self._version = version
        self._members = dict(members)

    @property
    def version(self) -> int:
        return self._version

    @property
    def members(self) -> Mapping[str, V]:
        return self._members

    def change(self, version: int, user: str, state: V) -> Diff[V]:
        """Apply one change. One that the replica contains already is nothing."""
        diff: Diff[V] = Diff()
        if version > self._version:
            self._version = version
            self._set(user, state, diff)
        return diff

    def replace(self, version: int, members: Mapping[str, V]) -> Diff[V]:
        """Take a fresh roster. The missed changes come as one diff, an empty one for a roster older than the
        replica."""
        diff: Diff[V] = Diff()
        if version < self._version:
            return diff
        users: Iterable[str] = [*members, *(user for user in self._members if user not in members)]
        for user in users:
            self._set(user, members.get(user), diff)
        self._version = version
        return diff

    def _set(self, user: str, state: V | None, diff: Diff[V]) -> None:
        before = self._members.get(user)
        if before == state or not (before or state):
            return
        if not state:
            diff.leaves[user] = self._members.pop(user)
            return
        self._members[user] = state
        (diff.updates if before else diff.joins)[user] = state
