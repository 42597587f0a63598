"""Faults of the network and the loop at the worst moment for a connection (`simulated_line`)."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from antiphon.server import Engine, ServerConfig, Session
from antiphon.server.backend import Pipe
from antiphon.types import CARRIER_EXTENSION, PreparedMessage
from tests.server.raw import PING, PONG, TEXT, close_frame, frame, request, until
from tests.server.simulated_line import Habits, MemoryLine

KIND = Habits(tls=False, kernel=1 << 20, chunk=1 << 16, per_turn=1, late=False, delay=0.0)


def line_to(app: Any, limits: ServerConfig, habits: Habits) -> tuple[MemoryLine, Pipe]:
    session = Session(Engine(app, limits))
    line = MemoryLine(session, habits, random.Random(0), 0)
    line.send(request())
    return line, session.pipe


async def taken(line: MemoryLine, size: int = 1 << 20) -> bytes:
    await line.readable.wait()
    return line.take(size) or b""


async def head_of(line: MemoryLine) -> bytes:
    """The server's answer, to its last byte and no further."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += await taken(line, 1)
    return head


async def test_a_violation_behind_our_close_does_not_cost_the_peer_the_close() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": 3001})

    line, pipe = line_to(app, ServerConfig(), replace(KIND, chunk=20))
    await head_of(line)
    line.send(frame(0x3, b"no such opcode") + 50 * frame(TEXT, b"behind it"))
    await until(lambda: pipe.parser is None)
    assert (await taken(line))[2:4] == (3001).to_bytes(2, "big")
    line.leave()
    await until(lambda: pipe.transport is None)


async def test_an_older_ping_is_not_answered_behind_a_newer_one() -> None:
    sessions: list[Pipe] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        sessions.append(scope["extensions"][CARRIER_EXTENSION])
        await receive()

    line, pipe = line_to(app, ServerConfig(outbox_bytes=1000), replace(KIND, kernel=200))
    await head_of(line)
    for _ in range(2):
        assert pipe.offer(PreparedMessage(b"x" * 900), 2000)
    pipe.flush()
    line.send(frame(PING, b"older"))
    await until(lambda: pipe.received == 1)
    while pipe.buffered > 1000:
        await taken(line, 100)
    assert pipe.buffered
    line.send(frame(PING, b"newer"))
    await until(lambda: pipe.received == 2)
    rest = b""
    while b"newer" not in rest or pipe.buffered:
        rest += await taken(line)
    await until(lambda: not pipe.handed)
    rest += line.take(1000) or b""
    assert bytes([0x80 | PONG, 5]) + b"newer" in rest
    assert b"older" not in rest
    line.send(close_frame(1000))
    await until(lambda: pipe.transport is None)


@pytest.mark.parametrize("tls", [False, True])
async def test_a_peer_that_finishes_and_reads_nothing_is_let_go_after_the_close_timeout(tls: bool) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "bytes": bytes(10_000)})
        assert (await receive())["code"] == 1006

    line, pipe = line_to(app, ServerConfig(close_timeout=0.1), replace(KIND, kernel=200, tls=tls))
    await head_of(line)
    line.finish()
    await until(lambda: pipe.transport is None)
