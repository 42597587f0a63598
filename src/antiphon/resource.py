"""ASGI apps that are one resource to be read, by GET and HEAD. Knows nothing of their content."""

from __future__ import annotations

from typing import Any, Final, overload

from starlette.requests import Request
from starlette.responses import Response

from .types import Receive, Scope, Send

METHODS: Final = ("GET", "HEAD")


class Resource:
    """An ASGI app for one path: `app.add_route(path, it)`, in an app of ours, of Starlette or of FastAPI.

    A class, so that they serve it at exactly that path: below a mount it would be one slash further, and a redirect
    there is a success to a probe. Called with a request it returns the response, as an endpoint does. So type checkers
    take it for an endpoint. Answers other methods with 405. Raises RuntimeError for scopes other than http.
    """

    is_leaf = True
    """For our routers: mounted, it is served at the path itself."""

    @overload
    async def __call__(self, scope: Request, /) -> Response: ...
    @overload
    async def __call__(self, scope: Scope, receive: Receive, send: Send, /) -> None: ...
    async def __call__(self, scope: Any, receive: Any = None, send: Any = None, /) -> Any:
        if isinstance(scope, Request):
            return await self._response(scope)
        if scope["type"] != "http":
            raise RuntimeError(f"expected an http scope, got {scope['type']}: add_route() this in an app")
        self.look_at(scope)
        response = await self._response(Request(scope, receive))
        await response(scope, receive, send)
        return None

    async def _response(self, request: Request) -> Response:
        if request.method not in METHODS:
            return Response(status_code=405, headers={"Allow": ", ".join(METHODS)})
        return await self.respond(request)

    async def respond(self, request: Request) -> Response:
        """The resource, for a GET or a HEAD."""
        raise NotImplementedError

    def look_at(self, scope: Scope) -> None:
        """Called with each scope before it is answered. Does nothing by itself."""
