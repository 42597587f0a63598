"""Middleware, or a mounted app, that answers a WebSocket in the endpoint's place: an ending like any other."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import websockets
from starlette.applications import Starlette
from starlette.endpoints import WebSocketEndpoint
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.routing import WebSocketRoute
from websockets.asyncio.client import connect

from antiphon import App, PlainTextResponse, WebSocket
from antiphon.middleware.trustedhost import TrustedHostMiddleware
from antiphon.routing import Mount
from antiphon.types import ASGIApp, Message, Receive, Scope, Send
from tests.serving import serve

from .servers import SERVERS, ServerUnderTest

Answer = Callable[[Scope, Receive, Send], Awaitable[None]]


async def plain_http(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 418, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"short"})


async def response(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse("short", status_code=418)(scope, receive, send)


async def close(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "websocket.close", "code": 4000})


async def silence(scope: Scope, receive: Receive, send: Send) -> None: ...


class Guard:
    """Middleware that answers every WebSocket itself."""

    def __init__(self, app: ASGIApp, answer: Answer) -> None:
        self.app = app
        self.answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (self.answer if scope["type"] == "websocket" else self.app)(scope, receive, send)


def guarded(answer: Answer) -> App:
    app = App()
    app.add_middleware(Guard, answer=answer)
    return app


def for_other_hosts() -> App:
    app = App()
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=["example.com"])
    return app


def with_a_mounted_app_that_denies() -> App:
    async def endpoint(websocket: Any) -> None:
        raise StarletteHTTPException(418, "short")

    app = App()
    app.mount("/", Starlette(routes=[WebSocketRoute("/ws", endpoint)]))
    return app


async def refusal(url: str) -> tuple[int, bytes]:
    with pytest.raises(websockets.InvalidStatus) as refused:
        await connect(f"{url}/ws")
    return refused.value.response.status_code, bytes(refused.value.response.body or b"")


@pytest.mark.parametrize("server", SERVERS, ids=lambda server: server.name)
@pytest.mark.parametrize(
    ("app", "expected", "warnings"),
    [
        pytest.param(guarded(plain_http), (418, b"short"), 0, id="plain-http"),
        pytest.param(guarded(response), (418, b"short"), 0, id="response"),
        pytest.param(guarded(close), (403, b""), 0, id="close"),
        pytest.param(guarded(silence), (403, b""), 1, id="silence"),
        pytest.param(for_other_hosts(), (400, b"Invalid host header"), 0, id="trusted-host"),
        pytest.param(with_a_mounted_app_that_denies(), (418, b"short"), 0, id="mounted-app"),
    ],
)
async def test_who_answers_in_the_endpoints_place_is_understood_by_every_server(
    server: ServerUnderTest,
    app: App,
    expected: tuple[int, bytes],
    warnings: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with server.run(app) as served:
        assert await refusal(served.url) == expected
    loud = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [(record.name, record.levelno) for record in loud] == [("antiphon", logging.WARNING)] * warnings
    assert all("middleware returned without an answer for /ws" in record.getMessage() for record in loud)


class Calculator(WebSocketEndpoint):
    """Closes over bad JSON by itself, and then raises."""

    encoding = "json"


async def fails(websocket: Any) -> None:
    await websocket.accept()
    await websocket.receive_text()
    raise ZeroDivisionError


@pytest.mark.parametrize("server", SERVERS, ids=lambda server: server.name)
@pytest.mark.parametrize(
    ("endpoint", "code", "levels"),
    [
        pytest.param(Calculator, 1003, [logging.WARNING], id="class"),
        pytest.param(fails, 1011, [logging.ERROR], id="bug"),
    ],
)
async def test_what_leaves_a_route_of_starlettes_after_accept_is_logged_once_and_closes(
    server: ServerUnderTest, endpoint: Any, code: int, levels: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    app = App(routes=[WebSocketRoute("/ws", endpoint)])
    async with server.run(app) as served, connect(f"{served.url}/ws") as client:
        await client.send("{")
        with pytest.raises(websockets.ConnectionClosed):
            await client.recv()
        assert client.close_code == code
    loud = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [(record.name, record.levelno) for record in loud] == [("antiphon", level) for level in levels]


@pytest.mark.parametrize("answer", [plain_http, response])
async def test_a_server_without_denial_responses_answers_403_for_middleware(
    answer: Answer, caplog: pytest.LogCaptureFixture
) -> None:
    inside = guarded(answer)

    async def without_denials(scope: Scope, receive: Receive, send: Send) -> None:
        (scope.get("extensions") or {}).pop("websocket.http.response", None)
        await inside(scope, receive, send)

    async with serve(without_denials) as served:
        assert await refusal(served.url) == (403, b"")
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


class Passing:
    """Middleware that hands on its arguments, or a `send` of its own."""

    def __init__(self, app: ASGIApp, wraps: bool) -> None:
        self.app = app
        self.wraps = wraps

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def own(message: Message) -> None:
            await send(message)

        await self.app(scope, receive, own if self.wraps else send)


@pytest.mark.parametrize("wraps", [False, True])
async def test_behind_middleware_that_wraps_nothing_an_endpoint_has_the_servers_own_callables(
    wraps: bool, caplog: pytest.LogCaptureFixture
) -> None:
    given: list[Any] = []

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        raise AssertionError("the endpoint sends nothing, and nobody does so in its place")

    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        given.extend((receive, send))

    app = App(routes=[Mount("/", inner)])
    app.add_middleware(Passing, wraps=wraps)
    app.add_middleware(Passing, wraps=False)
    await app({"type": "websocket", "path": "/", "headers": []}, receive, send)
    assert given[0] is receive
    assert (given[1] is send) is not wraps
    assert not caplog.records


async def test_an_endpoint_behind_middleware_that_wraps_send_works(caplog: pytest.LogCaptureFixture) -> None:
    app = App()
    app.add_middleware(Passing, wraps=True)

    @app.websocket("/ws")
    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text("served")

    async with serve(app) as served, connect(f"{served.url}/ws") as client:
        assert await client.recv() == "served"
        await client.wait_closed()
    assert client.close_code == 1000
    assert not caplog.records or all(record.levelno < logging.WARNING for record in caplog.records)
