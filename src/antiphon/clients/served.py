"""The runtimes as text, and the JavaScript one as an ASGI app. Knows nothing of channels or documents."""

from __future__ import annotations

import ast
import functools
import hashlib
from importlib.resources import files
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from antiphon.resource import Resource

PYTHON: Final = ("state", "standing", "waiting", "outbox", "attempts", "renewing", "runtime", "typed")
"""The modules of the Python runtime, each above those that import it."""


@functools.cache
def runtime_js() -> str:
    """The client for pages: a plain ES module without dependencies."""
    return _read("runtime.js")


@functools.cache
def runtime_types() -> str:
    """The types of `runtime_js()`, the `.d.ts` beside the module."""
    return _read("runtime.d.ts")


@functools.cache
def runtime_ts() -> str:
    """The source of both, in TypeScript."""
    return _read("runtime.ts")


@functools.cache
def runtime_py() -> str:
    """The Python client as one file, which needs `websockets` and `pydantic`, and nothing of antiphon."""
    plain: set[str] = set()
    named: dict[str, set[str]] = {}
    parts: list[str] = []
    source = ""
    for name in PYTHON:
        source = _read(f"{name}.py")
        kept: list[ast.stmt] = []
        for node in ast.parse(source).body[1:]:
            if isinstance(node, ast.Import):
                plain |= {f"import {alias.name}" for alias in node.names}
            elif not isinstance(node, ast.ImportFrom):
                kept.append(node)
            elif not node.level and node.module:
                named.setdefault(node.module, set()).update(alias.name for alias in node.names)
        first = kept[0]
        decorators = first.decorator_list if isinstance(first, ast.ClassDef) else []
        start = min([first.lineno, *(decorator.lineno for decorator in decorators)])
        parts.append("\n".join(source.splitlines()[start - 1 :]))
    docstring = f'"""{ast.get_docstring(ast.parse(_read("runtime.py")))}\n"""'
    del named["__future__"]
    froms = [f"from {module} import {', '.join(sorted(names))}" for module, names in sorted(named.items())]
    head = [docstring, "from __future__ import annotations", "\n".join([*sorted(plain), *froms])]
    return "\n\n".join(head) + "\n\n" + "\n\n\n".join(part.strip("\n") for part in parts) + "\n"


def _read(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


class ReadOnlyText(Resource):
    """An ASGI app that answers GET and HEAD with one text, for `add_route("/antiphon.js", it)`.

    Browsers keep the `text` and ask each time whether it has changed. `media_type` is its Content-Type. Raises
    RuntimeError for a scope other than http.

        from antiphon.clients import ReadOnlyText

        app.add_route("/robots.txt", ReadOnlyText("User-agent: *", "text/plain"))
    """

    def __init__(self, text: str, media_type: str) -> None:
        self._body = text.encode()
        self._media_type = media_type
        self._etag = f'"{hashlib.sha256(self._body).hexdigest()[:32]}"'

    async def respond(self, request: Request) -> Response:
        """The text, or 304 where the client has it."""
        headers = {"ETag": self._etag, "Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"}
        known = request.headers.get("if-none-match", "")
        if self._etag in (tag.strip().removeprefix("W/") for tag in known.split(",")):
            return Response(status_code=304, headers=headers)
        return Response(self._body, headers=headers, media_type=self._media_type)


javascript: Final = ReadOnlyText(runtime_js(), "text/javascript")
"""`app.add_route("/antiphon.js", javascript)`, in an app of ours, of Starlette or of FastAPI. Then a page writes
`import { Client } from "/antiphon.js"`."""
