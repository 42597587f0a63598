"""Connections to solve plans for, and FastAPI beside us to compare with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

import fastapi
import fastapi.exceptions
from pydantic_core import to_jsonable_python
from starlette.requests import HTTPConnection, Request
from starlette.types import Message

from antiphon.connection import WebSocket
from antiphon.dependencies import Kind, analyze, solve
from antiphon.exceptions import ParameterErrors

Pairs = Sequence[tuple[str, str]]
EMPTY: Mapping[str, Any] = {}


async def no_receive() -> Message:
    raise AssertionError("nothing is received while dependencies are solved")


async def no_send(message: Any) -> None:
    raise AssertionError(f"nothing is sent while dependencies are solved, yet came {message}")


def scope(
    kind: Kind,
    query: Pairs = (),
    headers: Pairs = (),
    path: Mapping[str, Any] = EMPTY,
) -> dict[str, Any]:
    return {
        "type": "websocket" if kind is Kind.WEBSOCKET else "http",
        "method": "POST",
        "path": "/",
        "query_string": urlencode(query).encode(),
        "headers": [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers],
        "path_params": dict(path),
    }


def websocket(query: Pairs = (), headers: Pairs = (), path: Mapping[str, Any] = EMPTY) -> WebSocket:
    return WebSocket(scope(Kind.WEBSOCKET, query, headers, path), no_receive, no_send)


def request(body: bytes = b"", headers: Pairs = (), query: Pairs = ()) -> Request:
    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    return Request(scope(Kind.HTTP, query, headers), receive)


async def values_of(
    endpoint: Callable[..., Any], connection: HTTPConnection | None = None, *, path: str = "/", **more: Any
) -> dict[str, Any]:
    """The arguments of the endpoint's call."""
    connection = connection or websocket()
    kind = Kind.WEBSOCKET if connection.scope["type"] == "websocket" else Kind.HTTP
    dependencies = more.pop("dependencies", ())
    resources = more.get("resources")
    plan = analyze(endpoint, path=path, kind=kind, dependencies=dependencies, resources=resources)
    solved = solve(plan, connection, **more)
    async with solved:
        pass
    return solved.values


async def outcome_here(endpoint: Callable[..., Any], path: str, query: Pairs, headers: Pairs, parts: Any) -> Any:
    """Values, or errors as JSON, from our solving."""
    try:
        values = await values_of(endpoint, websocket(query, headers, parts), path=path)
    except ParameterErrors as errors:
        return "errors", to_jsonable_python(errors.errors(), fallback=str)
    return "values", {name: value for name, value in values.items() if name != "websocket"}


async def outcome_in_fastapi(
    make: Callable[[Callable[..., None]], Any], path: str, query: Pairs, headers: Pairs, parts: Any
) -> Any:
    """Values, or errors as JSON, from a real FastAPI app with the endpoint that `make` gives."""
    seen: list[Any] = []
    app = fastapi.FastAPI()

    def record(**values: Any) -> None:
        seen.append(("values", {name: value for name, value in values.items() if name != "websocket"}))

    async def failed(connection: Any, error: Exception) -> None:
        assert isinstance(error, fastapi.exceptions.WebSocketRequestValidationError)
        seen.append(("errors", to_jsonable_python(list(error.errors()), fallback=str)))
        await connection.close()

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        assert message["type"] == "websocket.close"

    app.add_exception_handler(fastapi.exceptions.WebSocketRequestValidationError, failed)
    app.add_api_websocket_route(path, make(record))
    connection = scope(Kind.WEBSOCKET, query, headers)
    connection["path"] = path.format(**parts)
    await app(connection, receive, send)
    (result,) = seen
    return result
