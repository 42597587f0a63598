"""The parts of the gate on one route: each works beside the others as it does alone."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fastapi
import pytest
from fastapi import FastAPI

import antiphon
from antiphon import APIRouter, App, Denials, Depends, HTTPException, Hub, WebSocket
from antiphon.clients.waiting import RemoteError
from antiphon.gate import ADDRESS, FIRST_MESSAGE, HEADER, SUBPROTOCOL, Identity, Quota, Rate, WebSocketBearer, requires
from antiphon.gate.challenge import CannotVerify
from antiphon.testing import ConnectionEnded, HandshakeRefused, Server, virtual_time
from antiphon.testing.hub_sinks import eventually


def test_every_key_in_a_scope_is_one_parts_own() -> None:
    named: dict[str, list[str]] = {}
    for path in Path(antiphon.__file__).parent.rglob("*.py"):
        for name, value in re.findall(r'^(\w+_KEY)(?:: Final)? = "(antiphon\.\w+)"$', path.read_text(), re.MULTILINE):
            named.setdefault(value, []).append(f"{path.name}: {name}")
    assert len(named) > 10
    assert [places for places in named.values() if len(places) > 1] == []


@dataclass
class Note:
    text: str


def known(token: str) -> Identity | None:
    return Identity(user=token) if token != "mallory" else None


bearer = WebSocketBearer([HEADER, SUBPROTOCOL, FIRST_MESSAGE(timeout=5)], known)


def with_all(*dependencies: Any, **options: Any) -> App:
    app = App(hub=Hub(), rates=[Rate("100/second")], connects=Rate("1000/second", per=ADDRESS))

    @app.websocket("/in", dependencies=[Depends(one) for one in dependencies], **options)
    async def enter(websocket: WebSocket, who: Identity) -> None:
        await websocket.accept()
        async for text in websocket.iter_text():
            await websocket.send_text(f"{who.user}: {text}")

    @app.channel("/talk", dependencies=[Depends(one) for one in dependencies])
    async def talk(websocket: WebSocket, who: Identity) -> None: ...

    @talk.on("name")
    async def name(who: Identity) -> str:
        return who.user

    return app


async def test_a_rate_of_messages_and_a_quota_hold_on_one_route() -> None:
    app = with_all(Quota(connections_per_user=1, connections_per_address=50), bearer)
    ann = {"Authorization": "Bearer ann"}
    async with Server(app) as server, server.connect("/in", headers=ann) as first:
        await first.send("a")
        assert await first.receive() == "ann: a"


async def no_more() -> None:
    raise HTTPException(429, "no more", {"Retry-After": "7"})


async def not_you() -> None:
    raise HTTPException(403, "not you")


async def verify_later(token: str) -> Identity:
    raise CannotVerify("the keys are away", retry_after=3)


one_each = Quota(connections_per_user=1)


@pytest.mark.parametrize("path", ["/in", "/talk"])
@pytest.mark.parametrize(
    ("dependencies", "code", "reason"),
    [
        ((bearer, one_each), 1013, "too many connections; retry-after=1"),
        ((one_each, bearer), 1013, "too many connections; retry-after=1"),
        ((bearer, no_more), 1013, "no more; retry-after=7"),
        ((WebSocketBearer([FIRST_MESSAGE()], verify_later),), 1013, "try again later; retry-after=3"),
        ((bearer, not_you), 3003, "not you"),
        ((bearer, requires("orders")), 3003, "Insufficient scope"),
    ],
)
async def test_who_is_refused_behind_a_first_message_reads_what_a_denial_says(
    caplog: pytest.LogCaptureFixture, path: str, dependencies: Sequence[Any], code: int, reason: str
) -> None:
    caplog.set_level("INFO", "antiphon")
    async with Server(with_all(*dependencies)) as server, AsyncExitStack() as stack:
        if one_each in dependencies:
            held = await stack.enter_async_context(server.connect("/in"))
            await held.send("ann")
            await held.send("x")
            assert await held.receive() == "ann: x"
            assert not [line for line in caplog.messages if "refused" in line]
        async with server.connect(path) as late:
            await late.send("ann")
            with pytest.raises(ConnectionEnded) as closed:
                await late.receive()
        assert (closed.value.code, closed.value.reason) == (code, reason)
    assert len([line for line in caplog.messages if "refused" in line]) == 1
    assert str(code) in caplog.text


class Said(dict[str, Identity]):
    """Identities by their tokens, as a test says them."""

    def know(self, token: str, **fields: Any) -> str:
        self[token] = Identity(**{"user": "ann", "issued_at": time.time(), "expires_at": time.time() + 60, **fields})
        return token

    def bearer(self) -> WebSocketBearer:
        async def verify(token: str) -> Identity:
            return self[token]

        return WebSocketBearer([HEADER, SUBPROTOCOL], verify)


async def test_who_brings_a_revoked_token_is_still_known_by_the_one_before() -> None:
    said, hub = Said(), Hub()
    app = App(hub=hub)

    @app.channel("/talk", dependencies=[Depends(said.bearer())], sends=Note)
    async def talk(websocket: WebSocket) -> None: ...

    said.know("here", session="here")
    said.know("elsewhere", session="elsewhere")
    async with Server(app) as server, server.channel("/talk", headers={"Authorization": "Bearer here"}) as ann:
        await hub.revoke(session="elsewhere")
        with pytest.raises(RemoteError, match="revoked"):
            await ann.request({"type": "auth", "token": "elsewhere"})
        await hub.send(Note(text="still here"), user="ann")
        assert await ann.receive_as(Note) == Note(text="still here")
        await hub.revoke(session="here")
        with pytest.raises(ConnectionEnded) as closed:
            await ann.receive_as(Note)
    assert (closed.value.code, closed.value.reason) == (3000, "revoked")
    await eventually(lambda: not hub.door._rooms.stations)


@pytest.mark.parametrize(
    ("subprotocols", "answered"), [(["bearer", "soon"], "bearer"), (["v2", "bearer", "soon"], "bearer"), ([], None)]
)
@virtual_time
async def test_a_page_reads_that_it_has_expired_before_accept(subprotocols: list[str], answered: str | None) -> None:
    said, friend = Said(), asyncio.Event()
    app = App(denials=Denials.CLOSE)

    async def wait_for_a_slow_friend() -> None:
        await friend.wait()

    @app.websocket("/in", dependencies=[Depends(said.bearer()), Depends(wait_for_a_slow_friend)])
    async def enter(websocket: WebSocket) -> None: ...

    said.know("soon", expires_at=time.time() + 3)
    headers = {} if subprotocols else {"Authorization": "Bearer soon"}
    async with Server(app) as server, server.connect("/in", subprotocols=subprotocols, headers=headers) as page:
        assert page.subprotocol == answered
        with pytest.raises(ConnectionEnded) as closed:
            await page.receive()
        assert (closed.value.code, closed.value.reason) == (3000, "expired")
        friend.set()


@virtual_time
async def test_who_comes_by_an_override_is_let_in_as_everybody_is() -> None:
    app = with_all(bearer, one_each)

    async def ann() -> Identity:
        return Identity(user="ann", expires_at=time.time() + 50)

    app.dependency_overrides[bearer] = ann
    async with Server(app) as server, server.connect("/in") as first:
        await first.send("a")
        assert await first.receive() == "ann: a"
        assert app.hub is not None
        await app.hub.send("hello", user="ann")
        assert await first.receive() == "hello"
        with pytest.raises(HandshakeRefused, match="429"):
            await server.connect("/in").__aenter__()
        with pytest.raises(ConnectionEnded, match="3000 expired"):
            await first.receive(timeout=60)


async def test_a_quota_on_routes_of_fastapi_counts_on_our_server() -> None:
    app = FastAPI()
    app.state.hub = Hub()

    @app.websocket("/theirs", dependencies=[fastapi.Depends(one_each), fastapi.Depends(bearer)])
    async def theirs(websocket: fastapi.WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text("in")
        await websocket.receive()

    router = APIRouter()

    @router.websocket("/ours", denials=Denials.CLOSE, dependencies=[Depends(one_each), Depends(bearer)])
    async def ours(websocket: WebSocket, who: Identity) -> None:
        await websocket.accept()
        await websocket.send_text(who.user)
        await websocket.wait_closed()

    app.include_router(router)  # type: ignore[arg-type]  # ours, which it takes
    ann = {"Authorization": "Bearer ann"}
    async with Server(app) as server:
        async with server.connect("/theirs", headers=ann) as only:
            assert await only.receive() == "in"
            with pytest.raises(HandshakeRefused, match="429"):
                await server.connect("/theirs", headers=ann).__aenter__()
        async with server.connect("/ours", headers=ann) as first, server.connect("/ours") as second:
            assert await first.receive() == "ann"
            await second.send("ann")
            with pytest.raises(ConnectionEnded, match="1013 too many connections; retry-after=1"):
                await second.receive()
