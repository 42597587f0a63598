"""An event loop whose clock stands still while code runs and jumps to the next timer when nothing else is left to do.

A test that waits for minutes of deadlines takes milliseconds, and takes them the same way every time. For code without
real I/O, as `antiphon.testing.Server` is. Sockets and threads work, but no timer waits for them.
"""

from __future__ import annotations

import asyncio
import selectors


class _JumpingSelector(selectors.DefaultSelector):
    """Never sleeps while a timer could be next: moves the loop's clock instead."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            return super().select(None)
        ready = super().select(0)
        if not ready:
            self.now += timeout
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """`asyncio.Runner(loop_factory=VirtualTimeLoop)`: `time()` starts at 0.0, and only timers move it."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        """Seconds of virtual time since the loop was made."""
        return self._jumping.now
