"""Telling the backend the untold changes: again and again, until it has them or is lost.

After a loss the owner of the books tells everything anew. Knows nothing of the changes themselves.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

from antiphon.shown import shown

from .errors import BackendUnavailable

logger: Final = logging.getLogger("antiphon.hub")

PAUSES: Final = (0.05, 2.0)
"""Seconds between two attempts when the backend fails without being lost: the first, and the longest."""

TOGETHER: Final = 1000
"""Told of at a time: they share their round trips, and take a task each."""


class Upkeep(Protocol):
    """The part of `BackendAccess` that this needs."""

    @property
    def connected(self) -> bool:
        """The backend is there."""

    def spawn(self, work: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        """Do it beside the running calls. It is cancelled with the hub."""


class Telling:
    """Of one thing. One task at most, which ends when nothing is untold."""

    __slots__ = ("_task", "_tell", "_untold", "_upkeep", "_what")

    def __init__(
        self, upkeep: Upkeep, what: str, untold: Callable[[], Any], tell: Callable[[], Awaitable[None]]
    ) -> None:
        """`what` is for the log. `tell` removes the changes that it sends from the result of `untold`. It raises
        `BackendUnavailable`."""
        self._upkeep = upkeep
        self._what = what
        self._untold = untold
        self._tell = tell
        self._task: asyncio.Task[None] | None = None

    def soon(self) -> None:
        """Begin, in the backend's loop. Nobody waits for it."""
        task = self._task
        # A task whose loop was closed is never done, and one that was cancelled before it ran has set nothing.
        if task is None or task.done() or task.get_loop() is not asyncio.get_running_loop():
            self._task = self._upkeep.spawn(self._until_told)

    async def _until_told(self) -> None:
        pause, longest = PAUSES
        while self._untold() and self._upkeep.connected:
            try:
                await self._tell()
                pause = PAUSES[0]
            except BackendUnavailable as error:
                logger.info("%s are told again: %s", self._what, shown(error))
                await asyncio.sleep(pause)
                pause = min(pause * 2, longest)
