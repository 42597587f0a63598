"""Misuse: an impossible route is an error where it is registered, and an unlikely one is a warning there."""

from __future__ import annotations

import functools
import inspect
import logging
import sys
import warnings
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any

import fastapi
import pytest

from antiphon import (
    APIRouter,
    App,
    Depends,
    Form,
    HTTPException,
    Path,
    Query,
    UploadFile,
    WebSocket,
    WebSocketDisconnect,
    WebSocketException,
)
from antiphon.exceptions import RegistrationError, RegistrationWarning
from antiphon.routing import APIRoute, APIWebSocketRoute, RoutingError, WebSocketRoute
from antiphon.security import OAuth2PasswordRequestForm
from antiphon.testclient import TestClient


async def serves(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text("served")


def said(app: Any, path: str) -> str:
    with TestClient(app).websocket_connect(path) as session:
        return session.receive_text()


# Packages


async def takes_name(name: Annotated[str, Form()]) -> None: ...


async def takes_file(file: UploadFile) -> None: ...


async def takes_login(login: Annotated[OAuth2PasswordRequestForm, Depends()]) -> None: ...


@pytest.mark.parametrize("endpoint", [takes_name, takes_file, takes_login])
def test_a_form_without_the_package_that_reads_it_is_an_error_with_the_remedy(
    endpoint: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    App().post("/")(endpoint)
    for name in ("python_multipart", "multipart"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(RegistrationError, match=r"is read from a form, .*pip install python-multipart"):
        App().post("/")(endpoint)


# Endpoints


def plain(websocket: WebSocket) -> None: ...


async def generator(websocket: WebSocket) -> AsyncIterator[None]:
    yield


class Endpoints:
    def method(self, websocket: WebSocket) -> None: ...


@pytest.mark.parametrize("register", [App().add_api_websocket_route, App().add_websocket_route])
@pytest.mark.parametrize("endpoint", [plain, generator, Endpoints().method, functools.partial(plain)])
def test_an_endpoint_that_cannot_be_awaited_is_refused(register: Any, endpoint: Callable[..., Any]) -> None:
    with pytest.raises(RegistrationError, match=r"must be an `async def`.* tests\.routing\.test_registration\.\w+"):
        register("/ws", endpoint)


def test_what_is_no_async_function_and_can_be_awaited_serves() -> None:
    class Instance:
        async def __call__(self, websocket: WebSocket) -> None:
            await serves(websocket)

    def returns(websocket: WebSocket) -> Any:
        return serves(websocket)

    @functools.wraps(serves)
    def wraps(*args: Any, **kwargs: Any) -> None:
        return serves(*args, **kwargs)  # type: ignore[return-value]

    app = App()
    app.add_websocket_route("/lambda", lambda websocket: serves(websocket))
    app.add_api_websocket_route("/instance", Instance())
    app.add_api_websocket_route("/returns", returns)
    app.add_api_websocket_route("/wraps", wraps)
    assert [said(app, path) for path in ("/lambda", "/instance", "/returns", "/wraps")] == ["served"] * 4


def test_a_websocket_without_annotation_is_a_query_parameter_and_warned_of() -> None:
    app = App()

    async def endpoint(websocket) -> None: ...  # type: ignore[no-untyped-def]

    with pytest.warns(RegistrationWarning, match=r"endpoint: parameter 'websocket' has no annotation") as caught:
        app.add_api_websocket_route("/ws", endpoint)
    assert (caught[0].filename, caught[0].lineno) == (__file__, inspect.getsourcelines(endpoint)[1])
    with pytest.raises(WebSocketDisconnect):
        said(app, "/ws")


def test_so_is_one_in_a_dependency() -> None:
    def dependency(ws) -> None: ...  # type: ignore[no-untyped-def]

    with pytest.warns(RegistrationWarning, match=r"dependency: parameter 'ws' has no annotation"):
        APIWebSocketRoute("/ws", serves, dependencies=[Depends(dependency)])


@pytest.mark.parametrize("route", [APIWebSocketRoute, APIRoute])
def test_so_is_a_hub(route: Any) -> None:
    async def endpoint(hub) -> None: ...  # type: ignore[no-untyped-def]

    with pytest.warns(RegistrationWarning, match=r"parameter 'hub' has no annotation, .* annotate it with Hub"):
        route("/", endpoint)


def test_a_parameter_of_that_name_that_is_meant_to_be_read_is_not_warned_of() -> None:
    async def in_path(socket: WebSocket, ws) -> None: ...  # type: ignore[no-untyped-def]
    async def annotated(socket: WebSocket, ws: str) -> None: ...
    async def marked(socket: WebSocket, ws=Query()) -> None: ...  # type: ignore[no-untyped-def]
    async def optional(socket: WebSocket, ws=None) -> None: ...  # type: ignore[no-untyped-def]

    def over_http(ws) -> None: ...  # type: ignore[no-untyped-def]

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        APIWebSocketRoute("/{ws}", in_path)
        for endpoint in (annotated, marked, optional):
            APIWebSocketRoute("/", endpoint)
        APIRoute("/", over_http)


# Paths


@pytest.mark.parametrize("route", [APIWebSocketRoute, WebSocketRoute, APIRoute])
def test_a_path_starts_with_a_slash(route: Any) -> None:
    with pytest.raises(RoutingError, match=r"must start with '/', got 'chat' for tests\.routing.*serves"):
        route("chat", serves)


def test_behind_a_prefix_a_path_may_be_anything() -> None:
    router = APIRouter(prefix="/chat")
    router.add_api_websocket_route("", serves)
    router.add_api_websocket_route("-{_room}", serves)
    app = App()
    app.include_router(router)
    assert said(app, "/chat") == said(app, "/chat-tea") == "served"


async def numbered(websocket: WebSocket, n: Annotated[int, Path()]) -> None:
    await websocket.accept()
    await websocket.send_text(f"number {n}")


def number(n: int = Path()) -> int:
    return n


MISSING = r"number(ed)?: parameter 'n' is read from the path, and '/x(/{m})?' has no {n}"


def test_a_path_parameter_that_the_path_does_not_have_is_warned_of() -> None:
    app = App()
    with pytest.warns(RegistrationWarning, match=MISSING):
        app.add_api_websocket_route("/x/{m}", numbered)
    with pytest.warns(RegistrationWarning, match=MISSING):
        app.add_api_route("/x", number)
    with pytest.warns(RegistrationWarning, match=MISSING):
        app.add_api_websocket_route("/x", serves, dependencies=[Depends(number)])


def test_a_routers_path_is_complete_where_an_app_includes_it() -> None:
    router = APIRouter()
    router.add_api_websocket_route("/x", numbered)
    app = App()
    app.include_router(router, prefix="/{n}")
    assert said(app, "/3/x") == "number 3"
    with pytest.warns(RegistrationWarning, match=MISSING):
        App().include_router(router)


def test_an_app_mounted_below_a_parameter_may_read_it() -> None:
    inner, outer = App(), App()
    with pytest.warns(RegistrationWarning):
        inner.add_api_websocket_route("/x", numbered)
    outer.mount("/{n}", inner)
    assert said(outer, "/3/x") == "number 3"


@pytest.mark.parametrize("other", [App(), fastapi.APIRouter(), fastapi.FastAPI(), None])
def test_only_routers_can_be_included_and_other_apps_mounted(other: Any) -> None:
    with pytest.raises(TypeError, match=rf"not .*{type(other).__name__}; any other ASGI app can be mounted"):
        App().include_router(other)


# Why a handshake was refused


def refused(app: App, path: str, caplog: pytest.LogCaptureFixture) -> str:
    """The one log line for a connection that is refused."""
    caplog.clear()
    with caplog.at_level(logging.INFO, "antiphon"), pytest.raises(WebSocketDisconnect):
        said(app, path)
    (record,) = caplog.records
    assert (record.name, record.levelno, record.exc_info) == ("antiphon", logging.INFO, None)
    return record.getMessage()


def test_parameters_that_fail_validation_are_one_line_without_their_values(caplog: pytest.LogCaptureFixture) -> None:
    app = App()

    @app.websocket("/rooms/{room}")
    async def enter(websocket: WebSocket, room: int, token: Annotated[str, Query(max_length=3)], name: str) -> None: ...

    line = refused(app, "/rooms/tea?token=secret", caplog)
    assert line.startswith(f"{__name__}:{enter.__qualname__} (/rooms/tea): invalid parameters: path.room: Input should")
    assert "; query.token: String should have at most 3 characters; query.name: Field required" in line
    assert "secret" not in line


def test_a_peer_cannot_write_lines_of_its_own_into_the_log(caplog: pytest.LogCaptureFixture) -> None:
    app = App()

    @app.websocket("/{room}")
    async def enter(websocket: WebSocket, room: int) -> None: ...

    line = refused(app, "/x%0AINFO%20faked" + "y" * 1000, caplog)
    assert "\n" not in line
    assert r"/x\nINFO faked" in line
    assert len(line) < 1000


# Arguments of the wrong kind


@pytest.mark.parametrize("decorator", [App().websocket, App().get, APIRouter().websocket_route, App().route])
def test_a_decorator_without_parentheses_is_refused_by_the_functions_name(decorator: Any) -> None:
    with pytest.raises(RoutingError, match=r"needs a path.* tests\.routing\.test_registration\.serves"):
        decorator(serves)


@pytest.mark.parametrize(
    ("path", "told"),
    [
        (3, "got 3"),
        ("/{room:colour}", "colour.*converters: str, path, int"),
        ("/{room}/{room}", "room at path"),
    ],
)
def test_a_path_that_cannot_be_one_is_refused(path: Any, told: str) -> None:
    with pytest.raises(RoutingError, match=told):
        App().add_api_websocket_route(path, serves)
    with pytest.raises(RoutingError, match=told):
        App().get(path)(serves)


@pytest.mark.parametrize("path", ["/{room", "/{room-id}", "/room}"])
def test_a_brace_that_is_part_of_no_parameter_is_warned_of(path: str) -> None:
    async def enter(websocket: WebSocket) -> None: ...

    with pytest.warns(RegistrationWarning, match="enter.* has a brace that is part of no parameter"):
        App().websocket(path)(enter)


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/rooms/<room>", r"has '<room>', which is no parameter: write \{room\}"),
        ("/rooms/<int:room>/ws", r"has '<int:room>', which is no parameter: write \{room\}"),
        ("/rooms/:room", r"has ':room', which is no parameter: write \{room\}"),
        ("/rooms?name={name}", r"has a query, and no path has one: the function takes its parameters"),
    ],
)
def test_a_path_in_the_words_of_another_framework_is_warned_of(path: str, told: str) -> None:
    async def enter(websocket: WebSocket, room: str = "", name: str = "") -> None: ...

    with pytest.warns(RegistrationWarning, match="enter: .*" + told):
        App().websocket(path)(enter)


def test_a_route_behind_another_one_of_the_same_path_is_warned_of() -> None:
    app = App()
    app.websocket("/room")(serves)

    async def never(websocket: WebSocket) -> None: ...

    with pytest.warns(RegistrationWarning, match=r"never is never reached: '/room' is served by .*serves"):
        app.websocket("/room")(never)


@pytest.mark.parametrize(("path", "app"), [("api", App()), ("/api", None), (App(), "/api"), ("/api", "main:app")])
def test_only_an_asgi_app_is_mounted_and_only_at_a_path(path: Any, app: Any) -> None:
    with pytest.raises(RoutingError, match="api"):
        App().mount(path, app)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"hub": "redis://localhost"}, r"App\(hub=\) takes a Hub.*'redis://localhost'"),
        ({"connection_options": {"send_timeout": 3}}, r"takes ConnectionOptions.*'send_timeout': 3"),
        ({"middleware": [App]}, r"takes Middleware\(factory"),
        ({"exception_handlers": {"404": serves}}, "an exception class or an HTTP status, got '404'"),
        ({"lifespan": serves}, r"serves has no `yield`"),
    ],
)
def test_an_app_refuses_what_an_option_cannot_be(options: dict[str, Any], told: str) -> None:
    with pytest.raises(TypeError, match=told):
        App(**options)


def test_handlers_and_middleware_of_the_wrong_kind_are_refused_where_they_are_added() -> None:
    with pytest.raises(TypeError, match="got 'ValueError'"):
        App().exception_handler("ValueError")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="got 'gzip'"):
        App().add_middleware("gzip")  # type: ignore[arg-type]


async def fetch() -> int:
    return 1


@pytest.mark.parametrize(
    ("dependency", "told"),
    [
        (Depends(), r"'found': Depends\(\) calls the annotation, and the parameter has none"),
        (Depends("fetch"), "'found': Depends takes a function or class, not the value it returns, and got 'fetch'"),  # type: ignore[arg-type]
    ],
)
def test_depends_without_something_to_call_says_so(dependency: Any, told: str) -> None:
    async def endpoint(websocket: WebSocket, found=dependency) -> None: ...  # type: ignore[no-untyped-def]

    with pytest.raises(RegistrationError, match=told):
        App().websocket("/ws")(endpoint)


class Database: ...


def test_an_object_that_cannot_be_validated_is_pointed_to_depends_in_one_line() -> None:
    async def endpoint(websocket: WebSocket, database: Database) -> None: ...

    with pytest.raises(RegistrationError, match=r"'database'.*Database.*Depends\(function\)") as caught:
        App().websocket("/ws")(endpoint)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("error", [HTTPException, WebSocketException])
def test_an_exception_refuses_a_status_that_is_none_where_it_is_made(error: Any) -> None:
    with pytest.raises(TypeError, match=rf"{error.__name__}\(.*expected an int.*got 'no entry'"):
        error("no entry")


def test_a_route_class_whose_handler_would_never_be_called_is_refused() -> None:
    class Timed(APIRoute):
        def get_route_handler(self) -> None: ...

    router = APIRouter(route_class=Timed)
    with pytest.raises(RegistrationError, match=r"Timed\.get_route_handler\(\).*mount"):
        router.get("/")(lambda: None)
