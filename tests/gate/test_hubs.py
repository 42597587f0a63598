"""The hub knows every admitted connection by its user: sends to it, closes it, revokes it. On every server, accepted or
not."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated, Any

import httpx2 as httpx
import pytest
from fastapi import Depends as TheirDepends
from fastapi import FastAPI
from fastapi import WebSocket as TheirWebSocket
from fastapi import WebSocketDisconnect as TheirDisconnect
from starlette.requests import HTTPConnection
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from antiphon import APIRouter, App, Denials, Depends, Hub, WebSocket
from antiphon.events import AccessRefused, Event, Refusal
from antiphon.gate import FIRST_MESSAGE, HEADER, QUERY, Identity, Quota, WebSocketBearer, admit
from antiphon.testing.hub_sinks import eventually
from tests.matrix.servers import SERVERS, ServerUnderTest
from tests.patience import PATIENCE
from tests.serving import serve


def verify(token: str) -> Identity:
    """`ann/phone/12.5`: user, session, and when it was issued."""
    user, session, issued = token.split("/")
    return Identity(user=user, session=session or None, issued_at=float(issued) if issued else None)


bearer = WebSocketBearer([QUERY("token"), HEADER], verify)
two = Quota(connections_per_user=2)
late = WebSocketBearer([FIRST_MESSAGE(PATIENCE)], verify)


async def known(connection: HTTPConnection) -> Identity:
    return await admit(connection, verify(connection.query_params["token"]))


def application(hub: Hub) -> App:
    app = App(hub=hub)

    @app.websocket("/in")
    async def enter(websocket: WebSocket, identity: Annotated[Identity, Depends(bearer)]) -> None:
        await websocket.accept()
        await websocket.send_text("in")
        await websocket.wait_closed()

    @app.websocket("/late")
    async def enter_late(websocket: WebSocket, identity: Annotated[Identity, Depends(late)]) -> None:
        await websocket.send_text("in")
        await websocket.wait_closed()

    @app.get("/me")
    async def me(identity: Annotated[Identity, Depends(bearer)]) -> str:
        return identity.user

    return app


async def closed(client: ClientConnection) -> tuple[int, str]:
    with pytest.raises(ConnectionClosed) as ended:
        async with asyncio.timeout(PATIENCE):
            await client.recv()
    assert ended.value.rcvd is not None
    return ended.value.rcvd.code, ended.value.rcvd.reason


async def entered(client: ClientConnection) -> ClientConnection:
    assert await client.recv() == "in"
    return client


@pytest.mark.parametrize("server", SERVERS, ids=lambda server: server.name)
async def test_a_user_is_sent_to_and_closed_without_a_topic(server: ServerUnderTest) -> None:
    hub = Hub()
    async with server.run(application(hub)) as served:
        async with (
            connect(f"{served.url}/in?token=ann//") as tab,
            connect(f"{served.url}/in?token=ann//") as phone,
            connect(f"{served.url}/in?token=bob//") as other,
        ):
            for client in (tab, phone, other):
                await entered(client)
            await hub.send({"for": "ann"}, user="ann")
            await hub.send(b"\x00", user="bob")
            assert await tab.recv() == await phone.recv() == '{"for":"ann"}'
            assert await other.recv() == b"\x00"
            await hub.close_connections(user="ann", code=4000, reason="out")
            assert await closed(tab) == await closed(phone) == (4000, "out")
            await hub.send("still here", user="bob")
            assert await other.recv() == "still here"
    await eventually(lambda: not hub._rooms.stations)


@pytest.mark.parametrize("server", SERVERS, ids=lambda server: server.name)
async def test_who_is_revoked_is_closed_and_refused(server: ServerUnderTest) -> None:
    hub = Hub()
    async with server.run(application(hub)) as served:
        async with connect(f"{served.url}/in?token=ann/phone/1") as client:
            await entered(client)
            await hub.revoke(user="ann")
            assert await closed(client) == (3000, "revoked")
        with pytest.raises(InvalidStatus) as refused:
            await connect(f"{served.url}/in?token=ann/phone/1")
        assert refused.value.response.status_code == 401
        assert 'error="invalid_token"' in refused.value.response.headers["WWW-Authenticate"]
        async with connect(f"{served.url}/late") as client:
            await client.send("ann/phone/1")
            assert await closed(client) == (3000, "revoked")
        async with connect(f"{served.url}/in?token=ann/phone/{time.time() + 1}") as client:
            await entered(client)


async def test_a_request_of_who_was_revoked_is_refused() -> None:
    hub = Hub()
    async with serve(application(hub)) as served, httpx.AsyncClient(base_url=served.http_url) as client:
        assert (await client.get("/me?token=ann/a/1")).json() == "ann"
        await hub.revoke(session="a")
        refused = await client.get("/me?token=ann/a/1")
        assert refused.status_code == 401
        assert (await client.get("/me?token=ann/b/1")).status_code == 200


async def test_a_connection_that_was_not_accepted_yet_is_refused_when_it_is_revoked() -> None:
    told: list[Event] = []
    hub, arrived, go = Hub(observer=told.append), asyncio.Event(), asyncio.Event()
    app = App(hub=hub)

    @app.websocket("/")
    async def enter(websocket: WebSocket, identity: Annotated[Identity, Depends(bearer)]) -> None:
        await hub.send("too early", user="ann")
        arrived.set()
        await go.wait()
        await websocket.accept()
        await websocket.send_text("in")

    for ws in ("websockets-sansio", "antiphon.server:WebSocketProtocol"):
        arrived.clear()
        go.clear()
        async with serve(app, ws=ws) as served:
            coming = asyncio.create_task(_status(f"{served.url}/?token=ann//{time.time()}"))
            await asyncio.wait_for(arrived.wait(), PATIENCE)
            await hub.revoke(user="ann")
            go.set()
            assert await asyncio.wait_for(coming, PATIENCE) == 403
            assert [event.reason for event in told if isinstance(event, AccessRefused)] == [Refusal.REVOKED]
            told.clear()
            async with connect(f"{served.url}/?token=ann//{time.time() + 100}") as client:
                assert await client.recv() == "in"


@pytest.mark.parametrize("ws", ["websockets-sansio", "antiphon.server:WebSocketProtocol"])
@pytest.mark.parametrize("how", ["revoke", "close"])
async def test_a_handshake_that_is_ended_meanwhile_is_refused_so_that_a_page_can_read_why(
    ws: Any, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "antiphon")
    told: list[Event] = []
    hub, arrived = Hub(observer=told.append), asyncio.Event()
    app = App(hub=hub, denials=Denials.CLOSE)

    @app.websocket("/")
    async def enter(websocket: WebSocket, identity: Annotated[Identity, Depends(bearer)]) -> None:
        arrived.set()
        await websocket.wait_closed()
        await websocket.accept()  # too late, and no error of the server's

    async with serve(app, ws=ws) as served:
        coming = asyncio.create_task(_first_close(f"{served.url}/?token=ann//{time.time()}", ["bearer", "chat"]))
        await asyncio.wait_for(arrived.wait(), PATIENCE)
        if how == "revoke":
            await hub.revoke(user="ann")
            assert await asyncio.wait_for(coming, PATIENCE) == (3000, "revoked")
        else:
            await hub.close_connections(user="ann", code=4001, reason="out")
            assert await asyncio.wait_for(coming, PATIENCE) == (4001, "out")
    code = "3000 revoked" if how == "revoke" else "4001 out"
    assert f"/ refused: {code}, by hub.revoke() or hub.close_connections()" in caplog.text
    counted = [event.reason for event in told if isinstance(event, AccessRefused)]
    assert counted == ([Refusal.REVOKED] if how == "revoke" else []), "an operator's close is no refusal of the gate's"
    await eventually(lambda: not hub._rooms.stations)


async def _first_close(url: str, offered: list[str]) -> tuple[int, str]:
    async with connect(url, subprotocols=[Subprotocol(one) for one in offered]) as client:
        return await closed(client)


async def test_on_our_server_sockets_of_another_framework_are_sent_to_closed_and_revoked() -> None:
    hub = Hub()
    theirs = FastAPI()
    theirs.state.hub = hub
    ends: list[int] = []

    @theirs.websocket("/")
    async def enter(
        websocket: TheirWebSocket,
        identity: Annotated[Identity, TheirDepends(known)],
        _: Annotated[None, TheirDepends(two)],
    ) -> None:
        await websocket.accept()
        await websocket.send_text("in")
        try:
            await websocket.receive_text()
        except TheirDisconnect as end:
            ends.append(end.code)

    async with serve(theirs, ws="antiphon.server:WebSocketProtocol") as served:
        async with connect(f"{served.url}/?token=ann//1") as tab, connect(f"{served.url}/?token=ann//1") as phone:
            await entered(tab)
            await entered(phone)
            assert await _status(f"{served.url}/?token=ann//1") in (403, 429)
            await hub.send("to you", user="ann")
            assert await tab.recv() == await phone.recv() == "to you"
            await hub.revoke(user="ann")
            assert await closed(tab) == await closed(phone) == (3000, "revoked")
        assert await _status(f"{served.url}/?token=ann//1") == 401
        async with connect(f"{served.url}/?token=ann//{time.time() + 100}") as client:
            await entered(client)
    await eventually(lambda: ends[:2] == [3000, 3000] and not hub._rooms.stations and not len(hub.door._shares))


async def _status(url: str) -> int:
    try:
        async with connect(url):
            return 101
    except InvalidStatus as error:
        return error.response.status_code


async def test_an_identity_that_is_admitted_again_is_one_guest_and_may_be_younger() -> None:
    hub, again = Hub(), asyncio.Event()
    app = App(hub=hub)

    @app.websocket("/")
    async def enter(websocket: WebSocket, identity: Annotated[Identity, Depends(bearer)]) -> None:
        await websocket.accept()
        await again.wait()
        await admit(websocket, Identity(user="ann", issued_at=time.time() + 100))
        await websocket.send_text("in")
        await websocket.wait_closed()

    async with serve(app) as served, connect(f"{served.url}/?token=ann//1") as client:
        again.set()
        await entered(client)
        await hub.revoke(user="ann")
        await hub.send("once", user="ann")
        assert await client.recv() == "once"
        await hub.send("twice", user="ann")
        assert await client.recv() == "twice"


async def test_a_plain_dependency_lets_in_and_an_app_of_another_framework_has_its_hub_in_its_state() -> None:
    hub = Hub()
    theirs = FastAPI()
    theirs.state.hub = hub
    router = APIRouter()

    @router.websocket("/ours")
    async def ours(websocket: WebSocket, identity: Annotated[Identity, Depends(bearer)]) -> None:
        await websocket.accept()
        await websocket.send_text("in")
        await websocket.wait_closed()

    theirs.include_router(router)  # type: ignore[arg-type]

    @theirs.websocket("/theirs")
    async def enter(websocket: TheirWebSocket, identity: Annotated[Identity, TheirDepends(known)]) -> None:
        await websocket.accept()
        await websocket.send_text("in")

    async with serve(theirs) as served:
        async with connect(f"{served.url}/ours?token=ann//1") as client:
            await entered(client)
            await hub.revoke(user="ann")
            assert await closed(client) == (3000, "revoked")
        for path in ("/ours", "/theirs"):
            assert await _status(f"{served.url}{path}?token=ann//1") == 401
        async with connect(f"{served.url}/theirs?token=bob//1") as client:
            await entered(client)
