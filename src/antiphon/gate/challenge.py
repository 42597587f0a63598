"""The answer to a client without good credentials, and its line in the log.

The peer learns only that its token is bad. The log names the reason, and never the token. Before accept
that is an HTTP response with a challenge (RFC 6750 §3), after it a Close with the code that IANA registers for it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Final

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import HTTPConnection
from starlette.websockets import WebSocketState

from antiphon.connection import WebSocket
from antiphon.connection.denials import close_reason_of
from antiphon.events import Refusal
from antiphon.exceptions import HTTPException, WebSocketException
from antiphon.shown import shown
from antiphon.status import (
    HTTP_401_UNAUTHORIZED,
    HTTP_403_FORBIDDEN,
    HTTP_503_SERVICE_UNAVAILABLE,
    WS_1013_TRY_AGAIN_LATER,
    WS_3000_UNAUTHORIZED,
    WS_3003_FORBIDDEN,
)
from antiphon.types import ACCEPTED_KEY, DECLARED_EXTENSION

from .refusals import note_refusal

logger: Final = logging.getLogger("antiphon")

CLOSE_CODES: Final = {
    HTTP_401_UNAUTHORIZED: WS_3000_UNAUTHORIZED,
    HTTP_403_FORBIDDEN: WS_3003_FORBIDDEN,
    HTTP_503_SERVICE_UNAVAILABLE: WS_1013_TRY_AGAIN_LATER,
}
"""The close codes for a status after accept. Other statuses are left to the close matrix."""


class InvalidToken(HTTPException):
    """A token that is not good: 401 with `WWW-Authenticate: Bearer error="invalid_token"` (RFC 6750 §3.1).

    A `verify` function raises it. After accept it closes with 3000. `note` is for the log alone: one short line on the
    token's fault, without the token. The peer gets `detail`. `reason` is the label under which it is counted
    (`AccessRefused`).

        async def verify(token: str) -> Identity:
            if token != "sesame":
                raise InvalidToken("not the word")  # for the log
            return Identity(user="ann")
    """

    def __init__(self, note: str, *, detail: str = "Invalid token", reason: Refusal = Refusal.TOKEN_INVALID) -> None:
        super().__init__(HTTP_401_UNAUTHORIZED, detail, {"WWW-Authenticate": 'Bearer error="invalid_token"'})
        self.note: str = note
        self.reason: Refusal = reason
        self.is_counted: bool = False
        """Observers have been told."""


class MissingToken(HTTPException):
    """No token: 401 with a challenge that names no error, as nothing was tried (RFC 6750 §3.1)."""

    def __init__(self, note: str) -> None:
        super().__init__(HTTP_401_UNAUTHORIZED, "Not authenticated", {"WWW-Authenticate": "Bearer"})
        self.note: str = note
        self.reason: Refusal = Refusal.TOKEN_MISSING


class InsufficientScope(HTTPException):
    """A good token that does not allow this: 403 with `error="insufficient_scope"` (RFC 6750 §3.1), then 3003."""

    def __init__(self, missing: Iterable[str], demanded: Iterable[str]) -> None:
        challenge = f'Bearer error="insufficient_scope", scope="{" ".join(demanded)}"'
        super().__init__(HTTP_403_FORBIDDEN, "Insufficient scope", {"WWW-Authenticate": challenge})
        self.note: str = (
            f"the identity does not have the scope {', '.join(map(repr, missing))}; issue a token that does"
        )
        self.reason: Refusal = Refusal.SCOPE


class CannotVerify(HTTPException):
    """Whether a token is good cannot be known now: 503, then Close 1013. `retry_after` is in seconds."""

    def __init__(self, note: str, *, retry_after: float) -> None:
        super().__init__(
            HTTP_503_SERVICE_UNAVAILABLE, "try again later", {"Retry-After": str(max(1, round(retry_after)))}
        )
        self.note: str = note
        self.reason: Refusal = Refusal.UNAVAILABLE


def refusal(connection: HTTPConnection, error: StarletteHTTPException) -> Exception:
    """The exception for `error` on this connection: itself, or the Close that stands for it once it is accepted.

    Tells observers. Logs the reason where routing does not: it tells of refused handshakes only.
    """
    scope = connection.scope
    reason = getattr(error, "reason", None)
    if isinstance(reason, Refusal) and not getattr(error, "is_counted", False):
        note_refusal(scope, reason)
    is_websocket = scope["type"] == "websocket"
    accepted = is_websocket and getattr(connection, "application_state", None) is not WebSocketState.CONNECTING
    if accepted and DECLARED_EXTENSION in scope and ACCEPTED_KEY not in scope:
        return error  # below a handler of a channel, which answers its message with it
    code = CLOSE_CODES.get(error.status_code)
    told = error.status_code if not accepted or code is None else code
    is_told_by_routing = isinstance(connection, WebSocket) and (
        not accepted or (code is None and ACCEPTED_KEY in scope)
    )
    if not is_told_by_routing:
        logger.info(
            "%s %s refused: %d, %s",
            "WebSocket" if is_websocket else scope.get("method", "HTTP"),
            shown(scope.get("path", "")),
            told,
            shown(getattr(error, "note", error.detail)),
        )
    if not accepted or code is None:
        return error
    return WebSocketException(code, close_reason_of(str(error.detail), Headers(error.headers or {}).get("retry-after")))
