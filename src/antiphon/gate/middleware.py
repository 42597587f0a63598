"""The check of `Origin` for apps of others, as ASGI middleware: FastAPI, Starlette, Django, Quart, on any server."""

from __future__ import annotations

import json
from typing import Final

from antiphon.connection.denials import Denials
from antiphon.connection.refusing import refuse_readably
from antiphon.status import WS_3003_FORBIDDEN
from antiphon.types import ASGIApp, Receive, Scope, Send

from .door import CHECKED_KEY, REASON, Door, check_origin
from .origins import OriginsLike

_BODY: Final = json.dumps({"detail": REASON}).encode()


class OriginMiddleware:
    """Lets WebSocket handshakes of pages that may connect through to `app`. HTTP passes untouched.

        app.add_middleware(OriginMiddleware, origins=["https://app.example"])      # FastAPI, Starlette
        application = OriginMiddleware(application)                                # any ASGI app

    `origins`: `SAME`, patterns in a list, or `Origins`. None refuses pages of other sites that come with credentials
    which browsers attach by themselves, unless the app's own `CORSMiddleware` trusts them. `denials`: how the others
    are refused. Raises RegistrationError for a bad pattern.
    """

    def __init__(self, app: ASGIApp, *, origins: OriginsLike | None = None, denials: Denials = Denials.HTTP) -> None:
        self.app: ASGIApp = app
        self._door = Door(origins, denials)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket":
            await self.app(scope, receive, send)
        elif self._lets_in(scope):
            scope[CHECKED_KEY] = True
            await self.app(scope, receive, send)
        elif self._door.denials is Denials.CLOSE:
            await _close(scope, receive, send)
        else:
            await _refuse(scope, send)

    def _lets_in(self, scope: Scope) -> bool:
        return check_origin(self._door.origins, scope, self.app)


async def _close(scope: Scope, receive: Receive, send: Send) -> None:
    """Accept, and close with a code and a reason that a page can read."""
    message = await receive()
    if message["type"] != "websocket.connect":
        return
    await refuse_readably(scope, send, WS_3003_FORBIDDEN, REASON)


async def _refuse(scope: Scope, send: Send) -> None:
    if "websocket.http.response" not in (scope.get("extensions") or ()):
        await send({"type": "websocket.close", "code": WS_3003_FORBIDDEN, "reason": REASON})  # before accept: a 403
        return
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(_BODY))]
    await send({"type": "websocket.http.response.start", "status": 403, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": _BODY})
