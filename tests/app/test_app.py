"""The app: handlers, middleware, lifespan, state, overrides, and the hub it owns."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.exceptions import HTTPException as StarletteHTTPException

from antiphon import (
    APIRouter,
    App,
    BackgroundTasks,
    Depends,
    HTTPException,
    Hub,
    JSONResponse,
    Request,
    Response,
    WebSocket,
    WebSocketDisconnect,
    WebSocketException,
)
from antiphon.connection import ConnectionOptions
from antiphon.exceptions import ParameterErrors, WebSocketRequestValidationError
from antiphon.middleware import Middleware
from antiphon.testclient import TestClient, WebSocketDenialResponse
from antiphon.types import ASGIApp, Message, Receive, Scope, Send


class Base(Exception):
    """An application's errors."""


class Derived(Base):
    """One of them."""


def fails(app: App, error: Exception, *, after_accept: bool = True) -> None:
    """Register an endpoint at /fails that raises."""

    @app.websocket("/fails")
    async def endpoint(websocket: WebSocket) -> None:
        if after_accept:
            await websocket.accept()
        raise error


def ending(app: App, path: str = "/fails") -> tuple[int, str]:
    """The close code and reason that a peer sees."""
    with pytest.raises(WebSocketDisconnect) as closed, TestClient(app).websocket_connect(path) as session:
        session.receive_text()
    return closed.value.code, closed.value.reason


# Exception handlers


def test_the_handler_of_the_nearest_class_is_taken() -> None:
    async def by_base(websocket: WebSocket, error: Base) -> None:
        await websocket.close(4001, "base")

    async def by_class(websocket: WebSocket, error: Derived) -> None:
        await websocket.close(4002, "derived")

    app = App(exception_handlers={Base: by_base})
    fails(app, Derived())
    assert ending(app) == (4001, "base")
    app.add_exception_handler(Derived, by_class)
    assert ending(app) == (4002, "derived")


def test_a_status_handler_serves_http_exceptions_of_websockets_and_of_http() -> None:
    app = App()

    @app.exception_handler(404)
    async def missing(connection: Any, error: HTTPException) -> Response | None:
        if isinstance(connection, WebSocket):
            await connection.close(4004, error.detail)
            return None
        return JSONResponse({"missing": True}, status_code=404)

    fails(app, HTTPException(404, "no room"))
    assert ending(app) == (4004, "no room")
    assert TestClient(app).get("/nowhere").json() == {"missing": True}


@pytest.mark.parametrize(
    ("error", "key"),
    [
        (WebSocketException(4000), WebSocketException),
        (HTTPException(400), HTTPException),
        (HTTPException(400), StarletteHTTPException),
        (ParameterErrors([]), ParameterErrors),
        (WebSocketRequestValidationError([]), WebSocketRequestValidationError),
        (WebSocketDisconnect(4005), WebSocketDisconnect),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else type(value).__name__,
)
def test_an_app_may_change_every_ending_of_the_matrix(error: Exception, key: type[Exception]) -> None:
    async def handler(websocket: WebSocket, error: Exception) -> None:
        await websocket.close(4321, "changed")

    app = App(exception_handlers={key: handler})
    fails(app, error)
    assert ending(app) == (4321, "changed")


def test_a_handler_for_parameter_errors_sees_all_of_them_and_whose_they_are() -> None:
    seen: list[WebSocketRequestValidationError] = []
    app = App()

    @app.exception_handler(WebSocketRequestValidationError)
    def handler(websocket: WebSocket, error: WebSocketRequestValidationError) -> JSONResponse:
        seen.append(error)
        return JSONResponse({"wrong": len(error.errors())}, status_code=400)

    @app.websocket("/rooms/{room}")
    async def endpoint(websocket: WebSocket, room: int, limit: int) -> None: ...

    with pytest.raises(WebSocketDenialResponse) as denied, TestClient(app).websocket_connect("/rooms/x"):
        pass
    assert (denied.value.status_code, denied.value.json()) == (400, {"wrong": 2})
    assert "endpoint (WS /rooms/{room})" in str(seen[0])


@pytest.mark.parametrize("key", [Exception, 500])
def test_the_handler_of_last_resort_answers_and_the_bug_is_still_logged(
    key: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(connection: Any, error: Exception) -> Response | None:
        if isinstance(connection, WebSocket):
            await connection.close(4500, "sorry")
            return None
        return JSONResponse({"sorry": True}, status_code=500)

    app = App(exception_handlers={key: handler})
    fails(app, ZeroDivisionError())
    app.get("/http")(lambda: 1 / 0)
    client = TestClient(app, raise_server_exceptions=False)
    with pytest.raises(WebSocketDisconnect) as closed, client.websocket_connect("/fails") as session:
        session.receive_text()
    assert (closed.value.code, closed.value.reason) == (4500, "sorry")
    assert [record.exc_info is not None for record in caplog.records] == [True]
    assert client.get("/http").json() == {"sorry": True}


def test_teardown_is_over_before_a_handler_runs() -> None:
    order: list[str] = []

    async def resource() -> AsyncIterator[None]:
        try:
            yield
        except Base:
            order.append("at the yield")
            raise
        finally:
            order.append("teardown")

    app = App()

    @app.exception_handler(Base)
    async def handler(websocket: WebSocket, error: Base) -> None:
        order.append("handler")

    @app.websocket("/fails", dependencies=[Depends(resource)])
    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        raise Base

    ending(app)
    assert order == ["at the yield", "teardown", "handler"]


# Exceptions and the test client


@pytest.mark.parametrize("after_accept", [False, True])
def test_an_unhandled_exception_surfaces_in_the_test(after_accept: bool) -> None:
    app = App()
    fails(app, ZeroDivisionError("bug"), after_accept=after_accept)
    with pytest.raises(ZeroDivisionError, match="bug"), TestClient(app).websocket_connect("/fails"):
        pass


def test_an_unhandled_exception_below_two_apps_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    inner, outer = App(), App()
    fails(inner, ZeroDivisionError("bug"))
    outer.mount("/inner", inner)
    with pytest.raises(ZeroDivisionError), TestClient(outer).websocket_connect("/inner/fails"):
        pass
    assert len([record for record in caplog.records if record.exc_info]) == 1


# Background tasks


@pytest.mark.parametrize("leaves", [False, True])
def test_background_tasks_run_after_the_close_also_when_the_peer_has_left(leaves: bool) -> None:
    order: list[str] = []
    app = App()

    class Telling:
        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            async def telling(message: Message) -> None:
                order.append(message["type"])
                await send(message)

            await self.app(scope, receive, telling)

    app.add_middleware(Telling)

    @app.websocket("/ws")
    async def endpoint(websocket: WebSocket, later: BackgroundTasks) -> None:
        later.add_task(order.append, "background")
        await websocket.accept()
        if leaves:
            await websocket.receive_text()

    with contextlib.suppress(WebSocketDisconnect), TestClient(app).websocket_connect("/ws") as session:
        if leaves:
            session.close()
    wanted = ["websocket.accept", "websocket.close", "background"]
    assert order == ([wanted[0], wanted[2]] if leaves else wanted)


def test_background_tasks_do_not_run_when_the_endpoint_failed() -> None:
    ran: list[str] = []
    app = App()

    @app.websocket("/fails")
    async def endpoint(websocket: WebSocket, later: BackgroundTasks) -> None:
        later.add_task(ran.append, "background")
        raise WebSocketException(4000)

    ending(app)
    assert not ran


def test_a_background_task_that_fails_is_logged_and_closes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    app = App()

    def bug() -> None:
        raise ZeroDivisionError

    @app.websocket("/fails")
    async def endpoint(websocket: WebSocket, later: BackgroundTasks) -> None:
        later.add_task(bug)
        await websocket.accept()
        await websocket.close(4000, "done")

    client = TestClient(app, raise_server_exceptions=False)
    with pytest.raises(WebSocketDisconnect) as closed, client.websocket_connect("/fails") as session:
        session.receive_text()
    assert closed.value.code == 4000
    assert len([record for record in caplog.records if record.exc_info]) == 1


# Middleware


class Guard:
    """Pure ASGI middleware that sees WebSockets."""

    def __init__(self, app: ASGIApp, log: list[str], name: str) -> None:
        self.app = app
        self.log = log
        self.name = name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.log.append(f"{self.name} {scope['type']}")
        try:
            await self.app(scope, receive, send)
        except Exception as error:
            self.log.append(f"{self.name} saw {type(error).__name__}")
            raise


def test_middleware_runs_for_websockets_the_last_added_first_and_sees_unhandled_exceptions() -> None:
    log: list[str] = []
    app = App(middleware=[Middleware(Guard, log, "inner")])
    app.add_middleware(Guard, log, "outer")
    fails(app, ZeroDivisionError())
    with pytest.raises(ZeroDivisionError), TestClient(app).websocket_connect("/fails"):
        pass
    assert log == [
        "outer websocket",
        "inner websocket",
        "inner saw ZeroDivisionError",
        "outer saw ZeroDivisionError",
    ]
    with pytest.raises(RuntimeError, match="after an application has started"):
        app.add_middleware(Guard, log, "late")


@pytest.mark.parametrize(("error", "status"), [(HTTPException(429, "slow down"), 429), (WebSocketException(4029), 403)])
def test_middleware_may_refuse_a_connection_with_an_exception(error: Exception, status: int) -> None:
    class Refusing(Guard):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            raise error

    app = App(middleware=[Middleware(Refusing, [], "refusing")])
    client = TestClient(app, raise_server_exceptions=False)
    with pytest.raises(WebSocketDenialResponse) as denied, client.websocket_connect("/"):
        pass
    assert denied.value.status_code == status


def test_http_middleware_as_a_function_leaves_websockets_alone() -> None:
    app = App()

    @app.middleware("http")
    async def stamp(request: Request, call_next: Any) -> Response:
        response: Response = await call_next(request)
        response.headers["x-stamp"] = "1"
        return response

    app.get("/http")(lambda: "ok")

    @app.websocket("/ws")
    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text("ok")

    assert TestClient(app).get("/http").headers["x-stamp"] == "1"
    with TestClient(app).websocket_connect("/ws") as session:
        assert session.receive_text() == "ok"
    with pytest.raises(ValueError, match="websocket"):
        app.middleware("websocket")


# Lifespan, state, hub


def test_the_lifespans_of_included_routers_run_inside_the_apps_and_their_state_reaches_websockets() -> None:
    order: list[str] = []

    def lifespan_of(name: str) -> Any:
        @contextlib.asynccontextmanager
        async def lifespan(app: App) -> AsyncIterator[dict[str, str]]:
            order.append(f"{name} up")
            yield {name: "there", "shared": name}
            order.append(f"{name} down")

        return lifespan

    router = APIRouter(lifespan=lifespan_of("router"))

    @router.websocket("/ws")
    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_json([websocket.state.app, websocket.state.router, websocket.state.shared])

    app = App(lifespan=lifespan_of("app"))
    app.include_router(router)
    app.include_router(router, prefix="/again")
    with TestClient(app) as client, client.websocket_connect("/ws") as session:
        assert session.receive_json() == ["there", "there", "app"]
    assert order == ["app up", "router up", "router down", "app down"]


def test_startup_and_shutdown_handlers_run_sync_and_async() -> None:
    order: list[str] = []

    async def stop() -> None:
        order.append("stop")

    app = App(on_startup=[lambda: order.append("start")], on_shutdown=[stop])

    @app.on_event("startup")
    async def later() -> None:
        order.append("later")

    with TestClient(app):
        assert order == ["start", "later"]
    assert order == ["start", "later", "stop"]
    with pytest.raises(ValueError, match="sometimes"):
        app.on_event("sometimes")(later)


def test_an_app_works_without_its_lifespan() -> None:
    app = App()

    @app.websocket("/ws")
    async def endpoint(websocket: WebSocket, hub: Hub) -> None:
        await websocket.accept()
        async with hub.join("room", websocket):
            await hub.publish("room", "hello")
            await websocket.receive_text()

    with TestClient(app).websocket_connect("/ws") as session:
        assert session.receive_text() == "hello"
        session.send_text("bye")


def test_the_hub_lives_as_long_as_the_app_and_is_the_one_given() -> None:
    hub = Hub()
    app = App(hub=hub)
    seen: list[Hub] = []

    @app.get("/hub")
    async def endpoint(any_name: Hub) -> None:
        seen.append(any_name)

    with TestClient(app) as client:
        client.get("/hub")
        assert app.hub is hub
        assert hub.stats().connected
    assert seen == [hub]


def test_overrides_apply_to_every_route_of_the_app_and_to_mounted_routers_of_ours() -> None:
    def real() -> str:
        return "real"

    router = APIRouter()

    @router.websocket("/ws")
    async def endpoint(websocket: WebSocket, value: str = Depends(real)) -> None:
        await websocket.accept()
        await websocket.send_text(value)

    app = App()
    app.include_router(router, prefix="/included")
    app.mount("/mounted", router)
    client = TestClient(app)
    for path in ("/included/ws", "/mounted/ws"):
        app.dependency_overrides = {real: lambda: "fake"}
        with client.websocket_connect(path) as session:
            assert session.receive_text() == "fake"
        app.dependency_overrides = {}
        with client.websocket_connect(path) as session:
            assert session.receive_text() == "real"


def test_the_root_path_is_the_servers_or_the_apps_own() -> None:
    app = App(root_path="/api")

    @app.websocket("/ws")
    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(websocket.scope["root_path"])

    with TestClient(app).websocket_connect("/api/ws") as session:
        assert session.receive_text() == "/api"


def test_connection_options_reach_every_websocket() -> None:
    options = ConnectionOptions(send_timeout=1.5)
    app = App(connection_options=options)

    @app.websocket("/ws")
    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_json(websocket.options.send_timeout)

    with TestClient(app).websocket_connect("/ws") as session:
        assert session.receive_json() == 1.5


def test_fastapis_keywords_about_openapi_are_taken_and_others_are_errors() -> None:
    app = App(title="Chat", version="1.2.3", docs_url=None, openapi_url=None, description="…")
    assert (app.title, app.version, app.description) == ("Chat", "1.2.3", "…")
    with pytest.raises(TypeError, match="tittle"):
        App(tittle="Chat")  # type: ignore[call-arg]


def test_an_endpoint_that_is_no_coroutine_function_is_a_named_error() -> None:
    app = App()

    @app.websocket("/ws")
    def endpoint(websocket: WebSocket) -> int:
        return 1

    with pytest.raises(TypeError, match=r"test_app:.*endpoint returned int"), TestClient(app).websocket_connect("/ws"):
        pass


def test_an_exception_leaves_no_reference_to_its_connection(caplog: pytest.LogCaptureFixture) -> None:
    import gc
    import weakref

    alive: list[weakref.ref[WebSocket]] = []
    app = App()

    @app.websocket("/fails")
    async def endpoint(websocket: WebSocket) -> None:
        alive.append(weakref.ref(websocket))
        raise WebSocketException(4000)

    logging.getLogger("asyncio").setLevel(logging.WARNING)
    ending(app)
    gc.collect()
    assert alive[0]() is None
