"""A connection ends when its identity expires, regardless of its endpoint, on every server."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import fastapi
import pytest
from fastapi.security import HTTPBearer
from starlette.requests import HTTPConnection
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from antiphon import App, Depends, HTTPException, WebSocket, WebSocketDisconnect
from antiphon.concurrency import run_in_threadpool
from antiphon.connection.expiry import expiries_of
from antiphon.gate import Identity, admit
from antiphon.testing import ConnectionEnded, HandshakeRefused, Server, virtual_time
from antiphon.types import Message
from tests.matrix.servers import SERVERS, ServerUnderTest
from tests.patience import PATIENCE, until
from tests.routing.middlemen import Wraps

LIFE = 0.6
"""Seconds, with real sockets: long enough for a handshake. That it ends *in time* is shown in virtual time."""


async def let_in(websocket: HTTPConnection, life: float = LIFE) -> Identity:
    return await admit(websocket, Identity(user="ann", expires_at=time.time() + life))


async def for_an_hour(websocket: HTTPConnection) -> Identity:
    return await let_in(websocket, 3600)


async def too_late(websocket: HTTPConnection) -> Identity:
    return await let_in(websocket, -1)


async def ended(client: ClientConnection) -> tuple[int, str]:
    """The code and reason of the Close that the server sends, after any other messages."""
    with contextlib.suppress(ConnectionClosed):
        while True:
            await client.recv()
    return client.close_code or 0, client.close_reason or ""


Somebody = Annotated[Identity, Depends(let_in)]


async def by_scheme(
    connection: HTTPConnection, token: Annotated[Any, Depends(HTTPBearer(auto_error=False))]
) -> Identity:
    return await let_in(connection)


async def slow(somebody: Annotated[Identity, Depends(partial(let_in, life=3))]) -> None:
    await asyncio.sleep(3600)


def receives(websocket: WebSocket) -> Any:
    return websocket.receive_text()


async def sends(websocket: WebSocket) -> None:
    while True:
        await websocket.send_text("tick")
        await asyncio.sleep(0)


async def sleeps(websocket: WebSocket) -> None:
    await websocket.wait_closed()


async def blocks_in_a_thread(websocket: WebSocket) -> None:
    deadline = time.monotonic() + PATIENCE

    def work() -> None:
        while websocket.closed is None and time.monotonic() < deadline:
            time.sleep(0.01)

    await run_in_threadpool(work)


async def iterates(websocket: WebSocket) -> None:
    async for _ in websocket.iter_text():
        pass


async def swallows(websocket: WebSocket) -> None:
    with pytest.raises(WebSocketDisconnect):
        await sends(websocket)
    with pytest.raises(WebSocketDisconnect):
        await websocket.send_text("once more")


@pytest.fixture(params=SERVERS, ids=lambda server: server.name)
def server(request: pytest.FixtureRequest) -> ServerUnderTest:
    found: ServerUnderTest = request.param
    return found


@pytest.fixture(params=[False, True], ids=["direct", "behind middleware"])
def wrapped(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def served(app: App, wrapped: bool) -> Any:
    return Wraps(app) if wrapped else app


@pytest.mark.parametrize("work", [receives, sends, sleeps, blocks_in_a_thread, iterates, swallows])
async def test_it_is_closed_with_3000_whatever_its_endpoint_does(
    server: ServerUnderTest, wrapped: bool, work: Callable[[WebSocket], Any], caplog: pytest.LogCaptureFixture
) -> None:
    app, over = App(), asyncio.Event()

    @app.websocket("/")
    async def endpoint(websocket: WebSocket, somebody: Somebody) -> None:
        await websocket.accept()
        try:
            await work(websocket)
        finally:
            over.set()

    with caplog.at_level(logging.INFO, "antiphon"):
        async with server.run(served(app, wrapped)) as running:
            began = time.monotonic()
            async with connect(running.url) as client, asyncio.timeout(PATIENCE):
                assert await ended(client) == (3000, "expired")
                assert time.monotonic() - began > LIFE - 0.3
                await over.wait()
            assert len(expiries_of(asyncio.get_running_loop()).deadlines) == 0
    assert [record.message for record in caplog.records if "expired" in record.message] == [
        "/: the identity has expired: closed with 3000; websocket.renew(identity) in time keeps it open"
    ]
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.parametrize("accepts", [True, False])
async def test_before_accept_it_is_refused_with_401(
    server: ServerUnderTest, wrapped: bool, accepts: bool, caplog: pytest.LogCaptureFixture
) -> None:
    app = App()
    over: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()
    answered = asyncio.Event()

    @app.websocket("/")
    async def endpoint(websocket: WebSocket, somebody: Somebody) -> None:
        await answered.wait()  # longer than the life
        error = None
        try:
            if accepts:
                await websocket.accept()
        except WebSocketDisconnect as gone:
            error = gone
            raise
        finally:
            over.set_result(error)

    async with server.run(served(app, wrapped)) as running, asyncio.timeout(PATIENCE):
        with pytest.raises(InvalidStatus) as refused:
            await connect(running.url)
        assert refused.value.response.status_code == 401
        assert "invalid_token" in refused.value.response.headers["WWW-Authenticate"]
        assert b"expired" in refused.value.response.body
        answered.set()
        error = await over
        assert (getattr(error, "code", None), getattr(error, "reason", None)) == (
            (3000, "expired") if accepts else (None, None)
        )
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_who_has_expired_is_refused_at_the_door(server: ServerUnderTest) -> None:
    app = App()

    @app.websocket("/")
    async def endpoint(websocket: WebSocket, somebody: Annotated[Identity, Depends(too_late)]) -> None:
        await websocket.accept()

    @app.websocket("/late")
    async def late(websocket: WebSocket) -> None:
        await websocket.accept()
        await let_in(websocket, -1)

    async with server.run(app) as running, asyncio.timeout(PATIENCE):
        with pytest.raises(InvalidStatus) as refused:
            await connect(running.url)
        assert refused.value.response.status_code == 401
        async with connect(f"{running.url}/late") as client:
            assert await ended(client) == (3000, "expired")


async def test_a_connection_that_ends_before_is_forgotten(server: ServerUnderTest, wrapped: bool) -> None:
    app = App()

    @app.websocket("/")
    async def endpoint(websocket: WebSocket, somebody: Annotated[Identity, Depends(for_an_hour)]) -> None:
        await websocket.accept()
        async for text in websocket.iter_text():
            await websocket.send_text(text)

    deadlines = expiries_of(asyncio.get_running_loop()).deadlines
    async with server.run(served(app, wrapped)) as running, asyncio.timeout(PATIENCE):
        async with connect(running.url) as first, connect(running.url) as second:
            for client in (first, second):
                await client.send("here")
                assert await client.recv() == "here"
            assert len(deadlines) == 2
            second.transport.abort()
            await until(lambda: len(deadlines) == 1)
        await until(lambda: len(deadlines) == 0)


@pytest.mark.parametrize("sending", [False, True])
async def test_with_a_peer_that_reads_nothing_the_endpoint_ends_all_the_same(
    server: ServerUnderTest, sending: bool
) -> None:
    app, over = App(), asyncio.Event()

    @app.websocket("/")
    async def endpoint(websocket: WebSocket, somebody: Somebody) -> None:
        await websocket.accept()
        with contextlib.suppress(WebSocketDisconnect):
            while sending:
                await websocket.send_text("x" * 1_000_000)  # stuck, as nobody takes it
        assert (await websocket.wait_closed()).code == 3000
        over.set()

    async with server.run(app) as running, asyncio.timeout(PATIENCE):
        async with connect(running.url, max_queue=1) as client:
            client.transport.pause_reading()
            await over.wait()
            client.transport.abort()


@pytest.mark.parametrize("accepts", [True, False])
async def test_an_endpoint_of_fastapi_is_ended_too(server: ServerUnderTest, accepts: bool) -> None:
    app = fastapi.FastAPI()
    forever = asyncio.Event()

    @app.websocket("/")
    async def endpoint(websocket: fastapi.WebSocket, somebody: Annotated[Identity, fastapi.Depends(let_in)]) -> None:
        if accepts:
            await websocket.accept()
            await websocket.receive_text()
        await forever.wait()

    async with server.run(app) as running, asyncio.timeout(PATIENCE):
        if accepts:
            async with connect(running.url) as client:
                assert await ended(client) == (3000, "expired")
        else:
            with pytest.raises(InvalidStatus) as refused:
                await connect(running.url)
            assert refused.value.response.status_code == 401
        forever.set()
    await until(lambda: len(expiries_of(asyncio.get_running_loop()).deadlines) == 0)


async def test_a_security_scheme_of_fastapi_may_admit(server: ServerUnderTest) -> None:
    app = App()

    @app.websocket("/")
    async def endpoint(websocket: WebSocket, identity: Annotated[Identity, Depends(by_scheme)]) -> None:
        await websocket.accept()
        await websocket.wait_closed()

    async with server.run(app) as running, asyncio.timeout(PATIENCE), connect(running.url) as client:
        assert await ended(client) == (3000, "expired")


# In virtual time


@virtual_time
async def test_it_ends_in_time_and_the_loops_clock_says_when() -> None:
    app = App()

    @app.websocket("/{work}")
    async def endpoint(websocket: WebSocket, work: str, somebody: Annotated[Identity, Depends(let_in)]) -> None:
        await websocket.accept()
        while work == "sends":
            await websocket.send_text("tick")
            await asyncio.sleep(0.1)
        await websocket.receive_text()

    loop = asyncio.get_running_loop()
    async with Server(app) as server:
        for life in (0.3, 10, 3600):
            for work in ("sends", "receives"):
                began = loop.time()
                async with server.connect(f"/{work}?life={life}") as peer:
                    error: ConnectionEnded | None = None
                    while error is None:
                        try:
                            await peer.receive(timeout=2 * life + 1)
                        except ConnectionEnded as end:
                            error = end
                    assert (error.code, error.reason) == (3000, "expired")
                    assert abs(loop.time() - began - life) <= 1
        assert len(expiries_of(loop).deadlines) == 0


@virtual_time
async def test_a_slow_dependency_is_cut_short_in_time() -> None:
    app = App()

    @app.websocket("/")
    async def endpoint(websocket: WebSocket, _: Annotated[None, Depends(slow)]) -> None:
        await websocket.accept()

    loop = asyncio.get_running_loop()
    async with Server(app) as server:
        with pytest.raises(HandshakeRefused) as refused:
            async with server.connect("/"):
                pass
        assert refused.value.status == 401
        assert abs(loop.time() - 3) <= 1


@virtual_time
async def test_an_endpoint_does_not_end_before_a_slow_server_has_taken_the_refusal() -> None:
    sent: list[str] = []

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        await asyncio.sleep(3)
        sent.append(message["type"])

    extensions: dict[str, Any] = {"websocket.http.response": {}}
    websocket = WebSocket({"type": "websocket", "path": "/", "headers": [], "extensions": extensions}, receive, send)
    await let_in(websocket, 1)
    await asyncio.sleep(2)
    assert websocket.closed is not None
    await websocket.flushed()
    assert sent == ["websocket.http.response.start", "websocket.http.response.body"]


@virtual_time
async def test_a_refusal_that_no_server_takes_is_given_up() -> None:
    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        await asyncio.sleep(10_000)

    websocket = WebSocket({"type": "websocket", "path": "/", "headers": []}, receive, send)
    await let_in(websocket, 1)
    await asyncio.sleep(2)
    await websocket.flushed()
    assert asyncio.get_running_loop().time() <= 2 + websocket.options.send_timeout
    await asyncio.sleep(0.1)
    assert asyncio.all_tasks() == {asyncio.current_task()}


# Impossible values


async def test_what_is_no_identity_is_told_with_its_type() -> None:
    with pytest.raises(TypeError, match=r"expected an Identity, got str: Identity\(user="):
        await admit(HTTPConnection({"type": "websocket"}), "ann")  # type: ignore[arg-type]


async def test_what_cannot_be_ended_is_told_and_not_admitted() -> None:
    connection = HTTPConnection({"type": "websocket", "headers": []})
    with pytest.raises(TypeError, match="annotate the dependency's parameter with WebSocket"):
        await let_in(connection)
    assert "antiphon.identity" not in connection.scope
    assert (await admit(connection, Identity(user="ann"))).user == "ann"


async def test_a_request_is_refused_when_its_identity_has_expired_and_not_armed() -> None:
    request = HTTPConnection({"type": "http", "headers": []})
    assert (await let_in(request)).user == "ann"
    with pytest.raises(HTTPException) as refused:
        await let_in(request, -1)
    assert refused.value.status_code == 401
    assert len(expiries_of(asyncio.get_running_loop()).deadlines) == 0
