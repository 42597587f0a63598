"""The rows of the close matrix that are not about how an endpoint ends: servers that stop, peers that leave."""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections.abc import AsyncIterator
from typing import Any

import pytest
import websockets
from websockets.asyncio.client import connect

from antiphon import App, Depends, WebSocket, WebSocketDisconnect, WebSocketException
from tests.patience import PATIENCE
from tests.serving import serve

from .servers import SERVERS, ServerUnderTest

servers = pytest.mark.parametrize("server", SERVERS, ids=lambda server: server.name)


def listening(ended: asyncio.Future[str]) -> App:
    """An app whose endpoint listens for ever and tells how it ended; its dependency tears down."""
    app = App()
    torn_down: list[str] = []

    async def resource() -> AsyncIterator[None]:
        try:
            yield
        finally:
            await asyncio.sleep(0)
            torn_down.append("torn down")

    @app.websocket("/ws", dependencies=[Depends(resource)])
    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text("ready")
        try:
            await websocket.receive_text()
        except WebSocketDisconnect as end:
            ended.set_result(f"{end.code}")
            raise
        except asyncio.CancelledError:
            ended.set_result("cancelled")
            raise

    app.state.torn_down = torn_down
    return app


@servers
async def test_a_server_that_stops_closes_with_1012_and_ends_the_endpoints(
    server: ServerUnderTest, caplog: pytest.LogCaptureFixture
) -> None:
    ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    app = listening(ended)
    async with server.run(app) as served:
        client = await connect(f"{served.url}/ws")
        assert await client.recv() == "ready"
        if not server.stops_with_clients:
            await client.close()
    await asyncio.wait_for(client.wait_closed(), PATIENCE)
    if server.tells_shutdown:
        assert client.close_code == 1012
    assert await asyncio.wait_for(ended, PATIENCE) in ("1012", "1006", "cancelled", "1001")
    assert app.state.torn_down == ["torn down"]
    if server.stops_quietly:
        assert not [record for record in caplog.records if record.exc_info]


@servers
@pytest.mark.parametrize("way", ["close", "reset", "half-close"])
async def test_a_peer_that_leaves_in_any_way_is_quiet_and_ends_the_endpoint(
    server: ServerUnderTest, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    app = listening(ended)
    async with server.run(app) as served:
        client = await connect(f"{served.url}/ws")
        assert await client.recv() == "ready"
        raw: socket.socket = client.transport.get_extra_info("socket")
        if way == "close":
            await client.close(4000)
        elif way == "reset":
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.transport.abort()
        else:
            client.transport.write_eof()
        code = await asyncio.wait_for(ended, PATIENCE)
        await _until(lambda: app.state.torn_down == ["torn down"])
        client.transport.abort()
    assert code == ("4000" if way == "close" and server.tells_close_code else "1006")
    assert not [record for record in caplog.records if record.exc_info or record.levelno >= logging.ERROR]


@servers
async def test_a_peer_that_leaves_before_accept_is_quiet(
    server: ServerUnderTest, caplog: pytest.LogCaptureFixture
) -> None:
    entered, left = asyncio.Event(), asyncio.Event()
    over: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()
    app = App()

    @app.websocket("/ws")
    async def endpoint(websocket: WebSocket) -> None:
        entered.set()
        await left.wait()
        try:
            await websocket.accept()
            await websocket.receive_text()
        except BaseException as error:
            over.set_result(error)
            raise

    async with server.run(app) as served:
        host, port = served.url.removeprefix("ws://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(
            f"GET /ws HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        await asyncio.wait_for(entered.wait(), PATIENCE)
        writer.transport.abort()
        await asyncio.sleep(0.05)  # nothing tells when the server has seen the reset; too early only makes it easier
        left.set()
        assert isinstance(await asyncio.wait_for(over, PATIENCE), WebSocketDisconnect)
        del reader
    assert not [record for record in caplog.records if record.exc_info]


@servers
async def test_cancelling_the_endpoint_closes_with_1012_and_tears_down(server: ServerUnderTest) -> None:
    tasks: list[asyncio.Task[Any]] = []
    torn_down = asyncio.Event()
    app = App()

    async def resource() -> AsyncIterator[None]:
        try:
            yield
        finally:
            torn_down.set()

    @app.websocket("/ws", dependencies=[Depends(resource)])
    async def endpoint(websocket: WebSocket) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.append(task)
        await websocket.accept()
        await websocket.send_text("ready")
        await asyncio.Event().wait()

    async with server.run(app) as served, connect(f"{served.url}/ws") as client:
        assert await client.recv() == "ready"
        tasks[0].cancel()
        await asyncio.wait_for(client.wait_closed(), PATIENCE)
        await asyncio.wait_for(torn_down.wait(), PATIENCE)
        await asyncio.wait(tasks)
    assert client.close_code == 1012


class WithoutDenials:
    """Middleware that makes a server look like one without the `websocket.http.response` extension."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        (scope.get("extensions") or {}).pop("websocket.http.response", None)
        await self.app(scope, receive, send)


@pytest.mark.parametrize("error", [WebSocketException(4000, "no"), ZeroDivisionError()], ids=["refusal", "bug"])
async def test_a_server_without_denial_responses_answers_403(error: Exception) -> None:
    app = App()

    @app.websocket("/ws")
    async def endpoint(websocket: WebSocket) -> None:
        raise error

    app.add_middleware(WithoutDenials)
    async with serve(app) as server:
        with pytest.raises(websockets.InvalidStatus) as refused:
            await connect(f"{server.url}/ws")
    assert refused.value.response.status_code == 403


async def _until(condition: Any) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110  what it polls belongs to the app under test
            await asyncio.sleep(0.005)
