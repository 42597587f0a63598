"""The close matrix (docs/closing.md) as endpoints and expectations: the peer's view, and the log."""

from __future__ import annotations

import asyncio
import enum
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any

import anyio
from starlette.endpoints import WebSocketEndpoint as StarletteWebSocketEndpoint
from starlette.routing import WebSocketRoute

from antiphon import (
    App,
    Depends,
    HTTPException,
    JSONResponse,
    Query,
    WebSocket,
    WebSocketDisconnect,
    WebSocketException,
)
from antiphon.endpoints import WebSocketEndpoint


class Log(enum.Enum):
    """The records of antiphon's logger for one connection."""

    NOTHING = enum.auto()
    WARNING = enum.auto()
    """One line, without a traceback."""
    TRACEBACK = enum.auto()
    """One traceback, and nothing from the server."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Close:
    """A Close frame after accept."""

    code: int
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Denial:
    """An HTTP response instead of the handshake. `body` is its JSON, or a part of it for dicts."""

    status: int
    body: Any = None
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One way for a connection to end."""

    path: str
    sees: Close | Denial
    log: Log = Log.NOTHING
    logs: str = ""
    """A part of the log line or of the traceback."""
    sends: str | bytes | None = None
    """The client's first message."""


class Quota(Exception):
    """An application's own error, with a handler."""


class Teapot(Exception):
    """An application's own error, whose handler answers with a response."""


class Broken(Exception):
    """An application's own error, whose handler fails."""


class Silent(Exception):
    """An application's own error, whose handler does nothing."""


def endpoints() -> App:
    """An app with an endpoint for each row."""
    app = App()

    def ends(path: str, error: BaseException | None) -> None:
        """Two endpoints that end alike, before and after accept."""

        async def before(websocket: WebSocket) -> None:
            if error is not None:
                raise error

        async def after(websocket: WebSocket) -> None:
            await websocket.accept()
            if error is not None:
                raise error

        app.add_api_websocket_route(f"/before/{path}", before)
        app.add_api_websocket_route(f"/after/{path}", after)

    class OfStarlette(StarletteWebSocketEndpoint):
        encoding = "text"

    class OfOurs(WebSocketEndpoint):
        encoding = "json"

    app.add_websocket_route("/after/class-of-starlette", OfStarlette)
    app.add_websocket_route("/after/class-of-ours", OfOurs)
    app.router.routes.append(WebSocketRoute("/after/route-of-starlette", OfStarlette))

    ends("return", None)
    ends("unhandled", ZeroDivisionError("the secret is 42"))
    ends("websocket-exception", WebSocketException(4001, "quota"))
    ends("http-404", HTTPException(404, "no such room", headers={"x-hint": "lobby"}))
    ends("http-503", HTTPException(503, {"retry": "später"}))
    ends("disconnect", WebSocketDisconnect(1000))
    ends("disconnect-4000", WebSocketDisconnect(4000, "by hand"))
    ends("disconnect-lost", WebSocketDisconnect(1006))
    ends("quota", Quota())
    ends("teapot", Teapot())
    ends("broken", Broken())
    ends("silent", Silent())
    ends("long-reason", WebSocketException(4002, "ä" * 100))
    ends("group-of-disconnects", ExceptionGroup("g", [ExceptionGroup("h", [WebSocketDisconnect(1001)])]))
    ends("group-of-consequences", ExceptionGroup("g", [WebSocketDisconnect(1001), anyio.BrokenResourceError()]))
    ends("group-of-one", ExceptionGroup("g", [WebSocketDisconnect(1001), WebSocketException(4003, "inner")]))
    ends("group-of-bugs", ExceptionGroup("g", [ValueError("a"), KeyError("b")]))

    @app.exception_handler(Quota)
    async def quota(websocket: WebSocket, error: Quota) -> None:
        await websocket.close(4010, "handled")

    @app.exception_handler(Teapot)
    def teapot(websocket: WebSocket, error: Teapot) -> JSONResponse:
        return JSONResponse({"short": "and stout"}, status_code=418)

    @app.exception_handler(Broken)
    async def broken(websocket: WebSocket, error: Broken) -> None:
        raise ZeroDivisionError("in the handler")

    @app.exception_handler(Silent)
    async def silent(websocket: WebSocket, error: Silent) -> None:
        return None

    @app.websocket("/before/parameters/{room}")
    async def parameters(websocket: WebSocket, room: int, limit: Annotated[int, Query(le=10)]) -> None: ...

    async def accepts(websocket: WebSocket) -> AsyncIterator[None]:
        await websocket.accept()
        yield

    @app.websocket("/after/parameters/{room}", dependencies=[Depends(accepts)])
    async def late_parameters(websocket: WebSocket, room: int) -> None: ...

    @app.websocket("/after/wants-text")
    async def wants_text(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.receive_text()

    @app.websocket("/after/wants-json")
    async def wants_json(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.receive_json()

    @app.websocket("/after/task-group")
    async def task_group(websocket: WebSocket) -> None:
        await websocket.accept()

        async def fails() -> None:
            raise WebSocketException(4004, "from a task")

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(fails())
            tasks.create_task(asyncio.sleep(3600))

    @app.websocket("/before/denied")
    async def denied(websocket: WebSocket) -> None:
        await websocket.send_denial_response(JSONResponse({"why": "because"}, status_code=402))

    @app.websocket("/before/closed")
    async def closed(websocket: WebSocket) -> None:
        await websocket.close(4005, "no")

    @app.websocket("/after/closed")
    async def closed_after(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.close(4006, "enough")

    return app


PARAMETERS = {"code": 1008, "reason": "invalid parameters"}
ERROR_500 = {"detail": "Internal Server Error"}

ROWS = [
    Row(path="/after/return", sees=Close(code=1000)),
    Row(
        path="/before/return",
        sees=Denial(status=403),
        log=Log.WARNING,
        logs="tests.matrix.rows:endpoints.<locals>.ends.<locals>.before (/before/return) returned without accepting",
    ),
    Row(path="/after/disconnect", sees=Close(code=1000)),
    Row(path="/before/disconnect", logs="refused: 403, 1000 (WebSocketDisconnect in", sees=Denial(status=403)),
    Row(path="/after/disconnect-4000", sees=Close(code=4000, reason="by hand")),
    Row(
        path="/before/disconnect-4000",
        sees=Denial(status=403, body={"code": 4000, "reason": "by hand"}),
        logs="refused: 403, 4000 by hand (WebSocketDisconnect in",
    ),
    Row(path="/after/disconnect-lost", sees=Close(code=1000)),
    Row(path="/before/unhandled", sees=Denial(status=500, body=ERROR_500), log=Log.TRACEBACK, logs="ZeroDivisionError"),
    Row(
        path="/after/unhandled",
        sees=Close(code=1011, reason="Internal Server Error"),
        log=Log.TRACEBACK,
        logs="ends.<locals>.after (/after/unhandled)",
    ),
    Row(
        path="/before/websocket-exception",
        logs="refused: 403, 4001 quota (WebSocketException in",
        sees=Denial(status=403, body={"code": 4001, "reason": "quota"}),
    ),
    Row(path="/after/websocket-exception", sees=Close(code=4001, reason="quota")),
    Row(
        path="/before/http-404",
        logs="refused: 404, no such room (HTTPException in",
        sees=Denial(status=404, body={"detail": "no such room"}, headers=(("x-hint", "lobby"),)),
    ),
    Row(path="/after/http-404", sees=Close(code=1008, reason="no such room")),
    Row(path="/before/http-503", sees=Denial(status=503, body={"detail": {"retry": "später"}})),
    Row(path="/after/http-503", sees=Close(code=1011, reason='{"retry": "später"}')),
    Row(path="/before/parameters/x?limit=11", sees=Denial(status=403, body=PARAMETERS)),
    Row(path="/after/parameters/x", sees=Close(code=1008, reason="invalid parameters")),
    Row(
        path="/after/retrun",
        sees=Denial(status=404, body={"detail": "Not Found"}),
        logs="no WebSocket route matches /after/retrun; near misses: /after/return",
    ),
    Row(
        path="/after/wants-text",
        sends=b"\x00",
        sees=Close(code=1003, reason="expected a text message"),
        log=Log.WARNING,
        logs="wants_text (/after/wants-text)",
    ),
    Row(
        path="/after/wants-json",
        sends="{",
        sees=Close(code=1007, reason="invalid JSON"),
        log=Log.WARNING,
        logs="wants_json (/after/wants-json): expected JSON, got 1 characters: ",
    ),
    Row(path="/after/long-reason", sees=Close(code=4002, reason="ä" * 61)),
    Row(path="/before/long-reason", sees=Denial(status=403, body={"code": 4002, "reason": "ä" * 100})),
    Row(path="/after/group-of-disconnects", sees=Close(code=1000)),
    Row(path="/after/group-of-consequences", sees=Close(code=1000)),
    Row(
        path="/after/class-of-starlette",
        sends=b"binary",
        sees=Close(code=1003),
        log=Log.WARNING,
        logs="Expected text websocket messages, but got bytes",
    ),
    Row(
        path="/after/route-of-starlette",
        sends=b"binary",
        sees=Close(code=1003),
        log=Log.WARNING,
        logs="Expected text websocket messages, but got bytes",
    ),
    Row(
        path="/after/class-of-ours",
        sends="{",
        sees=Close(code=1003),
        log=Log.WARNING,
        logs="Malformed JSON data received.",
    ),
    Row(path="/after/group-of-one", sees=Close(code=4003, reason="inner")),
    Row(
        path="/after/group-of-bugs",
        sees=Close(code=1011, reason="Internal Server Error"),
        log=Log.TRACEBACK,
        logs="ExceptionGroup",
    ),
    Row(path="/after/task-group", sees=Close(code=4004, reason="from a task")),
    Row(path="/before/denied", sees=Denial(status=402, body={"why": "because"})),
    Row(path="/before/closed", logs="refused: 403, closed with 4005 no before accept", sees=Denial(status=403)),
    Row(path="/after/closed", sees=Close(code=4006, reason="enough")),
    Row(path="/before/quota", sees=Denial(status=403)),
    Row(path="/after/quota", sees=Close(code=4010, reason="handled")),
    Row(path="/before/teapot", sees=Denial(status=418, body={"short": "and stout"})),
    Row(path="/after/teapot", sees=Close(code=1008)),
    Row(path="/before/broken", sees=Denial(status=500, body=ERROR_500), log=Log.TRACEBACK, logs="in the handler"),
    Row(
        path="/after/broken",
        sees=Close(code=1011, reason="Internal Server Error"),
        log=Log.TRACEBACK,
        logs="in the handler",
    ),
    Row(path="/before/silent", sees=Denial(status=500, body=ERROR_500)),
    Row(path="/after/silent", sees=Close(code=1011, reason="Internal Server Error")),
]


def json_of(body: bytes | bytearray | None) -> Any:
    """The JSON of a response body, None when it has none."""
    return json.loads(bytes(body)) if body else None
