"""`HTTPProtocol`: bounds for the first request, HTTP untouched, WebSockets straight from the socket."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
import websockets
from uvicorn.protocols.http.h11_impl import H11Protocol

from antiphon.events import HandshakeRefused
from antiphon.server import HTTPProtocol, ServerConfig

from .raw import TEXT, Recorder, connect, echo, frame, request, serving, until


async def both(scope: Any, receive: Any, send: Any) -> None:
    """HTTP answers with what it was sent; WebSockets echo."""
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
    assert [event.status for event in recorder.of(HandshakeRefused)] == [431]


async def test_a_head_that_does_not_end_is_refused_by_time() -> None:
    recorder = Recorder([])
    limits = ServerConfig(handshake_timeout=1.0, observers=(recorder.events.append,))
    async with serving(both, limits, **OURS) as served:
        started = asyncio.get_running_loop().time()
        async with connect(served.port) as slow, connect(served.port) as silent:
            await slow.send(b"GET / HTTP/1.1\r\n")
            assert (await slow.read_all()).startswith(b"HTTP/1.1 408 ")
            assert await silent.read_all() == b""
        assert 0.9 < asyncio.get_running_loop().time() - started < (ServerConfig().handshake_timeout or 0)
        assert served.server is not None
        state = served.server.server_state
        await until(lambda: not state.connections)
    assert [event.status for event in recorder.of(HandshakeRefused)] == [408]


async def test_what_is_no_http_is_left_to_uvicorn() -> None:
    async with serving(both, **OURS) as served:
        async with connect(served.port) as raw:
            await raw.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
            assert (await raw.read_all()).startswith(b"HTTP/1.1 400 ")


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
