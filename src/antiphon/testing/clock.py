"""An event loop whose clock stands still while code runs and jumps to the next timer when nothing else is left to do.

A test that waits for minutes of deadlines takes milliseconds, and takes them the same way every time. For code without
real I/O, as `antiphon.testing.Server` is. Sockets and threads work, but no timer waits for them.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

T = TypeVar("T")
P = ParamSpec("P")


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
    """`asyncio.Runner(loop_factory=VirtualTimeLoop)`: `time()` starts at 0.0, and only timers move it.

    For example:

        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            runner.run(asyncio.sleep(3600))  # at once
    """

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        """Seconds of virtual time since the loop was made."""
        return self._jumping.now


def virtual_time(test: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
    """Make an `async def` test a plain one that runs in a `VirtualTimeLoop` of its own. Fixtures and parameters stay.

        @virtual_time
        async def test_five_minutes_pass_at_once() -> None:
            await asyncio.sleep(300)

    No plugin for async tests is needed, and none takes notice of it. Raises TypeError for anything but `async def`.
    """
    if not inspect.iscoroutinefunction(test):
        raise TypeError(f"@virtual_time is for an `async def`, got {test!r}")

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            return runner.run(test(*args, **kwargs))

    run.__signature__ = inspect.signature(test)  # type: ignore[attr-defined]  # pytest reads the fixtures from it
    del run.__wrapped__  # by which a plugin would find the coroutine function again
    return run
