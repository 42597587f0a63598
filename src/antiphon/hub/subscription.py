"""A subscriber without a socket: a bounded queue that is a `Sink` on one side and an async iterator on the other."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from antiphon.status import WS_1013_TRY_AGAIN_LATER
from antiphon.types import PreparedMessage

from .errors import SlowSubscriber
from .message import Parcel


class QueueSink:
    """Messages for one loop over a topic. Lives in the event loop it was made in."""

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self.alive: bool = True
        self.buffered: int = 0
        self._parcels: deque[Parcel] = deque()
        self._ended: tuple[int, str] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._writable: list[tuple[int, Callable[[], None]]] = []
        self._closed: list[Callable[[], None]] = []

    def offer(self, message: PreparedMessage, limit: int) -> bool:
        if not self.alive:
            return True
        assert isinstance(message, Parcel), "only the hub offers to a QueueSink"
        if self.buffered and self.buffered + message.size > limit:
            return False
        self._parcels.append(message)
        self.buffered += message.size
        self._wake()
        return True

    def disconnect(self, code: int, reason: str) -> None:
        if not self.alive:
            return
        self.alive = False
        self._ended = code, reason
        self._wake()
        callbacks = [*self._closed, *(callback for _, callback in self._writable)]
        self._closed.clear()
        self._writable.clear()
        for callback in callbacks:
            callback()

    def on_writable(self, callback: Callable[[], None]) -> None:
        self._writable.append((self.buffered // 2, callback))

    def on_close(self, callback: Callable[[], None]) -> None:
        if self.alive:
            self._closed.append(callback)
        else:
            callback()

    def off_close(self, callback: Callable[[], None]) -> None:
        if callback in self._closed:
            self._closed.remove(callback)

    async def get(self) -> Parcel | None:
        """The next one. None when it was ended and everything taken before is out. One caller at a time.

        Raises `SlowSubscriber` instead of None when it was ended for falling behind.
        """
        if self._waiter is not None:
            raise RuntimeError("two tasks iterate over one subscription; subscribe once for each")
        while not self._parcels:
            if not self.alive:
                if self._ended is not None and self._ended[0] == WS_1013_TRY_AGAIN_LATER:
                    raise SlowSubscriber(self._ended[1])
                return None
            self._waiter = self.loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        parcel = self._parcels.popleft()
        self.buffered -= parcel.size
        ready = [callback for bound, callback in self._writable if self.buffered <= bound]
        self._writable = [pair for pair in self._writable if self.buffered > pair[0]]
        for callback in ready:
            callback()
        return parcel

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
