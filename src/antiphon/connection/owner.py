"""Whose code is running: the connection's own, or a foreign sender's. And the way into a connection's event loop.

Knows nothing of messages or states.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import ContextVar
from typing import Final

from antiphon.types import Scope

current_owner: ContextVar[object] = ContextVar("antiphon.owner", default=None)
"""The connection whose endpoint (or a task started by it) is running: its `owner_token`."""

OWNER_EXTENSION: Final = "antiphon.owner"

running_loop: Final = asyncio._get_running_loop


def owner_token(scope: Scope) -> object:
    """What marks the code of this connection: one for all `WebSocket`s of it, so it lives where scopes share."""
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
