"""The close matrix for exceptions, as data: exception -> the peer's view before and after accept.

Pure: no connection, no I/O. README.md has it in words, and `endpoint.py` carries the decisions out.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import anyio
from pydantic_core import to_jsonable_python
from starlette.datastructures import Headers
from starlette.endpoints import WebSocketEndpoint as StarletteWebSocketEndpoint
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.exceptions import WebSocketException as StarletteWebSocketException
from starlette.responses import JSONResponse, Response
from starlette.websockets import WebSocketDisconnect as StarletteWebSocketDisconnect
from starlette.websockets import WebSocketDisconnected as StarletteWebSocketDisconnected

from antiphon.connection.denials import close_code_of, close_reason_of
from antiphon.exceptions import MissingIdentity, ParameterErrors, PeerError, TryAgainLater, WrongEncoding
from antiphon.gate.door import REASON as REFUSED_ORIGIN
from antiphon.masking import is_secret, masked
from antiphon.status import (
    WS_1000_NORMAL_CLOSURE,
    WS_1008_POLICY_VIOLATION,
    WS_1011_INTERNAL_ERROR,
    WS_1013_TRY_AGAIN_LATER,
    WS_3000_UNAUTHORIZED,
    WS_3003_FORBIDDEN,
)

DISCONNECTS = (StarletteWebSocketDisconnect, StarletteWebSocketDisconnected)
ORDINARY = frozenset({1000, 1001, 1005, 1006})
"""Codes of peers that leave without a message."""
CONSEQUENCES = (anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream)
"""Exceptions that the other tasks of a group get from the streams between them when one ends with a disconnect."""

BODILESS = frozenset({204, 304})
PHRASED = frozenset(HTTPStatus)
OWN_VALIDATION = frozenset({"value_error", "assertion_error"})
"""Errors whose text comes from a user's validator, perhaps with the value in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a connection ends: `code` and `reason` after accept, the HTTP response before it."""

    code: int
    reason: str = ""
    status: int = 403
    body: object = None
    """JSON content of the denial. None gives an empty one."""
    headers: Mapping[str, str] | None = None
    note: str = ""
    """A log line without a traceback, for a fault of the peer that is still worth knowing."""
    level: int = logging.WARNING
    """The note's level: INFO for events that every peer can cause at will before the handshake is complete."""
    refusal: int | None = None
    """The code of the Close before accept, where pages are to read it (`Denials.CLOSE`). None: as after it."""
    why: str = ""
    """The reason in the log for a handshake refused like this, beside the status. After accept the peer gets it."""

    def refusal_close(self) -> tuple[int, str]:
        """The Close that stands for the denial response, where pages are to read it."""
        code = self.code if self.refusal is None else self.refusal
        return code, close_reason_of(self.reason, Headers(self.headers or {}).get("retry-after"))

    def response(self) -> Response:
        """The denial response for a connection that was not accepted."""
        if self.body is None or self.status in BODILESS or self.status < 200:
            return Response(status_code=self.status, headers=self.headers)
        return JSONResponse(self.body, status_code=self.status, headers=self.headers)


UNHANDLED = Ending(
    code=WS_1011_INTERNAL_ERROR, reason="Internal Server Error", status=500, body={"detail": "Internal Server Error"}
)
"""An exception nobody handles: no word of it on the wire."""

NOT_FOUND = Ending(code=WS_1000_NORMAL_CLOSURE, status=404, body={"detail": "Not Found"})
"""No route serves the path: the same answer as for an HTTP request."""

FOREIGN_ORIGIN = Ending(code=WS_3003_FORBIDDEN, reason=REFUSED_ORIGIN, status=403, body={"detail": REFUSED_ORIGIN})
"""A page of a site that may not connect."""


def ending_of(error: Exception) -> Ending | None:
    """The ending that the matrix gives `error`. None for an unhandled exception or a disconnect."""
    for kind, decide in ENDINGS:
        if isinstance(error, kind):
            return decide(error)
    return None


def ending_of_response(response: Response) -> Ending:
    """The Close that stands for a handler's HTTP response once the connection is accepted."""
    return Ending(code=_close_code(response.status_code), status=response.status_code)


def refusal_of_response(response: Response, ending: Ending) -> Ending:
    """The Close that stands for a handler's HTTP response before accept. `ending` would have come without the
    handler."""
    status = response.status_code
    reason = HTTPStatus(status).phrase if status in PHRASED else ""
    if ending.status == status and ending is not UNHANDLED:
        reason = ending.reason
    code = close_code_of(status)
    return Ending(code=code, refusal=code, status=status, reason=reason, headers=response.headers)


def ending_of_disconnect(error: Any) -> Ending | None:
    """The meaning of a `WebSocketDisconnect` that leaves an endpoint while its peer is there. None: an ordinary end.

    User code has set a code that no browser leaves with: the peer gets it, as from a `WebSocketException`.
    """
    if isinstance(error, StarletteWebSocketDisconnected) or not isinstance(error.code, int) or error.code in ORDINARY:
        return None
    return _of_websocket_exception(error)


def unwrap(error: Exception) -> Exception:
    """See through the `ExceptionGroup` of a task group: disconnects beside another error are only its company.

    One error, or several of which each has an ending of its own, is taken for the group; anything else stays a group.
    """
    if not isinstance(error, ExceptionGroup):
        return WrongEncoding(str(error)) if _is_refused_encoding(error) else error
    disconnects, others = error.split(DISCONNECTS)
    if disconnects is not None and (others is None or others.split(CONSEQUENCES)[1] is None):
        return next(_leaves(disconnects))
    assert others is not None, "an exception group is never empty"
    leaves = list(_leaves(others))
    if len(leaves) == 1 or all(ending_of(leaf) is not None for leaf in leaves):
        return leaves[0]
    return error


def _is_refused_encoding(error: Exception) -> bool:
    """Whether Starlette's `WebSocketEndpoint` has closed over a message: the error it raises then has no type."""
    traceback = error.__traceback__
    if type(error) is not RuntimeError or traceback is None:
        return False
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    return traceback.tb_frame.f_code is StarletteWebSocketEndpoint.decode.__code__


def _leaves(group: BaseExceptionGroup[Any]) -> Iterator[Exception]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


def _of_websocket_exception(error: Any) -> Ending:
    reason = error.reason or ""
    return Ending(code=error.code, reason=reason, body={"code": error.code, "reason": reason}, why=said_by(error))


def said_by(error: Any) -> str:
    """The code and the reason of an exception that has them."""
    return f"{error.code} {error.reason or ''}".rstrip()


def _of_http_exception(error: Any) -> Ending:
    detail = error.detail
    reason = detail if isinstance(detail, str) else json.dumps(to_jsonable_python(detail), ensure_ascii=False)
    return Ending(
        code=_close_code(error.status_code),
        reason=reason,
        status=error.status_code,
        body={"detail": to_jsonable_python(detail)},
        headers=error.headers,
        refusal=close_code_of(error.status_code),
        why=getattr(error, "note", reason),
    )


def _of_missing_identity(error: Any) -> Ending:
    level = logging.WARNING if error.is_mistake else logging.INFO
    ending = _of_http_exception(error)
    return dataclasses.replace(ending, code=WS_3000_UNAUTHORIZED, note=f"refused: {error.note}", level=level)


def _of_parameter_errors(error: Any) -> Ending:
    detail = to_jsonable_python(error.errors(), fallback=str)
    reason = "invalid parameters"
    return Ending(
        code=WS_1008_POLICY_VIOLATION,
        reason=reason,
        body={"code": WS_1008_POLICY_VIOLATION, "reason": reason, "detail": detail},
        note=f"{reason}: {_summary(error.errors(), error.wanted_by)}",
        level=logging.INFO,
    )


def _summary(errors: Sequence[Mapping[str, Any]], wanted_by: Sequence[str]) -> str:
    """Where, why and for which function, without the values: they may be secrets, also in what a validator says of a
    secret parameter."""
    return "; ".join(
        f"{'.'.join(map(str, error['loc']))}: {_said_of(error)}" + (f" (for {name})" if name else "")
        for error, name in itertools.zip_longest(errors, wanted_by)
    )


def _said_of(error: Mapping[str, Any]) -> str:
    said = masked(str(error["msg"]))
    if not any(is_secret(str(one)) for one in error["loc"]):
        return said
    value = str(error.get("input") or "")
    quotes = error["type"] in OWN_VALIDATION or (value and value in said)
    return str(error["type"]) if quotes else said


def _of_peer_error(error: Any) -> Ending:
    return Ending(code=error.close_code, reason=error.close_reason, note=error.note)


def _of_try_again_later(error: Any) -> Ending:
    reason = "try again later"
    return Ending(code=WS_1013_TRY_AGAIN_LATER, reason=reason, status=503, body={"detail": reason}, note=str(error))


def _close_code(status: int) -> int:
    return WS_1011_INTERNAL_ERROR if status >= 500 else WS_1008_POLICY_VIOLATION


ENDINGS: tuple[tuple[type[Exception], Callable[[Any], Ending]], ...] = (
    (StarletteWebSocketException, _of_websocket_exception),
    (MissingIdentity, _of_missing_identity),
    (StarletteHTTPException, _of_http_exception),
    (ParameterErrors, _of_parameter_errors),
    (PeerError, _of_peer_error),
    (TryAgainLater, _of_try_again_later),
)
