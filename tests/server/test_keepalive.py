"""Pings that blame nobody for what is not his fault (SPEC §7.3, issue: stock servers close healthy connections)."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
import websockets

from antiphon.events import KeepaliveTimeout
from antiphon.server import ServerConfig, Session
from antiphon.types import CARRIER_EXTENSION

from .raw import PING, PONG, TEXT, Recorder, frame, opened, serving, until

PINGS: dict[str, Any] = {"ws_ping_interval": 0.2, "ws_ping_timeout": 0.2, "lifespan": "off"}


def reading(sessions: list[Session], codes: list[Any]) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        sessions.append(scope["extensions"][CARRIER_EXTENSION])
        while (message := await receive())["type"] == "websocket.receive":
            pass
        codes.append(message["code"])

    return app


async def test_a_peer_that_answers_stays_and_its_round_trip_time_is_known() -> None:
    sessions: list[Session] = []
    async with serving(reading(sessions, []), **PINGS) as served:
        async with websockets.connect(f"{served}/", ping_interval=None):
            await asyncio.sleep(1.0)
            assert sessions[0].alive
            assert sessions[0].rtt is not None
            assert 0 <= sessions[0].rtt < 0.2


async def test_a_peer_that_answers_no_ping_is_aborted_within_interval_and_timeout(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "uvicorn.error")
    recorder = Recorder([])
    codes: list[Any] = []
    limits = ServerConfig(observers=(recorder.events.append,))
    async with serving(reading([], codes), limits, **PINGS) as served:
        async with opened(served.port) as raw:
            started = asyncio.get_running_loop().time()
            assert (await raw.frame()).opcode == PING
            await raw.ended()
            took = asyncio.get_running_loop().time() - started
        await until(lambda: codes)
    assert 0.3 < took < 0.4 + 0.15  # the second is for the machine's load
    assert codes == [1006]
    assert len(recorder.of(KeepaliveTimeout)) == 1
    assert "no pong" in caplog.text


async def test_a_stale_or_unasked_pong_is_no_answer() -> None:
    codes: list[Any] = []
    async with serving(reading([], codes), **PINGS) as served:
        async with opened(served.port) as raw:
            while not codes:
                await raw.send(frame(PONG, b"\xff\xff\xff\xff") + frame(TEXT, b"alive?"))
                await asyncio.sleep(0.02)
                if raw.reader.at_eof():
                    break
            await until(lambda: codes)
    assert codes == [1006]


async def test_an_app_that_does_not_read_does_not_cost_a_healthy_client_its_connection() -> None:
    """The client's pongs wait behind messages that we do not take out of the socket."""
    sessions: list[Session] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        session: Session = scope["extensions"][CARRIER_EXTENSION]
        sessions.append(session)
        await until(lambda: session.reading_paused)
        for _ in range(50):
            await send({"type": "websocket.send", "text": "tick"})
            await asyncio.sleep(0.03)
        while (await receive())["type"] == "websocket.receive":
            pass

    async with serving(app, ServerConfig(inbound_bytes=1000), **PINGS) as served:
        async with websockets.connect(f"{served}/", ping_interval=None, compression=None) as client:
            for _ in range(10):
                await client.send("x" * 1000)
            for _ in range(50):
                assert await client.recv() == "tick"
            await until(lambda: not sessions[0].reading_paused)
            await asyncio.sleep(0.5)
            assert sessions[0].alive


async def test_a_long_message_that_takes_longer_than_the_timeout_counts_as_life() -> None:
    sizes: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        sizes.append(len((await receive())["bytes"]))

    async with serving(app, **PINGS) as served:
        async with opened(served.port) as raw:
            data = frame(0x2, b"x" * 100_000)
            for start in range(0, len(data), 10_000):
                await raw.send(data[start : start + 10_000])
                await asyncio.sleep(0.1)
            await until(lambda: sizes)
    assert sizes == [100_000]


@pytest.mark.parametrize("setting", [{"ws_ping_interval": None}, {"ws_ping_interval": 0.1, "ws_ping_timeout": None}])
async def test_without_an_interval_or_a_timeout_silence_is_allowed(setting: dict[str, Any]) -> None:
    codes: list[Any] = []
    async with serving(reading([], codes), lifespan="off", **setting) as served:
        async with opened(served.port) as raw:
            await asyncio.sleep(0.6)
            assert codes == []
            await raw.send(frame(PING, b"?"))
            while (answer := await raw.frame()).opcode == PING:
                assert setting["ws_ping_interval"] is not None
            assert answer == (PONG, b"?")


async def test_the_next_ping_follows_a_pong_that_came_late() -> None:
    """A timeout longer than the interval must not make the following pings wait for it."""
    async with serving(reading([], []), lifespan="off", ws_ping_interval=0.2, ws_ping_timeout=30) as served:
        async with opened(served.port) as raw:
            started = asyncio.get_running_loop().time()
            for _ in range(3):
                ping = await raw.frame()
                await asyncio.sleep(0.3)
                await raw.send(frame(PONG, ping.payload))
            assert asyncio.get_running_loop().time() - started < 3


async def test_a_pong_that_waits_behind_what_the_app_does_not_read_is_not_missed() -> None:
    """The ping was sent while we read; then the app stops, and with it we do."""
    sessions: list[Session] = []
    go = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        sessions.append(scope["extensions"][CARRIER_EXTENSION])
        await go.wait()
        while (await receive())["type"] == "websocket.receive":
            pass

    async with serving(app, ServerConfig(inbound_bytes=1000), **PINGS) as served:
        async with opened(served.port) as raw:
            ping = await raw.frame()
            await raw.send(frame(TEXT, b"x" * 1000) * 400)
            await until(lambda: sessions[0].reading_paused)
            await raw.send(frame(PONG, ping.payload))
            await asyncio.sleep(0.6)
            assert sessions[0].alive
            go.set()
            while (after := await raw.frame()).payload == ping.payload:
                pass
            assert after.opcode == PING
            assert sessions[0].rtt is not None
