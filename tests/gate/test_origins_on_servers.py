"""The table of origins over real sockets, on every server, with the settings of every level, and the answers to refused
ones."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import fastapi
import httpx2 as httpx
import pytest
from fastapi.middleware.cors import CORSMiddleware as FastAPIsCORSMiddleware
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute as StarletteWebSocketRoute
from starlette.websockets import WebSocket as StarletteWebSocket
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from antiphon import SAME, APIRouter, App, Denials, Hub, OriginMiddleware, Origins, RegistrationError, WebSocket
from antiphon.events import AccessRefused, Event, Refusal
from antiphon.middleware import Middleware
from antiphon.middleware.cors import CORSMiddleware
from antiphon.routing import APIWebSocketRoute
from tests.matrix.servers import SERVERS, ServerUnderTest
from tests.patience import PATIENCE
from tests.serving import serve

from .knocking import COOKIE, answer, status
from .origin_table import CASES, LISTED, written

EVIL = ("Origin", "https://evil.test")
APP = ("Origin", "https://app.example")

on_every_server = pytest.mark.parametrize("server", SERVERS, ids=lambda server: server.name)


async def accept(websocket: WebSocket) -> None:
    await websocket.accept()


async def accept_starlettes(websocket: StarletteWebSocket) -> None:
    await websocket.accept()
    await websocket.close()


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.getMessage() for one in caplog.records if one.name == "antiphon" and one.levelno >= logging.WARNING]


@on_every_server
async def test_who_comes_in_by_the_table(server: ServerUnderTest) -> None:
    app = App()
    app.add_api_websocket_route("/default", accept)
    app.add_api_websocket_route("/same", accept, origins=SAME)
    app.add_api_websocket_route("/listed", accept, origins=LISTED)
    wrong = []
    async with server.run(app) as served:
        host = f"ours.example:{served.port}"
        for case in CASES:
            origin = written(case, served.port)
            for path, expected in (("/default", case.ours), ("/same", case.ours), ("/listed", case.listed)):
                got = await status(served.port, path, ("Origin", origin), COOKIE, host=host)
                # A server may take a header for broken before the gate sees it.
                if got != 101 if expected else got not in (403, 400):
                    wrong.append((path, origin, got))
        assert await status(served.port, "/same", COOKIE, host=host) == 101
        assert await status(served.port, "/default", ("Origin", "https://evil.test"), host=host) == 101
    assert wrong == []


@on_every_server
async def test_the_nearest_that_says_something_holds(server: ServerUnderTest) -> None:
    app = App(origins=["https://app.example"])
    router = APIRouter(prefix="/router", origins=["https://router.example"])
    silent = APIRouter(prefix="/silent")
    one: App | APIRouter
    for one, prefix in ((app, ""), (router, "/router"), (silent, "/silent")):
        one.add_api_websocket_route("/plain", accept)
        one.add_api_websocket_route("/own", accept, origins=["https://own.example"])
        one.add_channel("/channel", denials=Denials.HTTP)
        one.add_channel("/channel-own", origins=["https://own.example"], denials=Denials.HTTP)
        one.add_websocket_route(f"{prefix}/session", accept)
    router.include_router(silent)
    app.include_router(router, prefix="/v1")
    app.include_router(silent)
    app.router.routes.append(APIWebSocketRoute("/ready-made", accept))
    app.router.routes.append(StarletteWebSocketRoute("/starlettes", accept_starlettes))
    mounted = App(origins=["https://mounted.example"])
    mounted.add_api_websocket_route("/plain", accept)
    app.mount("/mounted", mounted)
    quiet = App()
    quiet.add_api_websocket_route("/plain", accept)
    app.mount("/quiet", quiet)
    app_, router_, own, mine = "app.example", "router.example", "own.example", "mounted.example"
    expected = {
        **dict.fromkeys(("/plain", "/channel", "/session", "/ready-made", "/starlettes"), app_),
        **{f"/silent/{name}": app_ for name in ("plain", "channel", "session")},
        **{f"/v1/router/{name}": router_ for name in ("plain", "channel", "session")},
        **{f"/v1/router/silent/{name}": router_ for name in ("plain", "channel", "session")},
        **{f"{prefix}/own": own for prefix in ("", "/silent", "/v1/router", "/v1/router/silent")},
        **{f"{prefix}/channel-own": own for prefix in ("", "/silent", "/v1/router", "/v1/router/silent")},
        "/mounted/plain": mine,
    }
    wrong = []
    async with server.run(app) as served:
        for path, welcome in expected.items():
            for name in (app_, router_, own, mine):
                got = await status(served.port, path, ("Origin", f"https://{name}"))
                if got != (101 if name == welcome else 403):
                    wrong.append((path, name, got))
        assert await status(served.port, "/quiet/plain", APP) == 101
        assert await status(served.port, "/quiet/plain", APP, COOKIE) == 403
    assert wrong == []


@on_every_server
async def test_the_refused_are_told_nothing_internal_and_the_log_says_it_all_once(
    server: ServerUnderTest, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[Event] = []
    app = App(hub=Hub(observer=told.append))
    app.add_api_websocket_route("/secret-place", accept)
    async with server.run(app) as served:
        for _ in range(3):
            code, said = await answer(served.port, "/secret-place?token=abc", EVIL, COOKIE)
            assert code == 403
        assert await status(served.port, "/secret-place", ("Origin", "https://other.test"), COOKIE) == 403
        assert await status(served.port, "/secret-place", ("Origin", f"https://127.0.0.1:{served.port}"), COOKIE) == 403
        ours = f"http://127.0.0.1:{served.port}"
    assert json.loads(said.partition(b"\r\n\r\n")[2]) == {"detail": "this origin may not connect"}
    assert b"secret-place" not in said
    assert ours.encode() not in said
    first, second, third = warnings(caplog)
    assert first == (
        "/secret-place refused: a page of https://evil.test came with cookies, which only these may use: ours, "
        f'{ours}. If that page may connect: origins= of the App, router, route or OriginMiddleware, origins=["https://evil.test"]'
    )
    assert "https://other.test" in second
    assert "behind a proxy, let it pass on the browser's `Host` with its port, and X-Forwarded-Proto" in third
    refused = [event for event in told if isinstance(event, AccessRefused)]
    assert refused == [AccessRefused(path="/secret-place", reason=Refusal.ORIGIN)] * 5


async def test_what_a_list_allows_is_in_the_log_and_a_demand_too(caplog: pytest.LogCaptureFixture) -> None:
    app = App(origins=Origins(allowed=["https://*.example.org"], required=True))
    app.add_api_websocket_route("/ws", accept)
    async with serve(app) as served:
        assert await status(served.port, "/ws", EVIL) == 403
        assert await status(served.port, "/ws") == 403
        assert await status(served.port, "/ws", ("Origin", "null")) == 403
        assert await status(served.port, "/ws", ("Origin", b"https://a\x1b[31mb")) in (400, 403)
        assert await status(served.port, "/ws", ("Origin", "https://a.example.org")) == 101
    evil, nobody, null, *rest = warnings(caplog)
    assert (
        f"a page of https://evil.test; allowed are: ours, http://127.0.0.1:{served.port}, and https://*.example.org."
        in evil
    )
    assert "no Origin came" in nobody
    assert "required=True" in nobody
    assert 'origins=["null"]' in null
    assert not [line for line in rest if "\x1b" in line]


def guest() -> APIRouter:
    router = APIRouter()
    router.add_api_websocket_route("/default", accept)
    router.add_api_websocket_route("/own", accept, origins=SAME)
    return router


@on_every_server
@pytest.mark.parametrize("way", ["ours", "included", "mounted", "starlette"])
async def test_whom_cors_trusts_comes_in_where_nothing_is_said(server: ServerUnderTest, way: str) -> None:
    cors: dict[str, Any] = {
        "allow_origins": ["https://app.example", "*"],
        "allow_origin_regex": r"https://pr-\d+\.example",
    }
    host: Any
    if way == "ours":
        host = App(middleware=[Middleware(CORSMiddleware, **cors)])
        host.include_router(guest())
    elif way == "starlette":
        host = Starlette(routes=list(guest().routes), middleware=[Middleware(CORSMiddleware, **cors)])
    else:
        host = fastapi.FastAPI()
        host.add_middleware(FastAPIsCORSMiddleware, **cors)
        if way == "included":
            host.include_router(guest())
        else:
            inner = App()
            inner.include_router(guest())
            host.mount("", inner)
    async with server.run(host) as served:
        assert await status(served.port, "/default", APP, COOKIE) == 101
        assert await status(served.port, "/default", ("Origin", "https://pr-7.example"), COOKIE) == 101
        # A star without allow_credentials trusts nobody with cookies, here as over HTTP.
        assert await status(served.port, "/default", ("Origin", "https://pr-7.example.evil.test"), COOKIE) == 403
        assert await status(served.port, "/default", EVIL, COOKIE) == 403
        assert await status(served.port, "/own", APP, COOKIE) == 403


async def test_a_star_of_cors_with_credentials_trusts_everybody() -> None:
    app = App(middleware=[Middleware(CORSMiddleware, allow_origins=["*"], allow_credentials=True)])
    app.include_router(guest())
    async with serve(app) as served:
        assert await status(served.port, "/default", EVIL, COOKIE) == 101
        assert await status(served.port, "/own", EVIL, COOKIE) == 403


@on_every_server
async def test_the_middleware_guards_apps_of_others(server: ServerUnderTest, caplog: pytest.LogCaptureFixture) -> None:
    host = fastapi.FastAPI()

    @host.websocket("/ws")
    async def ws(websocket: fastapi.WebSocket) -> None:
        await websocket.accept()
        await websocket.close()

    @host.get("/page")
    async def read() -> str:
        return "page"

    host.include_router(guest())  # type: ignore[arg-type]
    host.add_middleware(OriginMiddleware, origins=["https://app.example"])
    async with server.run(host) as served:
        for path in ("/ws", "/default"):
            assert await status(served.port, path, APP, COOKIE) == 101, path
            assert await status(served.port, path, EVIL) == 403
            assert await status(served.port, path) == 101
        assert await status(served.port, "/own", APP, COOKIE) == 403
        async with httpx.AsyncClient() as client:
            page = await client.get(
                f"{served.http_url}/page", headers={"Origin": "https://evil.test", "Cookie": "session=1"}
            )
            assert page.status_code == 200
        _, said = await answer(served.port, "/ws", EVIL)
    assert json.loads(said.partition(b"\r\n\r\n")[2]) == {"detail": "this origin may not connect"}
    assert len([line for line in warnings(caplog) if "evil.test" in line]) == 1


async def test_the_middleware_around_an_app_asks_its_cors_and_can_close() -> None:
    host = fastapi.FastAPI()
    host.add_middleware(FastAPIsCORSMiddleware, allow_origins=["https://app.example"])

    @host.websocket("/ws")
    async def ws(websocket: fastapi.WebSocket) -> None:
        await websocket.accept()
        await websocket.close(4001)

    async with serve(OriginMiddleware(host, denials=Denials.CLOSE)) as served:
        assert await closed(served.url, {"Origin": "https://app.example", "Cookie": "a=b"}) == (4001, "")
        assert await closed(served.url, {"Origin": "https://evil.test", "Cookie": "a=b"}) == (
            3003,
            "this origin may not connect",
        )


async def closed(url: str, headers: dict[str, str]) -> tuple[int | None, str | None]:
    async with connect(f"{url}/ws", additional_headers=headers, open_timeout=PATIENCE) as client:
        with pytest.raises(ConnectionClosed):
            await client.recv()
    return client.close_code, client.close_reason


@on_every_server
async def test_a_channel_closes_so_that_its_page_reads_why(server: ServerUnderTest) -> None:
    app = App()

    @app.channel("/ws")
    async def chat() -> AsyncIterator[None]:
        yield

    async with server.run(app) as served:
        seen = await closed(served.url, {"Origin": "https://evil.test", "Cookie": "a=b"})
    assert seen == (3003, "this origin may not connect")


@pytest.mark.parametrize("make", [App, APIRouter, lambda **said: App().websocket("/ws", **said)(accept)])
def test_a_mistake_is_told_where_it_is_made(make: Any) -> None:
    with pytest.raises(RegistrationError, match=r"write 'https://app.example'"):
        make(origins=["app.example"])
    with pytest.raises(RegistrationError, match=r"write \['https://app.example'\]"):
        make(origins="https://app.example")
    with pytest.raises(RegistrationError, match=r"Denials.HTTP or Denials.CLOSE"):
        make(denials="close")


async def test_the_middleware_around_an_app_that_cannot_be_hashed_still_logs_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Bare:
        __hash__ = None  # type: ignore[assignment]

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            raise AssertionError("nobody comes in")

    async with serve(OriginMiddleware(Bare()), lifespan="off") as served:
        for _ in range(3):
            assert await status(served.port, "/ws", ("Origin", "https://unhashed.test"), COOKIE) == 403
    assert len(warnings(caplog)) == 1


async def test_long_origins_are_refused_and_logged_short(caplog: pytest.LogCaptureFixture) -> None:
    app = App(middleware=[Middleware(CORSMiddleware, allow_origin_regex=r"(a|aa)+\.example")])
    app.add_api_websocket_route("/ws", accept)
    async with serve(app, ws="antiphon.server:WebSocketProtocol") as served:
        for length in (600, 30_000):
            assert await status(served.port, "/ws", ("Origin", "a" * length), COOKIE) == 403
    assert all(len(line) < 600 for line in warnings(caplog))
