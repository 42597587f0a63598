"""The generated module of an app's own channels, served at a path that nothing else serves.

Knows documents as JSON text, and nothing of their makers.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Final

from starlette._utils import get_route_path

from antiphon.types import ASGIApp, Receive, Scope, Send

from .document import UnusableDocument
from .served import ReadOnlyText
from .typescript import javascript_module

logger: Final = logging.getLogger("antiphon")


class ClientModule:
    """Serves `client.js` at `path`, and its types beside it as `.d.ts`, for as long as there are channels."""

    def __init__(self, path: str, document: Callable[[], bytes | None], otherwise: ASGIApp) -> None:
        """`document` gives the JSON of the document as it is now, or None. Raises TypeError, ValueError for no path."""
        if not isinstance(path, str):
            raise TypeError(f"client_url: expected a path such as '/asyncapi/client.js' or None, got {path!r}")
        if not path.startswith("/") or not path.endswith(".js"):
            raise ValueError(f"client_url: expected a path that starts with '/' and ends with '.js', got {path!r}")
        self._names = {path: "client.js", f"{path.removesuffix('.js')}.d.ts": "client.d.ts"}
        self._document = document
        self._otherwise = otherwise
        self._made_of = b""
        self._files: dict[str, ReadOnlyText] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        name = self._names.get(get_route_path(scope)) if scope["type"] == "http" else None
        file = None if name is None else self._current().get(name)
        await (file or self._otherwise)(scope, receive, send)

    def _current(self) -> dict[str, ReadOnlyText]:
        document = self._document() or b""
        if document != self._made_of:
            self._made_of = document
            self._files = self._made(document) if document else {}
        return self._files

    def _made(self, document: bytes) -> dict[str, ReadOnlyText]:
        try:
            files = javascript_module(json.loads(document))
        except UnusableDocument as error:
            logger.warning("no client is served: %s", error)
            return {}
        return {name: ReadOnlyText(text, "text/javascript") for name, text in files.items()}
