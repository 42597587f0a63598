"""Endings that the close matrix does not list: two things at once, handlers that fail, middleware that raises."""

from __future__ import annotations

import asyncio
import functools
import gc
import logging
import weakref
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException as StarletteHTTPException
from websockets import InvalidStatus
from websockets.asyncio.client import connect

from antiphon import (
    App,
    BackendUnavailable,
    BackgroundTasks,
    HTTPConnection,
    HTTPException,
    PlainTextResponse,
    Request,
    Response,
    WebSocket,
    WebSocketDisconnect,
    WebSocketException,
)
from antiphon.exceptions import RequestValidationError, UnexpectedMessageKind, WebSocketRequestValidationError
from antiphon.fastapi.exception_handlers import (
    http_exception_handler,
    request_validation_exception_handler,
    websocket_request_validation_exception_handler,
)
from antiphon.middleware import Middleware
from antiphon.routing import APIWebSocketRoute
from antiphon.testclient import TestClient, WebSocketDenialResponse
from antiphon.types import ASGIApp, Message, Receive, Scope, Send
from tests.patience import PATIENCE
from tests.serving import serve


def app_that_raises(error: Exception, *, accept: bool = True) -> App:
    app = App()

    @app.websocket("/ws")
    async def endpoint(websocket: WebSocket) -> None:
        if accept:
            await websocket.accept()
        raise error

    return app


def seen(app: App) -> tuple[int, str]:
    """The close code and reason that a peer sees."""
    client = TestClient(app, raise_server_exceptions=False)
    with pytest.raises(WebSocketDisconnect) as closed, client.websocket_connect("/ws") as session:
        session.receive_text()
    return closed.value.code, closed.value.reason


def test_a_hub_that_is_away_from_a_background_task_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    app = App()

    async def later() -> None:
        raise BackendUnavailable("redis://localhost: connection refused")

    @app.websocket("/ws")
    async def endpoint(websocket: WebSocket, tasks: BackgroundTasks) -> None:
        tasks.add_task(later)
        await websocket.accept()

    assert seen(app) == (1000, "")
    [record] = [record for record in caplog.records if record.name == "antiphon"]
    assert record.levelno == logging.WARNING
    assert record.exc_info is None
    assert "background task of" in record.message
    assert "connection refused" in record.message


@pytest.mark.parametrize("accept", [True, False])
def test_a_hub_that_is_away_asks_peers_to_come_back(accept: bool, caplog: pytest.LogCaptureFixture) -> None:
    app = app_that_raises(BackendUnavailable("redis://localhost: connection refused"), accept=accept)
    if accept:
        assert seen(app) == (1013, "try again later")
    else:
        client = TestClient(app, raise_server_exceptions=False)
        with pytest.raises(WebSocketDenialResponse) as denied, client.websocket_connect("/ws"):
            pass
        assert denied.value.status_code == 503
    [record] = [record for record in caplog.records if record.name == "antiphon"]
    assert record.levelno == logging.WARNING
    assert record.exc_info is None
    assert "connection refused" in record.message


async def test_a_peer_that_left_before_accept_is_nothing_to_warn_of(caplog: pytest.LogCaptureFixture) -> None:
    app = App()

    @app.websocket("/ws")
    async def endpoint(websocket: WebSocket) -> None:
        await websocket.receive()
        assert (await websocket.receive())["type"] == "websocket.disconnect"

    messages: Iterator[Message] = iter([{"type": "websocket.connect"}, {"type": "websocket.disconnect", "code": 1006}])

    async def receive() -> Message:
        return next(messages)

    async def send(message: Message) -> None:
        raise AssertionError(f"there is nobody to send {message} to")

    await app({"type": "websocket", "path": "/ws", "headers": []}, receive, send)
    assert not caplog.records


def test_a_denial_response_that_an_endpoint_began_is_ended_for_it() -> None:
    app = App()

    @app.websocket("/ws")
    async def endpoint(websocket: WebSocket) -> None:
        await websocket.send({"type": "websocket.http.response.start", "status": 402, "headers": []})

    @app.websocket("/raises")
    async def raises(websocket: WebSocket) -> None:
        await endpoint(websocket)
        raise WebSocketException(4001)

    for path in ("/ws", "/raises"):
        with pytest.raises(WebSocketDenialResponse) as denied, TestClient(app).websocket_connect(path):
            pass
        assert (denied.value.status_code, denied.value.content) == (402, b"")


async def test_a_denial_by_an_endpoint_in_a_foreign_app_is_quiet(caplog: pytest.LogCaptureFixture) -> None:
    async def endpoint(websocket: WebSocket) -> None:
        await websocket.send_denial_response(PlainTextResponse("no", status_code=402))

    async with serve(Starlette(routes=[APIWebSocketRoute("/ws", endpoint)])) as served:
        with pytest.raises(InvalidStatus, match="402"):
            await connect(f"{served.url}/ws")
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("error", [WebSocketDisconnect(4001), UnexpectedMessageKind("text", "binary")])
def test_what_leaves_an_endpoint_surfaces_in_the_test(error: Exception) -> None:
    with (
        pytest.raises(type(error)) as surfaced,
        TestClient(app_that_raises(error)).websocket_connect("/ws"),
    ):
        pass
    assert surfaced.value is error


def test_a_handler_for_groups_gets_the_whole_group() -> None:
    group = ExceptionGroup("both", [WebSocketException(4001), WebSocketException(4002)])
    app = app_that_raises(group)
    got: list[Exception] = []

    @app.exception_handler(ExceptionGroup)
    async def handler(websocket: WebSocket, error: Exception) -> None:
        got.append(error)
        await websocket.close(4003)

    assert seen(app) == (4003, "")
    assert got == [group]


def test_a_handler_of_last_resort_that_fails_is_logged_beside_the_bug(caplog: pytest.LogCaptureFixture) -> None:
    app = app_that_raises(ZeroDivisionError("bug"))

    @app.exception_handler(Exception)
    async def handler(websocket: WebSocket, error: Exception) -> None:
        raise KeyError("worse")

    assert seen(app) == (1011, "Internal Server Error")
    assert [type(record.exc_info[1]) for record in caplog.records if record.exc_info] == [ZeroDivisionError, KeyError]


class Raising:
    """Middleware that accepts a connection itself, or not, and raises."""

    def __init__(self, app: ASGIApp, error: Exception, accept: bool) -> None:
        self.app = app
        self.error = error
        self.accept = accept

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket":
            await self.app(scope, receive, send)
            return
        await receive()
        if self.accept:
            await send({"type": "websocket.accept"})
        raise self.error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (WebSocketDisconnect(4001), 1000),
        (ExceptionGroup("g", [WebSocketDisconnect(4001)]), 1000),
        (WebSocketException(4002, "ä" * 100), 4002),
        (ZeroDivisionError(), 1011),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_an_exception_of_middleware_closes_as_the_matrix_says(
    error: Exception, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    app = App(middleware=[Middleware(Raising, error, True)])
    async with serve(app) as served, connect(f"{served.url}/ws") as client:
        await client.wait_closed()
    assert client.close_code == code
    assert len([record for record in caplog.records if record.exc_info]) == (code == 1011)


@pytest.mark.parametrize("accept", [False, True])
def test_an_exception_of_middleware_surfaces_in_the_test_and_nothing_else_does(accept: bool) -> None:
    app = App(middleware=[Middleware(Raising, ZeroDivisionError("bug"), accept)])

    def talk() -> None:
        with TestClient(app).websocket_connect("/ws") as session:
            try:
                session.receive_text()
            except WebSocketDisconnect as end:
                raise AssertionError("the test met a Close in place of the bug") from end

    with pytest.raises(ZeroDivisionError):
        talk()


def test_a_close_code_that_may_not_be_sent_is_1011_and_told(caplog: pytest.LogCaptureFixture) -> None:
    assert seen(app_that_raises(WebSocketException(1006, "mine"))) == (1011, "")
    (record,) = caplog.records
    assert "test_endings:app_that_raises.<locals>.endpoint (/ws) asked for close code 1006" in record.getMessage()


# Cancelled endpoints, as a stopping server leaves them


async def cancelled(*, accept: bool, sending: Callable[[Message], Awaitable[None]]) -> None:
    """Run an endpoint until it waits for ever, and cancel it."""
    waits = anyio.Event()
    app = App()

    @app.websocket("/ws")
    async def endpoint(websocket: WebSocket) -> None:
        if accept:
            await websocket.accept()
        waits.set()
        await anyio.sleep_forever()

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(app, {"type": "websocket", "path": "/ws", "headers": []}, receive, sending)
        await waits.wait()
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("accept", "expected"), [(True, ["websocket.accept", "websocket.close 1012"]), (False, [])], ids=["after", "before"]
)
async def test_a_cancelled_endpoint_tells_its_peer_if_there_is_a_connection(accept: bool, expected: list[str]) -> None:
    sent: list[str] = []

    async def send(message: Message) -> None:
        await anyio.lowlevel.checkpoint()
        sent.append(f"{message['type']} {message.get('code', '')}".rstrip())

    await cancelled(accept=accept, sending=send)
    assert sent == expected


async def test_a_peer_that_cannot_be_told_does_not_hold_up_the_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("antiphon.routing.endpoint.FAREWELL_TIMEOUT", 0.01)

    async def send(message: Message) -> None:
        if message["type"] == "websocket.close":
            await anyio.sleep_forever()

    with anyio.fail_after(PATIENCE):
        await cancelled(accept=True, sending=send)


@pytest.mark.parametrize("error", [WebSocketException, ZeroDivisionError])
async def test_a_failed_endpoint_leaves_its_connection_without_waiting_for_the_garbage_collector(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A log record keeps the traceback, and with it everything on the stack.
    monkeypatch.setattr(logging.getLogger("antiphon"), "disabled", True)
    left: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    app = App()

    @app.websocket("/ws")
    async def endpoint(websocket: WebSocket) -> None:
        weakref.finalize(websocket, left.set_result, None).atexit = False
        await websocket.accept()
        raise error(4000)

    gc.collect()
    gc.disable()
    try:
        async with serve(app, ws="antiphon.server:WebSocketProtocol") as served:
            async with connect(f"{served.url}/ws") as client:
                await client.wait_closed()
            await asyncio.wait_for(left, PATIENCE)
    finally:
        gc.enable()


@pytest.mark.parametrize(
    "failure", [OSError("reset"), RuntimeError("after close")], ids=lambda value: type(value).__name__
)
@pytest.mark.parametrize("path", ["/returns", "/raises", "/denies"])
async def test_a_peer_that_is_gone_at_its_last_message_is_quiet(
    failure: Exception, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = App()

    @app.websocket("/returns")
    async def returns(websocket: WebSocket) -> None:
        await websocket.accept()

    @app.websocket("/raises")
    async def raises(websocket: WebSocket) -> None:
        await websocket.accept()
        raise WebSocketException(4001)

    @app.websocket("/denies")
    async def denies(websocket: WebSocket) -> None:
        raise WebSocketException(4001)

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        if message["type"] != "websocket.accept":
            raise failure

    extensions: dict[str, Any] = {"websocket.http.response": {}}
    await app({"type": "websocket", "path": path, "headers": [], "extensions": extensions}, receive, send)
    assert not [record for record in caplog.records if record.levelno > logging.DEBUG]


def test_log_lines_name_the_function_inside_a_partial_and_the_class_of_an_instance(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Instance:
        async def __call__(self, websocket: WebSocket) -> None: ...

    async def function(websocket: WebSocket, note: str) -> None: ...

    app = App()
    app.add_api_websocket_route("/partial", functools.partial(functools.partial(function), note="n"))
    app.add_api_websocket_route("/instance", Instance())
    for path in ("/partial", "/instance"):
        with pytest.raises(WebSocketDisconnect), TestClient(app).websocket_connect(path):
            pass
    names = [record.getMessage().split(" (")[0].rpartition(".")[2] for record in caplog.records]
    assert names == ["function", "Instance"]


async def test_a_background_task_that_fails_sends_nothing_more() -> None:
    sent: list[str] = []
    app = App()

    def bug() -> None:
        raise ZeroDivisionError

    @app.websocket("/ws")
    async def endpoint(websocket: WebSocket, later: BackgroundTasks) -> None:
        later.add_task(bug)
        await websocket.accept()

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message["type"])

    extensions: dict[str, Any] = {"websocket.http.response": {}}
    await app({"type": "websocket", "path": "/ws", "headers": [], "extensions": extensions}, receive, send)
    assert sent == ["websocket.accept", "websocket.close"]


def test_an_asgi_endpoint_ends_by_the_matrix_where_it_stands() -> None:
    class Endpoint:
        def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
            self.scope, self.receive, self.send = scope, receive, send

        def __await__(self) -> Any:
            return self.serve().__await__()

        async def serve(self) -> None:
            await self.receive()
            await self.send({"type": "websocket.accept"})
            raise WebSocketException(4001, "enough")

    app = App()
    app.add_websocket_route("/ws", Endpoint)
    assert seen(app) == (4001, "enough")


def test_a_users_handler_may_pass_an_exception_on_to_the_stock_one() -> None:
    app = App()
    seen: list[str] = []

    @app.exception_handler(StarletteHTTPException)
    async def of_http(connection: HTTPConnection, exc: HTTPException) -> Response:
        seen.append(f"{exc.status_code}")
        return await http_exception_handler(connection, exc)

    @app.exception_handler(RequestValidationError)
    async def of_parameters(request: Request, exc: RequestValidationError) -> Response:
        seen.append("request")
        return await request_validation_exception_handler(request, exc)

    @app.exception_handler(WebSocketRequestValidationError)
    async def of_websocket(websocket: WebSocket, exc: WebSocketRequestValidationError) -> None:
        seen.append("websocket")
        await websocket_request_validation_exception_handler(websocket, exc)

    @app.get("/{number}")
    async def over_http(number: int) -> None:
        raise HTTPException(418, "teapot", {"X-Pot": "tea"})

    @app.websocket("/{number}")
    async def endpoint(websocket: WebSocket, number: int) -> None:
        raise HTTPException(418, "teapot", {"X-Pot": "tea"})

    client = TestClient(app)
    answer = client.get("/1")
    assert (answer.status_code, answer.json(), answer.headers["x-pot"]) == (418, {"detail": "teapot"}, "tea")
    assert (client.get("/x").status_code, client.get("/x").json()["detail"][0]["loc"]) == (422, ["path", "number"])
    with pytest.raises(WebSocketDenialResponse) as denied, client.websocket_connect("/1"):
        pass
    assert (denied.value.status_code, denied.value.json()) == (418, {"detail": "teapot"})
    with pytest.raises(WebSocketDisconnect) as refused, client.websocket_connect("/x"):
        pass
    assert (refused.value.code, refused.value.reason) == (1008, "invalid parameters")
    assert seen == ["418", "request", "request", "418", "websocket"]
