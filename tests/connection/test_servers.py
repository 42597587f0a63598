"""The promises that need a real server and real sockets: ends that are seen, and peers that behave badly."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
import websockets
from websockets.asyncio.client import connect

from antiphon.connection import Closed, ConnectionOptions, WebSocket
from antiphon.connection.ways import OverAsgi
from antiphon.exceptions import WebSocketDisconnect
from antiphon.server import WebSocketProtocol
from antiphon.server.config import ServerConfig
from antiphon.types import ASGIApp, ClosedBy, Message, Receive, Scope, Send
from tests.connection.clients import RawClient
from tests.patience import PATIENCE, until
from tests.serving import UVICORN_PROTOCOLS, Served, serve, serve_hypercorn

OUR_SERVER = pytest.param(WebSocketProtocol.with_config(ServerConfig(send_timeout=0.5)), id="antiphon")

Serve = Callable[[ASGIApp], AbstractAsyncContextManager[Served]]


@pytest.fixture(params=[*UVICORN_PROTOCOLS, OUR_SERVER])
def uvicorn_server(request: pytest.FixtureRequest) -> Serve:
    return lambda app: serve(app, ws=request.param, lifespan="off", ws_ping_interval=None)


@pytest.fixture(params=[*UVICORN_PROTOCOLS, "hypercorn", OUR_SERVER])
def any_server(request: pytest.FixtureRequest) -> Serve:
    if request.param == "hypercorn":
        return lambda app: serve_hypercorn(app)
    return lambda app: serve(app, ws=request.param, lifespan="off", ws_ping_interval=None)


@pytest.fixture(autouse=True)
async def _no_traceback_is_logged(caplog: pytest.LogCaptureFixture) -> AsyncGenerator[None]:
    yield
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


class Quick(WebSocket):
    options = ConnectionOptions(send_timeout=0.5)


def endpoint(
    function: Callable[[WebSocket], Any], cls: Callable[[Scope, Receive, Send], WebSocket] = WebSocket
) -> ASGIApp:
    """An ASGI app of one WebSocket endpoint. A disconnect ends it, as routing would have it."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket":
            return
        websocket = cls(scope, receive, send)
        try:
            await function(websocket)
        except WebSocketDisconnect:
            pass

    return app


# The end, seen


async def test_a_send_only_endpoint_sees_a_close_with_its_code_and_reason(uvicorn_server: Serve) -> None:
    seen: asyncio.Future[Closed] = asyncio.get_running_loop().create_future()

    async def ticker(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text("tick")
        seen.set_result(await websocket.wait_closed())

    async with uvicorn_server(endpoint(ticker)) as server:
        async with connect(server.url) as client:
            await client.recv()
            await client.close(4001, "enough")
        async with asyncio.timeout(PATIENCE):
            assert await seen == Closed(code=4001, reason="enough", by=ClosedBy.PEER)


@pytest.mark.parametrize("leave", [RawClient.reset, RawClient.vanish])
async def test_a_send_only_endpoint_sees_a_lost_connection(
    any_server: Serve, leave: Callable[[RawClient], None]
) -> None:
    seen: asyncio.Future[Closed] = asyncio.get_running_loop().create_future()

    async def ticker(websocket: WebSocket) -> None:
        await websocket.accept()
        while websocket.is_connected:  # noqa: ASYNC110  # this is what the test is about
            await asyncio.sleep(0.01)
        assert websocket.closed is not None
        seen.set_result(websocket.closed)

    async with any_server(endpoint(ticker)) as server:
        client = await RawClient.connect(server.port)
        leave(client)
        async with asyncio.timeout(PATIENCE):
            assert await seen == Closed(code=1006, reason="", by=ClosedBy.NOBODY)


async def test_an_endpoint_that_only_sends_is_stopped_by_the_peers_end(any_server: Serve) -> None:
    seen: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def ticker(websocket: WebSocket) -> None:
        await websocket.accept()
        try:
            while True:
                await websocket.send_text("tick")
                await asyncio.sleep(0.005)
        except WebSocketDisconnect as exc:
            seen.set_result(exc.code)

    async with any_server(endpoint(ticker)) as server:
        async with connect(server.url) as client:
            await client.recv()
        async with asyncio.timeout(PATIENCE):
            assert await seen in (1000, 1006)


async def test_a_close_frame_without_a_code_is_1005(uvicorn_server: Serve) -> None:
    seen: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def receiver(websocket: WebSocket) -> None:
        await websocket.accept()
        try:
            await websocket.receive_text()
        except WebSocketDisconnect as exc:
            seen.set_result(exc.code)

    async with uvicorn_server(endpoint(receiver)) as server:
        with await RawClient.connect(server.port) as client:
            client.sock.send(b"\x88\x80\x00\x00\x00\x00")
            async with asyncio.timeout(PATIENCE):
                assert await seen == 1005


async def test_what_came_before_the_end_is_received_although_the_end_is_known(any_server: Serve) -> None:
    seen: asyncio.Future[list[str]] = asyncio.get_running_loop().create_future()

    async def late(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.wait_closed()
        seen.set_result([text async for text in websocket.iter_text()])

    async with any_server(endpoint(late)) as server:
        async with connect(server.url) as client:
            for number in range(3):
                await client.send(str(number))
        async with asyncio.timeout(PATIENCE):
            assert await seen == ["0", "1", "2"]


async def test_asking_whether_it_is_connected_does_not_disturb_receiving(any_server: Serve) -> None:
    async def echo(websocket: WebSocket) -> None:
        await websocket.accept()
        async for text in websocket.iter_text():
            assert websocket.is_connected
            await websocket.send_text(text)

    async with any_server(endpoint(echo)) as server, connect(server.url) as client:
        for number in range(200):
            await client.send(str(number))
        assert [await client.recv() for _ in range(200)] == [str(number) for number in range(200)]


@pytest.mark.parametrize("ws", UVICORN_PROTOCOLS)
async def test_reading_ahead_is_bounded(ws: str) -> None:
    sockets: list[WebSocket] = []
    done = asyncio.Event()

    async def idle(websocket: WebSocket) -> None:
        await websocket.accept()
        sockets.append(websocket)
        websocket.is_connected
        await done.wait()

    async with serve(endpoint(idle), ws=ws, lifespan="off") as server, connect(server.url, compression=None) as client:
        flood = asyncio.create_task(_flood(client))
        await until(lambda: sockets and _read_ahead(sockets[0]) >= WebSocket.options.inbox_bytes)
        await asyncio.sleep(0.05)
        assert _read_ahead(sockets[0]) <= WebSocket.options.inbox_bytes + 10_001
        flood.cancel()
        done.set()


def _read_ahead(websocket: WebSocket) -> int:
    assert isinstance(websocket._life.way, OverAsgi)
    return websocket._life.way.reader._ready_bytes


async def _flood(client: websockets.ClientConnection) -> None:
    while True:
        await client.send("x" * 10_000)
        await asyncio.sleep(0)


# Bad peers


class Room:
    """The well-known connection manager, which one bad member must not hurt."""

    def __init__(self) -> None:
        self.members: list[WebSocket] = []

    async def enter(self, websocket: WebSocket) -> None:
        await websocket.accept()
        self.members.append(websocket)
        async for text in websocket.iter_text():
            await self.broadcast(text)

    async def broadcast(self, text: str) -> None:
        for member in self.members:
            await member.send_text(text)


async def test_a_stalled_member_delays_nobody_and_is_thrown_out(
    uvicorn_server: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Its outbox fills within that time, however busy the machine: else our server says first that it takes nothing.
    monkeypatch.setenv("ANTIPHON_WS_SEND_TIMEOUT", str(2 * PATIENCE))
    room = Room()
    payload = "x" * 50_000

    def member(scope: Scope, receive: Receive, send: Send) -> WebSocket:
        return (Quick if scope["path"] == "/stalled" else WebSocket)(scope, receive, send)

    async with uvicorn_server(endpoint(room.enter, member)) as server:
        stalled = await RawClient.connect(server.port, "/stalled")
        await until(lambda: len(room.members) == 1)
        async with connect(server.url) as speaker, connect(server.url) as listener:
            await until(lambda: len(room.members) == 3)
            async with asyncio.timeout(PATIENCE):
                for number in range(300):
                    await speaker.send(f"{number} {payload}")
                    assert (await listener.recv()).split()[0] == str(number)
                    assert (await speaker.recv()).split()[0] == str(number)
            closed = room.members[0].closed
            assert closed is not None
            assert (closed.code, closed.by) == (1013, ClosedBy.US)
            assert all(member.is_connected for member in room.members[1:])
        # Aborted at send_timeout: the server holds nothing for it any more.
        state = server.server.server_state if server.server else None
        await until(lambda: state and not state.connections)
        stalled.vanish()


@pytest.mark.parametrize("leave", [RawClient.reset, RawClient.vanish])
async def test_members_that_vanish_in_the_middle_of_a_broadcast_are_not_noticed_by_others(
    any_server: Serve, leave: Callable[[RawClient], None]
) -> None:
    room = Room()
    async with any_server(endpoint(room.enter)) as server:
        vanishing = [await RawClient.connect(server.port) for _ in range(5)]
        await until(lambda: len(room.members) == 5)
        async with connect(server.url) as speaker, connect(server.url) as listener:
            await until(lambda: len(room.members) == 7)
            for number in range(50):
                if number % 10 == 5:
                    leave(vanishing.pop())
                await speaker.send(str(number))
            for client in (speaker, listener):
                assert [await client.recv() for _ in range(50)] == [str(number) for number in range(50)]


async def test_an_own_send_to_a_stalled_peer_ends_at_send_timeout_and_frees_the_socket(uvicorn_server: Serve) -> None:
    seen: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def pour(websocket: WebSocket) -> None:
        await websocket.accept()
        try:
            while True:
                await websocket.send_bytes(b"x" * 100_000)
        except WebSocketDisconnect as exc:
            seen.set_result(exc.code)

    async with uvicorn_server(endpoint(pour, Quick)) as server:
        client = await RawClient.connect(server.port)
        async with asyncio.timeout(PATIENCE):
            assert await seen == 1006
        state = server.server.server_state if server.server else None
        await until(lambda: state and not state.connections)
        client.vanish()


async def test_an_own_send_waits_for_a_slow_reader_and_loses_nothing(any_server: Serve) -> None:
    async def pour(websocket: WebSocket) -> None:
        await websocket.accept()
        for number in range(200):
            await websocket.send_text(f"{number} {'x' * 20_000}")
        await websocket.close()

    async with any_server(endpoint(pour)) as server, connect(server.url, max_queue=1) as client:
        numbers = []
        async for message in client:
            numbers.append(int(message.split()[0]))
            if len(numbers) % 50 == 0:
                await asyncio.sleep(0.05)
        assert numbers == list(range(200))
        assert client.close_code == 1000


async def test_a_burst_from_outside_reaches_a_reader_whole(uvicorn_server: Serve) -> None:
    room = Room()
    async with uvicorn_server(endpoint(room.enter)) as server, connect(server.url) as client:
        await until(lambda: room.members)
        burst = asyncio.create_task(_burst(room))  # the test is foreign to the connection
        assert [int(await client.recv()) for _ in range(5000)] == list(range(5000))
        await burst


async def _burst(room: Room) -> None:
    for number in range(5000):
        await room.broadcast(str(number))


async def test_foreign_and_own_messages_keep_the_order_in_which_they_were_sent(any_server: Serve) -> None:
    sockets: list[WebSocket] = []
    own_turn, foreign_turn = asyncio.Event(), asyncio.Event()

    async def alternate(websocket: WebSocket) -> None:
        await websocket.accept()
        sockets.append(websocket)
        for number in range(0, 100, 2):
            await own_turn.wait()
            own_turn.clear()
            await websocket.send_text(str(number))
            foreign_turn.set()
        await own_turn.wait()
        await websocket.close()

    async with any_server(endpoint(alternate)) as server, connect(server.url) as client:
        await until(lambda: sockets)
        own_turn.set()
        for number in range(1, 100, 2):
            await foreign_turn.wait()
            foreign_turn.clear()
            await sockets[0].send_text(str(number))  # the test is foreign to the connection
            own_turn.set()
        assert [int(message) async for message in client] == list(range(100))
        assert client.close_code == 1000


def wrapped(send: Send) -> Send:
    """Like middleware that looks at outgoing messages."""

    async def through(message: Message) -> None:
        await send(message)

    return through


@pytest.mark.parametrize("wrap", [lambda send: send, wrapped], ids=["plain", "wrapped"])
async def test_an_own_send_behind_foreign_ones_takes_no_turn_of_the_loop(
    uvicorn_server: Serve, wrap: Callable[[Send], Send]
) -> None:
    turn_passed = asyncio.Event()

    async def member(websocket: WebSocket) -> None:
        await websocket.accept()
        for number in range(3):
            stranger = websocket.send_text(f"foreign {number}")
            with pytest.raises(StopIteration):
                contextvars.Context().run(stranger.send, None)
        asyncio.get_running_loop().call_soon(turn_passed.set)
        await websocket.send_text("own")
        await websocket.send_json({"turn passed": turn_passed.is_set()})
        await websocket.close()

    app = endpoint(member, lambda scope, receive, send: WebSocket(scope, receive, wrap(send)))
    async with uvicorn_server(app) as server, connect(server.url) as client:
        heard = [message async for message in client]
    assert heard == ["foreign 0", "foreign 1", "foreign 2", "own", '{"turn passed":false}']


async def test_a_member_thrown_out_by_another_sees_the_code_and_its_endpoint_ends(any_server: Serve) -> None:
    room = Room()
    ended = asyncio.Event()

    async def enter(websocket: WebSocket) -> None:
        await room.enter(websocket)
        ended.set()

    async with any_server(endpoint(enter)) as server, connect(server.url) as client:
        await until(lambda: room.members)
        await room.members[0].close(4004, "out")
        async with asyncio.timeout(PATIENCE):
            await client.wait_closed()
            await ended.wait()
        assert (client.close_code, client.close_reason) == (4004, "out")


# Actions of uvicorn itself


@pytest.mark.parametrize("ws", UVICORN_PROTOCOLS)
async def test_a_message_too_big_for_uvicorn_is_a_disconnect_for_a_sender_too(ws: str) -> None:
    seen: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def ticker(websocket: WebSocket) -> None:
        await websocket.accept()
        try:
            while True:
                await websocket.send_text("tick")
                await asyncio.sleep(0)
        except WebSocketDisconnect as exc:
            seen.set_result(exc.code)

    async with serve(endpoint(ticker), ws=ws, ws_max_size=1000, lifespan="off") as server:
        async with connect(server.url) as client:
            await client.send("x" * 2000)
            async with asyncio.timeout(PATIENCE):
                assert await seen in (1006, 1009)
            await client.wait_closed()
            assert client.close_code == 1009


@pytest.mark.parametrize("ws", UVICORN_PROTOCOLS)
async def test_a_peer_that_answers_no_pings_is_a_disconnect_for_a_sender_too(ws: str) -> None:
    seen: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def ticker(websocket: WebSocket) -> None:
        await websocket.accept()
        try:
            while True:
                await websocket.send_text("tick")
                await asyncio.sleep(0.001)
        except WebSocketDisconnect as exc:
            seen.set_result(exc.code)

    config = {"ws_ping_interval": 0.05, "ws_ping_timeout": 0.05, "lifespan": "off"}
    async with serve(endpoint(ticker), ws=ws, **config) as server:
        with await RawClient.connect(server.port):
            async with asyncio.timeout(PATIENCE):
                assert await seen == 1006


@pytest.mark.parametrize("ws", UVICORN_PROTOCOLS)
async def test_a_server_that_stops_is_1012_from_our_side(ws: str) -> None:
    seen: asyncio.Future[Closed] = asyncio.get_running_loop().create_future()

    async def idle(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text("ready")
        seen.set_result(await websocket.wait_closed())

    async with serve(endpoint(idle), ws=ws, lifespan="off", timeout_graceful_shutdown=None) as server:
        client = await connect(server.url)
        await client.recv()
    assert await seen == Closed(code=1012, reason="", by=ClosedBy.US)
    await client.wait_closed()
    assert client.close_code == 1012
