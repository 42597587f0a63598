"""Peers that are gone while nobody looks, and apps that never look: neither holds a connection or the loop for ever."""

from __future__ import annotations

import asyncio
import itertools
import socket
import struct
from typing import Any

import pytest
from fastapi import FastAPI, WebSocket

from antiphon.server import HTTPProtocol, ServerConfig
from antiphon.server.backend import Pipe
from antiphon.server.engine import Engine
from antiphon.server.session import Session
from tests.patience import PATIENCE, SCALES
from tests.server.raw import TEXT, Raw, close_frame, echo, frame, opened, request, serving, until
from tests.serving import HOST

from .bystander import BEFORE_ANY_DEFAULT, sleeper, watched

KIB = 1 << 10


async def fill(raw: Raw, sessions: list[Pipe]) -> None:
    """Send until the server does not read any more."""
    while not sessions or not sessions[0].reading_paused:
        await raw.send(frame(2, bytes(4 * KIB)))
        await asyncio.sleep(0)


async def test_a_reset_is_noticed_though_the_app_reads_nothing(caplog: Any) -> None:
    sessions: list[Pipe] = []
    seen: list[Any] = []
    go = asyncio.Event()
    limits = ServerConfig(inbound_bytes=16 * KIB)
    async with watched(sleeper(sessions, go, seen), limits, caplog) as (served, _):
        async with opened(served.port) as raw:
            await fill(raw, sessions)
            raw.reset()
            await until(lambda: sessions[0].close_code == 1006, BEFORE_ANY_DEFAULT)
        go.set()
        await until(lambda: seen[-1:] == [1006])
        assert len(seen) > 1, "what was read before the reset is still to be had"


@pytest.mark.parametrize("http", [HTTPProtocol, "httptools"])
async def test_no_app_meets_a_client_without_an_address(http: Any) -> None:
    """A socket that was reset before it was taken in may have none left: `websocket.client.host` would fail."""
    clients: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        clients.append(scope["client"])
        await echo(scope, receive, send)

    async with serving(app, http=http) as served:
        for _ in range(20):
            with socket.create_connection((HOST, served.port)) as sock:
                # The server takes them in only when this task lets the loop run.
                sock.sendall(request())
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        async with opened(served.port) as raw:
            await raw.send(frame(TEXT, b"x"))
            assert (await raw.frame()).payload == b"x"
    assert {client and client[0] for client in clients} == {HOST}


async def test_clients_that_were_reset_while_they_waited_to_be_accepted_are_no_sessions(monkeypatch: Any) -> None:
    """They cost a fraction of one, for others wait behind them."""
    begun: list[Session] = []
    begin = Session.__init__
    read: list[HTTPProtocol] = []
    receive = HTTPProtocol.data_received

    def counting(self: Session, engine: Engine) -> None:
        begun.append(self)
        begin(self, engine)

    def reading(self: HTTPProtocol, data: bytes) -> None:
        read.append(self)
        receive(self, data)

    monkeypatch.setattr(Session, "__init__", counting)
    monkeypatch.setattr(HTTPProtocol, "data_received", reading)
    async with serving(echo, http=HTTPProtocol) as served:
        for _ in range(50):
            with socket.create_connection((HOST, served.port)) as sock:
                sock.sendall(request() + frame(TEXT, b"x") * 100)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        async with opened(served.port) as raw:
            await raw.send(frame(TEXT, b"x"))
            assert (await raw.frame()).payload == b"x"
        assert len(begun) == 1
        assert len(read) == 1, "what they sent is not read"


async def test_a_request_that_was_reset_while_it_waited_to_be_accepted_reaches_the_app() -> None:
    """The kernel still has it. It may be a last word, whose answer nobody wants."""
    asked: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            asked.append(scope["path"])
        else:
            await echo(scope, receive, send)

    async with serving(app, http=HTTPProtocol) as served:
        for number in range(3):
            with socket.create_connection((HOST, served.port)) as sock:
                sock.sendall(f"POST /{number} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode())
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await until(lambda: len(asked) == 3)
    assert asked == ["/0", "/1", "/2"]


async def test_a_peer_that_has_finished_is_given_up_when_the_app_reads_nothing_for_send_timeout(caplog: Any) -> None:
    sessions: list[Pipe] = []
    go = asyncio.Event()
    limits = ServerConfig(inbound_bytes=16 * KIB, send_timeout=0.5)
    async with watched(sleeper(sessions, go, []), limits, caplog) as (served, _):
        async with opened(served.port) as raw:
            await fill(raw, sessions)
            await raw.send(close_frame(1000))
            raw.writer.close()
            await until(lambda: sessions[0].close_code == 1006, BEFORE_ANY_DEFAULT)
        go.set()


async def test_a_peer_that_has_finished_is_heard_to_its_close_by_an_app_that_reads_slowly(caplog: Any) -> None:
    for send_timeout in SCALES:
        seen, longest_pause = await hear_slowly(send_timeout, caplog)
        if longest_pause < send_timeout / 2:  # else the machine itself has kept the app from reading in time
            break
    assert len(seen) == 11
    assert seen[-1] == 4001


async def hear_slowly(send_timeout: float, caplog: Any) -> tuple[list[Any], float]:
    """The app's messages, and the longest time in which it read nothing."""
    seen: list[Any] = []
    times: list[float] = []
    loop = asyncio.get_running_loop()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            seen.append(message["bytes"])
            times.append(loop.time())
            await asyncio.sleep(send_timeout / 4)
        seen.append(message["code"])
        times.append(loop.time())

    limits = ServerConfig(inbound_bytes=16 * KIB, send_timeout=send_timeout)
    async with watched(app, limits, caplog) as (served, _):
        async with opened(served.port) as raw:
            await raw.send(frame(2, bytes(8 * KIB)) * 10 + close_frame(4001))
            raw.writer.close()
            await until(lambda: seen and isinstance(seen[-1], int))
    return seen, max(b - a for a, b in itertools.pairwise(times))


async def test_tcp_itself_asks_a_silent_peer_that_is_not_read_from(caplog: Any) -> None:
    sessions: list[Pipe] = []
    go = asyncio.Event()
    limits = ServerConfig(inbound_bytes=16 * KIB)
    settings: dict[str, Any] = {"ws_ping_interval": 7, "ws_ping_timeout": 9}
    async with watched(sleeper(sessions, go, []), limits, caplog, **settings) as (served, _):
        async with opened(served.port) as raw:
            await fill(raw, sessions)
            assert sessions[0].transport is not None
            sock = sessions[0].transport.get_extra_info("socket")
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            if hasattr(socket, "TCP_KEEPIDLE"):
                assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 7
                assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) == 3
        go.set()


async def sends_for_ever(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while True:
        await send({"type": "websocket.send", "text": "x" * 100})


fastapi_app = FastAPI()


@fastapi_app.websocket("/")
async def fastapi_sends_for_ever(websocket: WebSocket) -> None:
    await websocket.accept()
    while True:
        await websocket.send_text("x" * 100)


@pytest.mark.parametrize("http", ["auto", HTTPProtocol])
@pytest.mark.parametrize("app", [sends_for_ever, fastapi_app], ids=["asgi", "fastapi"])
@pytest.mark.parametrize("how", ["reset", "fin", "close"])
async def test_an_app_that_only_sends_lets_others_run_and_ends_with_its_peer(
    app: Any, how: str, http: Any, caplog: Any
) -> None:
    ended = asyncio.Event()

    async def observed(scope: Any, receive: Any, send: Any) -> None:
        try:
            await app(scope, receive, send)
        finally:
            ended.set()

    # The peer reads everything at once, as the client shares our loop: the bystander sees the time left for others.
    async with watched(observed, ServerConfig(), caplog, http=http) as (served, _):
        async with opened(served.port) as raw:
            taken = 0
            async with asyncio.timeout(PATIENCE):
                while taken < 1 << 20:
                    taken += len(await raw.reader.read(1 << 16))
            if how == "reset":
                raw.reset()
            elif how == "close":
                await raw.send(close_frame(1000))
                raw.stop_reading()
            else:
                raw.writer.close()
            async with asyncio.timeout(BEFORE_ANY_DEFAULT):
                await ended.wait()


async def test_a_burst_of_messages_lets_the_loop_turn_though_the_kernel_takes_them_all() -> None:
    turns = 0
    ended: list[int] = []

    def turn() -> None:
        nonlocal turns
        turns += 1
        if not ended:
            asyncio.get_running_loop().call_soon(turn)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        turn()
        for _ in range(2000):
            await send({"type": "websocket.send", "text": "x"})
        ended.append(turns)

    async with serving(app, lifespan="off") as served:
        async with opened(served.port) as raw:
            for _ in range(2000):
                assert await raw.frame() == (TEXT, b"x")
            await until(lambda: ended)
    assert ended[0] > 4
