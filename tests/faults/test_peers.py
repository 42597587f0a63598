"""Hostile and unlucky peers: each ends as docs/closing.md says, quietly, and nobody else on the server notices."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import struct
import zlib
from typing import Any

import pytest
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from antiphon.server import ServerConfig, Session, backend
from antiphon.server.backend import Pipe
from antiphon.types import CARRIER_EXTENSION
from tests.patience import PATIENCE
from tests.server.raw import (
    CLOSE,
    CONT,
    PING,
    PONG,
    TEXT,
    Raw,
    close_frame,
    connect,
    echo,
    frame,
    opened,
    request,
    serving,
    until,
)
from tests.serving import Served

from .bystander import BEFORE_ANY_DEFAULT, watched

KIB = 1 << 10


def recording(codes: list[Any], sessions: list[Pipe] | None = None) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        if sessions is not None:
            sessions.append(scope["extensions"][CARRIER_EXTENSION])
        while (message := await receive())["type"] == "websocket.receive":
            pass
        codes.append(message["code"])

    return app


@pytest.mark.parametrize("state", ["during the head", "waiting for the app", "open", "closing", "denied"])
@pytest.mark.parametrize("how", ["reset", "fin"])
async def test_a_connection_lost_in_any_state_is_quiet(state: str, how: str, caplog: Any) -> None:
    ended: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        if state == "waiting for the app":
            ended.append((await receive())["code"])
            try:
                await send({"type": "websocket.accept"})
            except OSError:
                ended.append("OSError")
            return
        if state == "denied":
            await send({"type": "websocket.http.response.start", "status": 404})
            await send({"type": "websocket.http.response.body", "body": b"x" * 100_000})
            ended.append(None)
            return
        await send({"type": "websocket.accept"})
        if state == "closing":
            await send({"type": "websocket.close", "code": 4000})
        ended.append((await receive())["code"])

    async with watched(app, ServerConfig(), caplog) as (served, _):
        async with connect(served.port) as raw:
            if state == "during the head":
                await raw.send(request()[:40])
                ended.append(None)
            else:
                await raw.send(request())
            if state in ("open", "closing"):
                await raw.read_head()
            if state == "closing":
                assert (await raw.frame()).code == 4000
            if how == "reset":
                raw.reset()
            else:
                raw.writer.close()
            await until(lambda: ended)
    expected = {
        "during the head": [None],
        "waiting for the app": [1006, "OSError"],
        "open": [1006],
        "closing": [4000],
        "denied": [None],
    }
    assert ended == expected[state]


async def test_a_half_open_peer_is_given_up_by_keepalive(caplog: Any) -> None:
    """It is there, but neither reads nor answers: as a phone that lost its network."""
    codes: list[Any] = []
    caplog.set_level(logging.INFO, "uvicorn.error")
    settings: dict[str, Any] = {"ws_ping_interval": 0.3, "ws_ping_timeout": 0.3, "lifespan": "off"}
    async with serving(recording(codes), **settings) as served:  # no bystander: it might be too late for these pings
        async with opened(served.port) as raw:
            raw.stop_reading()
            await until(lambda: codes, BEFORE_ANY_DEFAULT)
    assert codes == [1006]
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_a_stalled_reader_is_aborted_and_costs_no_more_than_its_bounds(caplog: Any) -> None:
    raised: list[Any] = []
    sessions: list[Pipe] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        sessions.append(scope["extensions"][CARRIER_EXTENSION])
        try:
            while True:
                await send({"type": "websocket.send", "bytes": b"x" * 16 * KIB})
        except OSError:
            raised.append(True)

    limits = ServerConfig(outbox_bytes=64 * KIB, send_timeout=0.4)
    async with watched(app, limits, caplog) as (served, _):
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(10):
                raw = await stack.enter_async_context(opened(served.port, receive_buffer=4 * KIB))
                raw.stop_reading()
            while len(raised) < 10:
                assert all(session.buffered <= 128 * KIB for session in sessions)
                await asyncio.sleep(0.02)


async def test_a_fin_before_any_close_is_1006(caplog: Any) -> None:
    codes: list[Any] = []
    async with watched(recording(codes), ServerConfig(), caplog) as (served, _):
        async with opened(served.port) as raw:
            await raw.send(frame(TEXT, b"half"))
            raw.writer.write_eof()
            assert await raw.read_all() == b""
            await until(lambda: codes)
    assert codes == [1006]


async def test_a_flood_of_close_frames_is_answered_once(caplog: Any) -> None:
    codes: list[Any] = []
    async with watched(recording(codes), ServerConfig(), caplog) as (served, _):
        async with opened(served.port) as raw:
            await raw.send(close_frame(1000) + close_frame(1001) * 1000)
            assert (await raw.frame()).code == 1000
            with contextlib.suppress(ConnectionError):
                assert await raw.read_all() == b""
            await until(lambda: codes)
    assert codes == [1000]


async def test_a_flood_of_pings_is_answered_in_order_and_in_bounds(caplog: Any) -> None:
    sessions: list[Pipe] = []
    async with watched(recording([], sessions), ServerConfig(), caplog) as (served, _):
        async with opened(served.port) as raw:
            flood = b"".join(frame(PING, b"%d" % number) for number in range(20_000))
            sending = asyncio.create_task(raw.send(flood))
            last = -1
            while last < 19_999:
                answer = await raw.frame()
                assert answer.opcode == PONG
                assert last < int(answer.payload)
                last = int(answer.payload)
                assert sessions[0].buffered <= 256 * KIB + 1000
            await sending


async def test_drips_of_one_byte_make_the_same_messages(caplog: Any) -> None:
    async with watched(echo, ServerConfig(), caplog) as (served, _):
        async with connect(served.port) as raw:
            for byte in request():
                await raw.send(bytes([byte]))
                await asyncio.sleep(0)
            assert (await raw.read_head()).startswith(b"HTTP/1.1 101 ")
            message = "dröps".encode()
            for byte in frame(TEXT, message[:3], fin=False) + frame(PING, b"p") + frame(CONT, message[3:]):
                await raw.send(bytes([byte]))
                await asyncio.sleep(0)
            assert [await raw.frame(), await raw.frame()] == [(PONG, b"p"), (TEXT, message)]
            await raw.send(close_frame(1000))
            await raw.ended()


async def test_an_oversized_header_block_is_431(caplog: Any) -> None:
    async with watched(echo, ServerConfig(handshake_size=8 * KIB), caplog) as (served, _):
        async with connect(served.port) as raw:
            await raw.send(request("/", *(f"X-Filler-{number}: {'x' * 1000}" for number in range(20))))
            assert (await raw.read_head()).startswith(b"HTTP/1.1 431 ")
            await raw.ended()


def bomb(size: int) -> bytes:
    """A compressed message of zeros, as RFC 7692 wants it."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = compressor.compress(bytes(1 << 20)) + compressor.flush(zlib.Z_FULL_FLUSH)  # refers to nothing before it
    return (block * (size >> 20))[:-4]


@pytest.mark.parametrize("fragments", [1, 50])
async def test_a_compressed_bomb_is_1009_before_it_is_inflated(fragments: int, caplog: Any) -> None:
    import tracemalloc

    data = bomb(256 << 20)
    step = -(-len(data) // fragments)
    parts = [data[start : start + step] for start in range(0, len(data), step)]
    frames = [
        frame(CONT if number else TEXT, part, fin=number == len(parts) - 1, rsv1=not number)
        for number, part in enumerate(parts)
    ]
    codes: list[Any] = []
    async with watched(recording(codes), ServerConfig(), caplog, ws_max_size=1 << 20) as (served, _):
        tracemalloc.start()
        try:
            async with opened(served.port, "/", "Sec-WebSocket-Extensions: permessage-deflate") as raw:
                with contextlib.suppress(ConnectionError):
                    await raw.send(b"".join(frames))
                assert (await raw.frame()).code == 1009
                await until(lambda: codes)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert codes == [1009]
    assert peak < 12 << 20


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x81\x01x", 1002),  # not masked
        (frame(0x3, b""), 1002),
        (frame(TEXT, b"x", rsv1=True), 1002),
        (frame(CONT, b"x"), 1002),
        (frame(PING, b"x", fin=False), 1002),
        (frame(PING, b"x" * 126), 1002),
        (frame(CLOSE, b"\x03"), 1002),
        (frame(CLOSE, struct.pack("!H", 1005)), 1002),
        (frame(TEXT, b"\xff"), 1007),
        (frame(TEXT, b"\xed\xa0", fin=False), 1007),
        (frame(TEXT, b"x" * 2000), 1009),
        (b"\x81\xff" + struct.pack("!Q", 1 << 62) + bytes(4), 1009),
    ],
)
async def test_a_violation_is_closed_with_its_code_behind_what_came_before_it(
    data: bytes, code: int, caplog: Any
) -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            seen.append(message["text"])
        seen.append(message["code"])

    async with watched(app, ServerConfig(), caplog, ws_max_size=1000) as (served, _):
        async with opened(served.port) as raw:
            # Enough behind the violation to be in flight while the server closes: it must not turn the Close into RST.
            await raw.send(frame(TEXT, b"good") + data + b"\x81\xfe" * 20_000)
            assert (await raw.frame()).code == code
            assert await raw.read_all() == b""
            raw.writer.close()
            await until(lambda: len(seen) == 2)
    assert seen == ["good", code]


@pytest.mark.parametrize("then", [b"", b"fin"])
async def test_what_came_before_a_violation_is_answered_before_the_close(then: bytes, caplog: Any) -> None:
    async with watched(echo, ServerConfig(), caplog) as (served, _):
        async with opened(served.port) as raw:
            await raw.send(frame(TEXT, b"one") + frame(TEXT, b"two") + frame(0x3) + frame(TEXT, b"three"))
            if then:
                raw.writer.write_eof()
            assert [await raw.frame(), await raw.frame()] == [(TEXT, b"one"), (TEXT, b"two")]
            assert (await raw.frame()).code == 1002
            assert await raw.read_all() == b""


async def test_a_peer_that_never_answers_our_close_is_dropped_at_close_timeout(caplog: Any) -> None:
    loop = asyncio.get_running_loop()
    started = 0.0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal started
        await receive()
        await send({"type": "websocket.accept"})
        started = loop.time()

    async with watched(app, ServerConfig(close_timeout=0.3), caplog) as (served, _):
        async with opened(served.port) as raw:
            assert (await raw.frame()).code == 1000
            async with asyncio.timeout(PATIENCE):
                while not raw.reader.at_eof() and raw.reader.exception() is None:
                    raw.writer.write(frame(TEXT, b"I go on as if nothing had been said"))
                    await asyncio.sleep(0.02)
            assert loop.time() - started > 0.2


async def test_a_close_for_a_violation_is_not_overtaken_by_a_reset(caplog: Any) -> None:
    """The peer is amid a long upload, and reads only behind it."""
    codes: list[Any] = []
    async with watched(recording(codes), ServerConfig(close_timeout=PATIENCE), caplog) as (served, _):
        async with opened(served.port) as raw:
            raw.stop_reading()
            await raw.send(frame(PING, b"x", fin=False))
            await until(lambda: codes)
            for _ in range(20):
                await raw.send(b"x" * 10_000)
                await asyncio.sleep(0.005)
            raw.writer.transport.resume_reading()  # type: ignore[attr-defined]
            assert (await raw.frame()).code == 1002
            assert await raw.read_all() == b""


async def test_an_app_that_closes_without_having_read_still_hears_the_peers_close(caplog: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        session: Pipe = scope["extensions"][CARRIER_EXTENSION]
        await receive()
        await send({"type": "websocket.accept"})
        await until(lambda: session.reading_paused)
        await send({"type": "websocket.close", "code": 4001})

    async with watched(app, ServerConfig(inbound_bytes=1000, close_timeout=10 * PATIENCE), caplog) as (served, _):
        async with opened(served.port) as raw:
            await raw.send(frame(TEXT, b"x" * 1000) * 1000)
            end = await raw.frame()
            assert end.code == 4001
            await raw.send(frame(CLOSE, end.payload))
            async with asyncio.timeout(PATIENCE):
                assert await raw.reader.read() == b""


async def test_a_peer_that_says_close_and_does_not_take_what_was_sent_is_dropped(caplog: Any) -> None:
    codes: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        session: Pipe = scope["extensions"][CARRIER_EXTENSION]
        await receive()
        await send({"type": "websocket.accept"})
        session.write(b"x" * 8192 * KIB)
        codes.append((await receive())["code"])

    limits = ServerConfig(close_timeout=0.3, send_timeout=10 * PATIENCE)
    async with watched(app, limits, caplog, ws_per_message_deflate=False) as (served, _):
        async with opened(served.port, receive_buffer=4 * KIB) as raw:
            raw.stop_reading()
            await raw.send(close_frame(1000))
            await until(lambda: codes)
            assert served.server is not None
            connections = served.server.server_state.connections
            await until(lambda: len(connections) == 1)
    assert codes == [1000]


@pytest.mark.parametrize("count", [2000])
async def test_thousands_of_handshakes_at_once_are_all_answered(count: int, caplog: Any) -> None:
    release = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await release.wait()

    caplog.set_level(logging.WARNING)
    async with serving(app, ServerConfig(handshake_timeout=None), lifespan="off", backlog=4096) as served:

        async def one() -> Raw:
            raw = await stack.enter_async_context(connect(served.port))
            await raw.send(request())
            assert (await raw.read_head()).startswith(b"HTTP/1.1 101 ")
            return raw

        async with contextlib.AsyncExitStack() as stack:
            await asyncio.gather(*(one() for _ in range(count)))
            assert served.server is not None
            assert len(served.server.server_state.connections) >= count
            release.set()
        await until(lambda: not served.server.server_state.connections)  # type: ignore[union-attr]
    assert caplog.records == []


async def test_nothing_of_a_connection_is_left_when_it_is_over(caplog: Any) -> None:
    caplog.set_level(logging.CRITICAL)

    async def churn(served: Served, rounds: int) -> None:
        for number in range(rounds):
            async with opened(served.port, "/", "Sec-WebSocket-Extensions: permessage-deflate") as raw:
                await raw.send(frame(TEXT, b"x" * 200))
                await raw.frame()
                if number % 3 == 0:
                    raw.reset()
                elif number % 3 == 1:
                    await raw.send(close_frame(1000))
                    await raw.ended()
        assert served.server is not None
        state = served.server.server_state
        await until(lambda: not state.connections and not state.tasks)

    def sessions() -> int:
        gc.collect()
        return sum(1 for entry in gc.get_objects() if isinstance(entry, (Session, backend.twin.Pipe)))

    async with serving(echo, http="httptools") as served:
        await churn(served, 10)
        before = sessions()
        gc.disable()
        try:
            await churn(served, 60)
            # Without the collector's help: the objects of an idle server must not wait for its next run.
            left = sum(1 for entry in gc.get_objects() if isinstance(entry, (Session, backend.twin.Pipe))) - before
            protocols = sum(1 for entry in gc.get_objects() if type(entry) is HttpToolsProtocol)
        finally:
            gc.enable()
        assert left <= 2
        assert protocols <= 2
        assert sessions() <= before
