"""Work that belongs to one event loop, asked for from another."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, TypeVar

T = TypeVar("T")

LOOK: Final = 0.5
"""Seconds between two looks at a loop in which work waits to begin or to end."""


class LoopEnded(Exception):
    """The loop ended before it had done the work."""

    def __init__(self, *, begun: bool, idle: bool = False) -> None:
        super().__init__("the event loop ended")
        self.begun: Final = begun
        """The work, or a part of it, may have been done."""
        self.idle: Final = idle
        """It has not ended, and does not run: another attempt would wait as long."""


async def in_loop(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T]) -> T:
    """Do it in this loop, which may run in another thread."""
    if asyncio._get_running_loop() is loop:
        return await work
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, loop))


async def in_mortal_loop(loop: asyncio.AbstractEventLoop, work: Callable[[], Awaitable[T]]) -> T:
    """The same in a loop that may end meanwhile, as that of `asyncio.run` in another thread. Raises `LoopEnded`.

    `work` begins the work, there: what never begins leaves nothing that nobody awaited.
    """
    begun = False

    async def visit() -> T:
        nonlocal begun
        begun = True
        return await work()

    visiting = visit()
    try:
        future = asyncio.run_coroutine_threadsafe(visiting, loop)
    except RuntimeError:  # it was closed
        visiting.close()
        raise LoopEnded(begun=False) from None
    waiting, idle = asyncio.wrap_future(future), False
    try:
        while not (await asyncio.wait([waiting], timeout=LOOK))[0]:
            if loop.is_closed() or (idle and not loop.is_running()):
                break
            idle = not loop.is_running()
    finally:
        if not loop.is_closed():  # else asyncio logs that it cannot pass the cancellation on
            waiting.cancel()  # and the work with it, where this call was cancelled
        elif not begun:
            visiting.close()
    if waiting.done() and not waiting.cancelled():
        return waiting.result()
    raise LoopEnded(begun=begun, idle=idle and not loop.is_closed())
