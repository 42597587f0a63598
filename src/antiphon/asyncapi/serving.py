"""A document over HTTP: one resource, GET and HEAD, `?version=3.1.0` for another version of the format."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final

from pydantic_core import to_json, to_jsonable_python
from starlette._utils import get_route_path
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from antiphon.resource import Resource
from antiphon.shown import shown
from antiphon.types import ASGIApp, Receive, Scope, Send

from . import console
from .document import VERSIONS, Document, Info

MEDIA_TYPE: Final = "application/json"


class DocumentApp(Resource):
    """An ASGI app that answers with a document, for `add_route(path, it)` of ours, Starlette and FastAPI.

    `document`: the one that it shows, made anew when routes were added. Raises RuntimeError for scopes other than http.

        app.add_route("/live.json", DocumentApp(Document(app.routes)))
    """

    def __init__(self, document: Document) -> None:
        self.document = document

    async def respond(self, request: Request) -> Response:
        """The document, or 304 where the client has it."""
        # To describe hundreds of messages takes a second, in which the sockets of this loop have their turns.
        return await run_in_threadpool(self._answer, request)

    def _answer(self, request: Request) -> Response:
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
    """Serves a document and its console at paths that nothing else serves, where there is something to tell."""

    def __init__(
        self, document: Document, otherwise: ASGIApp, asyncapi_url: str | None, console_url: str | None
    ) -> None:
        """Without a document there is no console. Raises TypeError, ValueError for an invalid path."""
        _check_path("asyncapi_url", asyncapi_url)
        _check_path("console_url", console_url)
        self._path = asyncapi_url
        self._console = None if asyncapi_url is None else console_url
        self._app = DocumentApp(document)
        self._otherwise = otherwise

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = None if scope["type"] != "http" or self._path is None else self._find(get_route_path(scope), scope)
        if found is None or self._app.document.is_empty:
            found = self._otherwise
        await found(scope, receive, send)

    def _find(self, path: str, scope: Scope) -> ASGIApp | None:
        if path == self._path:
            return self._app
        if self._console is None or scope["method"] not in ("GET", "HEAD") or self._path is None:
            return None
        if path == self._console:
            return console.page(self._console, self._path, scope.get("root_path", ""))
        folder, _, name = path.rpartition("/")
        return console.file(name) if folder == self._console else None


def _check_path(name: str, path: object) -> None:
    if path is not None and not isinstance(path, str):
        raise TypeError(f"{name}: expected a path such as '/asyncapi.json' or None, got {path!r}")
    if isinstance(path, str) and not path.startswith("/"):
        raise ValueError(f"{name}: expected a path that starts with '/', got {path!r}")


def current_text(document: Document) -> bytes | None:
    """The document as it is now. None where there is nothing to tell."""
    return None if document.is_empty else written(document.content())


def written(document: dict[str, Any], indent: int | None = None) -> bytes:
    """The document as JSON. An author's examples and defaults are written as pydantic writes them."""
    try:
        return to_json(document, indent=indent, inf_nan_mode="null", fallback=str)
    except ValueError:  # lone surrogates, which stay escapes as in the source
        return json.dumps(to_jsonable_python(document, inf_nan_mode="null", fallback=str), indent=indent).encode()


def asyncapi_app(
    router: Any, *, title: str | None = None, version: str | None = None, description: str = "", prefix: str = ""
) -> DocumentApp:
    """The document of an app or router as an ASGI app, for an app of another framework.

        fastapi_app.add_route("/asyncapi.json", asyncapi_app(fastapi_app))

    `router`: an `App` or `APIRouter`, or the app of FastAPI or Starlette around them, where everything that it
    includes and mounts is described. `prefix`: where another app has mounted or included the router. Title, version
    and description are the app's where none are given. Raises TypeError for an object without routes.
    """
    return DocumentApp(document_of(router, title=title, version=version, description=description, prefix=prefix))


def document_of(
    router: Any, *, title: str | None = None, version: str | None = None, description: str = "", prefix: str = ""
) -> Document:
    """The document of an app or router. Raises TypeError for an object without routes."""
    routes = getattr(router, "routes", None)
    if not isinstance(routes, list):
        raise TypeError(f"a document is of an app or a router, not of {router!r}")
    info = Info(
        title=title or str(getattr(router, "title", "") or Info.title),
        version=version or str(getattr(router, "version", "") or Info.version),
        description=description or str(getattr(router, "description", "") or ""),
    )
    return Document(routes, info, prefix)
