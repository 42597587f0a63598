"""Who is in one topic: members by user, each with one meta per connection. Pure: the clock is passed in.

Knows nothing of topics, processes or how a change is told. Also: how a reader keeps its own picture of the members from
changes, and what differs between two pictures.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

from .backends.base import Track

M = TypeVar("M")


@dataclass(slots=True)
class _Connection:
    user: str
    meta: bytes
    until: float | None = None
    """When a lingering connection goes; None while it is there."""


class Tracked(NamedTuple):
    """What `Members.track` did."""

    changed: bool
    """The user's metas differ now."""
    replaced: str | None
    """The ref whose place was taken; nobody may ask for it again."""


class Members:
    """The connections of one topic."""

    __slots__ = ("_connections", "_users")

    def __init__(self) -> None:
        self._connections: dict[str, _Connection] = {}
        self._users: dict[str, list[str]] = {}

    def __len__(self) -> int:
        return len(self._connections)

    def __contains__(self, ref: str) -> bool:
        return ref in self._connections

    @property
    def users(self) -> int:
        return len(self._users)

    def metas(self, user: str) -> tuple[bytes, ...]:
        """One per connection, oldest first; empty when the user is not there."""
        return tuple(self._connections[ref].meta for ref in self._users.get(user, ()))

    def snapshot(self) -> dict[str, tuple[bytes, ...]]:
        return {user: self.metas(user) for user in self._users}

    def track(self, track: Track) -> Tracked:
        """Add a connection, or replace one: that with the same ref, else a lingering one of the same user.

        Raises ValueError when the ref belongs to another user.
        """
        known = self._connections.get(track.ref)
        if known is not None and known.user != track.user:
            raise ValueError(f"ref {track.ref!r} belongs to {known.user!r}, not to {track.user!r}")
        replaced = track.ref if known is not None else self._lingering(track)
        before = None if replaced is None else self._connections.pop(replaced).meta
        refs = self._users.setdefault(track.user, [])
        if replaced is None:
            refs.append(track.ref)
        else:
            refs[refs.index(replaced)] = track.ref
        self._connections[track.ref] = _Connection(track.user, track.meta)
        return Tracked(before != track.meta, replaced)

    def untrack(self, ref: str) -> str | None:
        """Remove a connection at once; returns its user. Unknown refs change nothing."""
        connection = self._connections.pop(ref, None)
        if connection is None:
            return None
        refs = self._users[connection.user]
        refs.remove(ref)
        if not refs:
            del self._users[connection.user]
        return connection.user

    def linger(self, ref: str, until: float) -> bool:
        """Keep a connection listed until then (see `expire`), unless the user comes back. False for unknown refs."""
        connection = self._connections.get(ref)
        if connection is None:
            return False
        connection.until = until
        return True

    def expire(self, ref: str, now: float) -> str | None:
        """Remove a connection whose lingering is over; one that is there or lingers on stays."""
        connection = self._connections.get(ref)
        if connection is None or connection.until is None or connection.until > now:
            return None
        return self.untrack(ref)

    def _lingering(self, track: Track) -> str | None:
        lingering = [ref for ref in self._users.get(track.user, ()) if self._connections[ref].until is not None]
        alike = (ref for ref in lingering if self._connections[ref].meta == track.meta)
        return next(alike, lingering[0] if lingering else None)


@dataclass(frozen=True, slots=True)
class Diff(Generic[M]):
    """What changed between two pictures of the members: user to metas."""

    joins: dict[str, tuple[M, ...]] = field(default_factory=dict)
    """Members that were not there."""
    leaves: dict[str, tuple[M, ...]] = field(default_factory=dict)
    """Members that are gone, with the metas they had last."""
    updates: dict[str, tuple[M, ...]] = field(default_factory=dict)
    """Members still there whose metas are others now (one tab more, one less)."""

    def __bool__(self) -> bool:
        return bool(self.joins or self.leaves or self.updates)


class Picture(Generic[M]):
    """A reader's copy of the members, kept true by changes that carry a member's whole state."""

    __slots__ = ("_members", "_version")

    def __init__(self, version: int, members: Mapping[str, tuple[M, ...]]) -> None:
        self._version = version
        self._members = dict(members)

    @property
    def version(self) -> int:
        return self._version

    @property
    def members(self) -> Mapping[str, tuple[M, ...]]:
        return self._members

    def change(self, version: int, user: str, metas: tuple[M, ...]) -> Diff[M]:
        """Apply one change; one that the picture contains already is nothing."""
        if version <= self._version:
            return Diff()
        self._version = version
        return self._set(user, metas)

    def replace(self, version: int, members: Mapping[str, tuple[M, ...]]) -> Diff[M]:
        """Take a fresh roster; what was missed comes as one diff. One older than the picture is nothing."""
        diff: Diff[M] = Diff()
        if version < self._version:
            return diff
        users: Iterable[str] = [*members, *(user for user in self._members if user not in members)]
        for user in users:
            one = self._set(user, members.get(user, ()))
            diff.joins.update(one.joins)
            diff.leaves.update(one.leaves)
            diff.updates.update(one.updates)
        self._version = version
        return diff

    def _set(self, user: str, metas: tuple[M, ...]) -> Diff[M]:
        before = self._members.get(user, ())
        if before == metas:
            return Diff()
        if not metas:
            return Diff(leaves={user: self._members.pop(user)})
        self._members[user] = metas
        return Diff(updates={user: metas}) if before else Diff(joins={user: metas})
