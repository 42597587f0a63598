"""Channels below prefixes, in mounted apps, in FastAPI, and on other servers: the same everywhere."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import fastapi
import pytest
import websockets
from pydantic import BaseModel

from antiphon import APIRouter, App, Caller, ChannelOptions, Depends, RegistrationError, WebSocket, Wire
from antiphon.testclient import TestClient
from antiphon.testing import HandshakeRefused, RemoteError, Server
from tests.matrix.servers import SERVERS, ServerUnderTest


class Say(BaseModel):
    text: str


class Said(BaseModel):
    text: str


class Count(BaseModel):
    upto: int


def router(options: ChannelOptions | None = None) -> APIRouter:
    routes = APIRouter(prefix="/rooms", channel_options=options)

    @routes.channel("/{room}")
    async def chat(websocket: WebSocket, room: int) -> AsyncIterator[None]:
        """One room."""
        yield

    @chat.on
    async def say(message: Say, room: int, tenant: str, caller: Caller[Said]) -> str:
        await caller.send(Said(text=message.text))
        return f"{tenant} {room}"

    @chat.on
    async def count(message: Count) -> AsyncIterator[int]:
        for number in range(message.upto):
            yield number

    return routes


async def test_a_prefix_is_part_of_the_path_and_gives_its_parameters() -> None:
    app = App()
    app.include_router(router(), prefix="/{tenant}")
    async with Server(app) as server:
        async with server.channel("/acme/rooms/7") as peer:
            assert await peer.request(Say(text="x"), str) == "acme 7"
        with pytest.raises(HandshakeRefused):
            async with server.connect("/rooms/7"):
                pass


@pytest.mark.parametrize("how", ["mounted", "included in FastAPI", "mounted in FastAPI"])
async def test_a_channel_works_in_other_apps(how: str) -> None:
    ours = App()
    ours.include_router(router())
    outer: App | fastapi.FastAPI = App() if how == "mounted" else fastapi.FastAPI()
    if how == "included in FastAPI":
        assert isinstance(outer, fastapi.FastAPI)
        outer.include_router(router(), prefix="/sub")  # type: ignore[arg-type]
    else:
        outer.mount("/sub", ours)
    async with Server(outer) as server, server.channel("/sub/rooms/7?tenant=acme") as peer:
        assert await peer.request(Say(text="x"), str) == "acme 7"
        assert await peer.receive_as(Said) == Said(text="x")


async def test_the_overrides_of_the_app_around_hold() -> None:
    routes = APIRouter()

    async def user() -> str:
        return "ann"

    chat = routes.add_channel("/")

    @chat.on("who")
    async def who(user: str = Depends(user)) -> str:
        return user

    outer = fastapi.FastAPI()
    outer.include_router(routes)  # type: ignore[arg-type]
    outer.dependency_overrides[user] = lambda: "bob"
    async with Server(outer) as server, server.channel("/") as peer:
        assert await peer.request(None, str, tag="who") == "bob"


async def test_the_options_nearest_to_the_channel_hold() -> None:
    app = App(channel_options=ChannelOptions(wire=Wire(tag="app")))
    app.include_router(router(ChannelOptions(wire=Wire(tag="router"))))
    app.include_router(router(), prefix="/plain")
    async with Server(app) as server:
        for path, tag in (("/rooms/7", "router"), ("/plain/rooms/7", "app")):
            async with server.channel(f"{path}?tenant=x", wire=Wire(tag=tag)) as peer:
                assert await peer.request(Say(text="x"), str) == "x 7"


async def test_a_subprotocol_chooses_the_channel() -> None:
    app = App()
    for version in ("2", "1"):
        chat = app.add_channel("/chat", subprotocol=f"chat.v{version}")
        chat.on("version")(_version(version))
    async with Server(app) as server:
        for version in ("1", "2"):
            async with server.channel("/chat", subprotocols=[f"chat.v{version}"]) as peer:
                assert await peer.request(None, str, tag="version") == version
        with pytest.raises(HandshakeRefused) as refused:
            async with server.connect("/chat"):
                pass
        assert refused.value.status == 404


def _version(version: str):  # type: ignore[no-untyped-def]
    async def tell() -> str:
        return version

    return tell


def test_a_router_whose_channel_cannot_work_where_it_is_included_is_refused() -> None:
    routes = APIRouter()

    class Typed(BaseModel):
        action: str

    chat = routes.add_channel("/")

    async def typed(message: Typed) -> None: ...

    typed.__annotations__["message"] = Typed
    chat.on(typed)
    app = App(channel_options=ChannelOptions(wire=Wire(tag="action")))
    with pytest.raises(RegistrationError, match="'action'"):
        app.include_router(routes)


def test_the_test_client_speaks_to_a_channel() -> None:
    app = App()
    app.include_router(router())
    with TestClient(app) as client, client.channel("/rooms/7?tenant=acme") as ann:
        assert ann.request(Say(text="x"), str) == "acme 7"
        assert ann.receive_as(Said) == Said(text="x")
        with ann.stream(Count(upto=10**6), int) as numbers:
            assert next(numbers) == 0
        with ann.stream(Count(upto=2), int) as numbers:
            assert list(numbers) == [0, 1]
        with pytest.raises(RemoteError, match="unknown_type"):
            ann.request(tag="nobody")
        ann.send(b"binary")
        assert ann.receive_error().code == "unexpected_binary"


@pytest.mark.parametrize("server", SERVERS, ids=lambda server: server.name)
async def test_real_servers_give_the_same_answers(server: ServerUnderTest) -> None:
    app = App()
    app.include_router(router())
    async with server.run(app) as served, websockets.connect(f"{served}/rooms/7?tenant=acme") as peer:

        async def ask(message: dict[str, object], count: int) -> list[object]:
            await peer.send(json.dumps(message))
            return [json.loads(await peer.recv()) for _ in range(count)]

        assert await ask({"type": "say", "ref": 1, "text": "x"}, 2) == [
            {"type": "said", "text": "x"},
            {"type": "reply", "ref": 1, "data": "acme 7"},
        ]
        assert await ask({"type": "count", "ref": 2, "upto": 1}, 2) == [
            {"type": "item", "ref": 2, "data": 0},
            {"type": "end", "ref": 2},
        ]
        await peer.send(json.dumps({"type": "count", "ref": 3, "upto": 10**9}))
        await peer.recv()
        await peer.send(json.dumps({"type": "cancel", "ref": 3}))
        while json.loads(await peer.recv())["type"] != "end":
            pass
        (answer,) = await ask({"type": "say", "ref": 4}, 1)
        assert isinstance(answer, dict)
        assert answer["code"] == "invalid"
