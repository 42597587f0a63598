"""The hub's time, in one place: the running event loop's, so that virtual time governs the hub as it does all else.

Knows nothing of deadlines. Logic that depends on time takes `now` as an argument. Timers are the loop's.
"""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import Callable

from antiphon.deadlines import keeps_system_time


class LoopClock:
    """Call it for the seconds of one line of time that all loops share: it stands still or goes on, never back.

    Loops on the system's clock are on the same line. A loop with a clock of its own, as `VirtualTimeLoop` has, goes on
    from the moment at which it first asks, at its own pace. Any thread may call.
    """

    def __init__(self) -> None:
        self._latest = 0.0
        self._system: float | None = None
        """The offset to add to the system's clock. None: nobody has needed it yet."""
        self._own: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, float] = weakref.WeakKeyDictionary()
        """The offsets to add to the clocks of known loops."""
        self._last: tuple[Callable[[], asyncio.AbstractEventLoop | None], float] = lambda: None, 0.0
        """The loop that asked last: it asks again at once, and a look-up costs as much as all the rest."""

    def __call__(self) -> float:
        loop = asyncio._get_running_loop()
        latest, offset = self._last
        if loop is None:
            now = time.monotonic() + self._system_offset()
        else:
            now = loop.time() + (offset if latest() is loop else self._offset_of(loop))
        if now < self._latest:
            return self._latest
        self._latest = now
        return now

    def _offset_of(self, loop: asyncio.AbstractEventLoop) -> float:
        offset = self._own.get(loop)
        if offset is None:
            own = loop.time()
            offset = self._system_offset() if keeps_system_time(loop) else self._latest - own
            self._own[loop] = offset
        self._last = weakref.ref(loop), offset
        return offset

    def _system_offset(self) -> float:
        if self._system is None:
            self._system = self._latest - time.monotonic()
        return self._system
