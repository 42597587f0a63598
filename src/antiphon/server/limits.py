"""Counting what one process and one peer may have: pure, the clock is passed in."""

from __future__ import annotations

from typing import Final

from antiphon.status import WS_1008_POLICY_VIOLATION, WS_1009_MESSAGE_TOO_BIG, WS_1013_TRY_AGAIN_LATER

from .config import ServerConfig


class Admission:
    """How many connections there are, in all and per client address."""

    def __init__(self, limit: int | None, limit_per_address: int | None) -> None:
        self._limit: Final = limit
        self._limit_per_address: Final = limit_per_address
        self._addresses: dict[str, int] = {}
        self.count = 0

    def enter(self, address: str) -> int | None:
        """Count one more connection; an HTTP status (503 or 429) when there is no room for it."""
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


class Rate:
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
        """Take `size` bytes, and frames up to a total of `frames` since the start; False when that is too fast."""
        elapsed = max(0.0, now - self._then)
        self._then = now
        self._frames = min(self._frame_limit, self._frames + elapsed * self._frame_limit) - (frames - self._seen)
        self._bytes = min(self._byte_limit, self._bytes + elapsed * self._byte_limit) - size
        self._seen = frames
        return self._frames >= 0 and self._bytes >= 0


def limit_behind(code: int, config: ServerConfig) -> str:
    """The limit that a close for the peer's fault was about, and what it is called, for the log; "" for the others."""
    frames, size = config.max_frames_per_second, config.max_bytes_per_second
    return {
        WS_1009_MESSAGE_TOO_BIG: f"more than {config.max_message_size} bytes (max_message_size, --ws-max-size)",
        WS_1008_POLICY_VIOLATION: f"too many (max_frames_per_second={frames}, max_bytes_per_second={size})",
        WS_1013_TRY_AGAIN_LATER: f"all unfinished messages beyond {config.unfinished_bytes} bytes (unfinished_bytes)",
    }.get(code, "")
