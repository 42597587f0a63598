"""ASGI apps that are one resource to be read, by GET and HEAD. What they say is the business of others."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from starlette._utils import get_route_path
from starlette.requests import Request
from starlette.responses import Response

from antiphon.shown import shown
from antiphon.types import Receive, Scope, Send

logger: Final = logging.getLogger("antiphon")


class ReadOnly:
    """Answers GET and HEAD with `answer`, and other methods with 405. RuntimeError for what is no HTTP.

    A class, so that `add_route(path, it)` of ours, Starlette and FastAPI serves it at that very path: below a mount it
    would be one slash further, and a redirect there is a success to whoever probes.
    """

    is_leaf = True
    """For our routers: mounted, it is served at the path itself."""

    def __init__(self, answer: Callable[[Request], Response | Awaitable[Response]]) -> None:
        self._answer = answer
        self._told = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(
                f"expected an http scope, got {scope['type']}: add_route() or mount() this in another app"
            )
        if not self._told and "app_root_path" in scope and get_route_path(scope) in ("", "/"):
            self._told = True
            logger.warning(
                "%s is redirected to %s/ by the mount there, which a probe takes for a success: use add_route",
                shown(scope["root_path"]),
                shown(scope["root_path"]),
            )
        response = await self._response(Request(scope, receive))
        await response(scope, receive, send)

    async def _response(self, request: Request) -> Response:
        if request.method not in ("GET", "HEAD"):
            return Response(status_code=405, headers={"Allow": "GET, HEAD"})
        answer = self._answer(request)
        return await answer if inspect.isawaitable(answer) else answer
