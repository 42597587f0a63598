"""Likely mistakes in a WebSocket route cause a warning where it is registered. Possible intentions cause none."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

import pytest

from antiphon import APIRouter, App, Depends, WebSocket
from antiphon.exceptions import RegistrationWarning
from antiphon.security import OAuth2PasswordBearer
from antiphon.staticfiles import StaticFiles

Register = Callable[[App], None]


async def serves(websocket: WebSocket) -> None: ...


async def in_room(websocket: WebSocket, room: str) -> None: ...


def needs_room(room: str) -> str:
    return room


def told(register: Register, app: App | None = None) -> list[str]:
    """The warnings, without the names of this module."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        register(app or App())
    assert all(issubclass(one.category, RegistrationWarning) for one in caught)
    return [str(one.message).replace(f"{__name__}.", "") for one in caught]


# Does anything accept?


async def with_nothing() -> None: ...
async def with_a_str(websocket: str) -> None: ...
async def unannotated(socket) -> None: ...  # type: ignore[no-untyped-def]
async def guarded(token: Annotated[str, Depends(OAuth2PasswordBearer(tokenUrl="t"))]) -> None: ...


REFUSED = "can accept no connection, so each is refused with 403"


@pytest.mark.parametrize(
    ("endpoint", "why"),
    [
        (with_nothing, "no parameter is annotated with WebSocket"),
        (unannotated, "no parameter is annotated with WebSocket"),
        (guarded, "no parameter is annotated with WebSocket"),
        (
            with_a_str,
            "parameter 'websocket' is read from the query: annotate it with WebSocket",
        ),
    ],
)
def test_an_endpoint_that_no_websocket_reaches_is_warned_of(endpoint: Any, why: str) -> None:
    assert told(lambda app: app.add_api_websocket_route("/ws", endpoint)) == [f"{endpoint.__name__} {REFUSED}: {why}"]


def test_the_warning_names_the_line_of_the_endpoint() -> None:
    with pytest.warns(RegistrationWarning) as caught:
        App().add_api_websocket_route("/ws", with_nothing)
    assert (caught[0].filename, caught[0].lineno) == (__file__, inspect.getsourcelines(with_nothing)[1])


def test_a_dependency_may_be_the_one_to_accept() -> None:
    async def accepted(websocket: WebSocket) -> WebSocket:
        await websocket.accept()
        return websocket

    async def endpoint(socket: Any = Depends(accepted)) -> None: ...

    assert told(lambda app: app.add_api_websocket_route("/ws", endpoint)) == []
    router = APIRouter(dependencies=[Depends(accepted)])
    router.add_api_websocket_route("/ws", with_nothing)
    assert told(lambda app: app.include_router(router)) == []


# Does anything take the path's parameter?


def test_a_path_parameter_that_nobody_takes_is_warned_of() -> None:
    assert told(lambda app: app.add_api_websocket_route("/rooms/{room}", serves)) == [
        "serves: nobody takes {room} of '/rooms/{room}': add `room: str`, or call it {_room}"
    ]


def test_so_is_one_that_is_spelt_otherwise() -> None:
    async def endpoint(websocket: WebSocket, rom: str) -> None: ...

    (line,) = told(lambda app: app.add_api_websocket_route("/rooms/{room}", endpoint))
    assert line.endswith("'rom', which is read from the query, may be meant, or call it {_room}")


class Connections:
    """Helps endpoints, as the manager class of FastAPI's documentation does."""

    async def welcome(self, websocket: WebSocket) -> str:
        return self._room(websocket)

    def _room(self, websocket: WebSocket) -> str:
        return str(websocket.path_params["room"])


connections = Connections()


async def reads_itself(websocket: WebSocket) -> None:
    websocket.path_params["room"]


async def reads_the_scope(websocket: WebSocket) -> None:
    websocket.scope["path_params"]


async def asks_an_object(websocket: WebSocket) -> None:
    await connections.welcome(websocket)


async def asks_a_function(websocket: WebSocket) -> None:
    await reads_itself(websocket)


async def asks_within(websocket: WebSocket) -> None:
    async def later() -> None:
        await asks_a_function(websocket)

    await later()


def wraps(endpoint: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    @functools.wraps(endpoint)
    async def wrapper(*args: Any, **kwargs: Any) -> None:
        await endpoint(*args, **kwargs)

    return wrapper


class Endpoint:
    async def __call__(self, websocket: WebSocket) -> None:
        await connections.welcome(websocket)


@pytest.mark.parametrize(
    ("path", "endpoint", "dependencies"),
    [
        ("/{room}", in_room, []),
        ("/{room}", serves, [Depends(needs_room)]),
        ("/{room}", reads_itself, []),
        ("/{room}", reads_the_scope, []),
        ("/{room}", asks_an_object, []),
        ("/{room}", asks_a_function, []),
        ("/{room}", asks_within, []),
        ("/{room}", wraps(in_room), []),
        ("/{room}", wraps(reads_itself), []),
        ("/{room}", functools.partial(asks_a_function), []),
        ("/{room}", Endpoint(), []),
        ("/{_room}", serves, []),
        ("/{rest:path}", serves, []),
    ],
)
def test_a_parameter_that_somebody_may_take_is_not(path: str, endpoint: Any, dependencies: list[Any]) -> None:
    assert told(lambda app: app.add_api_websocket_route(path, endpoint, dependencies=dependencies)) == []


def test_what_a_router_is_for_need_not_be_taken_by_each_of_its_routes() -> None:
    router = APIRouter(prefix="/{tenant}")
    router.add_api_websocket_route("/status", serves)
    router.add_api_websocket_route("/{room}", in_room)
    assert told(lambda app: app.include_router(router, prefix="/{region}")) == []
    below = APIRouter(dependencies=[Depends(needs_room)])
    below.add_api_websocket_route("/{room}", serves)
    assert told(lambda app: app.include_router(below)) == []


# Which route comes first?


@pytest.mark.parametrize(
    ("first", "second", "remedy"),
    [
        ("/ws", "/ws", ""),
        ("/rooms/{room}", "/rooms/{_other}", " at '/rooms/{room}'; register this one first"),
        ("/rooms/{room}", "/rooms/lobby", " at '/rooms/{room}'; register this one first"),
        ("/rooms/{room}", "/rooms/{n:int}", " at '/rooms/{room}'; register this one first"),
        ("/{room:path}", "/a/b", " at '/{room:path}'; register this one first"),
    ],
)
def test_a_route_that_another_one_leaves_nothing_for_is_warned_of(first: str, second: str, remedy: str) -> None:
    app = App()
    app.add_api_websocket_route(first, in_room if "{" in first else serves)
    late = reads_itself
    assert told(lambda app: app.add_api_websocket_route(second, late), app) == [
        f"reads_itself is never reached: {second!r} is served by {'in_room' if '{' in first else 'serves'}{remedy}"
    ]


def test_so_is_a_route_below_a_mount_and_one_of_a_router() -> None:
    app = App()
    app.mount("/live", App())
    assert told(lambda app: app.add_api_websocket_route("/live/ws", serves), app) == [
        "serves is never reached: '/live/ws' is served by the mount at '/live'; register this one first"
    ]
    router = APIRouter()
    router.add_api_websocket_route("/{room}", in_room)
    app = App()
    app.include_router(router, prefix="/rooms")
    assert len(told(lambda app: app.add_api_websocket_route("/rooms/lobby", serves), app)) == 1
    assert len(told(lambda app: app.include_router(router, prefix="/rooms"), app)) == 1


def test_a_route_that_is_left_something_is_not_warned_of(tmp_path: Path) -> None:
    def register(app: App) -> None:
        app.mount("/static", StaticFiles(directory=tmp_path))
        app.mount("/", StaticFiles(directory=tmp_path))
        app.add_api_websocket_route("/rooms/lobby", serves)
        app.add_api_websocket_route("/rooms/{n:int}", reads_itself)
        app.add_api_websocket_route("/rooms/{x:float}", reads_itself)
        app.add_api_websocket_route("/rooms/{room}", in_room)
        app.add_api_websocket_route("/rooms/{room}/ws", in_room)
        app.get("/ws")(lambda: None)
        app.add_api_websocket_route("/ws", serves)
        router = APIRouter()
        router.add_api_websocket_route("/ws", serves)
        app.include_router(router, prefix="/v1")
        app.include_router(router, prefix="/v2")

    assert told(register) == []
