"""Input of hostile clients, and mistakes of well-meant apps: bounded, answered, and never in another's way."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import ssl
import weakref
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import uvicorn
import websockets
from fastapi import FastAPI

from antiphon.server import ClientDisconnected, HTTPProtocol, ServerConfig, Session
from antiphon.server.backend import Pipe
from tests.patience import PATIENCE
from tests.server.raw import (
    BINARY,
    CONT,
    PING,
    PONG,
    TEXT,
    close_frame,
    connect,
    echo,
    frame,
    opened,
    request,
    serving,
    until,
)
from tests.server.test_transports import certificate  # noqa: F401  a fixture
from tests.serving import HOST, Served

from .bystander import sleeper, watched

KIB = 1 << 10
MIB = 1 << 20


@pytest.mark.parametrize(
    ("text", "bound"), [("x", 3 * MIB), ("x" * MIB, 20 * MIB)], ids=["tiny frames", "compressed bombs"]
)
async def test_a_flood_that_an_app_does_not_read_is_held_in_bounds_and_nothing_of_it_is_lost(
    text: str, bound: int, caplog: Any
) -> None:
    sessions: list[Pipe] = []
    seen: list[Any] = []
    go = asyncio.Event()
    if len(text) > 1:
        deflate = zlib.compressobj(wbits=-15)
        one = frame(TEXT, (deflate.compress(text.encode()) + deflate.flush(zlib.Z_SYNC_FLUSH))[:-4], rsv1=True)
        count, offer = 80, ["Sec-WebSocket-Extensions: permessage-deflate"]
    else:
        one, count, offer = frame(TEXT, b"x"), 60_000, []
    async with watched(sleeper(sessions, go, seen), ServerConfig(), caplog) as (served, _):
        async with opened(served.port, "/", *offer) as raw:
            sending = asyncio.create_task(raw.send(one * count + close_frame(4000)))
            await until(lambda: sessions and sessions[0].reading_paused)
            for _ in range(50):
                await asyncio.sleep(0.005)
                assert sessions[0].inbox_bytes < bound
            go.set()
            await sending
            await until(lambda: seen and seen[-1] == 4000)
    assert seen == [len(text)] * count + [4000]


@pytest.mark.parametrize(("compressed", "most"), [(False, 128 * KIB), (True, 16 * KIB)], ids=["plain", "compressed"])
async def test_a_flood_that_waits_in_the_socket_is_parsed_in_turns_with_everything_else(
    compressed: bool, most: int, caplog: Any
) -> None:
    sessions: list[Pipe] = []
    go = asyncio.Event()
    offer = ["Sec-WebSocket-Extensions: permessage-deflate"] if compressed else []
    one = frame(PONG)
    async with (
        watched(sleeper(sessions, go, []), ServerConfig(), caplog) as (served, _),
        opened(served.port, "/", *offer) as raw,
    ):
        await until(lambda: sessions)
        parser: Any = sessions[0].parser
        sent = os.write(raw.socket.fileno(), one * (4 * MIB // len(one)))  # before the loop can turn
        assert sent > 4 * most, "the kernel did not take enough"
        parsed, longest = 0, 0
        async with asyncio.timeout(PATIENCE):
            while parsed < sent // len(one):
                await asyncio.sleep(0)
                longest = max(longest, parser.frames - parsed)
                parsed = parser.frames
        go.set()
        assert longest <= 2 * most // len(one) + 1  # the rest of a chunk, and the next one's beginning


async def test_unfinished_messages_of_all_clients_are_bounded_and_of_equals_the_oldest_is_given_up(caplog: Any) -> None:
    part = frame(BINARY, b"x" * (200 * KIB), fin=False)
    limits = ServerConfig(unfinished_bytes=500 * KIB)
    async with watched(echo, limits, caplog) as (served, _), contextlib.AsyncExitStack() as stack:
        first, second, third = [await stack.enter_async_context(opened(served.port)) for _ in range(3)]
        for raw in (first, second, third):
            await raw.send(part + frame(PING, b"there"))
            if raw is not third:
                assert await raw.frame() == (PONG, b"there")
        assert (await first.frame()).code == 1013
        for raw in (second, third):
            await raw.send(frame(CONT))
            answers = [await raw.frame() for _ in range(1 if raw is second else 2)]
            assert answers[-1] == (BINARY, b"x" * (200 * KIB))
        again = await stack.enter_async_context(opened(served.port))  # all have been counted out again
        await again.send(part + frame(CONT, b"x" * (280 * KIB)))
        assert len((await again.frame()).payload) == 480 * KIB
        for raw in (second, third, again):
            await raw.send(close_frame(1000))
            assert (await raw.frame()).code == 1000


async def test_an_upload_that_began_before_a_crowd_of_larger_ones_is_not_given_up_for_them(caplog: Any) -> None:
    limits = ServerConfig(unfinished_bytes=1000 * KIB)
    async with watched(echo, limits, caplog) as (served, _), contextlib.AsyncExitStack() as stack:
        honest = await stack.enter_async_context(opened(served.port))
        await honest.send(frame(BINARY, b"x" * (200 * KIB), fin=False) + frame(PING, b"there"))
        assert await honest.frame() == (PONG, b"there")
        for _ in range(5):
            greedy = await stack.enter_async_context(opened(served.port))
            await greedy.send(frame(BINARY, b"x" * (400 * KIB), fin=False) + frame(PING, b"there"))
            answer = await greedy.frame()
            assert answer == (PONG, b"there") or answer.code == 1013
        await honest.send(frame(CONT, b"x" * KIB))
        assert len((await honest.frame()).payload) == 201 * KIB


async def test_what_comes_with_the_end_of_tls_is_read_to_its_close(certificate: tuple[Path, Path]) -> None:  # noqa: F811
    messages: list[int] = []
    ended: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            messages.append(len(message["bytes"]))
        ended.append(message["code"])

    key, cert = certificate
    async with serving(app, ssl_keyfile=str(key), ssl_certfile=str(cert)) as served:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = ssl.create_default_context(cafile=str(cert)).wrap_bio(incoming, outgoing, server_hostname=HOST)
        async with connect(served.port) as raw:

            async def answered(call: Callable[[], Any]) -> Any:
                while True:
                    try:
                        return call()
                    except ssl.SSLWantReadError:
                        await raw.send(outgoing.read())
                        incoming.write(await raw.reader.read(1 << 16))

            await answered(client.do_handshake)
            client.write(request("/", "Sec-WebSocket-Extensions: permessage-deflate"))
            assert (await answered(lambda: client.read(1 << 16))).startswith(b"HTTP/1.1 101 ")
            client.write(frame(BINARY, b"x" * 1000) * 60 + close_frame(1000))
            with contextlib.suppress(ssl.SSLWantReadError):
                client.unwrap()
            await raw.send(outgoing.read())  # all of it, the end included, in one piece
            await until(lambda: ended)
    assert (messages, ended) == ([1000] * 60, [1000])


async def test_an_app_that_has_closed_is_told_of_the_end_once_and_then_it_is_an_oserror() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": 4002})
        try:
            while len(seen) < 1000:
                seen.append(await receive())
        except OSError as error:
            seen.append(type(error))

    async with serving(app, lifespan="off") as served:
        async with opened(served.port) as raw:
            assert (await raw.frame()).code == 4002
            await raw.send(close_frame(4002))
            await raw.ended()
        await until(lambda: len(seen) >= 2)
    assert seen == [{"type": "websocket.disconnect", "code": 4002, "reason": ""}, ClientDisconnected]


def connections_of(served: Served) -> set[Any]:
    """The protocols that uvicorn holds, of HTTP and ours."""
    assert served.server is not None
    connections: set[Any] = served.server.server_state.connections
    return connections


def is_unread(served: Served) -> bool:
    """Whether the kernel takes nothing more for a client, and there is more."""
    transports = [getattr(connection, "transport", None) for connection in connections_of(served)]
    return any(transport.get_write_buffer_size() for transport in transports if transport is not None)


http_app = FastAPI()
http_app.mount("/ws", echo)
LARGE = 8 * MIB  # more than the kernel takes


@http_app.get("/large")
async def large() -> str:
    return "x" * LARGE


@pytest.mark.parametrize("http", ["httptools", "h11", HTTPProtocol])
async def test_an_upgrade_behind_a_large_response_that_is_not_read_yet_does_not_overtake_it(http: Any) -> None:
    async with serving(http_app, http=http, lifespan="off") as served:
        async with connect(served.port, receive_buffer=4 * KIB) as raw:
            raw.stop_reading()
            await raw.send(f"GET /large HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
            await until(lambda: is_unread(served))
            await raw.send(request("/ws/"))
            await until(lambda: any(isinstance(one, Session) for one in connections_of(served)))
            raw.writer.transport.resume_reading()  # type: ignore[attr-defined]
            assert (await raw.read_head()).startswith(b"HTTP/1.1 200 ")
            async with asyncio.timeout(PATIENCE):
                assert await raw.reader.readexactly(LARGE + 2) == b'"' + b"x" * LARGE + b'"'
            assert (await raw.read_head()).startswith(b"HTTP/1.1 101 ")
            await raw.send(frame(TEXT, b"now"))
            assert await raw.frame() == (TEXT, b"now")


async def test_a_head_of_a_megabyte_is_answered_though_its_client_goes_on_sending(caplog: Any) -> None:
    async with watched(echo, ServerConfig(), caplog, http=HTTPProtocol) as (served, _):
        async with connect(served.port) as raw:
            raw.stop_reading()
            raw.writer.write(b"GET / HTTP/1.1\r\nX: " + b"x" * MIB)
            await until(
                lambda: any(one.engine.refused[431] for one in connections_of(served) if isinstance(one, Session))
            )
            raw.writer.transport.resume_reading()  # type: ignore[attr-defined]
            assert (await raw.read_all()).startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (request("/").replace(b"GET", b"POST"), 405),
        (request("/").replace(b"GET", b"HEAD"), 405),
        (request("/", "Content-Length: 5").replace(b"GET", b"POST") + b"hello", 405),
        (request("/").replace(b"HTTP/1.1", b"HTTP/1.0"), 505),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200), 400),
        (request("/", "Transfer-Encoding: chunked") + b"0\r\n\r\n", 400),
        (request("/", "Host: other"), 400),
        (request("/", *(f"X-{number}: x" for number in range(300))), 431),
    ],
    ids=["POST", "HEAD", "body", "1.0", "h2", "TLS", "chunked", "two hosts", "300 headers"],
)
async def test_what_cannot_become_a_websocket_is_told_so(head: bytes, status: int, caplog: Any) -> None:
    async with serving(echo, http=HTTPProtocol, lifespan="off") as served:
        async with connect(served.port) as raw:
            await raw.send(head)
            assert (await raw.read_all()).startswith(b"HTTP/1.1 %d " % status)
    assert "Traceback" not in caplog.text


async def test_a_connection_that_was_used_for_http_can_become_a_websocket() -> None:
    async with serving(http_app, http=HTTPProtocol, lifespan="off") as served:
        async with connect(served.port) as raw:
            for _ in range(2):
                await raw.send(f"GET /large HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
                assert (await raw.read_head()).startswith(b"HTTP/1.1 200 ")
                await raw.reader.readexactly(LARGE + 2)
            await raw.send(request("/ws/"))
            assert (await raw.read_head()).startswith(b"HTTP/1.1 101 ")
            await raw.send(frame(TEXT, b"x"))
            assert await raw.frame() == (TEXT, b"x")


async def test_a_tls_client_that_does_not_answer_the_end_is_dropped_at_close_timeout(
    certificate: tuple[Path, Path],  # noqa: F811
) -> None:
    key, crt = certificate
    limits = ServerConfig(close_timeout=0.5)
    async with serving(echo, limits, lifespan="off", ssl_certfile=crt, ssl_keyfile=key) as served:
        context = ssl.create_default_context(cafile=str(crt))
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
        async with connect(served.port) as raw:

            async def exchange(step: Any) -> Any:
                async with asyncio.timeout(PATIENCE):
                    while True:
                        try:
                            return step()
                        except ssl.SSLWantReadError:
                            await raw.send(outgoing.read())
                            incoming.write(await raw.reader.read(1 << 16))
                        finally:
                            await raw.send(outgoing.read())

            await exchange(tls.do_handshake)
            tls.write(request("/"))
            assert (await exchange(lambda: tls.read(1 << 16))).startswith(b"HTTP/1.1 101 ")
            tls.write(close_frame(1000))
            await raw.send(outgoing.read())
            assert served.server is not None
            state = served.server.server_state
            await until(lambda: not state.connections, 25)  # asyncio alone waits for the peer's word for 30 s


async def test_an_app_that_swallows_its_cancellation_is_cancelled_again() -> None:
    swallowed = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal swallowed
        await receive()
        await send({"type": "websocket.accept"})
        while swallowed < 2:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                swallowed += 1

    limits = ServerConfig(stop_window=0, stop_grace=0, close_timeout=0.1)
    async with serving(app, limits, lifespan="off", timeout_graceful_shutdown=None) as served:
        async with opened(served.port) as raw:
            assert served.server is not None
            served.server.should_exit = True
            assert (await raw.frame()).code == 1012
            await until(lambda: swallowed == 2)


async def test_two_servers_of_one_process_stop_apart_and_leave_nothing() -> None:
    async with serving(echo, lifespan="off") as stays:
        async with websockets.connect(f"{stays}/") as client:
            async with serving(echo, ServerConfig(stop_window=0), lifespan="off") as goes:
                assert goes.server is not None
                state = weakref.ref(goes.server.server_state)
                async with websockets.connect(f"{goes}/") as other:
                    await other.send("x")
                    assert await other.recv() == "x"
                    goes.server.should_exit = True
                    with pytest.raises(websockets.ConnectionClosed) as caught:
                        await other.recv()
                    assert caught.value.rcvd is not None
                    assert caught.value.rcvd.code == 1012
                goes = uvicorn.Server  # type: ignore[assignment]
            await client.send("still here")
            assert await client.recv() == "still here"
            await until(lambda: gc.collect() >= 0 and state() is None)
