"""Keeps the peer's leaving out of asyncio's log.

A task that an endpoint starts for itself (a ticker, a reader beside a writer) ends with `WebSocketDisconnect` when the
peer is gone. Where nobody awaits it, asyncio logs "Task exception was never retrieved" and a traceback for what is no
bug. Whoever does await the task gets the exception as ever, and any other exception is logged as ever.

It is the loop's exception handler that is told, and not the task that is marked: the task that nobody awaits may be
one that awaited another.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from antiphon.exceptions import WebSocketDisconnect

logger = logging.getLogger("antiphon")

Handler = Callable[[asyncio.AbstractEventLoop, dict[str, Any]], object]


class ExcusingHandler:
    """An exception handler of a loop that passes on everything but forgotten disconnects."""

    def __init__(self, instead_of: Handler | None) -> None:
        self._next = instead_of

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Log, or let the handler that was there before do so."""
        error = context.get("exception")
        if error is not None and "never retrieved" in context["message"] and _is_disconnect(error):
            logger.debug("a task ended with its connection: %r", error)
        elif self._next is not None:
            self._next(loop, context)
        else:
            loop.default_exception_handler(context)


def excuse_disconnects(loop: asyncio.AbstractEventLoop | None) -> None:
    """From now on, a task of this loop that ends with a disconnect need not be awaited. None: trio has no such log."""
    if loop is not None and not isinstance(handler := loop.get_exception_handler(), ExcusingHandler):
        loop.set_exception_handler(ExcusingHandler(handler))


def _is_disconnect(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(map(_is_disconnect, error.exceptions))
    return isinstance(error, WebSocketDisconnect)
