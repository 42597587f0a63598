"""The gate's terms of an app and its routers hold for every route of theirs, however it got there."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from starlette.routing import BaseRoute, Mount
from starlette.routing import WebSocketRoute as StarletteWebSocketRoute
from starlette.websockets import WebSocket as StarletteWebSocket

from antiphon import SAME, APIRouter, App, Denials, RegistrationError, WebSocket
from antiphon.gate import ADDRESS, CLOSE, REPLY, Rate
from antiphon.gate.terms import NO_TERMS, Terms, terms_of
from antiphon.messages import Channel
from antiphon.messages.program import Blueprint
from antiphon.middleware import Middleware
from antiphon.routing import APIWebSocketRoute, WebSocketRoute
from antiphon.routing.channel import ChannelRoute
from antiphon.testing import ConnectionEnded, HandshakeRefused, Server, virtual_time
from tests.routing.middlemen import Wraps

FOREIGN = [("Origin", "https://elsewhere.example")]


async def ours(websocket: WebSocket) -> None:
    await websocket.accept()
    async for text in websocket.iter_text():
        await websocket.send_text(text)


async def theirs(websocket: StarletteWebSocket) -> None:
    await websocket.accept()
    async for text in websocket.iter_text():
        await websocket.send_text(text)


def ready_made() -> list[BaseRoute]:
    return [
        APIWebSocketRoute("/injected", ours),
        WebSocketRoute("/plain", ours),
        WebSocketRoute("/wrapped", ours, middleware=[Middleware(Wraps)]),
        StarletteWebSocketRoute("/starlette", theirs),
    ]


PATHS = ("/injected", "/plain", "/wrapped", "/starlette")


def given(path: str, **said: Any) -> tuple[App, str]:
    return App(routes=ready_made(), **said), path


def appended(path: str, **said: Any) -> tuple[App, str]:
    app = App(**said)
    app.routes.extend(ready_made())
    return app, path


def in_a_router(path: str, **said: Any) -> tuple[App, str]:
    app = App()
    app.mount("/in", APIRouter(routes=ready_made(), **said))
    return app, f"/in{path}"


def mounted_router(path: str, **said: Any) -> tuple[App, str]:
    app = App(**said)
    app.mount("/in", APIRouter(routes=ready_made()))
    return app, f"/in{path}"


def mounted_routes(path: str, **said: Any) -> tuple[App, str]:
    return App(
        routes=[Mount("/in", routes=[Mount("/deep", APIRouter(routes=ready_made()))])], **said
    ), f"/in/deep{path}"


Places = Callable[..., tuple[App, str]]
PLACES: list[Places] = [given, appended, in_a_router, mounted_router, mounted_routes]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("place", PLACES)
async def test_origins_and_denials_hold_for_routes_that_were_made_before(place: Places, path: str) -> None:
    app, path = place(path, origins=SAME, denials=Denials.CLOSE)
    async with Server(app) as server:
        with pytest.raises(ConnectionEnded) as ended:
            async with server.connect(path, headers=FOREIGN) as client:
                await client.receive()
        assert ended.value.code == 3003
        async with server.connect(path) as client:
            await client.send("hi")
            assert await client.receive() == "hi"


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("place", PLACES)
@virtual_time
async def test_rates_hold_for_routes_that_were_made_before(place: Places, path: str) -> None:
    app, path = place(path, rates=[Rate("1/minute", over=CLOSE)], connects=Rate("2/minute", per=ADDRESS))
    async with Server(app) as server:
        for _ in range(2):
            async with server.connect(path) as client:
                await client.send("one")
                assert await client.receive() == "one"
                await client.send("two")
                with pytest.raises(ConnectionEnded) as ended:
                    await client.receive()
                assert (ended.value.code, ended.value.reason) == (1008, "too fast")
        with pytest.raises(HandshakeRefused) as refused:
            await server.connect(path).__aenter__()
        assert refused.value.status == 429


@virtual_time
async def test_what_a_route_is_told_of_twice_counts_once() -> None:
    app = App(rates=[Rate("3/minute", over=CLOSE)])
    app.add_api_websocket_route("/ws", ours)
    app.mount("/in", APIRouter(routes=app.routes))
    async with Server(app) as server:
        for path in ("/ws", "/in/ws"):
            async with server.connect(path) as client:
                for _ in range(3):
                    await client.send("hi")
                    assert await client.receive() == "hi"
                await client.send("hi")
                with pytest.raises(ConnectionEnded):
                    await client.receive()


@virtual_time
async def test_a_ready_made_channel_answers_with_the_rates_of_its_app() -> None:
    channel = Channel(Blueprint(call=None, name="chat", path="/chat", dependencies=(), options=None, sends=None))

    @channel.on("said")
    async def said() -> None: ...

    app = App(routes=[ChannelRoute("/chat", channel)], rates=[Rate("1/minute", over=REPLY)])
    async with Server(app) as server, server.connect("/chat") as client:
        for _ in range(2):
            await client.send('{"type": "said"}')
        assert "rate_limited" in str(await client.receive())


async def test_a_mounted_app_has_terms_of_its_own() -> None:
    inner = App(origins=["*"])
    inner.add_api_websocket_route("/ws", ours)
    app = App(origins=SAME)
    app.mount("/in", inner)
    async with Server(app) as server, server.connect("/in/ws", headers=FOREIGN) as client:
        await client.send("hi")
        assert await client.receive() == "hi"


@pytest.mark.parametrize("route", [ready_made()[0], ready_made()[1], ready_made()[3]])
def test_a_rate_that_answers_is_refused_for_a_plain_route_that_was_made_before(route: BaseRoute) -> None:
    with pytest.raises(RegistrationError, match="answers with an error"):
        App(routes=[route], rates=[Rate("1/minute", over=REPLY)])
    with pytest.raises(RegistrationError, match="answers with an error"):
        App(rates=[Rate("1/minute", over=REPLY)]).mount("/in", APIRouter(routes=[route]))


@virtual_time
async def test_a_rate_that_could_only_answer_closes_where_nobody_can_answer() -> None:
    router = APIRouter()
    app = App(rates=[Rate("1/minute", over=REPLY)])
    app.mount("/in", router)
    router.add_api_websocket_route("/ws", ours)  # too late to be told
    async with Server(app) as server, server.connect("/in/ws") as client:
        await client.send("one")
        assert await client.receive() == "one"
        await client.send("two")
        with pytest.raises(ConnectionEnded) as ended:
            await client.receive()
        assert ended.value.code == 1008


async def test_a_route_that_outlives_its_apps_keeps_none_of_their_terms() -> None:
    route = APIWebSocketRoute("/ws", ours, rates=[Rate("5/second")])
    gone: list[weakref.ref[Terms]] = []
    for _ in range(3):
        app = App(routes=[route], origins=SAME)
        async with Server(app) as server, server.connect("/ws") as client:
            await client.send("hi")
            await client.receive()
        gone.append(weakref.ref(app.router.terms))
        del app, server, client
    gc.collect()
    assert sum(one() is not None for one in gone[:2]) == 0


def test_nothing_said_is_one_object() -> None:
    assert terms_of() is NO_TERMS
    said = terms_of(origins=SAME)
    assert NO_TERMS.within(said) is said
    assert said.within(NO_TERMS) is said


def test_a_misspelt_keyword_is_told_by_the_name_of_what_was_called() -> None:
    app: Any = App()
    with pytest.raises(TypeError, match="websocket got an unexpected keyword argument 'orgins': did you mean origins="):
        app.websocket("/ws", orgins=SAME)(ours)
    with pytest.raises(TypeError, match="channel got an unexpected keyword argument 'rate'"):
        app.add_channel("/chat", rate=Rate("5/second"))
    with pytest.raises(TypeError, match="APIWebSocketRoute got an unexpected keyword argument 'limits'"):
        APIWebSocketRoute("/ws", ours, limits=None)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"App got an unexpected keyword argument 'hubs': did you mean hub=\?"):
        App(hubs=None)  # type: ignore[call-arg]
