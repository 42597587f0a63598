"""Finding the route: order, prefixes, inclusion, names. The routes run under the real test client."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from starlette.convertors import Convertor, register_url_convertor
from starlette.routing import NoMatchFound

from antiphon import APIRouter, App, Depends, JSONResponse, Request, WebSocket, WebSocketDisconnect
from antiphon.routing import APIRoute, APIWebSocketRoute, Mount, RoutingError, WebSocketRoute
from antiphon.testclient import TestClient


def says(word: str) -> Callable[[WebSocket], Any]:
    """An endpoint that accepts and says one word."""

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(word)

    return endpoint


def said(app: Any, path: str) -> str:
    with TestClient(app).websocket_connect(path) as session:
        return session.receive_text()


def test_the_first_route_that_matches_wins() -> None:
    app = App(
        routes=[
            APIWebSocketRoute("/rooms/lobby", says("the lobby")),
            APIWebSocketRoute("/rooms/{name}", says("a room")),
            APIWebSocketRoute("/rooms/attic", says("never")),
        ]
    )
    assert said(app, "/rooms/lobby") == "the lobby"
    assert said(app, "/rooms/attic") == "a room"


def test_websocket_and_http_share_a_path() -> None:
    app = App()
    app.add_api_websocket_route("/both", says("socket"))

    @app.get("/both")
    def over_http() -> dict[str, str]:
        return {"over": "http"}

    assert said(app, "/both") == "socket"
    assert TestClient(app).get("/both").json() == {"over": "http"}


def test_converters_give_typed_path_parameters() -> None:
    class Hex(Convertor[int]):
        regex = "[0-9a-f]+"

        def convert(self, value: str) -> int:
            return int(value, 16)

        def to_string(self, value: int) -> str:
            return f"{value:x}"

    register_url_convertor("hex", Hex())
    app = App()

    @app.websocket("/{number:int}/{ratio:float}/{key:uuid}/{mask:hex}/{rest:path}")
    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(" ".join(type(value).__name__ for value in websocket.path_params.values()))

    path = "/7/0.5/123e4567-e89b-12d3-a456-426614174000/ff/a/b"
    assert said(app, path) == "int float UUID int str"
    assert app.url_path_for("endpoint", number=7, ratio=0.5, key="k", mask=255, rest="a/b") == "/7/0.5/k/ff/a/b"


def test_routers_nest_at_any_depth_and_any_number_of_times() -> None:
    leaf = APIRouter(prefix="/leaf")
    leaf.add_api_websocket_route("/ws", says("leaf"))
    branch = APIRouter(prefix="/branch")
    branch.include_router(leaf, prefix="/a")
    branch.include_router(leaf, prefix="/b")
    app = App()
    app.include_router(branch)
    app.include_router(branch, prefix="/again")
    for path in ("/branch/a/leaf/ws", "/branch/b/leaf/ws", "/again/branch/b/leaf/ws"):
        assert said(app, path) == "leaf"


def test_routes_added_after_inclusion_appear_too_at_every_depth() -> None:
    leaf, branch, app = APIRouter(), APIRouter(), App()
    branch.include_router(leaf, prefix="/leaf")
    app.include_router(branch, prefix="/branch")
    with pytest.raises(WebSocketDisconnect):
        said(app, "/branch/leaf/late")
    leaf.add_api_websocket_route("/late", says("late"))
    assert said(app, "/branch/leaf/late") == "late"
    later = APIRouter()
    later.add_api_websocket_route("/latest", says("latest"))
    leaf.include_router(later)
    assert said(app, "/branch/leaf/latest") == "latest"


def test_a_route_that_was_removed_is_gone_where_it_was_included() -> None:
    router, app = APIRouter(), App()
    router.add_api_websocket_route("/ws", says("here"))
    app.include_router(router)
    assert said(app, "/ws") == "here"
    router.routes.clear()
    with pytest.raises(WebSocketDisconnect):
        said(app, "/ws")


def test_a_prefix_may_hold_path_parameters() -> None:
    router, app = APIRouter(), App()

    @router.websocket("/ws")
    async def endpoint(websocket: WebSocket, tenant: int) -> None:
        await websocket.accept()
        await websocket.send_json(tenant)

    app.include_router(router, prefix="/{tenant}")
    assert said(app, "/7/ws") == "7"


def test_dependencies_run_from_the_outside_to_the_inside() -> None:
    ran: list[str] = []

    def mark(name: str) -> Any:
        def dependency() -> None:
            ran.append(name)

        return Depends(dependency)

    app = App(dependencies=[mark("app")])
    router = APIRouter(dependencies=[mark("router")])

    @router.websocket("/ws", dependencies=[mark("route")])
    async def endpoint(websocket: WebSocket, parameter: None = mark("parameter")) -> None:
        await websocket.accept()
        await websocket.send_text(" ".join(ran))

    app.include_router(router, dependencies=[mark("include")])
    assert said(app, "/ws") == "app include router route parameter"


def test_plain_routes_move_below_the_prefix_of_an_inclusion() -> None:
    inner = App()
    inner.add_api_websocket_route("/deep", says("mounted"))
    router = APIRouter()
    router.add_websocket_route("/plain", says("plain"))
    router.mount("/sub", inner)

    @router.route("/http")
    def http(request: Request) -> JSONResponse:
        return JSONResponse({"root": request.scope["root_path"]})

    app = App()
    app.include_router(router, prefix="/p")
    assert said(app, "/p/plain") == "plain"
    assert said(app, "/p/sub/deep") == "mounted"
    assert TestClient(app).get("/p/http").json() == {"root": ""}


def test_an_included_host_keeps_its_routes_below_the_prefix() -> None:
    hosted = APIRouter()
    hosted.add_api_websocket_route("/ws", says("hosted"))
    router, app = APIRouter(), App()
    router.host("{tenant}.example.org", hosted)
    app.include_router(router, prefix="/p")
    with TestClient(app).websocket_connect("/p/ws", headers={"host": "a.example.org"}) as session:
        assert session.receive_text() == "hosted"
    with pytest.raises(WebSocketDisconnect):
        said(app, "/p/ws")


def test_names_reach_through_mounts_and_inclusions() -> None:
    async def enter(websocket: WebSocket, room: str) -> None: ...

    inner = APIRouter()
    inner.add_api_websocket_route("/rooms/{room}", enter, name="room")
    app = App(routes=[Mount("/mounted", app=inner, name="chat")])
    app.include_router(inner, prefix="/included")
    assert app.url_path_for("chat:room", room="x") == "/mounted/rooms/x"
    assert app.url_path_for("room", room="x") == "/included/rooms/x"
    assert app.url_path_for("room", room="x").make_absolute_url("http://h/base/") == "ws://h/base/included/rooms/x"
    with pytest.raises(NoMatchFound):
        app.url_path_for("room", chamber="x")


def test_an_endpoint_can_ask_for_urls_below_the_root_path() -> None:
    app = App()

    @app.websocket("/here/{name}", name="here")
    async def here(websocket: WebSocket, name: str) -> None:
        await websocket.accept()
        await websocket.send_text(str(websocket.url_for("here", name="you")))

    with TestClient(app, root_path="/api").websocket_connect("/api/here/me") as session:
        assert session.receive_text() == "ws://testserver/api/here/you"


@pytest.mark.parametrize("prefix", ["chat", "/chat/", "/"])
def test_a_malformed_prefix_is_an_error_that_shows_it(prefix: str) -> None:
    with pytest.raises(RoutingError, match=repr(prefix)):
        APIRouter(prefix=prefix)
    with pytest.raises(AssertionError, match=repr(prefix)):
        App().include_router(APIRouter(), prefix=prefix)


def test_a_router_cannot_include_itself_directly_or_in_a_circle() -> None:
    first, second = APIRouter(), APIRouter()
    with pytest.raises(RoutingError, match="itself"):
        first.include_router(first)
    first.include_router(second)
    with pytest.raises(RoutingError, match="already includes"):
        second.include_router(first)


def test_prefix_and_path_cannot_both_be_empty() -> None:
    router = APIRouter()
    router.add_api_websocket_route("", says(""), name="nowhere")
    with pytest.raises(RuntimeError, match="nowhere"):
        App().include_router(router)
    app = App()
    app.include_router(router, prefix="/somewhere")
    assert said(app, "/somewhere") == ""


def test_a_path_converter_nobody_knows_is_an_error_at_registration() -> None:
    with pytest.raises(AssertionError, match="colour"):
        APIRouter().add_api_websocket_route("/{x:colour}", says(""))


def test_a_route_tells_how_it_matches() -> None:
    route = APIWebSocketRoute("/rooms/{room:int}", says(""), name="room")
    match, child = route.matches({"type": "websocket", "path": "/rooms/7", "root_path": ""})
    assert (match.name, child["path_params"], child["route"]) == ("FULL", {"room": 7}, route)
    assert route.matches({"type": "http", "path": "/rooms/7", "method": "GET"})[0].name == "NONE"
    assert route.matches({"type": "websocket", "path": "/rooms/x"})[0].name == "NONE"
    assert route.url_path_for("room", room=7) == "/rooms/7"


def test_the_scope_names_the_route_that_was_taken() -> None:
    router, app = APIRouter(prefix="/p"), App()

    @router.websocket("/{x}")
    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(websocket.scope["route"].path)

    app.include_router(router, prefix="/q")
    assert said(app, "/q/p/1") == "/q/p/{x}"


def test_a_slash_too_many_or_too_few_redirects_http_requests() -> None:
    router = APIRouter()

    @router.get("/with/")
    def with_slash() -> str:
        return "with"

    app = App()
    app.include_router(router, prefix="/p")
    client = TestClient(app, follow_redirects=False)
    assert client.get("/p/with?x=1").headers["location"] == "http://testserver/p/with/?x=1"
    strict = App(redirect_slashes=False)
    strict.include_router(router, prefix="/p")
    assert TestClient(strict).get("/p/with").status_code == 404


def test_the_wrong_method_is_405_and_names_the_right_ones() -> None:
    app = App()

    @app.api_route("/x", methods=["put", "PATCH"])
    def endpoint() -> None: ...

    response = TestClient(app).get("/x")
    assert response.status_code == 405
    assert {method.strip() for method in response.headers["allow"].split(",")} == {"PUT", "PATCH"}


def test_routes_are_what_starlette_tools_expect() -> None:
    from starlette.routing import Route
    from starlette.routing import WebSocketRoute as StarletteWebSocketRoute

    assert isinstance(APIWebSocketRoute("/", says("")), StarletteWebSocketRoute)
    assert isinstance(WebSocketRoute("/", says("")), StarletteWebSocketRoute)
    assert isinstance(APIRoute("/", lambda: None), Route)
