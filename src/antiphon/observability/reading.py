"""ASGI apps that are mounted to be read: GET and HEAD, and nothing else. What they say is the business of others."""

from __future__ import annotations

from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response

from antiphon.types import ASGIApp, Receive, Scope, Send


def read_only(answer: Callable[[Request], Response]) -> ASGIApp:
    """An app that answers GET and HEAD with `answer`, and other methods with 405. RuntimeError for what is no HTTP."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"expected an http scope, got {scope['type']}: mount this app, do not run it alone")
        request = Request(scope, receive)
        readable = request.method in ("GET", "HEAD")
        response = answer(request) if readable else Response(status_code=405, headers={"Allow": "GET, HEAD"})
        await response(scope, receive, send)

    return app
