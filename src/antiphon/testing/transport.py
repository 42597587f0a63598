"""Two asyncio transports joined in memory: bytes that one writes, the other receives in a later turn of the loop.

Models a protocol's view of TCP: order, half-close, reset, a reader that has paused, and a writer's buffer with its
water marks. Knows nothing of WebSockets.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

CHUNK: Final = 64 << 10
"""As much as a read of a real socket brings at most."""

DEFAULT_WINDOW: Final = 64 << 10
"""Bytes the "network" takes while the reader has paused, as kernels do. The rest stays in the writer's buffer."""


class MemoryTransport(asyncio.Transport):
    """One end. `pair()` makes two."""

    def __init__(self, loop: asyncio.AbstractEventLoop, extra: Mapping[str, Any], window: int) -> None:
        super().__init__(dict(extra))
        self._loop = loop
        self.closed: asyncio.Future[None] = loop.create_future()
        """Done when the protocol has heard of the end."""
        self._protocol: Any = None
        self._window = window
        self._other: MemoryTransport | None = None
        self._out = bytearray()
        self._high, self._low = 64 << 10, 16 << 10
        self._writing_paused = False
        self._reading_paused = False
        self._eof_wanted = False
        self._eof_told = False
        self._closing = False
        self._over = False
        self._scheduled = False

    # ------------------------------------------------------------ reading

    def pause_reading(self) -> None:
        """Receive nothing. The writer at the other end notices when the window is full."""
        self._reading_paused = True

    def resume_reading(self) -> None:
        """Receive again."""
        self._reading_paused = False
        if self._other is not None:
            self._other._schedule()

    def is_reading(self) -> bool:
        """Neither paused nor over."""
        return not self._reading_paused and not self._closing

    # ------------------------------------------------------------ writing

    def write(self, data: bytes | bytearray | memoryview[int]) -> None:
        """Send; bytes that the other side does not read now wait here."""
        if self._closing or self._eof_wanted:
            return
        self._out += data
        if not self._writing_paused and self.get_write_buffer_size() > self._high:
            self._writing_paused = True
            self._call("pause_writing")
        self._schedule()

    def get_write_buffer_size(self) -> int:
        """Bytes that the network has not taken."""
        return max(0, len(self._out) - self._window)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """The water marks, low and high, in bytes."""
        return self._low, self._high

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """As asyncio's."""
        self._high = (64 << 10 if low is None else 4 * low) if high is None else high
        self._low = self._high // 4 if low is None else low

    def can_write_eof(self) -> bool:
        """True: this is TCP's behaviour, not TLS's."""
        return True

    def write_eof(self) -> None:
        """Half-close, behind the buffer."""
        self._eof_wanted = True
        self._schedule()

    # ------------------------------------------------------------ the end

    def is_closing(self) -> bool:
        """`close` or `abort` was called, or the connection is lost."""
        return self._closing

    def close(self) -> None:
        """Close, behind the buffer."""
        if not self._closing:
            self._closing = True
            self._eof_wanted = True
            self._schedule()

    def abort(self) -> None:
        """Reset: the other side loses the connection too, and the bytes on the way."""
        self._out.clear()
        self._finish(None)
        if self._other is not None:
            self._other._out.clear()
            self._other._finish(ConnectionResetError("connection reset by peer"))

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Set the receiver, from now on."""
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        """The receiver."""
        protocol: asyncio.BaseProtocol = self._protocol
        return protocol

    # ------------------------------------------------------------ inside

    def _schedule(self) -> None:
        if not self._scheduled and not self._over:
            self._scheduled = True
            self._loop.call_soon(self._move)

    def _move(self) -> None:
        """Carry one chunk over, then the end of the stream."""
        self._scheduled = False
        other = self._other
        if self._over or other is None:
            return
        if self._out and not other._reading_paused and not other._over:
            chunk = bytes(self._out[:CHUNK])
            del self._out[:CHUNK]
            other._call("data_received", chunk)
            if self._over:
                return
        if other._over:
            self._out.clear()
        if self._writing_paused and self.get_write_buffer_size() <= self._low:
            self._writing_paused = False
            self._call("resume_writing")
        if self._out:
            if not other._reading_paused:
                self._schedule()
        elif self._eof_wanted:
            self._end_stream(other)

    def _end_stream(self, other: MemoryTransport) -> None:
        if not self._eof_told:
            self._eof_told = True
            if not other._over and not other._call("eof_received"):
                other.close()
        if self._closing:
            self._finish(None)

    def _finish(self, error: Exception | None) -> None:
        self._closing = True
        if not self._over:
            self._over = True
            self._loop.call_soon(self._lose, error)

    def _lose(self, error: Exception | None) -> None:
        self._call("connection_lost", error)
        if not self.closed.done():
            self.closed.set_result(None)

    def _call(self, name: str, *arguments: object) -> Any:
        return getattr(self._protocol, name)(*arguments)


def pair(
    loop: asyncio.AbstractEventLoop,
    first: Any,
    second: Any,
    *,
    first_address: tuple[str, int],
    second_address: tuple[str, int],
    window: int = DEFAULT_WINDOW,
) -> tuple[MemoryTransport, MemoryTransport]:
    """Join two protocols (`asyncio.Protocol` in shape). Each has had its `connection_made` when this returns."""
    here = MemoryTransport(loop, {"sockname": first_address, "peername": second_address}, window)
    there = MemoryTransport(loop, {"sockname": second_address, "peername": first_address}, window)
    here._other, there._other = there, here
    here._protocol, there._protocol = first, second
    first.connection_made(here)
    second.connection_made(there)
    return here, there
