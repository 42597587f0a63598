"""A paced connection: a waiting message whose receive is cancelled, whose peer leaves, or whose server stops. On every
server, with real sockets."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest
from websockets.asyncio.client import connect

from antiphon import App, WebSocket, WebSocketDisconnect
from antiphon.gate import CLOSE, Rate
from antiphon.middleware import Middleware
from antiphon.server import ServerConfig
from antiphon.testing import Server, virtual_time
from tests.connection.clients import RawClient
from tests.matrix.servers import SERVERS, ServerUnderTest
from tests.patience import PATIENCE, until
from tests.routing.middlemen import Wraps

TEXT_HI = b"\x81\x82\x00\x00\x00\x00hi"
"""A masked text frame."""

ON_EVERY_SERVER = pytest.mark.parametrize("server", SERVERS, ids=lambda server: server.name)


def now() -> float:
    return asyncio.get_running_loop().time()


class Heard:
    """The messages of an endpoint with a rate, and its end."""

    def __init__(self, rate: Rate, **options: Any) -> None:
        self.app = App(**options)
        self.times: list[float] = []
        self.ended: list[WebSocketDisconnect] = []

        @self.app.websocket("/ws", rates=[rate])
        async def hear(websocket: WebSocket) -> None:
            await websocket.accept()
            try:
                while True:
                    await websocket.receive_text()
                    self.times.append(now())
            except WebSocketDisconnect as exc:
                self.ended.append(exc)
                raise

    def longest(self) -> float:
        """Messages in the first tenth of a second at most, and one for each tenth later."""
        first = self.times[0]
        return max(number - (at - first) * 10 for number, at in enumerate(self.times))


@pytest.mark.parametrize("middleware", [[], [Middleware(Wraps)]], ids=["direct", "middleware"])
@ON_EVERY_SERVER
async def test_what_is_too_fast_waits(server: ServerUnderTest, middleware: Any) -> None:
    heard = Heard(Rate("10/second", burst=3), middleware=middleware)
    async with server.run(heard.app) as served, connect(f"{served.url}/ws") as client:
        for _ in range(8):
            await client.send("hi")
        await until(lambda: len(heard.times) == 8)
    # The clock is coarse: uvloop's counts milliseconds
    assert heard.longest() <= 3 + 0.05
    assert heard.times[-1] - heard.times[0] >= 0.48


@ON_EVERY_SERVER
async def test_who_is_too_fast_is_closed_with_1008(server: ServerUnderTest) -> None:
    heard = Heard(Rate("1/hour", burst=3, over=CLOSE))
    async with server.run(heard.app) as served, connect(f"{served.url}/ws") as client:
        for _ in range(4):
            await client.send("hi")
        await asyncio.wait_for(client.wait_closed(), PATIENCE)
        assert (client.close_code, client.close_reason) == (1008, "too fast")
        await until(lambda: heard.ended)
    assert len(heard.times) == 3
    assert (heard.ended[0].code, heard.ended[0].reason) == (1008, "too fast")


@ON_EVERY_SERVER
async def test_what_a_peer_said_before_it_left_is_heard_in_its_time(server: ServerUnderTest) -> None:
    heard = Heard(Rate("20/second", burst=2))
    async with server.run(heard.app) as served:
        async with connect(f"{served.url}/ws") as client:
            for _ in range(6):
                await client.send("hi")
        await until(lambda: heard.ended)
    assert len(heard.times) == 6
    assert heard.times[-1] - heard.times[0] >= 0.19


@ON_EVERY_SERVER
async def test_a_peer_that_vanishes_while_its_message_waits_ends_the_endpoint(server: ServerUnderTest) -> None:
    heard = Heard(Rate("2/second", burst=1, longest_wait=1.0))
    async with server.run(heard.app) as served:
        client = await RawClient.connect(served.port, "/ws")
        await asyncio.get_running_loop().sock_sendall(client.sock, TEXT_HI * 30)
        await until(lambda: heard.times)
        client.reset()
        await until(lambda: heard.ended, 20)
    assert len(heard.times) <= 15


@pytest.mark.parametrize("server", [one for one in SERVERS if one.stops_with_clients], ids=lambda server: server.name)
async def test_a_server_that_stops_does_not_wait_for_a_message_that_does(server: ServerUnderTest) -> None:
    """Another waits for its clients to leave, and hears their messages at its pace."""
    heard = Heard(Rate("0.2/second", burst=1))
    async with server.run(heard.app) as served:
        client = await RawClient.connect(served.port, "/ws")
        await asyncio.get_running_loop().sock_sendall(client.sock, TEXT_HI * 3)
        await until(lambda: heard.times)
        began = now()
    client.vanish()
    assert now() - began < 8
    assert len(heard.times) == 1


@virtual_time
async def test_a_stop_closes_with_1012_while_a_message_waits() -> None:
    heard = Heard(Rate("0.2/second", burst=1))
    async with Server(heard.app, config=ServerConfig(stop_window=0)) as server, server.connect("/ws") as client:
        await client.send("hi")
        await client.send("hi")
        await asyncio.sleep(1)
        began = now()
        await server.stop()
        assert await client.wait_closed() == 1012
        assert now() - began < 0.5
    assert len(heard.times) == 1
    assert heard.ended[0].code == 1012


@virtual_time
async def test_a_peer_that_sends_and_finishes_is_heard_to_the_end() -> None:
    heard = Heard(Rate("1/second", burst=2))
    async with Server(heard.app) as server, server.connect("/ws") as client:
        for _ in range(5):
            await client.send("hi")
        client.half_close()
        await asyncio.sleep(30)
        assert len(heard.times) == 5
        assert heard.ended[0].code == 1006


@virtual_time
async def test_who_left_is_heard_for_the_longest_wait_and_no_longer() -> None:
    heard = Heard(Rate("1/second", burst=1, longest_wait=4))
    async with Server(heard.app) as server:
        async with server.connect("/ws") as client:
            for _ in range(100):
                await client.send("hi")
            await asyncio.sleep(2.5)
            client.drop()
            await asyncio.sleep(20)
            assert 6 <= len(heard.times) <= 8
            assert heard.times[-1] < 8.5
            assert heard.ended[0].code == 1006


@virtual_time
async def test_a_cancelled_receive_loses_no_message_and_gains_no_time() -> None:
    heard: list[tuple[str, float]] = []
    app = App()

    @app.websocket("/ws", rates=[Rate("1/second", burst=1)])
    async def hear(websocket: WebSocket) -> None:
        await websocket.accept()
        while len(heard) < 3:
            try:
                async with asyncio.timeout(0.3):
                    heard.append((await websocket.receive_text(), now()))
            except TimeoutError:
                pass

    async with Server(app) as server, server.connect("/ws") as client:
        began = now()
        for text in ("one", "two", "three"):
            await client.send(text)
        await client.wait_closed()
    assert [text for text, _ in heard] == ["one", "two", "three"]
    assert [at - began for _, at in heard] == pytest.approx([0, 1, 2], abs=0.01)


@virtual_time
async def test_a_message_that_waits_may_be_received_in_another_way() -> None:
    heard: list[Any] = []
    app = App()

    @app.websocket("/ws", rates=[Rate("1/second", burst=1)])
    async def hear(websocket: WebSocket) -> None:
        await websocket.accept()
        heard.append(await websocket.receive_text())
        for receive in (websocket.receive, websocket.receive_payload, websocket.receive_bytes):
            try:
                async with asyncio.timeout(0.3):
                    await websocket.receive_text()
            except TimeoutError:
                heard.append(await receive())

    async with Server(app) as server, server.connect("/ws") as client:
        for message in ("one", "two", b"three", b"four"):
            await client.send(message)
        await client.wait_closed()
    assert heard == ["one", {"type": "websocket.receive", "text": "two"}, b"three", b"four"]


@virtual_time
async def test_two_receives_at_one_time_are_told_also_while_a_message_waits() -> None:
    told: list[str] = []
    app = App()

    @app.websocket("/ws", rates=[Rate("1/second", burst=1)])
    async def hear(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.receive_text()
        first = asyncio.create_task(websocket.receive_text())
        await asyncio.sleep(0.1)
        try:
            await websocket.receive_text()
        except RuntimeError as exc:
            told.append(str(exc))
        told.append(await first)

    async with Server(app) as server, server.connect("/ws") as client:
        await client.send("one")
        await client.send("two")
        await client.wait_closed()
    assert told[0].startswith("two tasks receive from one WebSocket at the same time")
    assert told[1] == "two"


@virtual_time
async def test_an_endpoint_that_is_cancelled_while_a_message_waits_ends_at_once() -> None:
    ended: list[float] = []
    app = App()

    @app.websocket("/ws", rates=[Rate("1/second", burst=1)])
    async def hear(websocket: WebSocket) -> None:
        await websocket.accept()

        async def read() -> None:
            async for _ in websocket.iter_text():
                pass

        task = asyncio.create_task(read())
        await asyncio.sleep(0.5)
        task.cancel()
        await asyncio.wait([task])
        ended.append(now())
        assert task.cancelled()

    async with Server(app) as server, server.connect("/ws") as client:
        began = now()
        for _ in range(5):
            await client.send("hi")
        assert await client.wait_closed() == 1000
    assert ended[0] - began == pytest.approx(0.5, abs=0.01)


@virtual_time
async def test_keepalive_does_not_blame_a_peer_whose_messages_wait() -> None:
    heard = Heard(Rate("1/second", burst=1))
    config = ServerConfig(ping_interval=2, ping_timeout=2, inbound_bytes=1000)
    async with Server(heard.app, config=config) as server, server.connect("/ws") as client:
        for _ in range(500):
            await client.send("hi" * 50)
        await asyncio.sleep(120)
        assert client.close_code is None
        assert len(heard.times) == pytest.approx(121, abs=1)
        client.drop()


@virtual_time
async def test_the_socket_is_not_read_while_messages_wait() -> None:
    heard = Heard(Rate("1/second", burst=1))
    config = ServerConfig(inbound_bytes=10_000)
    async with Server(heard.app, config=config, window=20_000) as server, server.connect("/ws") as client:
        for _ in range(100):
            await client.send("x" * 1000)
        await asyncio.sleep(10)
        [session] = server.engine.sessions
        assert session.pipe.reading_paused
        assert session.pipe.inbox_bytes < 100_000
        client.drop()


async def test_a_full_socket_holds_up_a_peer_that_is_too_fast() -> None:
    heard = Heard(Rate("5/second", burst=1))
    [antiphon] = [server for server in SERVERS if server.name == "antiphon"]
    async with antiphon.run(heard.app) as served:
        with await RawClient.connect(served.port, "/ws") as client:
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            frames, sent = TEXT_HI * 10_000, 0

            async def send() -> None:
                nonlocal sent
                while True:
                    await asyncio.get_running_loop().sock_sendall(client.sock, frames)
                    sent += len(frames)

            with pytest.raises(TimeoutError):
                await asyncio.wait_for(send(), 1.5)
            assert sent < 20 << 20
            assert len(heard.times) <= 1 + 5 * 3
