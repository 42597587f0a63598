"""`websocket.renew`: the same user goes on. Nobody else does."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Annotated, Any

import fastapi
import pytest
from starlette.requests import HTTPConnection
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from antiphon import App, Depends, WebSocket, WebSocketDisconnect, WebSocketException
from antiphon.connection.expiry import expiries_of
from antiphon.gate import Identity, admit, renew
from antiphon.identity import IDENTITY_KEY
from antiphon.testing import ConnectionEnded, Peer, Server, virtual_time
from tests.matrix.servers import SERVERS, ServerUnderTest
from tests.patience import PATIENCE

EARLIER = 30.0


def ann(life: float | None, user: str = "ann") -> Identity:
    return Identity(user=user, expires_at=None if life is None else time.time() + life)


async def let_in(connection: HTTPConnection, life: float = 60) -> Identity:
    return await admit(connection, ann(life))


def app_that_renews() -> App:
    """A client's message, as JSON, is the new identity of its connection."""
    app = App()

    @app.websocket("/")
    async def endpoint(websocket: WebSocket, somebody: Annotated[Identity, Depends(let_in)]) -> None:
        await websocket.accept()
        async for wanted in websocket.iter_json():
            given = await websocket.renew(ann(**wanted))
            assert websocket.scope[IDENTITY_KEY] is given
            await websocket.send_text("renewed")

    return app


async def end_of(peer: Peer) -> tuple[int, str, float]:
    """Code, reason, and the time by the loop's clock."""
    with pytest.raises(ConnectionEnded) as ended:
        await peer.receive(timeout=10_000)
    return ended.value.code, ended.value.reason, asyncio.get_running_loop().time()


@pytest.mark.parametrize("life", [EARLIER, 60, 600])
@virtual_time
async def test_a_renewal_before_the_end_counts_from_then_on(life: float) -> None:
    async with Server(app_that_renews()) as server, server.connect("/") as peer:
        await asyncio.sleep(20)
        began = asyncio.get_running_loop().time()
        await peer.send(json.dumps({"life": life}))
        assert await peer.receive() == "renewed"
        code, reason, at = await end_of(peer)
        assert (code, reason) == (3000, "expired")
        assert abs(at - began - life) <= 1


@virtual_time
async def test_a_renewal_without_an_end_has_none_and_a_later_one_has_one_again() -> None:
    async with Server(app_that_renews()) as server, server.connect("/") as peer:
        await peer.send('{"life": null}')
        assert await peer.receive() == "renewed"
        await asyncio.sleep(10_000)
        began = asyncio.get_running_loop().time()
        await peer.send('{"life": 50}')
        assert await peer.receive() == "renewed"
        assert abs((await end_of(peer))[2] - began - 50) <= 1


@virtual_time
async def test_a_renewal_between_the_date_and_the_turn_of_the_wheel_still_counts() -> None:
    async with Server(app_that_renews()) as server, server.connect("/?life=10.1") as peer:
        wheel = expiries_of(asyncio.get_running_loop()).deadlines
        await asyncio.sleep(10.15)
        assert len(wheel) == 1
        await peer.send('{"life": 100}')
        assert await peer.receive() == "renewed"
        assert (await end_of(peer))[2] >= 110


@virtual_time
async def test_a_renewal_after_the_end_is_a_disconnect() -> None:
    app, seen = App(), asyncio.Event()

    @app.websocket("/")
    async def endpoint(websocket: WebSocket, somebody: Annotated[Identity, Depends(let_in)]) -> None:
        await websocket.accept()
        await websocket.wait_closed()
        with pytest.raises(WebSocketDisconnect) as gone:
            await websocket.renew(ann(600))
        assert gone.value.code == 3000
        assert websocket.scope[IDENTITY_KEY] is somebody
        seen.set()

    async with Server(app) as server, server.connect("/") as peer:
        await end_of(peer)
        await seen.wait()
        assert len(expiries_of(asyncio.get_running_loop()).deadlines) == 0


@pytest.mark.parametrize(
    ("wanted", "code", "reason"),
    [({"life": 60, "user": "bob"}, 3003, "another user"), ({"life": -1}, 3000, "expired")],
)
@virtual_time
async def test_what_renews_nothing_closes_where_nobody_catches_it(wanted: Any, code: int, reason: str) -> None:
    async with Server(app_that_renews()) as server, server.connect("/") as peer:
        await peer.send(json.dumps(wanted))
        assert (await end_of(peer))[:2] == (code, reason)
        assert asyncio.get_running_loop().time() < 1


@virtual_time
async def test_who_catches_the_refusal_keeps_the_connection_as_it_was() -> None:
    app = App()

    @app.websocket("/")
    async def endpoint(websocket: WebSocket, somebody: Annotated[Identity, Depends(let_in)]) -> None:
        await websocket.accept()
        for other in (ann(600, "bob"), ann(-1)):
            with pytest.raises(WebSocketException):
                await websocket.renew(other)
        with pytest.raises(TypeError, match="expected an Identity, got str"):
            await websocket.renew("ann")  # type: ignore[arg-type]
        assert websocket.scope[IDENTITY_KEY] is somebody
        await websocket.receive_text()

    async with Server(app) as server, server.connect("/") as peer:
        code, reason, at = await end_of(peer)
        assert (code, reason) == (3000, "expired")
        assert abs(at - 60) <= 1


@virtual_time
async def test_a_renewal_before_accept_counts_too() -> None:
    app = App()

    @app.websocket("/")
    async def endpoint(websocket: WebSocket, somebody: Annotated[Identity, Depends(let_in)]) -> None:
        await websocket.renew(ann(100))
        await websocket.accept()
        await websocket.receive_text()

    async with Server(app) as server, server.connect("/") as peer:
        assert abs((await end_of(peer))[2] - 100) <= 1


@virtual_time
async def test_where_nobody_was_admitted_the_error_says_what_is_missing() -> None:
    app = App()

    @app.websocket("/")
    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        with pytest.raises(RuntimeError, match=r"let a dependency admit\(websocket, identity\) first"):
            await websocket.renew(ann(10))

    async with Server(app) as server, server.connect("/") as peer:
        assert (await end_of(peer))[0] == 1000


@virtual_time
async def test_a_user_may_renew_with_another_session_and_other_scopes() -> None:
    app = App()

    @app.websocket("/")
    async def endpoint(websocket: WebSocket, somebody: Annotated[Identity, Depends(let_in)]) -> None:
        await websocket.accept()
        await websocket.renew(Identity(user="ann", session="new", scopes=frozenset({"write"})))
        await websocket.send_json(sorted(websocket.scope[IDENTITY_KEY].scopes))

    async with Server(app) as server, server.connect("/") as peer:
        assert await peer.receive() == '["write"]'


@pytest.mark.parametrize("server", SERVERS, ids=lambda server: server.name)
async def test_on_every_server_a_renewed_connection_outlives_its_first_date(server: ServerUnderTest) -> None:
    app = App()

    @app.websocket("/")
    async def endpoint(websocket: WebSocket, somebody: Annotated[Identity, Depends(let_in)]) -> None:
        await websocket.accept()
        await websocket.renew(ann(2))  # at once: a message from the client might come after the first date
        await websocket.receive_text()

    async with server.run(app) as running, asyncio.timeout(PATIENCE):
        began = time.monotonic()
        async with connect(f"{running.url}/?life=0.8") as client:
            with pytest.raises(ConnectionClosed):
                await client.recv()
            assert (client.close_code, client.close_reason) == (3000, "expired")
            assert time.monotonic() - began > 1.8


@pytest.mark.parametrize("server", SERVERS, ids=lambda server: server.name)
async def test_on_every_server_another_user_is_shown_the_door(server: ServerUnderTest) -> None:
    async with server.run(app_that_renews()) as running, asyncio.timeout(PATIENCE), connect(running.url) as client:
        await client.send('{"life": 60, "user": "bob"}')
        with pytest.raises(ConnectionClosed):
            await client.recv()
        assert (client.close_code, client.close_reason) == (3003, "another user")


async def test_an_endpoint_of_fastapi_renews_with_the_function() -> None:
    app = fastapi.FastAPI()

    @app.websocket("/")
    async def endpoint(websocket: fastapi.WebSocket, somebody: Annotated[Identity, fastapi.Depends(let_in)]) -> None:
        await websocket.accept()
        with pytest.raises(WebSocketException, match="another user"):
            await renew(websocket, ann(60, "bob"))
        await renew(websocket, ann(2))
        await websocket.receive_text()

    async with SERVERS[1].run(app) as running, asyncio.timeout(PATIENCE):
        began = time.monotonic()
        async with connect(f"{running.url}/?life=1") as client:
            with pytest.raises(ConnectionClosed):
                await client.recv()
            assert (client.close_code, client.close_reason) == (3000, "expired")
            assert time.monotonic() - began > 1.8


async def test_where_nobody_was_admitted_there_is_nothing_to_renew() -> None:
    with pytest.raises(RuntimeError, match="no user was admitted here"):
        await renew(HTTPConnection({"type": "websocket", "headers": []}), ann(60))
