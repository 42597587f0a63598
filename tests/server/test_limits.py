"""Limits: each refusal is a clear status or close code, and is counted."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from typing import Any

import pytest

from antiphon.events import ConnectionClosed, ConnectionOpened, ConnectionRefused, ProtocolViolated
from antiphon.server import ServerConfig
from antiphon.server.limits import Admission, FrameRate, Hoard
from antiphon.types import ClosedBy
from tests.patience import PATIENCE

from .raw import PING, TEXT, Recorder, close_frame, connect, echo, frame, opened, request, serving, until


@pytest.mark.parametrize(
    ("limits", "status"),
    [({"max_connections": 2}, 503), ({"max_connections_per_address": 2}, 429)],
)
async def test_one_connection_too_many_is_refused_and_counted_and_room_is_given_back(
    limits: dict[str, int], status: int
) -> None:
    recorder = Recorder([])
    config = ServerConfig(retry_after=9, observers=(recorder.events.append,), **limits)  # type: ignore[arg-type]
    async with serving(echo, config) as served:
        async with opened(served.port), opened(served.port), connect(served.port) as third:
            await third.send(request("/third"))
            head, _, _ = (await third.read_all()).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 %d " % status)
            assert b"retry-after: 9" in head
        (refused,) = recorder.of(ConnectionRefused)
        assert (refused.status, refused.path) == (status, "/third")
        await until(lambda: len(recorder.of(ConnectionClosed)) == 2)
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(2):
                await until_opened(served.port, stack)


async def until_opened(port: int, stack: contextlib.AsyncExitStack) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                await stack.enter_async_context(opened(port))
                return
            except AssertionError:
                await asyncio.sleep(0.02)


async def test_uvicorns_limit_concurrency_holds_for_websockets() -> None:
    async with serving(echo, limit_concurrency=3) as served:
        async with opened(served.port), opened(served.port), connect(served.port) as third:
            await third.send(request())
            assert (await third.read_head()).startswith(b"HTTP/1.1 503 ")


@pytest.mark.parametrize(
    ("limits", "data"),
    [
        ({"max_frames_per_second": 100}, frame(TEXT, b"x") * 1000),
        ({"max_frames_per_second": 100}, frame(PING) * 1000),
        ({"max_bytes_per_second": 10_000}, frame(TEXT, b"x" * 50_000)),
    ],
)
async def test_a_peer_that_is_too_fast_is_closed_with_1008(limits: dict[str, int], data: bytes) -> None:
    recorder = Recorder([])
    config = ServerConfig(observers=(recorder.events.append,), **limits)  # type: ignore[arg-type]
    async with serving(echo, config) as served:
        async with opened(served.port) as raw:
            await raw.send(data)
            while (got := await raw.frame()).opcode != 8:
                pass
            assert got.code == 1008
    (violated,) = recorder.of(ProtocolViolated)
    assert violated.code == 1008


async def test_a_peer_within_its_rate_is_left_alone() -> None:
    async with serving(echo, ServerConfig(max_frames_per_second=1000, max_bytes_per_second=100_000)) as served:
        async with opened(served.port) as raw:
            for _ in range(300):
                await raw.send(frame(TEXT, b"x"))
                assert await raw.frame() == (TEXT, b"x")


async def test_an_app_that_never_decides_is_answered_for_at_handshake_timeout() -> None:
    ended: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        ended.append(await receive())

    async with serving(app, ServerConfig(handshake_timeout=0.3), lifespan="off") as served:
        async with connect(served.port) as raw:
            await raw.send(request())
            assert (await raw.read_head()).startswith(b"HTTP/1.1 503 ")
        await until(lambda: ended)
    assert ended[0]["type"] == "websocket.disconnect"


async def test_observers_hear_of_every_opening_and_ending_and_a_failing_one_harms_nobody() -> None:
    recorder = Recorder([])

    def failing(event: Any) -> None:
        raise ValueError("an observer's bug")

    config = ServerConfig(observers=(failing, recorder.events.append))
    async with serving(echo, config) as served:
        async with opened(served.port, "/room?x=1") as raw:
            await raw.send(close_frame(1001))
            await raw.ended()
        await until(lambda: recorder.of(ConnectionClosed))
    assert recorder.of(ConnectionOpened) == [ConnectionOpened(path="/room")]
    (closed,) = recorder.of(ConnectionClosed)
    assert (closed.path, closed.code, closed.closed_by) == ("/room", 1001, ClosedBy.PEER)
    assert 0 <= closed.duration < PATIENCE


@pytest.mark.parametrize(
    ("limits", "settings", "data", "line"),
    [
        (
            {},
            {"ws_max_size": 1000},
            frame(TEXT, b"x" * 1001),
            "WebSocket /a\\n closed: 1009 more than 1000 bytes (max_message_size, --ws-max-size)",
        ),
        (
            {"max_frames_per_second": 100},
            {},
            frame(TEXT, b"x") * 1000,
            "WebSocket /a\\n closed: 1008 too many (max_frames_per_second=100, max_bytes_per_second=None)",
        ),
    ],
)
async def test_the_log_names_the_limit_that_a_peer_has_met_and_its_option(
    limits: dict[str, int], settings: dict[str, int], data: bytes, line: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with serving(echo, ServerConfig(**limits), **settings) as served:  # type: ignore[arg-type]
        async with opened(served.port, "/a%0A") as raw:
            await raw.send(data)
            while (await raw.frame()).opcode != 8:
                pass
    assert line in [record.getMessage() for record in caplog.records]


async def test_a_handshake_that_is_refused_before_the_app_is_a_line_with_its_reason(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    async with serving(echo, ServerConfig(max_connections=1)) as served:
        async with opened(served.port), connect(served.port) as second, connect(served.port) as wrong:
            await second.send(request("/second"))
            await second.read_all()
            await wrong.send(request().replace(b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Version: 8"))
            await wrong.read_all()
    lines = [record.getMessage() for record in caplog.records]
    assert "WebSocket /second refused: 503 no room for another connection" in lines
    assert [line for line in lines if re.fullmatch(r"WebSocket \S+ refused: 426 .+", line)], lines


def test_admission_counts_by_address_and_forgets_those_without_connections() -> None:
    admission = Admission(3, 2)
    assert [admission.enter("a"), admission.enter("a"), admission.enter("a")] == [None, None, 429]
    assert admission.enter("b") is None
    assert admission.enter("c") == 503
    for address in ("a", "a", "b"):
        admission.leave(address)
    assert admission.count == 0
    assert admission._addresses == {}


def test_a_rate_allows_a_burst_of_one_second_and_refills_with_time() -> None:
    rate = FrameRate(10, 1000, now=0.0)
    assert rate.spend(10, 100, 0.0)
    assert not rate.spend(11, 1, 0.0)
    rate = FrameRate(10, None, now=0.0)
    assert rate.spend(10, 10**9, 0.0)
    assert rate.spend(15, 10**9, 0.5)
    assert rate.spend(25, 10**9, 10.0)
    assert not rate.spend(36, 0, 10.0)


def test_a_hoard_gives_up_the_greediest_of_the_address_that_holds_most() -> None:
    hoard: Hoard[str] = Hoard(100)
    assert hoard.note("honest", "192.0.2.1", 30) == []
    for number in range(6):
        assert hoard.note(f"many {number}", "192.0.2.2", 10) == []
    assert hoard.note("many 0", "192.0.2.2", 25) == ["many 0"]
    assert hoard.note("honest", "192.0.2.1", 49) == []
    assert hoard.note("honest", "192.0.2.1", 60) == ["honest"]  # by now its address does hold most
    assert hoard.note("many 1", "192.0.2.2", 0) == []
    for number in range(2, 6):
        hoard.note(f"many {number}", "192.0.2.2", 0)
    assert (hoard.total, hoard._addresses, hoard._totals, hoard._address_of) == (0, {}, {}, {})


def test_a_hoard_takes_a_network_of_ipv6_for_one_client() -> None:
    hoard: Hoard[int] = Hoard(100)
    hoard.note(0, "2001:db8::1", 30)
    for number in range(1, 7):
        hoard.note(number, f"2001:db8:0:1::{number}", 10)
    assert hoard.note(7, "2001:db8:0:1::7", 15) == [7]
    assert hoard.note(8, "::ffff:192.0.2.1", 1) == []


def test_a_hoard_without_a_limit_gives_up_nobody() -> None:
    hoard: Hoard[int] = Hoard(None)
    assert hoard.note(1, "", 1 << 40) == []
