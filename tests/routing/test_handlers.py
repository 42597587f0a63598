"""Which of the user's handlers an exception gets: by status, then by the nearest class."""

from __future__ import annotations

import functools
import threading
from typing import Any

import pytest
from starlette.exceptions import HTTPException as StarletteHTTPException

from antiphon.exceptions import HTTPException
from antiphon.routing.context import HANDLERS_KEY
from antiphon.routing.handlers import ExceptionHandler, call, check_key, find, is_async, split


def named(name: str) -> ExceptionHandler:
    def handler(connection: Any, exc: Any) -> str:
        return name

    return handler


LOOKUP, KEY, TEAPOT, LAST = named("lookup"), named("key"), named("teapot"), named("last")
BY_CLASS, BY_STATUS, THE_LAST = split({LookupError: LOOKUP, KeyError: KEY, 418: TEAPOT, Exception: LAST})
SCOPE = {HANDLERS_KEY: (BY_CLASS, BY_STATUS)}


@pytest.mark.parametrize(
    ("error", "handler"),
    [
        (LookupError(), LOOKUP),
        (KeyError(), KEY),
        (IndexError(), LOOKUP),
        (HTTPException(418), TEAPOT),
        (StarletteHTTPException(418), TEAPOT),
        (HTTPException(404), None),
        (ValueError(), None),
    ],
)
def test_a_status_goes_first_and_then_the_nearest_class(error: Exception, handler: ExceptionHandler | None) -> None:
    assert find(SCOPE, error) is handler


def test_the_handler_of_all_that_nobody_handles_stands_apart() -> None:
    assert THE_LAST is LAST
    assert split({500: LAST})[2] is LAST
    assert Exception not in BY_CLASS


def test_an_app_that_is_none_of_ours_has_no_handlers() -> None:
    assert find({}, KeyError()) is None


@pytest.mark.parametrize("module", ["starlette.middleware.exceptions", "fastapi.exception_handlers"])
def test_what_frameworks_register_by_themselves_gives_way_to_the_close_matrix(module: str) -> None:
    stock = named("stock")
    stock.__module__ = module
    assert find({HANDLERS_KEY: ({HTTPException: stock}, {})}, HTTPException(404)) is None


@pytest.mark.parametrize("key", ["404", None, 4.04, KeyError(), int])
def test_what_can_be_no_key_is_refused_by_its_value(key: object) -> None:
    with pytest.raises(TypeError, match="for an exception class or an HTTP status, got"):
        check_key(key)


async def handles(connection: Any, exc: Any) -> int:
    return threading.get_ident()


class Callable:
    async def __call__(self, connection: Any, exc: Any) -> int:
        return threading.get_ident()


@pytest.mark.parametrize("handler", [handles, functools.partial(handles), Callable()])
async def test_an_async_handler_is_awaited_where_the_endpoint_runs(handler: ExceptionHandler) -> None:
    assert is_async(handler)
    assert await call(handler, None, KeyError()) == threading.get_ident()


async def test_a_sync_handler_holds_up_nobody() -> None:
    def handler(connection: Any, exc: Any) -> int:
        return threading.get_ident()

    assert not is_async(handler)
    assert await call(handler, None, KeyError()) != threading.get_ident()
