"""Keeps the peer's leaving out of asyncio's log.

A task that an endpoint starts for itself (a ticker, a reader beside a writer) ends with `WebSocketDisconnect` when the
peer is gone. Where nobody awaits it, asyncio logs "Task exception was never retrieved" and a traceback, though it is no
bug. The same goes for a message of the wrong kind: one line without a traceback. Code that awaits the task gets the
exception as ever, and any other exception is logged as ever.

This hooks into the loop's exception handler and marks no task: the task that nobody awaits may be one that awaited
another.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final

from antiphon.exceptions import PeerError, WebSocketDisconnect
from antiphon.shown import shown

logger: Final = logging.getLogger("antiphon")

Handler = Callable[[asyncio.AbstractEventLoop, dict[str, Any]], object]


class ExcusingHandler:
    """An exception handler of a loop, which passes on everything but forgotten disconnects and faults of the peer."""

    def __init__(self, instead_of: Handler | None) -> None:
        self._next = instead_of

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Log, or let the handler that was there before do so."""
        error = context.get("exception")
        faults = _faults_of_peer(error) if "never retrieved" in context["message"] else None
        if faults is not None:
            for fault in faults:
                if isinstance(fault, PeerError):
                    logger.warning("a task that nobody awaits ended: %s", shown(fault.note))
                else:
                    logger.debug("a task that nobody awaits ended: %s", shown(fault))
        elif self._next is not None:
            self._next(loop, context)
        else:
            loop.default_exception_handler(context)


def excuse_disconnects(loop: asyncio.AbstractEventLoop | None) -> None:
    """From now on, a task of this loop that ends with a disconnect need not be awaited. None: trio has no such log."""
    if loop is not None and not isinstance(handler := loop.get_exception_handler(), ExcusingHandler):
        loop.set_exception_handler(ExcusingHandler(handler))


def _faults_of_peer(error: BaseException | None) -> list[Exception] | None:
    """The exceptions in a group, or the one. None if any of them is not the peer's doing."""
    if isinstance(error, WebSocketDisconnect | PeerError):
        return [error]
    if not isinstance(error, BaseExceptionGroup):
        return None
    parts = [_faults_of_peer(part) for part in error.exceptions]
    return None if None in parts else [fault for part in parts if part is not None for fault in part]
