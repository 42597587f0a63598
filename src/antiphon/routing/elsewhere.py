"""Where else a request that no route takes would be served."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

from starlette._utils import get_route_path
from starlette.datastructures import URL
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Match

from antiphon.shown import shown
from antiphon.types import Scope

from .include import select

logger: Final = logging.getLogger("antiphon")

NO_HANDSHAKE: Final = (
    "only a WebSocket is served here, and this request asks for none (426). If a client has asked for one, a proxy "
    "between it and this server must pass on the headers Upgrade and Connection, in HTTP/1.1"
)
NO_ENGINE: Final = (
    "a WebSocket was asked for, and this server serves none (426): start it with `antiphon run`, or with "
    "`uvicorn --ws antiphon.server:WebSocketProtocol`"
)


def as_websocket(routes: Sequence[BaseRoute], scope: Scope) -> bool:
    """Whether a WebSocket would be served where this request is not."""
    return select(routes, {**scope, "type": "websocket"})[0] is Match.FULL


def redirect(routes: Sequence[BaseRoute], scope: Scope) -> Response | None:
    """To the same path with or without its last slash, where only that one is served."""
    path = get_route_path(scope)
    if path == "/":
        return None
    other = scope["path"].rstrip("/") if path.endswith("/") else scope["path"] + "/"
    elsewhere = {**scope, "path": other}
    if select(routes, elsewhere)[0] is Match.NONE:
        return None
    return RedirectResponse(url=str(URL(scope=elsewhere)))


def upgrade_required(scope: Scope) -> HTTPException:
    """426 (RFC 9110 §15.5.22), for a path where only a WebSocket is served. A line in the log has the remedy."""
    # A server without an engine for WebSockets passes a handshake on as if it were any request.
    asked = any(name == b"upgrade" and value.lower() == b"websocket" for name, value in scope["headers"])
    logger.info("%s %s: %s", scope["method"], shown(scope["path"]), NO_ENGINE if asked else NO_HANDSHAKE)
    told = "this path serves WebSockets: connect with ws:// or wss://"
    if asked:
        told = "this path serves WebSockets, and the server that runs it serves none"
    return HTTPException(426, told, {"Upgrade": "websocket", "Connection": "Upgrade"})
