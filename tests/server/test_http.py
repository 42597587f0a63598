"""`HTTPProtocol`: bounds for the first request, HTTP untouched, WebSockets straight from the socket."""

from __future__ import annotations

import asyncio
import contextlib
import os
from dataclasses import dataclass
from typing import Any, cast

import pytest
import websockets
from uvicorn.protocols.http.h11_impl import H11Protocol

from antiphon.events import ConnectionRefused
from antiphon.server import Engine, HTTPProtocol, ServerConfig
from antiphon.server.doorway import REQUESTS
from tests.patience import PATIENCE

from .raw import TEXT, Recorder, connect, echo, frame, request, serving, until


async def both(scope: Any, receive: Any, send: Any) -> None:
    """HTTP answers with the request's body. WebSockets echo."""
    if scope["type"] == "websocket":
        await echo(scope, receive, send)
        return
    body = b""
    while (message := await receive())["type"] == "http.request":
        body += message["body"]
        if not message.get("more_body"):
            break
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


OURS: dict[str, Any] = {"http": HTTPProtocol, "lifespan": "off"}


@dataclass
class Clock:
    """By which the engine keeps its deadlines. It stands still until a test moves it: no machine is too slow for it."""

    now: float = 1000.0
    engine: Engine | None = None

    def __call__(self) -> float:
        return self.now

    async def moves(self, seconds: float) -> None:
        """Returns when all who are late by now have been told."""
        self.now += seconds
        assert self.engine is not None
        wheel = self.engine.deadlines
        await asyncio.sleep(0)
        await until(lambda: not len(wheel) or wheel._position >= int(self.now / wheel.tick))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()

    def engine(*args: Any, **options: Any) -> Engine:
        clock.engine = Engine(*args, clock=clock, **options)
        return clock.engine

    monkeypatch.setattr("antiphon.server.uvicorn.Engine", engine)
    return clock


async def test_http_requests_and_websockets_share_a_port() -> None:
    async with serving(both, **OURS) as served:
        async with connect(served.port) as raw:
            for body in (b"", b"x" * 100_000):
                await raw.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
                assert (await raw.read_head()).startswith(b"HTTP/1.1 200 ")
                assert await raw.reader.readexactly(len(body)) == body
            await raw.send(request())  # a WebSocket on a connection that has served HTTP
            assert (await raw.read_head()).startswith(b"HTTP/1.1 101 ")
            await raw.send(frame(TEXT, b"x"))
            assert await raw.frame() == (TEXT, b"x")
        async with websockets.connect(f"{served}/") as client:
            await client.send("x")
            assert await client.recv() == "x"


@pytest.mark.parametrize("step", [1, 7, 1000])
async def test_a_request_in_pieces_with_frames_behind_it_is_understood(step: int) -> None:
    async with serving(both, **OURS) as served:
        async with connect(served.port) as raw:
            data = request() + frame(TEXT, b"first") + frame(TEXT, b"second")
            for start in range(0, len(data), step):
                await raw.send(data[start : start + step])
                await asyncio.sleep(0)
            assert (await raw.read_head()).startswith(b"HTTP/1.1 101 ")
            assert [await raw.frame(), await raw.frame()] == [(TEXT, b"first"), (TEXT, b"second")]


async def test_a_head_that_does_not_end_is_refused_by_size() -> None:
    recorder = Recorder([])
    limits = ServerConfig(handshake_size=2000, observers=(recorder.events.append,))
    async with serving(both, limits, **OURS) as served:
        async with connect(served.port) as raw:
            await raw.send(b"GET / HTTP/1.1\r\nX: " + b"x" * 3000)
            assert (await raw.read_all()).startswith(b"HTTP/1.1 431 ")
    assert [event.status for event in recorder.of(ConnectionRefused)] == [431]


async def test_a_head_that_does_not_end_is_refused_by_time(clock: Clock) -> None:
    recorder = Recorder([])
    limits = ServerConfig(handshake_timeout=1.0, observers=(recorder.events.append,))
    async with serving(both, limits, **OURS) as served:
        assert served.server is not None
        state: Any = served.server.server_state
        async with connect(served.port) as slow, connect(served.port) as silent:
            await slow.send(b"GET / HTTP/1.1\r\n")
            await until(lambda: len(state.connections) == 2 and any(one._data for one in state.connections))
            await clock.moves(0.9)
            assert len(state.connections) == 2
            await clock.moves(0.3)  # the wheel's tick is a sixteenth
            assert (await slow.read_all()).startswith(b"HTTP/1.1 408 ")
            assert await silent.read_all() == b""
        await until(lambda: not state.connections)
    assert [event.status for event in recorder.of(ConnectionRefused)] == [408]


@pytest.mark.parametrize("noise", [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"\n", b"\r\n\rGET", b"get / "])
async def test_what_is_no_http_is_refused_at_its_first_byte(noise: bytes) -> None:
    recorder = Recorder([])
    async with serving(both, ServerConfig(observers=(recorder.events.append,)), **OURS) as served:
        async with connect(served.port) as raw:
            await raw.send(noise)
            assert (await raw.read_all()).startswith(b"HTTP/1.1 400 ")
    assert [event.status for event in recorder.of(ConnectionRefused)] == [400]


@pytest.mark.parametrize("step", [1, 1000])
async def test_empty_lines_before_a_request_are_skipped(step: int) -> None:
    async with serving(both, **OURS) as served:
        for lines in (1, 20):
            for asked, answer in ((request(), b"101"), (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"200")):
                async with connect(served.port) as raw:
                    data = b"\r\n" * lines + asked
                    for start in range(0, len(data), step):
                        await raw.send(data[start : start + step])
                        await asyncio.sleep(0)
                    assert (await raw.read_head()).startswith(b"HTTP/1.1 " + answer)


async def test_empty_lines_without_an_end_are_refused_by_size() -> None:
    recorder = Recorder([])
    limits = ServerConfig(handshake_size=2000, observers=(recorder.events.append,))
    async with serving(both, limits, **OURS) as served:
        async with connect(served.port) as raw:
            await raw.send(b"\r\n" * 2000)
            assert (await raw.read_all()).startswith(b"HTTP/1.1 431 ")
    assert [event.status for event in recorder.of(ConnectionRefused)] == [431]


GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
ENDLESS = {
    "behind an empty line": (b"", b"\r\nGET / HTTP/1.1\r\nHost: x\r\n"),
    "of the second request": (GET, b"GET / HTTP/1.1\r\nHost: x\r\n"),
    "of the second request, behind an empty line": (GET, b"\r\nGET / HTTP/1.1\r\nHost: x\r\n"),
}


@pytest.mark.parametrize("line", [b"X: " + b"x" * 93 + b"\r\n", b"x" * 98], ids=["many headers", "one header"])
@pytest.mark.parametrize("which", ENDLESS)
async def test_every_head_that_does_not_end_is_refused_by_size(which: str, line: bytes) -> None:
    first, head = ENDLESS[which]
    recorder = Recorder([])
    limits = ServerConfig(handshake_size=20_000, observers=(recorder.events.append,))
    async with serving(both, limits, **OURS) as served:
        async with connect(served.port) as raw:
            if first:
                await raw.send(first)
                assert (await raw.read_head()).startswith(b"HTTP/1.1 200 ")
            await raw.send(head + (b"" if line.startswith(b"X:") else b"X: "))
            with contextlib.suppress(ConnectionError):
                for _ in range(10_000):
                    await raw.send(line)
                    if recorder.of(ConnectionRefused):
                        break
            await raw.ended()
    assert [event.status for event in recorder.of(ConnectionRefused)] == [431]


@pytest.mark.parametrize("which", ENDLESS)
async def test_every_head_that_does_not_end_is_refused_by_time(which: str, clock: Clock) -> None:
    first, head = ENDLESS[which]
    recorder = Recorder([])
    limits = ServerConfig(handshake_timeout=0.5, observers=(recorder.events.append,))
    async with serving(both, limits, **OURS, timeout_keep_alive=600) as served:
        async with connect(served.port) as raw:
            if first:
                await raw.send(first)
                assert (await raw.read_head()).startswith(b"HTTP/1.1 200 ")
            await raw.send(head)
            answer = asyncio.create_task(raw.read_head())  # reads all along: a reset drops unread bytes
            with contextlib.suppress(ConnectionError):
                while not recorder.of(ConnectionRefused):
                    await raw.send(b"X: x\r\n")
                    await clock.moves(0.05)
            assert (await answer).startswith(b"HTTP/1.1 408 ")
            await raw.ended()
        assert served.server is not None
        state = served.server.server_state
        await until(lambda: not state.connections)


async def test_an_empty_line_between_requests_does_not_hold_the_connection_open_for_ever(clock: Clock) -> None:
    recorder = Recorder([])
    limits = ServerConfig(handshake_timeout=0.5, observers=(recorder.events.append,))
    async with serving(both, limits, **OURS) as served:
        async with connect(served.port) as raw:
            await raw.send(GET)
            await raw.read_head()
            await raw.send(b"\r\n")
            answer = asyncio.create_task(raw.read_all())
            async with asyncio.timeout(PATIENCE):
                while not recorder.of(ConnectionRefused):
                    await clock.moves(0.05)
            assert (await answer).startswith(b"HTTP/1.1 408 ")


async def test_a_body_may_be_larger_and_slower_than_a_head(clock: Clock) -> None:
    begun: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        begun.append(scope["path"])
        await both(scope, receive, send)

    limits = ServerConfig(handshake_timeout=0.3, handshake_size=1000)
    async with serving(app, limits, **OURS) as served:
        async with connect(served.port) as raw:
            for number in range(2):
                await raw.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n")
                await until(lambda number=number: len(begun) > number)  # type: ignore[misc]
                for _ in range(5):
                    await clock.moves(0.2)
                    await raw.send(b"x" * 1000)
                assert (await raw.read_head()).startswith(b"HTTP/1.1 200 ")
                assert len(await raw.reader.readexactly(5000)) == 5000


async def test_trailers_without_an_end_are_refused_by_size() -> None:
    recorder = Recorder([])
    limits = ServerConfig(handshake_size=20_000, observers=(recorder.events.append,))
    async with serving(both, limits, **OURS) as served:
        async with connect(served.port) as raw:
            await raw.send(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n")
            with contextlib.suppress(ConnectionError):
                for _ in range(10_000):
                    await raw.send(b"X: " + b"x" * 95 + b"\r\n")
                    if recorder.of(ConnectionRefused):
                        break
            await raw.ended()
    assert [event.status for event in recorder.of(ConnectionRefused)] == [431]


@pytest.mark.parametrize("method", [b"GET", b"POST"])
async def test_a_request_that_does_not_ask_to_upgrade_its_connection_is_plain_http(method: bytes) -> None:
    async with serving(both, **OURS) as served:
        async with connect(served.port) as raw:
            for connection in (b"", b"Connection: keep-alive\r\n"):
                fields = b"Host: x\r\nUpgrade: websocket\r\nContent-Length: 0\r\n" + connection
                await raw.send(method + b" / HTTP/1.1\r\n" + fields + b"\r\n")
                assert (await raw.read_head()).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("asked", [request(), GET], ids=["websocket", "http"])
@pytest.mark.parametrize("before", [0, 10])
async def test_who_has_connected_before_a_stop_and_asks_then_is_told_to_come_again(asked: bytes, before: int) -> None:
    async with contextlib.AsyncExitStack() as clients:
        async with serving(both, **OURS, timeout_graceful_shutdown=None) as served:
            assert served.server is not None
            state = served.server.server_state
            raw = await clients.enter_async_context(connect(served.port))
            await raw.send(asked[:before])
            await until(lambda: state.connections)
            (protocol,) = cast(Any, state.connections)
            served.server.should_exit = True
            await until(lambda: protocol._engine.stopping)
            await raw.send(asked[before:])
            answer = await raw.read_all()
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b"retry-after: 5" in answer.lower()
            await until(lambda: not state.connections)


async def test_a_client_gone_before_its_request_leaves_nothing() -> None:
    async with serving(both, **OURS) as served:
        async with connect(served.port) as raw:
            await raw.send(b"GET / HT")
            assert served.server is not None
            state = served.server.server_state
            await until(lambda: state.connections)
            raw.reset()
            await until(lambda: not state.connections)


async def test_a_stop_does_not_wait_for_clients_that_have_asked_nothing() -> None:
    async with contextlib.AsyncExitStack() as clients:
        limits = ServerConfig(handshake_timeout=None)
        async with serving(both, limits, **OURS, timeout_graceful_shutdown=None) as served:
            raw = await clients.enter_async_context(connect(served.port))
            assert served.server is not None
            state = served.server.server_state
            await until(lambda: state.connections)
        assert await raw.read_all() == b""


@pytest.mark.parametrize("http", ["httptools", "h11", H11Protocol])
async def test_our_websockets_run_behind_each_of_uvicorns_http_protocols(http: Any) -> None:
    async with serving(both, http=http, lifespan="off") as served:
        async with websockets.connect(f"{served}/") as client:
            await client.send("x")
            assert await client.recv() == "x"


async def test_another_websocket_protocol_behind_our_http_one_still_works() -> None:
    from tests.serving import serve

    async with serve(both, ws="websockets-sansio", **OURS) as served:
        async with websockets.connect(f"{served}/") as client:
            await client.send("x")
            assert await client.recv() == "x"


async def test_of_many_requests_at_once_a_turn_of_the_loop_takes_in_some() -> None:
    came: list[Any] = []
    begun: list[str] = []

    class Counting(HTTPProtocol):
        __slots__ = ()

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            came.append(transport)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        begun.append(scope["path"])
        await both(scope, receive, send)

    async with serving(app, http=Counting, lifespan="off") as served, contextlib.AsyncExitStack() as stack:
        crowd = [await stack.enter_async_context(connect(served.port)) for _ in range(120)]
        await until(lambda: len(came) == 120)
        for number, raw in enumerate(crowd):
            path = f"/{number}"
            asked = request(path) if number % 2 else f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
            os.write(raw.socket.fileno(), asked)  # before the loop can turn
        most, before = 0, 0
        while before < 60:
            await asyncio.sleep(0)
            most, before = max(most, len(begun) - before), len(begun)
        for raw in crowd[100:]:
            raw.reset()
        for number, raw in enumerate(crowd[:100]):
            assert (await raw.read_head()).split()[1] == (b"101" if number % 2 else b"200")
        assert most <= 2 * REQUESTS, "two turns of the loop, where this task's is between them"
        await crowd[1].send(frame(TEXT, b"x"))
        assert await crowd[1].frame() == (TEXT, b"x")


@pytest.mark.parametrize("end", ["reset", "stop", "abort"])
async def test_a_request_whose_turn_has_not_come_may_be_reset_or_meet_a_stop(
    end: str, caplog: pytest.LogCaptureFixture
) -> None:
    came: list[Any] = []
    waiting: list[int] = []

    class Keeping(HTTPProtocol):
        __slots__ = ()

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            came.append(transport)

    async with serving(both, http=Keeping) as served, contextlib.AsyncExitStack() as stack:
        assert served.server is not None
        state = served.server.server_state
        crowd = [await stack.enter_async_context(connect(served.port)) for _ in range(60)]
        await until(lambda: len(state.connections) == 60)
        for raw in crowd:
            os.write(raw.socket.fileno(), request())
        if end == "reset":
            for raw in crowd[20:]:
                raw.reset()
        elif end == "abort":  # as the end of TLS does, which is noticed although the socket is not read
            while all(transport.is_reading() for transport in came):  # noqa: ASYNC110 - each turn of the loop counts
                await asyncio.sleep(0)
            waiting = [number for number, transport in enumerate(came) if not transport.is_reading()]
            for number in waiting:
                came[number].abort()
        else:
            served.server.should_exit = True
        left = [number for number in range(20 if end == "reset" else 60) if number not in waiting]
        for number in left:
            head = await crowd[number].read_head()
            assert head.split()[1] in ((b"101", b"503") if end == "stop" else (b"101",))
        if end != "stop":
            async with connect(served.port) as raw:
                await raw.send(request())
                assert (await raw.read_head()).split()[1] == b"101"
    assert "taking in a request failed" not in caplog.text
