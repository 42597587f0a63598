"""Reading and writing in bounds: pause, outbox, one write per turn, offers (types.Sink)."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import websockets

from antiphon.events import SendTimeout
from antiphon.server import ServerConfig
from antiphon.server.backend import Pipe
from antiphon.server.watch import Watch
from antiphon.types import CARRIER_EXTENSION, PreparedMessage
from tests.patience import PATIENCE, SCALES

from .raw import CLOSE, PING, PONG, TEXT, Recorder, close_frame, frame, opened, serving, until

KIB = 1 << 10
DEFAULTS = ServerConfig()


def carrying(use: Callable[[Pipe], Awaitable[None]]) -> Any:
    """An app that accepts and hands its carrier over."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await use(scope["extensions"][CARRIER_EXTENSION])

    return app


async def test_an_app_that_does_not_read_pauses_the_socket_and_resumes_it_when_it_does() -> None:
    limits = ServerConfig(inbound_bytes=64 * KIB)
    sessions: list[Pipe] = []
    go = asyncio.Event()
    seen = 0

    async def use(session: Pipe) -> None:
        nonlocal seen
        sessions.append(session)
        await go.wait()
        while (await session.read()) is not None:
            seen += 1

    async with serving(carrying(use), limits, lifespan="off") as served:
        async with websockets.connect(f"{served}/", compression=None) as client:
            sending = asyncio.create_task(send_many(client, 2000, "x" * 10_000))
            await until(lambda: sessions and sessions[0].reading_paused)
            held = sessions[0].inbox_bytes
            assert 64 * KIB < held < 64 * KIB + 300 * KIB
            assert not sending.done()
            go.set()
            await sending
            await until(lambda: seen == 2000)
            assert not sessions[0].reading_paused
            assert sessions[0].inbox_bytes == 0


async def send_many(client: Any, count: int, message: Any) -> None:
    for _ in range(count):
        await client.send(message)


async def test_pings_are_answered_while_messages_wait_unread() -> None:
    over = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await over.wait()

    async with serving(app, lifespan="off") as served:
        async with opened(served.port) as raw:
            await raw.send(frame(TEXT, b"unread") + frame(PING, b"now"))
            assert await raw.frame() == (PONG, b"now")
        over.set()


async def test_frames_of_one_turn_leave_in_one_write() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        for number in range(50):
            await send({"type": "websocket.send", "text": str(number)})
        await receive()

    async with serving(app, lifespan="off") as served:
        async with opened(served.port) as raw:
            await raw.send(frame(TEXT, b"go"))
            async with asyncio.timeout(PATIENCE):
                first = await raw.reader.read(1 << 16)
    assert len(first) == 10 * 3 + 40 * 4


async def test_what_one_turn_writes_to_many_connections_leaves_at_its_end() -> None:
    sessions: list[Pipe] = []

    async def use(session: Pipe) -> None:
        sessions.append(session)
        while (payload := await session.read()) is not None:
            message = PreparedMessage(payload)
            for other in sessions:
                other.offer(message, 1 << 20)

    async with serving(carrying(use), lifespan="off") as served:
        async with opened(served.port) as a, opened(served.port) as b, opened(served.port) as c:
            await a.send(frame(TEXT, b"1") + frame(TEXT, b"2"))
            for raw in (a, b, c):
                assert [await raw.frame(), await raw.frame()] == [(TEXT, b"1"), (TEXT, b"2")]


async def test_between_writes_to_many_connections_the_loop_reads_and_what_comes_then_leaves_in_the_same_write() -> None:
    sessions: list[Pipe] = []

    async def use(session: Pipe) -> None:
        sessions.append(session)
        await session.read()

    async with serving(carrying(use), lifespan="off") as served, contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(opened(served.port)) for _ in range(200)]
        await until(lambda: len(sessions) == len(clients))
        for text in ("first", "second"):
            message = PreparedMessage(text)
            for session in sessions:
                assert session.offer(message, 1 << 20)
            await asyncio.sleep(0)
        assert any(session.buffered == 0 for session in sessions)
        assert sessions[-1].buffered == 2 + len("first") + 2 + len("second")
        for client in clients:
            assert [await client.frame(), await client.frame()] == [(TEXT, b"first"), (TEXT, b"second")]


async def test_one_prepared_message_serves_connections_with_and_without_compression() -> None:
    sessions: list[Pipe] = []

    async def use(session: Pipe) -> None:
        sessions.append(session)
        await session.read()

    async with serving(carrying(use), lifespan="off") as served:
        async with (
            websockets.connect(f"{served}/", compression="deflate") as first,
            websockets.connect(f"{served}/", compression="deflate") as second,
            websockets.connect(f"{served}/", compression=None) as third,
        ):
            await until(lambda: len(sessions) == 3)
            message = PreparedMessage(json.dumps(list(range(1000))))
            for session in sessions:
                assert session.offer(message, 1 << 20)
            for client in (first, second, third):
                assert await client.recv() == message.payload
            assert message.frame is not None
            assert message.deflated is not None
            assert len(message.deflated) < len(message.frame)


async def test_a_sender_waits_while_the_outbox_is_full_and_goes_on_when_the_peer_reads() -> None:
    limits = ServerConfig(outbox_bytes=64 * KIB)
    progress: list[int] = []

    async def use(session: Pipe) -> None:
        for number in range(1000):
            if not session.write(b"x" * 32 * KIB):
                progress.append(number)
                await session.drain()
        await session.read()

    async with serving(carrying(use), limits, lifespan="off", ws_per_message_deflate=False) as served:
        async with opened(served.port, receive_buffer=32 * KIB) as raw:
            await until(lambda: progress)
            await asyncio.sleep(0.05)
            assert progress[-1] < 900
            for _ in range(1000):
                assert len((await raw.frame()).payload) == 32 * KIB


async def test_a_peer_that_never_reads_is_aborted_at_send_timeout_and_its_sender_hears_of_it() -> None:
    recorder = Recorder([])
    limits = ServerConfig(outbox_bytes=64 * KIB, send_timeout=0.3, observers=(recorder.events.append,))
    raised: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        started = asyncio.get_running_loop().time()
        try:
            while True:
                await send({"type": "websocket.send", "bytes": b"x" * 32 * KIB})
        except OSError as error:
            raised.append((error, asyncio.get_running_loop().time() - started))
        raised.append(await receive())

    async with serving(app, limits, lifespan="off") as served:
        async with opened(served.port, receive_buffer=4 * KIB) as raw:
            raw.stop_reading()
            await until(lambda: len(raised) == 2)
    assert 0.25 < raised[0][1] < DEFAULTS.send_timeout
    assert raised[1]["code"] == 1006
    assert len(recorder.of(SendTimeout)) == 1


async def test_a_stalled_outbox_is_aborted_though_nobody_waits_for_it() -> None:
    recorder = Recorder([])
    limits = ServerConfig(send_timeout=0.4, observers=(recorder.events.append,))
    ended: list[Any] = []

    async def use(session: Pipe) -> None:
        message = PreparedMessage(b"x" * 64 * KIB)
        while session.offer(message, 256 * KIB):
            pass
        assert 128 * KIB < session.buffered <= 256 * KIB
        assert await session.read() is None
        ended.append(session.close_code)

    async with serving(carrying(use), limits, lifespan="off", ws_per_message_deflate=False) as served:
        async with opened(served.port, receive_buffer=4 * KIB) as raw:
            raw.stop_reading()
            await until(lambda: ended)
    assert ended == [1006]
    assert len(recorder.of(SendTimeout)) == 1


async def test_a_slow_reader_that_takes_something_now_and_then_is_not_aborted() -> None:
    for send_timeout in SCALES:
        alive, longest_pause = await read_slowly(send_timeout)
        if longest_pause < send_timeout / 2:  # else the machine itself has kept the reader from reading in time
            break
    assert alive


async def read_slowly(send_timeout: float) -> tuple[bool, float]:
    """Is the connection still there, and how long was the longest time in which nothing was read?"""
    limits = ServerConfig(send_timeout=send_timeout)
    sessions: list[Pipe] = []

    async def use(session: Pipe) -> None:
        sessions.append(session)
        message = PreparedMessage(b"x" * 64 * KIB)
        while session.offer(message, 2048 * KIB):
            pass
        await session.read()

    loop = asyncio.get_running_loop()
    async with serving(carrying(use), limits, lifespan="off", ws_per_message_deflate=False) as served:
        async with opened(served.port, receive_buffer=8 * KIB) as raw:
            await until(lambda: sessions and sessions[0].handed)
            times = [loop.time()]
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                for _ in range(12):
                    async with asyncio.timeout(PATIENCE):
                        await raw.reader.readexactly(64 * KIB)
                    times.append(loop.time())
                    await asyncio.sleep(send_timeout / 4)
            return sessions[0].alive, max(b - a for a, b in itertools.pairwise([*times, loop.time()]))


async def test_an_offer_beyond_its_limit_is_not_taken_but_an_empty_outbox_takes_any_one_message() -> None:
    outcome: list[Any] = []

    async def use(session: Pipe) -> None:
        big = PreparedMessage(b"x" * 8192 * KIB)
        outcome.append(session.offer(big, 1))
        outcome.append(session.offer(PreparedMessage("small"), 1))
        outcome.append(session.buffered > 0)
        writable = asyncio.Event()
        session.on_writable(writable.set)
        outcome.append(writable.is_set())
        await writable.wait()
        outcome.append(session.buffered)
        outcome.append(session.offer(PreparedMessage("small"), 1))
        assert await session.read() is None
        outcome.append(session.offer(PreparedMessage("dead"), 1))
        dead = asyncio.Event()
        session.on_writable(dead.set)
        await dead.wait()

    async with serving(carrying(use), lifespan="off", ws_per_message_deflate=False) as served:
        async with opened(served.port, receive_buffer=32 * KIB) as raw:
            await until(lambda: len(outcome) == 4)
            assert len((await raw.frame()).payload) == 8192 * KIB
            assert await raw.frame() == (TEXT, b"small")
            await raw.send(close_frame(1000))
            await until(lambda: len(outcome) == 7)
    assert outcome == [True, False, True, False, 0, True, True]


async def test_disconnect_closes_behind_what_is_buffered() -> None:
    async def use(session: Pipe) -> None:
        session.write("last words")
        session.disconnect(1013, "too slow")
        assert not session.alive
        assert session.close_code == 1013
        with pytest.raises(OSError, match="not open"):
            session.write("too late")

    async with serving(carrying(use), lifespan="off") as served:
        async with opened(served.port) as raw:
            assert await raw.frame() == (TEXT, b"last words")
            end = await raw.frame()
            assert (end.opcode, end.code, end.payload[2:]) == (CLOSE, 1013, b"too slow")
            await raw.send(close_frame(1013))
            assert await raw.read_all() == b""


async def test_disconnecting_a_stuck_peer_aborts_it_at_send_timeout() -> None:
    limits = ServerConfig(send_timeout=0.3, close_timeout=10 * PATIENCE)
    ended: list[float] = []
    sessions: list[Pipe] = []

    async def use(session: Pipe) -> None:
        sessions.append(session)
        started = session.loop.time()
        session.write(b"x" * 8192 * KIB)
        await asyncio.sleep(0)
        session.disconnect(1013, "too slow")
        while session.transport is not None:  # noqa: ASYNC110  the end of the connection itself is no event
            await asyncio.sleep(0.01)
        ended.append(session.loop.time() - started)

    async with serving(carrying(use), limits, lifespan="off", ws_per_message_deflate=False) as served:
        async with opened(served.port, receive_buffer=4 * KIB) as raw:
            raw.stop_reading()
            await until(lambda: ended)
    assert 0.25 < ended[0] < DEFAULTS.send_timeout
    assert sessions[0].close_code == 1013


async def test_close_callbacks_run_once_and_can_be_taken_back() -> None:
    calls: list[str] = []
    done = asyncio.Event()

    async def use(session: Pipe) -> None:
        def unwanted() -> None:
            calls.append("unwanted")

        def failing() -> None:
            calls.append("failing")
            raise ValueError("a callback's bug stays its own")

        session.on_close(unwanted)
        session.on_close(failing)
        session.on_close(lambda: calls.append("wanted"))
        session.off_close(unwanted)
        session.off_close(unwanted)
        assert await session.read() is None
        session.on_close(lambda: calls.append("late"))
        done.set()

    async with serving(carrying(use), lifespan="off") as served:
        async with opened(served.port) as raw:
            await raw.send(close_frame(1000))
            await raw.ended()
        await done.wait()
    assert calls == ["failing", "wanted", "late"]


async def test_pongs_beyond_a_full_outbox_are_merged_into_the_latest() -> None:
    limits = ServerConfig(outbox_bytes=16 * KIB, send_timeout=PATIENCE)
    sessions: list[Pipe] = []

    async def use(session: Pipe) -> None:
        sessions.append(session)
        session.write(b"x" * 8192 * KIB)
        await session.read()

    async with serving(carrying(use), limits, lifespan="off", ws_per_message_deflate=False) as served:
        async with opened(served.port, receive_buffer=32 * KIB) as raw:
            await until(lambda: sessions and sessions[0].handed)
            before = sessions[0].buffered
            for number in range(10_000):
                raw.writer.write(frame(PING, b"%d" % number))
            await raw.writer.drain()
            watch = sessions[0].watch
            assert isinstance(watch, Watch)
            await until(lambda: (stall := watch._outbox_stall) is not None and stall.pong == b"9999")
            assert sessions[0].buffered <= before
            assert len((await raw.frame()).payload) == 8192 * KIB
            answer = await raw.frame()
            assert answer == (PONG, b"9999")


async def test_a_message_of_the_right_size_gets_through_and_one_byte_more_is_1009() -> None:
    async def use(session: Pipe) -> None:
        while (payload := await session.read()) is not None:
            session.write(str(len(payload)))

    async with serving(carrying(use), lifespan="off", ws_max_size=1000) as served:
        async with websockets.connect(f"{served}/") as client:
            await client.send("x" * 1000)
            assert await client.recv() == "1000"
            await client.send(b"x" * 1001)
            with pytest.raises(websockets.ConnectionClosedError) as info:
                await client.recv()
            assert info.value.rcvd is not None
            assert info.value.rcvd.code == 1009


async def test_one_text_sent_to_many_connections_is_compressed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The broadcast loop of the FastAPI tutorial: `for connection in active: await connection.send_text(message)`."""
    import antiphon.wire.deflate

    compressed: list[int] = []
    compress = antiphon.wire.deflate.compress

    def counting(payload: bytes, **settings: Any) -> bytes:
        compressed.append(len(payload))
        return compress(payload, **settings)

    monkeypatch.setattr(antiphon.wire.deflate, "compress", counting)
    sends: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        sends.append(send)
        await receive()

    async with serving(app, lifespan="off") as served:
        async with (
            websockets.connect(f"{served}/") as first,
            websockets.connect(f"{served}/") as second,
            websockets.connect(f"{served}/", compression=None) as third,
        ):
            await until(lambda: len(sends) == 3)
            for number in range(3):
                text = f"message {number} " * 100
                for send in sends:
                    await send({"type": "websocket.send", "text": text})
                for client in (first, second, third):
                    assert await client.recv() == text
    assert len(compressed) == 3
