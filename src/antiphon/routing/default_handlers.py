"""The handlers of exceptions for which the user has none. FastAPI's names, so that a user's handler may call them."""

from __future__ import annotations

from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import HTTPConnection
from starlette.responses import Response

from antiphon.connection import WebSocket
from antiphon.exceptions import ParameterErrors

from .endings import Ending, ending_of
from .http import unprocessable


async def http_exception_handler(request: HTTPConnection, exc: StarletteHTTPException) -> Response:
    """The exception's status and headers, and its detail as JSON."""
    return _ending(exc).response()


async def request_validation_exception_handler(request: HTTPConnection, exc: ParameterErrors) -> Response:
    """422 and the list of errors as JSON."""
    return unprocessable(exc)


async def websocket_request_validation_exception_handler(websocket: WebSocket, exc: ParameterErrors) -> None:
    """Close 1008, with a short reason; before `accept`, 403."""
    ending = _ending(exc)
    await websocket.close(ending.code, ending.reason)


def _ending(exc: Exception) -> Ending:
    ending = ending_of(exc)
    assert ending is not None, "the close matrix has a row for each of these"
    return ending
