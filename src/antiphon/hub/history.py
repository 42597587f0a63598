"""The history of one topic: a ring of its newest entries. Pure: the clock is passed in, and it knows no topic name."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import islice

from .records import ENTRY_COST, Entry, Keep, Page, Position


class Ring:
    """Entries with contiguous offsets, the newest last. Old ones go by number and by age."""

    __slots__ = ("_deadlines", "_entries", "epoch", "head")

    def __init__(self, epoch: str, head: int = 0) -> None:
        self.epoch: str = epoch
        self.head: int = head
        """Offset of the newest entry ever appended."""
        self._entries: deque[Entry] = deque()
        self._deadlines: deque[float] = deque()

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def position(self) -> Position:
        return Position(self.head, self.epoch)

    @property
    def deadline(self) -> float:
        """When the newest entry expires. With that the ring is empty."""
        return self._deadlines[-1] if self._deadlines else 0.0

    def append(self, data: bytes, keep: Keep, now: float) -> Entry:
        self.head += 1
        entry = Entry(data, Position(self.head, self.epoch))
        self._entries.append(entry)
        self._deadlines.append(now + keep.ttl)
        while len(self._entries) > keep.size:
            self._drop_oldest()
        return entry

    def expire(self, now: float) -> None:
        """Drop entries that are older than their ttl."""
        while self._deadlines and self._deadlines[0] <= now:
            self._drop_oldest()

    def saved(self, now: float) -> list[tuple[float, bytes]]:
        """The entries, oldest first, each with the seconds that are left to it."""
        self.expire(now)
        lefts = (max(deadline - now, 0.0) for deadline in self._deadlines)  # none: it waits for one that lives longer
        return [(left, entry.data) for left, entry in zip(lefts, self._entries, strict=True)]

    def load(self, saved: Iterable[tuple[float, bytes]], now: float) -> None:
        """Put the entries of `saved` back into an empty ring. The newest is at `head`."""
        saved = tuple(saved)
        for offset, (left, data) in enumerate(saved, self.head - len(saved) + 1):
            self._entries.append(Entry(data, Position(offset, self.epoch)))
            self._deadlines.append(now + left)
        self.expire(now)

    def page(self, since: Position | None, limit: int | None, now: float, size: int | None = None) -> Page:
        """As `Backend.history`."""
        self.expire(now)
        if since is None:
            missed = len(self._entries) if limit is None else min(max(limit, 0), len(self._entries))
            return self._part(missed, missed, size, recovered=False)
        missed = self.head - since.offset
        if since.epoch != self.epoch or not 0 <= missed <= len(self._entries):
            return Page((), self.position, False)
        return self._part(missed, missed if limit is None else min(max(limit, 0), missed), size, recovered=True)

    def _part(self, missed: int, count: int, size: int | None, *, recovered: bool) -> Page:
        """The first `count` of the last `missed` entries, or as many of them as `size` allows."""
        start = len(self._entries) - missed
        entries = tuple(islice(self._entries, start, start + count)) if size is None else self._few(start, count, size)
        position = Position(self.head - missed + len(entries), self.epoch)
        return Page(entries, position, recovered, count - len(entries))

    def _few(self, start: int, count: int, size: int) -> tuple[Entry, ...]:
        """By index, which a deque finds in blocks: a part from the middle of a long history must not cost all of it."""
        found: list[Entry] = []
        for index in range(start, start + count):
            entry = self._entries[index]
            size -= len(entry.data) + ENTRY_COST
            if size < 0 and found:
                break
            found.append(entry)
        return tuple(found)

    def _drop_oldest(self) -> None:
        self._entries.popleft()
        self._deadlines.popleft()
