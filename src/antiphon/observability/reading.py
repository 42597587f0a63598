"""ASGI apps that are one resource to be read, by GET and HEAD. Others provide the content."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from starlette._utils import get_route_path
from starlette.requests import Request
from starlette.responses import Response

from antiphon.resource import Resource
from antiphon.shown import shown
from antiphon.types import Scope

logger: Final = logging.getLogger("antiphon")


class ReadOnly(Resource):
    """Answers with `answer`, and logs once where a mount redirects it."""

    def __init__(self, answer: Callable[[Request], Response | Awaitable[Response]]) -> None:
        self._answer = answer
        self._told = False

    def look_at(self, scope: Scope) -> None:
        """Tell of a mount that redirects."""
        if not self._told and "app_root_path" in scope and get_route_path(scope) in ("", "/"):
            self._told = True
            logger.warning(
                "%s is redirected to %s/ by the mount there, which a probe takes for a success: use add_route",
                shown(scope["root_path"]),
                shown(scope["root_path"]),
            )

    async def respond(self, request: Request) -> Response:
        """The answer."""
        answer = self._answer(request)
        return await answer if inspect.isawaitable(answer) else answer
