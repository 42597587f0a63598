"""A document over HTTP: one resource, GET and HEAD, `?version=3.1.0` for another version of the format."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final

from pydantic_core import to_jsonable_python
from starlette._utils import get_route_path
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from antiphon.shown import shown
from antiphon.types import ASGIApp, Receive, Scope, Send

from .document import VERSIONS, Document, Info

MEDIA_TYPE: Final = "application/json"


class DocumentApp:
    """An ASGI app that answers with a document. RuntimeError for what is no HTTP.

    A class, so that `add_route(path, it)` of ours, Starlette and FastAPI serves it at that very path.
    """

    is_leaf = True
    """For our routers: mounted, it is served at the path itself."""

    def __init__(self, document: Document) -> None:
        self.document = document

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"expected an http scope, got {scope['type']}: add_route() this in an app")
        response = self._answer(Request(scope, receive))
        await response(scope, receive, send)

    def _answer(self, request: Request) -> Response:
        if request.method not in ("GET", "HEAD"):
            return Response(status_code=405, headers={"Allow": "GET, HEAD"})
        version = request.query_params.get("version", VERSIONS[0])
        if version not in VERSIONS:
            detail = f"AsyncAPI {shown(version)[:20]} is not written here: {' and '.join(VERSIONS)} are"
            return JSONResponse({"detail": detail}, 400)
        body = written(self.document.content(version))
        tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        headers = {"ETag": tag, "Cache-Control": "no-cache"}
        known = [one.strip().removeprefix("W/") for one in request.headers.get("if-none-match", "").split(",")]
        if tag in known:
            return Response(status_code=304, headers=headers)
        return Response(body, headers=headers, media_type=MEDIA_TYPE)


class LastResort:
    """Serves a document at a path that nothing else serves, and only where there is something to tell."""

    def __init__(self, path: str, document: Document, otherwise: ASGIApp) -> None:
        """Raises TypeError, ValueError for what is no path."""
        if not isinstance(path, str):
            raise TypeError(f"asyncapi_url: expected a path such as '/asyncapi.json' or None, got {path!r}")
        if not path.startswith("/"):
            raise ValueError(f"asyncapi_url: expected a path that starts with '/', got {path!r}")
        self._path = path
        self._app = DocumentApp(document)
        self._otherwise = otherwise

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_ours = scope["type"] == "http" and get_route_path(scope) == self._path and not self._app.document.is_empty
        await (self._app if is_ours else self._otherwise)(scope, receive, send)


def written(document: dict[str, Any], indent: int | None = None) -> bytes:
    """The document as JSON. What an author gave as an example or default and JSON does not know is left to pydantic."""
    separators = (",", ":") if indent is None else None
    text = json.dumps(document, ensure_ascii=False, indent=indent, separators=separators, default=to_jsonable_python)
    return text.encode(errors="replace")


def asyncapi_app(
    router: Any, *, title: str | None = None, version: str | None = None, description: str = "", prefix: str = ""
) -> DocumentApp:
    """The document of an `App` or `APIRouter` as an ASGI app, for an app of another framework.

        fastapi_app.add_route("/asyncapi.json", asyncapi_app(router, prefix="/live"))

    `prefix`: where the other app has mounted or included the router. Title, version and description are the `App`'s
    where none are given. Raises TypeError for what has no routes.
    """
    return DocumentApp(document_of(router, title=title, version=version, description=description, prefix=prefix))


def document_of(
    router: Any, *, title: str | None = None, version: str | None = None, description: str = "", prefix: str = ""
) -> Document:
    """The document of an `App` or `APIRouter`. Raises TypeError for what has no routes."""
    routes = getattr(router, "routes", None)
    if not isinstance(routes, list):
        raise TypeError(f"a document is of an App or an APIRouter, not of {router!r}")
    info = Info(
        title=title or str(getattr(router, "title", "") or Info.title),
        version=version or str(getattr(router, "version", "") or Info.version),
        description=description or str(getattr(router, "description", "") or ""),
    )
    return Document(routes, info, prefix)
