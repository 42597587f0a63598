"""A socket under a test's control: a `Sink` that takes every message, or none, or dies, on command."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any, Final

from antiphon.types import PreparedMessage

PATIENCE: Final = 100.0
"""Seconds to wait for an expected event: they end a hang on a machine however busy, and promise nothing."""


class RecordingSink:
    """Keeps the messages that a peer would have received, in order. Lives in the event loop it was made in.

    For example:

        from antiphon.testing.hub_contract import RecordingSink

        async def test_a_delivery() -> None:
            sink = RecordingSink()
            print(sink.received, sink.closed)
    """

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self.alive: bool = True
        self.received: list[str | bytes] = []
        """Messages that have left for the peer."""
        self.closed: tuple[int, str] | None = None
        """How the hub disconnected it."""
        self.close_code: int | None = None
        self.close_reason: str = ""
        self.most_buffered: int = 0
        self._stalled = False
        self._buffer: list[str | bytes] = []
        self._bytes = 0
        self._writable: list[tuple[int, Callable[[], None]]] = []
        self._on_close: list[Callable[[], None]] = []

    @property
    def buffered(self) -> int:
        return self._bytes

    @property
    def callbacks(self) -> int:
        """How many still wait to be told of the end: 0 once nobody has anything to do with this sink."""
        return len(self._on_close)

    @property
    def events(self) -> list[Any]:
        """The received text messages that are JSON objects with a `type`."""
        texts = [json.loads(one) for one in self.received if isinstance(one, str) and one.startswith('{"type":')]
        return [one for one in texts if isinstance(one, dict)]

    def stall(self) -> None:
        """The peer stops reading."""
        self._stalled = True

    def read_on(self) -> None:
        """The peer reads again, all there is."""
        self._stalled = False
        self.received += self._buffer
        self._buffer.clear()
        self._bytes = 0
        callbacks, self._writable = self._writable, []
        for _, callback in callbacks:
            callback()

    def read(self, count: int) -> None:
        """The peer reads so many messages and stalls again."""
        taken, self._buffer = self._buffer[:count], self._buffer[count:]
        self.received += taken
        self._bytes -= sum(map(len, taken))
        ready = [callback for bound, callback in self._writable if self._bytes <= bound]
        self._writable = [pair for pair in self._writable if self._bytes > pair[0]]
        for callback in ready:
            callback()

    def die(self, code: int = 1006) -> None:
        """The connection is gone."""
        self.alive = False
        self.close_code = self.close_code or code
        callbacks = [*self._on_close, *(callback for _, callback in self._writable)]
        self._on_close.clear()
        self._writable.clear()
        for callback in callbacks:
            callback()

    def offer(self, message: PreparedMessage, limit: int) -> bool:
        if not self.alive:
            return True
        payload = message.payload
        if not self._stalled:
            self.received.append(payload)
            return True
        if self._bytes and self._bytes + len(payload) > limit:
            return False
        self._buffer.append(payload)
        self._bytes += len(payload)
        self.most_buffered = max(self.most_buffered, self._bytes)
        return True

    def disconnect(self, code: int, reason: str) -> None:
        if self.alive:
            self.closed = code, reason
            self.close_code, self.close_reason = code, reason
            self.die(code)

    def on_writable(self, callback: Callable[[], None]) -> None:
        self._writable.append((self._bytes // 2, callback))

    def on_close(self, callback: Callable[[], None]) -> None:
        if self.alive:
            self._on_close.append(callback)
        else:
            callback()

    def off_close(self, callback: Callable[[], None]) -> None:
        if callback in self._on_close:
            self._on_close.remove(callback)


class Connection:
    """Something to join a topic with."""

    def __init__(self) -> None:
        self.sink: RecordingSink = RecordingSink()

    @property
    def received(self) -> list[str | bytes]:
        """The messages that its sink has let through to the peer."""
        return self.sink.received


async def eventually(condition: Callable[[], object], timeout: float = PATIENCE, what: str = "") -> None:
    """Wait until the condition holds. AssertionError when it does not in time.

    For example:

        from antiphon.testing.hub_contract import eventually

        async def test_everybody_left() -> None:
            await eventually(lambda: hub.stats().connections == 0)
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    while not condition():
        assert loop.time() < deadline, f"not within {timeout} s: {what or condition}"
        await asyncio.sleep(0.005)
