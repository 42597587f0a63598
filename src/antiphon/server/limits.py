"""Counts against the limits of one process and one peer. Pure: the clock is passed in."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final, Generic, TypeVar

from antiphon.networks import network_of
from antiphon.status import WS_1008_POLICY_VIOLATION, WS_1009_MESSAGE_TOO_BIG, WS_1013_TRY_AGAIN_LATER

from .config import ServerConfig

T = TypeVar("T")


class Admission:
    """How many connections there are, in all and per client address."""

    def __init__(self, limit: int | None, limit_per_address: int | None) -> None:
        self._limit: Final = limit
        self._limit_per_address: Final = limit_per_address
        self._addresses: dict[str, int] = {}
        self.count: int = 0

    def enter(self, address: str) -> int | None:
        """Count one more connection. Returns an HTTP status (503 or 429) when there is no room for it."""
        if self._limit is not None and self.count >= self._limit:
            return 503
        if self._limit_per_address is not None:
            already = self._addresses.get(address, 0)
            if already >= self._limit_per_address:
                return 429
            self._addresses[address] = already + 1
        self.count += 1
        return None

    def leave(self, address: str) -> None:
        """Undo an `enter` that returned None."""
        self.count -= 1
        left = self._addresses.get(address, 0) - 1
        if left > 0:
            self._addresses[address] = left
        else:
            self._addresses.pop(address, None)


class FrameRate:
    """Two token buckets, each holding one second's worth: frames, and bytes on the wire."""

    __slots__ = ("_byte_limit", "_bytes", "_frame_limit", "_frames", "_seen", "_then")

    def __init__(self, frames: int | None, bytes_: int | None, now: float) -> None:
        self._frame_limit = float("inf") if frames is None else float(frames)
        self._byte_limit = float("inf") if bytes_ is None else float(bytes_)
        self._frames = self._frame_limit
        self._bytes = self._byte_limit
        self._seen = 0
        self._then = now

    def spend(self, frames: int, size: int, now: float) -> bool:
        """Take `size` bytes, and frames up to a total of `frames` since the start. False when that is too fast."""
        elapsed = max(0.0, now - self._then)
        self._then = now
        self._frames = min(self._frame_limit, self._frames + elapsed * self._frame_limit) - (frames - self._seen)
        self._bytes = min(self._byte_limit, self._bytes + elapsed * self._byte_limit) - size
        self._seen = frames
        return self._frames >= 0 and self._bytes >= 0


def limit_behind(code: int, config: ServerConfig) -> str:
    """The limit behind a close for the peer's fault, with the names of its options, for the log. "" for other
    closes."""
    frames, size = config.max_frames_per_second, config.max_bytes_per_second
    return {
        WS_1009_MESSAGE_TOO_BIG: f"more than {config.max_message_size} bytes (max_message_size, --ws-max-size)",
        WS_1008_POLICY_VIOLATION: f"too many (max_frames_per_second={frames}, max_bytes_per_second={size})",
        WS_1013_TRY_AGAIN_LATER: f"all unfinished messages beyond {config.unfinished_bytes} bytes (unfinished_bytes)",
    }.get(code, "")


class Hoard(Generic[T]):
    """The connections' shares of a thing with one bound for all of them, and the choice of those to close beyond it.

    The choice is the greediest: of the address that holds most, the connection that holds most. So no connection is
    closed that holds less than an equal share of its address, and no address is hit that holds less than an equal share
    of all.
    """

    def __init__(self, limit: int | None) -> None:
        self._limit: Final = limit
        self._addresses: dict[Hashable, dict[T, int]] = {}
        self._totals: dict[Hashable, int] = {}
        self._address_of: dict[T, Hashable] = {}
        self.total: int = 0

    def note(self, holder: T, address: str, size: int) -> list[T]:
        """`holder` holds so much now. Returns the holders to close, which count no more."""
        known = self._address_of.get(holder)
        if known is None:
            if not size:
                return []
            known = self._address_of[holder] = network_of(address)
        self._set(holder, known, size)
        greedy = []
        while self._limit is not None and self.total > self._limit:
            of_one = self._addresses[max(self._totals, key=self._totals.__getitem__)]
            greediest = max(of_one, key=of_one.__getitem__)
            self._set(greediest, self._address_of[greediest], 0)
            greedy.append(greediest)
        return greedy

    def _set(self, holder: T, address: Hashable, size: int) -> None:
        holders = self._addresses.setdefault(address, {})
        more = size - holders.get(holder, 0)
        self.total += more
        self._totals[address] = self._totals.get(address, 0) + more
        if size:
            holders[holder] = size
            return
        holders.pop(holder, None)
        del self._address_of[holder]
        if not holders:
            del self._addresses[address], self._totals[address]
