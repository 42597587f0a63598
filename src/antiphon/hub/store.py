"""The state of all topics of one place: kept by `memory` in its process, and by the relay process for its workers.

Pure: no I/O, no lock, the clock passed in. It notifies nobody: it returns the changes to send.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from .claims import Claims
from .expiring import Expiring
from .history import Ring
from .presence import Listed, Members
from .records import Change, Claimed, Entry, Keep, Note, Page, Position, Roster, Track

SWEEP_BATCH = 8
"""Expired histories looked at per publish: more than one, so that they go faster than they come."""


class Saved(NamedTuple):
    """The history of one topic, for another process."""

    topic: str
    head: int
    entries: list[tuple[float, bytes]]
    """Oldest first and without a gap up to `head`: the seconds that are left to each, and its data."""


class Snapshot(NamedTuple):
    """All histories of a store, and its notes. Presence and shares are not in it: members have to come back first. Nor
    are vouchers: they live for seconds."""

    epoch: str
    forgotten: int
    """The highest offset of the histories that are no longer there."""
    histories: list[Saved]
    notes: Sequence[Note] = ()


class Store:
    """Histories and members of all topics.

    A topic nobody publishes to, with history, and nobody is tracked in takes no memory. To forget a history safely
    the store remembers one number for all of them: new histories start behind the highest offset ever forgotten, so
    that no (offset, epoch) names two entries.
    """

    def __init__(self, *, epoch: str, version: int) -> None:
        """`epoch`: never used by another store. `version`: presence versions start behind it (microseconds do)."""
        self.epoch = epoch
        self._version = version
        self._rings: dict[str, Ring] = {}
        self._ring_deadlines: list[tuple[float, str]] = []
        self._forgotten = 0
        self._members: dict[str, Members] = {}
        self._lingering: list[tuple[float, str, str]] = []
        self._leases: dict[str, float] = {}
        self._tracked: dict[str, set[tuple[str, str]]] = {}
        self._processes: dict[tuple[str, str], str] = {}
        self._vouchers: Expiring[bytes] = Expiring("values to be taken once (tickets)")
        self._notes: Expiring[float] = Expiring("notes (revocations)")
        self._claims = Claims()

    @property
    def version(self) -> int:
        """Of the latest change of any topic's members."""
        return self._version

    @property
    def topics(self) -> int:
        """Topics that take memory: those with history or members."""
        return len(self._rings.keys() | self._members.keys())

    @property
    def untouched(self) -> bool:
        """No position of this epoch has been given out for an entry."""
        return not self._rings and not self._forgotten

    # Handing over

    def snapshot(self, now: float) -> Snapshot:
        """The histories, to go on with in another store once nobody uses this one."""
        return Snapshot(
            self.epoch,
            self._forgotten,
            [Saved(topic, ring.head, ring.saved(now)) for topic, ring in self._rings.items()],
            self.noted(now),
        )

    @classmethod
    def restored(cls, snapshot: Snapshot, *, version: int, now: float) -> Store:
        """A store that goes on where that one ended: same epoch, same offsets."""
        store = cls(epoch=snapshot.epoch, version=version)
        store._forgotten = snapshot.forgotten
        store.note(snapshot.notes, now)
        for topic, head, entries in snapshot.histories:
            ring = Ring(snapshot.epoch, head)
            ring.load(entries, now)
            if ring:
                store._rings[topic] = ring
                heapq.heappush(store._ring_deadlines, (ring.deadline, topic))
            else:
                store._forgotten = max(store._forgotten, head)
        return store

    # History

    def publish(self, topic: str, data: bytes, keep: Keep | None, now: float) -> Entry:
        """The entry to deliver. With `keep` it is in the history now."""
        if self._ring_deadlines and self._ring_deadlines[0][0] <= now:
            self._forget_histories(now, SWEEP_BATCH)
        if keep is None:
            return Entry(data, None)
        ring = self._rings.get(topic)
        if ring is None:
            ring = self._rings[topic] = Ring(self.epoch, self._forgotten)
            heapq.heappush(self._ring_deadlines, (now + keep.ttl, topic))
        return ring.append(data, keep, now)

    def head(self, topic: str) -> Position:
        ring = self._rings.get(topic)
        return Position(self._forgotten, self.epoch) if ring is None else ring.position

    def page(self, topic: str, since: Position | None, limit: int | None, now: float, size: int | None = None) -> Page:
        """As `Backend.history`."""
        ring = self._rings.get(topic)
        if ring is None:
            head = Position(self._forgotten, self.epoch)
            return Page((), head, since == head)
        return ring.page(since, limit, now, size)

    # Presence

    def renew(self, process: str, until: float) -> bool:
        """The process lives until then. False: its lease had run out (or never was), its members are gone."""
        known = process in self._leases
        self._leases[process] = until
        return known

    def track(self, topic: str, track: Track, process: str) -> Change | None:
        """As `Backend.track`, for a connection of this process."""
        members = self._members.get(topic)
        if members is None:
            members = self._members[topic] = Members()
        changed, replaced = members.track(track)
        if replaced is not None:
            self._forget_owner((topic, replaced))
        key = (topic, track.ref)
        self._processes[key] = process
        self._tracked.setdefault(process, set()).add(key)
        return self._change(topic, track.user) if changed else None

    def untrack(self, topic: str, ref: str, grace: float, now: float) -> Change | None:
        """As `Backend.untrack`."""
        members = self._members.get(topic)
        if members is None:
            return None
        if grace > 0:
            if members.linger(ref, now + grace):
                heapq.heappush(self._lingering, (now + grace, topic, ref))
            return None
        return self._removed(topic, ref, members.untrack(ref))

    def roster(self, topic: str) -> Roster:
        """As of the last `sweep`."""
        members = self._members.get(topic)
        listed = {} if members is None else members.snapshot()
        more = {user: one.more for user, one in listed.items() if one.more}
        return Roster(self._version, {user: one.metas for user, one in listed.items()}, more)

    def count(self, topic: str) -> int:
        """How many members `roster` would have."""
        members = self._members.get(topic)
        return 0 if members is None else members.users

    def drop_process(self, process: str) -> list[tuple[str, Change]]:
        """Its members leave, now."""
        self._leases.pop(process, None)
        self._claims.drop_process(process)
        told = []
        for topic, ref in sorted(self._tracked.get(process, ())):
            members = self._members.get(topic)
            change = None if members is None else self._removed(topic, ref, members.untrack(ref))
            if change is not None:
                told.append((topic, change))
        self._tracked.pop(process, None)
        return told

    # The gate

    def put(self, key: str, value: bytes, ttl: float, now: float) -> None:
        """As `GateBackend.put`."""
        self._vouchers.put(key, value, now + ttl)

    def take(self, key: str, now: float) -> bytes | None:
        """As `GateBackend.take`."""
        return self._vouchers.take(key, now)

    def claim(self, key: str, ref: str, process: str, limit: int | None, evict: bool, now: float) -> Claimed:
        """As `GateBackend.claim`, for a connection of this process. As of the last `sweep`."""
        evicted = self._claims.claim(key, ref, process, limit, evict)
        if evicted is not None:
            return Claimed(True, 0.0, evicted)
        ends = [self._leases[holder] for holder in self._claims.holders(key) if holder in self._leases]
        return Claimed(False, max(min(ends, default=now) - now, 0.0))

    def release(self, key: str, ref: str) -> None:
        """As `GateBackend.release`."""
        self._claims.release(key, ref)

    def note(self, notes: Iterable[Note], now: float) -> None:
        """As `GateBackend.note`."""
        for key, value, ttl in notes:
            known = self._notes.get(key, now)
            until = max(self._notes.until(key), now + ttl)
            self._notes.put(key, value if known is None else max(known, value), until)

    def noted(self, now: float) -> list[Note]:
        """As `GateBackend.noted`."""
        return [Note(*one) for one in self._notes.items(now)]

    # Time

    @property
    def deadline(self) -> float | None:
        """When `sweep` will next have something to do. None: nothing is waiting."""
        deadlines = list(self._leases.values())
        if self._ring_deadlines:
            deadlines.append(self._ring_deadlines[0][0])
        if self._lingering:
            deadlines.append(self._lingering[0][0])
        deadlines += [one.deadline for one in (self._vouchers, self._notes) if one.deadline is not None]
        return min(deadlines, default=None)

    def sweep(self, now: float) -> list[tuple[str, Change]]:
        """Drop expired state: lingering connections, processes without a lease, histories."""
        self._forget_histories(now, len(self._ring_deadlines))
        self._vouchers.sweep(now)
        self._notes.sweep(now)
        told = []
        while self._lingering and self._lingering[0][0] <= now:
            _, topic, ref = heapq.heappop(self._lingering)
            members = self._members.get(topic)
            change = None if members is None else self._removed(topic, ref, members.expire(ref, now))
            if change is not None:
                told.append((topic, change))
        for process in [process for process, until in self._leases.items() if until <= now]:
            told += self.drop_process(process)
        return told

    def _forget_histories(self, now: float, most: int) -> None:
        for _ in range(most):
            if not self._ring_deadlines or self._ring_deadlines[0][0] > now:
                return
            _, topic = heapq.heappop(self._ring_deadlines)
            ring = self._rings[topic]
            ring.expire(now)
            if ring:
                heapq.heappush(self._ring_deadlines, (max(ring.deadline, now), topic))
                continue
            del self._rings[topic]
            self._forgotten = max(self._forgotten, ring.head)

    def _removed(self, topic: str, ref: str, user: str | None) -> Change | None:
        if user is None:
            return None
        self._forget_owner((topic, ref))
        if not self._members[topic]:
            del self._members[topic]
        return self._change(topic, user)

    def _forget_owner(self, key: tuple[str, str]) -> None:
        process = self._processes.pop(key, None)
        if process is None:
            return
        tracked = self._tracked[process]
        tracked.discard(key)
        if not tracked:
            del self._tracked[process]

    def _change(self, topic: str, user: str) -> Change:
        self._version += 1
        members = self._members.get(topic)
        return Change(self._version, user, *(Listed(()) if members is None else members.listed(user)))
