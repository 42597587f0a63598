"""Turns for everybody: the work of one connection, and of all together, in a turn of the loop, and their unread
messages."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import os
import random
import socket
import zlib
from collections.abc import Callable
from typing import Any

import pytest

from antiphon.events import ProtocolViolated
from antiphon.server import Engine, HTTPProtocol, ServerConfig, Session
from antiphon.server.backend import Pipe
from antiphon.server.bounds import ARRIVALS, BEHIND, CROWD, RELIEF, THRONG, WRITTEN
from antiphon.types import CARRIER_EXTENSION, PreparedMessage
from tests.patience import PATIENCE
from tests.serving import HOST

from .raw import PING, PONG, TEXT, Recorder, close_frame, frame, opened, request, serving, until
from .simulated_line import Habits, MemoryLine

KIB = 1 << 10
MIB = 1 << 20
OFFER = "Sec-WebSocket-Extensions: permessage-deflate"
LINE = Habits(tls=False, kernel=1 << 20, chunk=1 << 16, per_turn=1, late=False, delay=0.0)


def slow_clock() -> Callable[[], float]:
    """All timed work takes long."""
    return itertools.count(0.0, 1.0).__next__


def bomb(payload: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    return frame(TEXT, (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4], rsv1=True)


async def sleeper(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    await asyncio.get_running_loop().create_future()


async def listener(scope: Any, receive: Any, send: Any) -> None:
    """Ends with its client, so that nothing is waited for when its server stops."""
    await receive()
    await send({"type": "websocket.accept"})
    while (await receive())["type"] != "websocket.disconnect":
        pass


async def lines_to(
    app: Any, count: int, *headers: str, clock: Callable[[], float] | None = None
) -> tuple[list[Pipe], list[MemoryLine]]:
    engine = Engine(app, work_clock=clock or slow_clock())
    sessions = [Session(engine) for _ in range(count)]
    lines = [MemoryLine(session, LINE, random.Random(0), number) for number, session in enumerate(sessions)]
    for line in lines:
        line.send(request("/", *headers))
    pipes = [session.pipe for session in sessions]
    await until(lambda: all(pipe.parser is not None for pipe in pipes))
    return pipes, lines


def engine_of(pipe: Pipe) -> Engine:
    assert isinstance(pipe.owner, Session)
    return pipe.owner.engine


async def most_in_a_turn(done: Callable[[], int], total: int) -> int:
    """The most that `done` grew between two turns of the loop, until it came to `total`."""
    most = before = 0
    while before < total:
        await asyncio.sleep(0)
        now = done()
        most, before = max(most, now - before), now
    return most


@pytest.mark.parametrize("count", [1, 20])
async def test_in_a_turn_of_the_loop_a_bounded_number_of_frames_is_parsed_however_many_connections_send(
    count: int,
) -> None:
    sessions, lines = await lines_to(sleeper, count)
    for line in lines:
        line.send(frame(PONG) * 2000)
    parsed = await most_in_a_turn(lambda: sum(session.parser.frames for session in sessions if session.parser), 2000)
    assert parsed <= 5 * 128
    for line in lines:
        line.leave()


async def test_while_somebody_connects_in_each_turn_of_the_loop_more_than_one_turns_work_waits_for_a_while() -> None:
    now = 1.0
    (pipe,), (line,) = await lines_to(sleeper, 1, clock=lambda: now)
    turns, parser = engine_of(pipe).turns, pipe.parser
    assert parser is not None

    async def parsed_in(loop_turns: int) -> int:
        for _ in range(loop_turns):
            turns.arrival()
            await asyncio.sleep(0)
        return parser.frames

    line.send(frame(PONG) * 20000)
    while parser.frames <= 128:  # every turn counts: `until` lets many pass
        await parsed_in(1)
    before = await parsed_in(1)
    assert await parsed_in(20) == before
    now += ARRIVALS
    after = await parsed_in(20)
    assert before < after < 20000, "its share, once"
    await until(lambda: parser.frames == 20000)
    line.leave()


async def test_connections_with_more_than_one_turns_work_wait_while_a_server_takes_in_who_connects(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("antiphon.server.uvicorn.Engine", functools.partial(Engine, work_clock=lambda: 1.0))
    sessions: list[Pipe] = []
    parsed: list[int] = []
    """When each of the newcomers was taken in."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        sessions.append(scope["extensions"][CARRIER_EXTENSION])
        await listener(scope, receive, send)

    class Counting(HTTPProtocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            if sessions and sessions[0].parser is not None:
                parsed.append(sessions[0].parser.frames)

    async with serving(app, http=Counting, lifespan="off") as served, contextlib.AsyncExitStack() as stack:
        raw = await stack.enter_async_context(opened(served.port))
        parser = sessions[0].parser
        assert parser is not None
        sent = os.write(raw.socket.fileno(), frame(PONG) * 60_000) // len(frame(PONG))
        assert sent > 30_000, "the kernel did not take enough"
        for _ in range(30):  # taken in when this task lets the loop run
            stack.enter_context(socket.create_connection((HOST, served.port)))
        await until(lambda: len(parsed) == 30)
        assert parsed[-1] - parsed[1] <= 256, "but for what came meanwhile"
        await until(lambda: parser.frames >= sent)


async def test_of_many_who_send_much_and_are_reset_not_everything_is_parsed() -> None:
    """Their sockets are not read while they wait for a turn, and tell nothing."""
    sessions: list[Pipe] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        sessions.append(scope["extensions"][CARRIER_EXTENSION])
        await listener(scope, receive, send)

    async with serving(app, http=HTTPProtocol, lifespan="off") as served, contextlib.AsyncExitStack() as stack:
        crowd = [await stack.enter_async_context(opened(served.port)) for _ in range(CROWD + 36)]
        parsers: list[Any] = [session.parser for session in sessions]
        sent = sum(os.write(raw.socket.fileno(), frame(PONG) * 4000) // len(frame(PONG)) for raw in crowd)
        while not all(parser.frames for parser in parsers):  # noqa: ASYNC110 - each turn of the loop counts
            await asyncio.sleep(0)
        for raw in crowd:
            raw.reset()
        await until(lambda: all(session.close_code == 1006 for session in sessions))
        assert sum(parser.frames for parser in parsers) < 0.9 * sent


@pytest.mark.parametrize("count", [THRONG - 40, THRONG + 40])
async def test_what_somebody_said_before_a_fin_is_parsed_unless_hundreds_wait_for_a_turn(count: int) -> None:
    sessions: list[Pipe] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        sessions.append(scope["extensions"][CARRIER_EXTENSION])
        await listener(scope, receive, send)

    async with serving(app, http=HTTPProtocol, lifespan="off") as served, contextlib.AsyncExitStack() as stack:
        crowd = [await stack.enter_async_context(opened(served.port)) for _ in range(count)]
        parsers: list[Any] = [session.parser for session in sessions]
        said = frame(PONG) * 600
        for raw in crowd:
            with socket.socket(fileno=os.dup(raw.socket.fileno())) as same:  # uvloop's own has no shutdown
                assert same.send(said) == len(said)
                same.shutdown(socket.SHUT_WR)
        await until(lambda: all(session.close_code == 1006 for session in sessions))
    parsed = [parser.frames for parser in parsers]
    assert max(parsed) == 600
    assert (min(parsed) == 600) is (count < THRONG)


async def test_of_many_pings_in_one_turn_the_first_and_the_last_are_answered() -> None:
    async with serving(listener, lifespan="off") as served:
        async with opened(served.port) as raw:
            await raw.send(b"".join(frame(PING, b"%d" % number) for number in range(120)))
            answers = [await raw.frame()]
            while answers[-1] != (PONG, b"119"):
                answers.append(await raw.frame())
    assert [int(payload) for _, payload in answers[:16]] == list(range(16))
    assert len(answers) < 60  # the kernel may cut them into chunks


async def test_a_ping_is_answered_before_the_close_behind_it() -> None:
    async with serving(listener, lifespan="off") as served:
        async with opened(served.port) as raw:
            await raw.send(frame(PING, b"x") * 40 + close_frame(1000))
            for _ in range(17):
                assert await raw.frame() == (PONG, b"x")
            assert (await raw.frame()).code == 1000


async def test_an_app_that_reads_without_waiting_lets_others_have_their_turn() -> None:
    read = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal read
        await receive()
        await send({"type": "websocket.accept"})
        await ready.wait()
        session: Pipe = scope["extensions"][CARRIER_EXTENSION]
        while await session.read() is not None:
            read += 1

    ready = asyncio.Event()
    engine = Engine(app, work_clock=slow_clock())
    session = Session(engine)
    line = MemoryLine(session, LINE, random.Random(0), 0)
    line.send(request() + frame(TEXT, b"x") * 1500)
    await until(lambda: session.pipe.inbox_bytes >= 1500 * 65)
    ready.set()
    assert await most_in_a_turn(lambda: read, 1500) <= 256
    line.leave()


async def test_messages_read_in_turns_keep_their_order_and_the_end_comes_behind_them() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            seen.append(int(message["text"]))
        seen.append(message["code"])

    data = b"".join(frame(TEXT, b"%d" % number) for number in range(5000))
    async with serving(app, lifespan="off") as served:
        async with opened(served.port) as raw:
            await raw.send(data + close_frame(4000))
            await until(lambda: seen and seen[-1] == 4000)
    assert seen == [*range(5000), 4000]


async def test_a_reader_that_has_given_way_can_be_cancelled_and_another_reads_on() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        session: Pipe = scope["extensions"][CARRIER_EXTENSION]
        await until(lambda: session.inbox_bytes >= 600 * 65)
        while len(seen) < 600:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0):
                    while (payload := await session.read()) is not None:
                        seen.append(payload)

    async with serving(app, lifespan="off") as served:
        async with opened(served.port) as raw:
            await raw.send(frame(TEXT, b"x") * 600)
            await until(lambda: len(seen) == 600)


async def test_a_message_that_is_small_on_the_wire_is_inflated_over_many_turns_of_the_loop() -> None:
    sessions, lines = await lines_to(sleeper, 2, OFFER)
    for line in lines:
        line.send(bomb(b"x" * (8 * MIB)))

    def inflated() -> int:
        return sum(session.parser.buffered + session.inbox_bytes for session in sessions if session.parser)

    assert await most_in_a_turn(inflated, 2 * 8 * MIB) <= 512 * KIB
    for line in lines:
        line.leave()


@pytest.mark.parametrize("last", ["x", "😀"])
async def test_what_apps_have_not_read_is_bounded_for_all_connections_together(last: str) -> None:
    recorder = Recorder([])
    ended: list[Any] = []
    ready = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        if scope["path"] == "/echo":
            while (message := await receive())["type"] == "websocket.receive":
                await send({"type": "websocket.send", "text": message["text"][:10]})
            return
        sessions.append(scope["extensions"][CARRIER_EXTENSION])
        await ready.wait()
        while (message := await receive())["type"] == "websocket.receive":
            pass
        ended.append(message["code"])

    sessions: list[Pipe] = []
    limits = ServerConfig(unread_bytes=3 * MIB, observers=(recorder.events.append,))
    one = bomb(b"x" * (700 * KIB) + last.encode())
    async with serving(app, limits, lifespan="off") as served, contextlib.AsyncExitStack() as stack:
        little = await stack.enter_async_context(opened(served.port))
        await little.send(frame(TEXT, b"x" * (200 * KIB)))
        await until(lambda: sessions and sessions[0].inbox_bytes)
        for _ in range(8):
            raw = await stack.enter_async_context(opened(served.port, "/", OFFER))
            await raw.send(one)
        await until(lambda: len(sessions) == 9 and all(one.inbox_bytes or not one.alive for one in sessions))
        assert sum(one.inbox_bytes for one in sessions) <= 3 * MIB + 9 * limits.inbound_bytes
        given_up = [one for one in sessions if not one.alive]
        assert {one.close_code for one in given_up} == {1013}
        assert sessions[0] not in given_up
        assert len(recorder.of(ProtocolViolated)) == len(given_up) >= 2
        other = await stack.enter_async_context(opened(served.port, "/echo"))
        await other.send(frame(TEXT, b"there"))
        assert await other.frame() == (TEXT, b"there")
        engine = engine_of(sessions[0])
        ready.set()
        await until(lambda: engine.unread.total == 0)
    assert sorted(ended)[-len(given_up) :] == [1013] * len(given_up)


async def test_what_was_received_from_a_client_that_is_gone_is_counted_until_the_app_has_ended() -> None:
    sessions: list[Pipe] = []
    done = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        sessions.append(scope["extensions"][CARRIER_EXTENSION])
        await done.wait()

    async with serving(app, lifespan="off") as served:
        async with opened(served.port, "/", OFFER) as raw:
            await raw.send(bomb(b"x" * MIB))
            await until(lambda: sessions and sessions[0].inbox_bytes)
            raw.reset()
            await until(lambda: sessions[0].transport is None)
        engine = engine_of(sessions[0])
        assert engine.unread.total > 800 * KIB
        done.set()
        await until(lambda: engine.unread.total == 0)


async def test_an_answer_does_not_wait_behind_all_receivers_of_somebody_elses_message() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await asyncio.sleep(0)  # and does not leave in the step that received it
            await send({"type": "websocket.send", "text": message["text"]})

    sessions, lines = await lines_to(app, 1001)
    receivers = sessions[:-1]
    await until(lambda: all(session.alive and not session.buffered for session in sessions))
    lines[-1].take(KIB)
    message = PreparedMessage("for everybody")
    for receiver in receivers:
        receiver.offer(message, MIB)
    lines[-1].send(frame(TEXT, b"me"))
    async with asyncio.timeout(PATIENCE):
        while not lines[-1].take(KIB):  # noqa: ASYNC110 - each turn of the loop counts
            await asyncio.sleep(0)
    behind = sum(session.buffered > 0 for session in receivers)
    await until(lambda: not any(session.buffered for session in receivers))
    assert behind > 300
    for line in lines:
        line.leave()


async def receivers_of(count: int, app: Any) -> tuple[list[Pipe], list[MemoryLine]]:
    """So many that sleep, and the last of them in `app`."""

    async def both(scope: Any, receive: Any, send: Any) -> None:
        await (app if scope["path"] == "/last" else sleeper)(scope, receive, send)

    pipes, lines = await lines_to(both, count)
    last = Session(engine_of(pipes[0]))
    line = MemoryLine(last, LINE, random.Random(0), count)
    line.send(request("/last"))
    await until(lambda: last.pipe.parser is not None)
    await until(lambda: not any(pipe.buffered for pipe in pipes))
    return [*pipes, last.pipe], [*lines, line]


async def test_in_a_turn_of_the_loop_a_bounded_number_of_bytes_is_written_to_however_many() -> None:
    pipes, lines = await lines_to(sleeper, 100)
    await until(lambda: all(pipe.alive and not pipe.buffered for pipe in pipes))
    message = PreparedMessage(b"x" * (512 * KIB))
    for pipe in pipes:
        assert pipe.offer(message, MIB)

    def written() -> int:
        return sum(not pipe.buffered for pipe in pipes)

    assert await most_in_a_turn(written, 100) * 512 * KIB <= WRITTEN
    assert engine_of(pipes[0]).flusher.owed == 0
    for line in lines:
        line.leave()


async def test_a_small_message_does_not_wait_behind_large_ones_for_others() -> None:
    pipes, lines = await lines_to(sleeper, 101)
    await until(lambda: all(pipe.alive and not pipe.buffered for pipe in pipes))
    large, small = PreparedMessage(b"x" * (512 * KIB)), PreparedMessage(b"x")
    for pipe in pipes[:-1]:
        assert pipe.offer(large, MIB)
    assert pipes[-1].offer(small, MIB)
    await asyncio.sleep(0)
    assert not pipes[-1].buffered
    assert 0 < sum(not pipe.buffered for pipe in pipes[:-1]) <= 8
    turns = 0
    while any(pipe.buffered for pipe in pipes):
        assert pipes[-1].offer(small, MIB)
        await asyncio.sleep(0)
        turns += 1
    assert turns <= 100 // 2, "the large ones have their part of each turn"
    for line in lines:
        line.leave()


async def test_who_says_more_to_all_than_can_be_written_waits_until_it_has_been() -> None:
    said = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal said
        await receive()
        await send({"type": "websocket.accept"})
        while (event := await receive())["type"] == "websocket.receive":
            message = PreparedMessage(event["bytes"])
            said += 1
            assert all(pipe.offer(message, MIB) for pipe in pipes[:-1])

    pipes, lines = await receivers_of(300, app)
    last, flusher = lines[-1], engine_of(pipes[0]).flusher
    last.send(frame(0x2, b"x" * (64 * KIB)) * 50)
    most = 0
    while said < 50:
        await asyncio.sleep(0)
        most = max(most, flusher.owed)
        for line in lines[:-1]:
            line.take(MIB)
    assert most <= BEHIND + 2 * 300 * (128 * KIB)
    for line in lines:
        line.leave()


async def test_who_waits_for_others_to_be_written_out_has_a_turn_now_and_then_although_they_never_are() -> None:
    read = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal read
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] == "websocket.receive":
            read += 1

    pipes, lines = await receivers_of(20, app)
    message = PreparedMessage(b"x" * (512 * KIB))
    lines[-1].send(frame(TEXT, b"x" * 1000) * 10)
    turns = 0
    while read < 10:
        assert turns < 10 * 2 * RELIEF
        for pipe in pipes[:-1]:
            pipe.offer(message, MIB)
        for line in lines[:-1]:
            line.take(MIB)
        await asyncio.sleep(0)
        turns += 1
    for line in lines:
        line.leave()
