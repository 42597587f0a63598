"""Requests that are whole, a few in each turn of the loop. Knows nothing of requests."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final, Protocol

REQUESTS: Final = 8
"""Requests of new connections that one turn of the loop takes in: some 3 ms, with the first steps of their
endpoints."""


class Waiting(Protocol):
    """A connection whose request is whole. `uvicorn.HTTPProtocol` implements it."""

    def on_turn(self) -> None:
        """It may go in, if it is still there."""


class Doorway:
    """Where a thousand may stand who have connected before and ask at once: they go in one after the other."""

    __slots__ = ("_free", "_loop", "_scheduled", "_waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop: Final = loop
        self._free = REQUESTS
        self._waiting: deque[Waiting] = deque()
        self._scheduled = False

    def admits(self) -> bool:
        """There is room in this turn of the loop. A refused connection may `wait`."""
        if self._waiting or not self._free:
            return False
        self._take()
        return True

    def wait(self, one: Waiting) -> None:
        """Behind those who wait already."""
        self._waiting.append(one)

    def _take(self) -> None:
        self._free -= 1
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._run)

    def _run(self) -> None:
        self._scheduled = False
        self._free = REQUESTS
        while self._waiting and self._free:
            self._take()
            try:
                self._waiting.popleft().on_turn()
            except Exception as error:  # a bug stays with its own connection
                self._loop.call_exception_handler({"message": "taking in a request failed", "exception": error})
