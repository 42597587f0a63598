"""The owner of the running code: the connection, or a foreign sender. And the way into a connection's event loop.

Knows nothing of messages or states.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Final
from weakref import ref

from antiphon.types import Scope

current_owner: ContextVar[object] = ContextVar("antiphon.owner", default=None)
"""The connection whose endpoint (or a task started by it) is running: its `owner_token`."""

OWNER_EXTENSION: Final = "antiphon.owner"

running_loop: Final = asyncio._get_running_loop

Clock = Callable[[], float]


class _Here(threading.local):
    """The objects that all connections of one thread share (benchmarks: idle)."""

    def __init__(self) -> None:
        self.thread: int = threading.get_ident()
        self.clock: Callable[[], Clock | None] = lambda: None
        """The clock of the newest connection's loop, while a connection holds it."""


_here: Final = _Here()


def this_thread() -> int:
    """`threading.get_ident()`, as the same object every time."""
    return _here.thread


def clock_of(loop: asyncio.AbstractEventLoop | None) -> Clock:
    """The loop's clock, and where there is none, time.monotonic."""
    if loop is None:
        return time.monotonic
    clock = _here.clock()
    if clock is None or getattr(clock, "__self__", None) is not loop:
        clock = loop.time
        _here.clock = ref(clock)
    return clock


def owner_token(scope: Scope) -> object:
    """The mark of this connection's code. All its `WebSocket`s share one, so it lives in the part that scopes share."""
    shared = scope.get("extensions")
    if shared is None:
        shared = scope if "asgi" in scope else {}
    return shared.setdefault(OWNER_EXTENSION, object())


def run_in(loop: asyncio.AbstractEventLoop | None, call: Callable[[], object]) -> bool:
    """Run `call` in the loop: now where we are in it (or there is none), soon otherwise. False: the loop is closed."""
    if loop is None or running_loop() is loop:
        call()
        return True
    return run_soon(loop, call)


def run_soon(loop: asyncio.AbstractEventLoop, call: Callable[[], object]) -> bool:
    """Run `call` in the loop's next turn, from any thread. False: the loop is closed, and its connections with it."""
    try:
        loop.call_soon_threadsafe(call)
    except RuntimeError:
        return False
    return True
