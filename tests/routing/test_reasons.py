"""The log has the reason of a refused handshake, routes close to an unknown path, and the faults of a message."""

from __future__ import annotations

import contextlib
import itertools
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.websockets import WebSocketDisconnect
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from antiphon import APIRouter, App, Depends, HTTPException, JSONResponse, Query, WebSocket, WebSocketException
from antiphon.middleware.trustedhost import TrustedHostMiddleware
from antiphon.routing.near_misses import _Search, near_misses
from antiphon.security import OAuth2PasswordBearer
from antiphon.staticfiles import StaticFiles
from antiphon.testclient import TestClient
from tests.serving import serve

from .middlemen import Wraps


def refused(app: App | Starlette, path: str, caplog: pytest.LogCaptureFixture) -> tuple[int, str]:
    """The status a client sees, and the one line of ours."""
    caplog.clear()
    caplog.set_level(logging.INFO, "antiphon")
    with pytest.raises(WebSocketDisconnect) as denied, TestClient(app).websocket_connect(path):
        pass
    (line,) = [record.getMessage() for record in caplog.records if record.name == "antiphon"]
    return getattr(denied.value, "status_code", 403), line


async def serves(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text("served")


# A path that no route serves


@pytest.mark.parametrize(
    ("path", "near"),
    [
        ("/roms/7", ["/rooms/{id}"]),
        ("/rooms/", ["/rooms/{id}"]),
        ("/rooms/7/", ["/rooms/{id}"]),
        ("/CHAT/7", ["/v1/chat/{n:int}"]),
        ("/v1/chat/seven", ["/v1/chat/{n:int}"]),
        ("/api/ws", ["/ws"]),
        ("/ws/", ["/ws"]),
        ("/quite/another", []),
        ("/", []),
        ("/" + "x" * 100_000, []),
    ],
)
def test_near_misses_are_the_routes_that_a_person_finds_alike(path: str, near: list[str]) -> None:
    assert near_misses(path, ["/rooms/{id}", "/v1/chat/{n:int}", "/ws", "/{any}/{thing}"]) == near


def test_a_flood_of_unknown_paths_gets_no_search_for_each() -> None:
    now, worked = 0.0, itertools.count(step=0.04)
    search = _Search(clock=lambda: now, worked=lambda: next(worked))
    route = next(route for route in app_with("/ws").routes if hasattr(route, "path"))

    def found() -> int:
        return sum(search.near("/wss", [route]) == ["/ws"] for _ in range(10))  # type: ignore[list-item]

    assert found() == 3, "a tenth of a second was saved, and the search that uses it up is made to its end"
    now = 0.2
    assert found() == 0, "0.02 s are still owed"
    now = 0.9
    assert found() == 1, "a search of 0.04 s takes 0.8 s to be paid for"
    now = 3600.0
    assert found() == 3


def app_with(*paths: str) -> App:
    app = App()
    for path in paths:
        app.add_api_websocket_route(path, serves)
    return app


def test_no_route_is_404_and_the_log_has_what_the_path_may_have_meant(caplog: pytest.LogCaptureFixture) -> None:
    status, line = refused(app_with("/rooms/{_id}"), "/roms/7", caplog)
    assert status == 404
    assert line == "no WebSocket route matches /roms/7; near misses: /rooms/{_id}"


def test_where_nothing_is_like_the_path_a_few_routes_are_named(caplog: pytest.LogCaptureFixture) -> None:
    assert refused(app_with("/ws"), "/", caplog)[1] == "no WebSocket route matches /; registered: /ws"
    caplog.clear()
    line = refused(app_with("/a", "/b", "/c", "/d"), "/chat", caplog)[1]
    assert line == "no WebSocket route matches /chat"


def test_an_app_without_a_websocket_route_says_that_a_router_may_not_be_included(
    caplog: pytest.LogCaptureFixture,
) -> None:
    status, line = refused(App(), "/chat", caplog)
    assert status == 404
    assert line == (
        "no WebSocket route matches /chat: none is registered here; those of a router are with include_router(router)"
    )


def test_a_path_that_is_served_over_http_only_is_named_as_such(caplog: pytest.LogCaptureFixture) -> None:
    app = app_with("/ws")

    @app.get("/chat")
    def chat() -> None: ...

    status, line = refused(app, "/chat", caplog)
    assert status == 404
    assert line.endswith("an HTTP route does, and a WebSocket needs one of its own (@app.websocket)")


def test_near_misses_of_a_mounted_app_have_its_prefix(caplog: pytest.LogCaptureFixture) -> None:
    outer = App()
    outer.mount("/live", app_with("/rooms/{_id}"))
    assert refused(outer, "/live/roms/7", caplog) == (
        404,
        "no WebSocket route matches /live/roms/7; near misses: /live/rooms/{_id}",
    )


def test_static_files_at_the_root_do_not_answer_a_websocket_with_a_traceback(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    app = app_with("/rooms/{_id}")
    app.mount("/", StaticFiles(directory=tmp_path))
    app.add_api_websocket_route("/behind", serves)
    assert refused(app, "/roms/7", caplog)[0] == 404
    with TestClient(app).websocket_connect("/behind") as session:
        assert session.receive_text() == "served"


def test_a_router_in_somebody_elses_app_says_it_too(caplog: pytest.LogCaptureFixture) -> None:
    router = APIRouter()
    router.add_api_websocket_route("/ws", serves)
    app = Starlette()
    app.mount("/live", router)
    assert refused(app, "/live/wss", caplog) == (404, "no WebSocket route matches /live/wss; near misses: /live/ws")


# HTTP where only a WebSocket is served


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_request_without_upgrade_is_told_to_upgrade(method: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "antiphon")
    response = TestClient(app_with("/rooms/{_id}")).request(method, "/rooms/7")
    assert response.status_code == 426
    assert (response.headers["upgrade"], response.headers["connection"]) == ("websocket", "Upgrade")
    assert method == "HEAD" or "ws://" in response.json()["detail"]
    assert "a proxy between it and this server must pass on the headers Upgrade and Connection" in caplog.text


async def test_a_server_without_websockets_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "antiphon")
    async with serve(app_with("/rooms/{_id}"), ws="none") as server:
        with pytest.raises(InvalidStatus) as refused:
            await connect(f"{server}/rooms/7")
    assert refused.value.response.status_code == 426
    assert b"the server that runs it serves none" in refused.value.response.body
    assert "start it with `antiphon run`" in caplog.text


def test_what_is_no_websockets_path_stays_404_and_what_has_an_http_route_stays_served() -> None:
    app = app_with("/ws", "/both")

    @app.get("/both")
    def both() -> str:
        return "http"

    client = TestClient(app)
    assert client.get("/nowhere").status_code == 404
    assert client.post("/ws").status_code == 404
    assert client.get("/both").json() == "http"


async def test_http_2_which_knows_no_upgrade_header_gets_404() -> None:
    sent = []

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/ws", "http_version": "2", "headers": [], "query_string": b""}
    await app_with("/ws")(scope, None, send)  # type: ignore[arg-type]
    assert sent[0]["status"] == 404


# Refusals


def needs_token(token: str = "") -> None:
    raise HTTPException(401, "no token\nat all")


def needs_origin() -> None:
    raise WebSocketException(4003, "another site")


def test_each_refusal_is_one_line_with_its_status_its_reason_and_who_raised_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = App()

    @app.websocket("/http", dependencies=[Depends(needs_token)])
    async def http(websocket: WebSocket) -> None: ...

    @app.websocket("/websocket", dependencies=[Depends(needs_origin)])
    async def by_code(websocket: WebSocket) -> None: ...

    @app.websocket("/scheme")
    async def scheme(websocket: WebSocket, token: str = Depends(OAuth2PasswordBearer(tokenUrl="t"))) -> None: ...

    @app.websocket("/validation")
    async def validation(websocket: WebSocket, n: Annotated[int, Query()]) -> None: ...

    @app.websocket("/closed")
    async def closed(websocket: WebSocket) -> None:
        await websocket.close(4005, "not\nyou")

    here = f"{__name__}:test_each_refusal_is_one_line_with_its_status_its_reason_and_who_raised_it.<locals>"
    raised = f"HTTPException in {__name__}:needs_token"
    assert refused(app, "/http", caplog) == (401, f"{here}.http (/http) refused: 401, no token\\nat all ({raised})")
    raised = f"WebSocketException in {__name__}:needs_origin"
    assert refused(app, "/websocket", caplog) == (
        403,
        f"{here}.by_code (/websocket) refused: 403, 4003 another site ({raised})",
    )
    status, line = refused(app, "/scheme", caplog)
    assert status == 401
    assert "refused: 401, Not authenticated (HTTPException in antiphon.security:" in line
    status, line = refused(app, "/validation?n=seven", caplog)
    assert status == 403
    assert line.startswith(f"{here}.validation (/validation): invalid parameters: query.n: Input should be")
    assert refused(app, "/closed", caplog) == (
        403,
        f"{here}.closed (/closed) refused: 403, closed with 4005 not\\nyou before accept",
    )


def test_a_refusal_by_a_handler_and_by_middleware_is_a_line_too(caplog: pytest.LogCaptureFixture) -> None:
    class Quota(Exception): ...

    app = App(middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=["testserver"])])

    @app.exception_handler(Quota)
    async def too_many(websocket: WebSocket, error: Quota) -> JSONResponse:
        return JSONResponse({}, 429)

    @app.websocket("/ws")
    async def full(websocket: WebSocket) -> None:
        raise Quota

    status, line = refused(app, "/ws", caplog)
    assert status == 429
    assert "full (/ws): Quota in " in line
    assert line.endswith("is answered by its exception handler")
    app = App(middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=["example.com"])])
    app.add_api_websocket_route("/ws", serves)
    assert refused(app, "/ws", caplog) == (400, "/ws refused: 400, by middleware")


def test_middleware_that_wraps_send_and_lets_everything_pass_is_no_refusal(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "antiphon")
    app = App(middleware=[Middleware(Wraps)])
    app.add_api_websocket_route("/ws", serves)
    with TestClient(app).websocket_connect("/ws") as session:
        assert session.receive_text() == "served"
    assert "refused" not in caplog.text


def test_an_answer_that_nobody_gets_is_a_warning_once_for_each_endpoint(caplog: pytest.LogCaptureFixture) -> None:
    app = App()

    async def answers(websocket: WebSocket) -> dict[str, int]:
        await websocket.accept()
        return {"a": 1}

    @app.websocket("/publishes")
    async def publishes(websocket: WebSocket) -> tuple[int, str]:
        await websocket.accept()
        return 1, "what publish() gives, say"

    app.add_api_websocket_route("/answers", answers)
    for path in ("/answers", "/answers", "/publishes"):
        with TestClient(app).websocket_connect(path):
            pass
    (line,) = [record.getMessage() for record in caplog.records if record.name == "antiphon"]
    assert line.endswith("answers returned a dict, which no client gets: await websocket.send_json(...) sends it")


def test_an_endpoint_whose_exception_a_dependency_swallows_has_returned_nothing() -> None:
    async def swallows(websocket: WebSocket) -> AsyncIterator[None]:
        await websocket.accept()
        with contextlib.suppress(ZeroDivisionError):
            yield

    app = App()

    @app.websocket("/ws", dependencies=[Depends(swallows)])
    async def raises(websocket: WebSocket) -> None:
        raise ZeroDivisionError

    with TestClient(app).websocket_connect("/ws") as session:
        assert session.receive()["code"] == 1000


def test_an_app_is_no_middleware() -> None:
    with pytest.raises(TypeError, match="add_middleware takes a class"):
        App().add_middleware(App())  # type: ignore[arg-type]


# Messages


@pytest.mark.parametrize(
    ("sends", "says"),
    [
        ("hello", "expected JSON, got 5 characters: Expecting value at 0, in 'hello'"),
        ("", "expected JSON, got 0 characters: Expecting value at 0"),
        ("{'a\n': 1}", "at 1, in '{'a\\n': 1}'"),
        (
            '{"a": 1' + "x" * 10_000,
            "expected JSON, got 10007 characters: Expecting ',' delimiter at 7, in '{\"a\": 1xxxx",
        ),
    ],
)
def test_bad_json_is_one_line_with_what_was_expected_where_it_stops_and_what_stands_there(
    sends: str, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = App()

    @app.websocket("/json")
    async def reads(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.receive_json()

    client = TestClient(app, raise_server_exceptions=False)
    with client.websocket_connect("/json") as session:
        session.send_text(sends)
        assert session.receive()["code"] == 1007
    (record,) = [record for record in caplog.records if record.name == "antiphon"]
    line = record.getMessage()
    assert "reads (/json): expected JSON" in line
    assert says in line
    assert len(line) < 300
    assert record.exc_info is None
