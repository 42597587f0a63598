"""The waiters of one connection: senders and callbacks for room in the outbox, callbacks for the end.

Made when the first one waits. Knows nothing of sockets, or of when there is room.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable


class Waiters:
    """Of one connection. A waiter is forgotten once it was called."""

    __slots__ = ("_closers", "_drainers", "_writables")

    def __init__(self) -> None:
        self._drainers: list[asyncio.Future[None]] | None = None
        self._writables: list[Callable[[], None]] | None = None
        self._closers: list[Callable[[], None]] | None = None

    def add_drainer(self, future: asyncio.Future[None]) -> None:
        """A sender waits for room, or the end."""
        if self._drainers is None:
            self._drainers = []
        self._drainers.append(future)

    def remove_drainer(self, future: asyncio.Future[None]) -> None:
        """It does not wait any more."""
        if self._drainers is not None and future in self._drainers:
            self._drainers.remove(future)

    def add_writable(self, callback: Callable[[], None]) -> None:
        """To be called when the outbox is empty, or at the end."""
        if self._writables is None:
            self._writables = []
        self._writables.append(callback)

    def add_closer(self, callback: Callable[[], None]) -> None:
        """To be called at the end."""
        if self._closers is None:
            self._closers = []
        self._closers.append(callback)

    def remove_closer(self, callback: Callable[[], None]) -> None:
        """Forget it. Unknown ones are ignored."""
        if self._closers is not None and callback in self._closers:
            self._closers.remove(callback)
            self._closers = self._closers or None  # an idle connection holds no empty list

    def wake_drainers(self) -> None:
        """There is room."""
        drainers, self._drainers = self._drainers, None
        for future in drainers or ():
            if not future.done():
                future.set_result(None)

    def tell_of_room(self, logger: logging.Logger) -> None:
        """The outbox is empty."""
        self.wake_drainers()
        writables, self._writables = self._writables, None
        _call(writables, logger)

    def tell_of_the_end(self, error: Exception, logger: logging.Logger) -> None:
        """There will be no room any more: `error` is for senders."""
        drainers, self._drainers = self._drainers, None
        for future in drainers or ():
            if not future.done():
                future.set_exception(error)
        writables, self._writables = self._writables, None
        _call(writables, logger)
        closers, self._closers = self._closers, None
        _call(closers, logger)


def _call(callbacks: list[Callable[[], None]] | None, logger: logging.Logger) -> None:
    for callback in callbacks or ():
        try:
            callback()
        except Exception:
            logger.exception("a callback of a WebSocket failed")
