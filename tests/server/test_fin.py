"""The peer has finished (FIN), and its earlier bytes wait for their turn: they are still parsed in turns, and heard."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import logging
import socket
import ssl
import struct
import zlib
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from antiphon.server import Engine, ServerConfig, Session
from tests.patience import PATIENCE

from .raw import TEXT, close_frame, frame, request, until
from .test_transports import certificate as certificate
from .test_transports import tls as contexts

KIB = 1 << 10
MIB = 1 << 20
OFFER = "Sec-WebSocket-Extensions: permessage-deflate"
IN_A_TURN = 6
"""Parts of several connections' bytes that one turn of the loop parses, with a clock by which each takes long."""


@functools.cache
def bomb(payload: bytes, opcode: int = TEXT) -> bytes:
    compressor = zlib.compressobj(9, wbits=-15)
    return frame(opcode, (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4], rsv1=True)


@dataclass
class Table:
    """A server on a real socket, by whose clock everything takes long, and the messages of its apps."""

    engine: Engine
    port: int
    trust: ssl.SSLContext | None
    sessions: list[Session]
    heard: dict[str, list[Any]] = field(default_factory=dict)

    def parsed(self) -> int:
        """Parts, of all connections."""
        return sum(session.pipe.received for session in self.sessions)

    @property
    def ends(self) -> list[Any]:
        return [heard[-1] for heard in self.heard.values() if heard and isinstance(heard[-1], int)]

    def over(self) -> bool:
        return not (self.engine.sessions or self.engine.tasks or self.engine.connections)


class Client(asyncio.Protocol):
    def __init__(self) -> None:
        self.head = bytearray()
        self.transport: Any = None
        self.lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.head += data

    def eof_received(self) -> bool:
        return self.transport.get_extra_info("sslcontext") is None

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()

    def say(self, data: bytes) -> None:
        """That, and FIN (with TLS: close_notify) behind it."""
        self.transport.write(data)
        if self.transport.get_extra_info("sslcontext") is not None:
            self.transport.close()
        else:
            self.transport.write_eof()

    def reset(self) -> None:
        """RST, unless the connection is over already, as it is with TLS."""
        sock = self.transport.get_extra_info("socket")
        if sock is None:
            return
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()


@pytest.fixture(params=["plain", "tls"])
def table(request: pytest.FixtureRequest, certificate: tuple[Path, Path]) -> Callable[..., Any]:
    """Serves with `table(app, **config)`, where the app also gets the list of its messages."""

    @contextlib.asynccontextmanager
    async def serving(app: Any, **config: Any) -> AsyncGenerator[Table]:
        context = trust = None
        if request.param == "tls":
            options, trust = contexts(certificate)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(options["ssl_certfile"], options["ssl_keyfile"])

        async def listening(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "websocket.accept"})
            heard = served.heard.setdefault(scope["path"], [])

            async def noting() -> Any:
                message = await receive()
                heard.append(message.get("text", message.get("bytes", message.get("code"))))
                return message

            await app(noting, send)

        loop = asyncio.get_running_loop()
        limits = ServerConfig(**({"ping_interval": None} | config))
        clock = itertools.count(0.0, 1.0).__next__
        engine = Engine(listening, limits, work_clock=clock)
        sessions: list[Session] = []

        def session() -> Session:
            sessions.append(Session(engine))
            return sessions[-1]

        server = await loop.create_server(session, "127.0.0.1", 0, ssl=context)
        served = Table(engine, server.sockets[0].getsockname()[1], trust, sessions)
        try:
            yield served
        finally:
            server.close()
            for one in list(engine.sessions):
                if one.task is not None:
                    one.task.cancel()
                one.abort()
            await until(served.over)
            engine.deadlines.stop()

    return serving


@contextlib.asynccontextmanager
async def clients(served: Table, count: int) -> AsyncGenerator[list[Client]]:
    loop = asyncio.get_running_loop()
    made = []
    for number in range(count):
        _, client = await loop.create_connection(Client, "127.0.0.1", served.port, ssl=served.trust)
        client.transport.write(request(f"/{number}", OFFER))
        made.append(client)
    await until(lambda: all(b"\r\n\r\n" in client.head for client in made))
    try:
        yield made
    finally:
        for client in made:
            client.transport.abort()
        for client in made:
            await asyncio.wait_for(client.lost.wait(), PATIENCE)


async def most_in_a_turn(served: Table, done: Callable[[], bool]) -> int:
    """The most parts that were parsed between two turns of the loop, until `done`."""
    most, before = 0, served.parsed()
    async with asyncio.timeout(PATIENCE):
        while not done():
            await asyncio.sleep(0)
            most, before = max(most, served.parsed() - before), served.parsed()
    return most


async def listen(receive: Any, send: Any) -> None:
    while (await receive())["type"] == "websocket.receive":
        pass


async def echo(receive: Any, send: Any) -> None:
    with contextlib.suppress(OSError):
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": "got " + message["text"][:10]})
    await listen(receive, send)


async def test_what_came_before_a_fin_is_parsed_over_many_turns_of_the_loop_and_reaches_the_app(table: Any) -> None:
    whole = "x" * (4 * MIB)
    async with table(listen) as served, clients(served, 8) as peers:
        for peer in peers:
            peer.say(bomb(whole.encode()))
        assert await most_in_a_turn(served, lambda: len(served.ends) == 8) <= IN_A_TURN
        assert list(served.heard.values()) == [[whole, 1006]] * 8
        await until(served.over)


@pytest.mark.parametrize(
    ("last", "code"),
    [(close_frame(4000), 4000), (frame(TEXT, b"\xff"), 1007), (frame(TEXT, b"never whole", fin=False), 1006)],
    ids=["close", "violation", "nothing"],
)
async def test_the_end_behind_a_fin_has_its_code_and_comes_behind_all_that_was_said(
    table: Any, last: bytes, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    said = b"".join(frame(TEXT, b"%d" % number) for number in range(1000))
    async with table(echo) as served, clients(served, 4) as peers:
        for peer in peers:
            peer.say(said + last)
        assert await most_in_a_turn(served, lambda: len(served.ends) == 4) <= IN_A_TURN
        assert list(served.heard.values()) == [[*map(str, range(1000)), code]] * 4
        await until(served.over)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_an_app_that_reads_late_holds_a_finished_connection_for_send_timeout_at_most(table: Any) -> None:
    ready = asyncio.Event()

    async def late(receive: Any, send: Any) -> None:
        await ready.wait()
        await listen(receive, send)

    async with table(late, inbound_bytes=4 * KIB, send_timeout=0.4) as served, clients(served, 4) as peers:
        for peer in peers:
            peer.say(bomb(b"x" * (200 * KIB)) * 10)
        await until(lambda: all(session.pipe.transport is None for session in served.sessions))
        assert all(session.pipe.inbox_bytes <= 400 * KIB for session in served.sessions)
        ready.set()
        await until(served.over)
    assert served.ends == [1006] * 4


async def test_an_app_that_reads_late_still_hears_all_where_the_connection_can_stay_open_that_long(table: Any) -> None:
    ready = asyncio.Event()

    async def late(receive: Any, send: Any) -> None:
        await ready.wait()
        await listen(receive, send)

    async with table(late, inbound_bytes=4 * KIB) as served, clients(served, 4) as peers:
        for peer in peers:
            peer.say(bomb(b"x" * (200 * KIB)) * 10)
        await until(lambda: all(session.pipe.inbox_bytes for session in served.sessions))
        ready.set()
        await until(lambda: len(served.ends) == 4)
        for heard in served.heard.values():
            *messages, code = heard
            assert code == 1006
            assert set(messages) == {"x" * (200 * KIB)}
            assert len(messages) == 10 or served.trust is not None
        await until(served.over)


async def test_a_close_of_ours_that_a_finished_peer_does_not_answer_ends_in_time(table: Any) -> None:
    async def closing(receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.close", "code": 4001})

    async with table(closing, close_timeout=0.4) as served, clients(served, 4) as peers:
        for peer in peers:
            peer.say(frame(TEXT, b"x") * 1000)
        assert await most_in_a_turn(served, served.over) <= IN_A_TURN
        assert {session.pipe.close_code for session in served.sessions} == {4001}


@pytest.mark.parametrize("how", ["reset", "abort", "stop", "return"])
async def test_a_finished_connection_leaves_nothing_behind_however_it_ends_while_it_waits(table: Any, how: str) -> None:
    async def app(receive: Any, send: Any) -> None:
        if how == "return":
            await receive()
        else:
            await echo(receive, send)

    config = {"stop_window": 0.0, "stop_grace": 0.2, "close_timeout": 0.2}
    async with table(app, **config) as served, clients(served, 4) as peers:
        for peer in peers:
            peer.say(frame(TEXT, b"x") * 2000)
        waiting: list[str] = []
        async with asyncio.timeout(PATIENCE):
            while not waiting:
                await asyncio.sleep(0)  # each turn of the loop counts
                waiting = [session.watch.path for session in served.sessions if session.pipe.finished]
        if how == "reset":
            for peer in peers:
                peer.reset()
        elif how == "abort":
            for session in served.sessions:
                session.abort()
        elif how == "stop":
            served.engine.begin_stop()
        await until(served.over)
        assert all(session.pipe.parser is None for session in served.sessions)
        assert len(served.engine.deadlines) == 0
        if how == "reset":  # all their messages were there
            assert all(served.heard[path] == ["x"] * 2000 + [1006] for path in waiting)
