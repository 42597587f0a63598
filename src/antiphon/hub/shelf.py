"""Messages of history ready for receivers, made once for all who get them at about the same time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Final, TypeAlias

from .errors import HubError
from .message import Parcel, unwrap
from .records import Entry, Position
from .topics import Framing

SHELF_BYTES: Final = 32 << 20
"""Of parcels that wait for somebody else who wants them, with all their forms."""

SHELF_SECONDS: Final = 1.0
"""A parcel that nobody wanted for so long, or twice that, is forgotten."""

_Place: TypeAlias = tuple[str, Position]


class Shelf:
    """Parcels by their place: receivers that replay the same entries about the same time share them.

    Two generations, so that eviction costs nothing: a parcel in use moves to the young one, and the old one goes as a
    whole. Behind a lock, because event loops in several threads may share it.
    """

    def __init__(self) -> None:
        self._young: dict[_Place, Parcel | None] = {}
        self._old: dict[_Place, Parcel | None] = {}
        self._bytes = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def clear(self) -> None:
        """The backend was lost: after a failover the same place may name another entry."""
        with self._lock:
            self._young, self._old, self._bytes = {}, {}, 0

    def take(self, topic: str, entries: Sequence[Entry], framing: Framing) -> list[Parcel]:
        """The parcels of these entries, but for those that are no messages."""
        with self._lock:
            found = [self._take(topic, entry, framing) for entry in entries]
        self._arm()
        return [parcel for parcel in found if parcel is not None]

    def run(self, topic: str, behind: Position, most: int, size: int) -> list[Parcel | None]:
        """The entries behind a position that are on the shelf, up to the first missing one; about `size` bytes."""
        found: list[Parcel | None] = []
        with self._lock:
            for offset in range(behind.offset + 1, behind.offset + 1 + most):
                place = (topic, Position(offset, behind.epoch))
                if place not in self._young and place not in self._old:
                    break
                parcel = self._find(place)
                found.append(parcel)
                size -= 0 if parcel is None else parcel.cost
                if size <= 0:
                    break
        return found

    def _take(self, topic: str, entry: Entry, framing: Framing) -> Parcel | None:
        assert entry.position is not None, "an entry of a page has a position"
        place = (topic, entry.position)
        if place in self._young or place in self._old:
            return self._find(place)
        try:
            parcel = unwrap(topic, entry, framing)
        except (HubError, UnicodeDecodeError):
            parcel = None
        self._put(place, parcel)
        return parcel

    def _find(self, place: _Place) -> Parcel | None:
        if place in self._young:
            return self._young[place]
        parcel = self._old.pop(place)
        self._put(place, parcel)
        return parcel

    def _put(self, place: _Place, parcel: Parcel | None) -> None:
        self._young[place] = parcel
        # The payload, the data, and the frame that a server will make of them.
        self._bytes += 500 + (0 if parcel is None else 3 * parcel.size)
        if self._bytes > SHELF_BYTES // 2:
            self._turn()

    def _turn(self) -> None:
        self._old, self._young, self._bytes = self._young, {}, 0

    def _arm(self) -> None:
        """One timer, in whichever loop; when that loop ends with it, the next call arms another."""
        if self._loop is None or self._loop.is_closed():
            self._loop = asyncio.get_running_loop()
            self._loop.call_later(SHELF_SECONDS, self._grow_old)

    def _grow_old(self) -> None:
        with self._lock:
            self._turn()
            self._loop = None
        if len(self):
            self._arm()
