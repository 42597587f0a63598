"""Finding and calling the exception handlers a user registered, by class (MRO) or HTTP status.

The rules are Starlette's: a status handler serves `HTTPException` only and goes first. Then the nearest class wins.
Knows nothing of the case without a handler: that is `endpoint.py` for WebSockets.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException as StarletteHTTPException

from antiphon.dependencies.inspection import unpartial
from antiphon.types import Scope

from .context import HANDLERS_KEY

ExceptionHandler: TypeAlias = Callable[[Any, Any], Any]
"""`handler(connection, exc)`, sync (run in the thread pool) or async, returning a `Response` or None."""

HandlerKey: TypeAlias = int | type[Exception]
HandlerTables: TypeAlias = tuple[dict[type[Exception], ExceptionHandler], dict[int, ExceptionHandler]]

STOCK_HANDLERS: Final = frozenset({"starlette.middleware.exceptions", "fastapi.exception_handlers"})
"""Modules of the handlers Starlette and FastAPI register by themselves; inside their apps the close matrix replaces
them, because they drop its reason (before accept) or break on it (a reason that is no string)."""


def check_key(key: object) -> None:
    """Raise TypeError unless an exception handler can be for it: an HTTP status or a class of exceptions."""
    if not isinstance(key, int) and not (isinstance(key, type) and issubclass(key, BaseException)):
        raise TypeError(f"an exception handler is for an exception class or an HTTP status, got {key!r}")


def split(
    handlers: Mapping[Any, ExceptionHandler],
) -> tuple[dict[type[Exception], ExceptionHandler], dict[int, ExceptionHandler], ExceptionHandler | None]:
    """By class, by status, and the one for unhandled exceptions (500 or `Exception`)."""
    by_class: dict[type[Exception], ExceptionHandler] = {}
    by_status: dict[int, ExceptionHandler] = {}
    last: ExceptionHandler | None = None
    for key, handler in handlers.items():
        if key in (500, Exception):
            last = handler
        elif isinstance(key, int):
            by_status[key] = handler
        else:
            by_class[key] = handler
    return by_class, by_status, last


def find(scope: Scope, error: Exception) -> ExceptionHandler | None:
    """The user's handler for `error`, or None."""
    tables = scope.get(HANDLERS_KEY)
    if tables is None:
        return None
    by_class, by_status = tables
    handler: ExceptionHandler | None = None
    if isinstance(error, StarletteHTTPException):
        handler = by_status.get(error.status_code)
    if handler is None:
        handler = next((by_class[kind] for kind in type(error).__mro__ if kind in by_class), None)
    if handler is None or getattr(handler, "__module__", None) in STOCK_HANDLERS:
        return None
    return handler


async def call(handler: ExceptionHandler, connection: Any, error: Exception) -> Any:
    """The handler's result. A sync handler runs in the thread pool."""
    if is_async(handler):
        return await handler(connection, error)
    return await run_in_threadpool(handler, connection, error)


def is_async(function: Callable[..., Any]) -> bool:
    """True for callables whose result must be awaited: coroutine functions, also behind `partial` or `__call__`."""
    function = unpartial(function)
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004
