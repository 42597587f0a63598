"""Pings that blame only the peer at fault."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import websockets

from antiphon.events import ConnectionClosed, KeepaliveTimeout
from antiphon.server import ServerConfig
from antiphon.server.backend import Pipe
from antiphon.server.watch import Watch
from antiphon.testing import Peer, Server, VirtualTimeLoop
from antiphon.types import CARRIER_EXTENSION
from tests.patience import PATIENCE

from .raw import PING, PONG, TEXT, Recorder, frame, opened, serving, until

DEFAULTS = ServerConfig()
INTERVAL = TIMEOUT = 0.2
PINGS: dict[str, Any] = {"ws_ping_interval": INTERVAL, "ws_ping_timeout": TIMEOUT, "lifespan": "off"}
"""For peers that do not answer. One that does may be late where the machine is busy, so it is given its time:"""
PATIENT: dict[str, Any] = {"ws_ping_interval": 0.05, "ws_ping_timeout": PATIENCE, "lifespan": "off"}


def reading(sessions: list[Pipe], codes: list[Any]) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        sessions.append(scope["extensions"][CARRIER_EXTENSION])
        while (message := await receive())["type"] == "websocket.receive":
            pass
        codes.append(message["code"])

    return app


def rtt_of(session: Pipe) -> float | None:
    assert isinstance(session.watch, Watch)
    assert session.watch.keepalive is not None
    return session.watch.keepalive.rtt


async def test_a_peer_that_answers_stays_and_its_round_trip_time_is_known() -> None:
    sessions: list[Pipe] = []
    recorder = Recorder([])
    limits = ServerConfig(observers=(recorder.events.append,))
    async with serving(reading(sessions, []), limits, **PATIENT) as served:
        async with websockets.connect(f"{served}/", ping_interval=None):
            await until(lambda: sessions and rtt_of(sessions[0]) is not None)
            known = rtt_of(sessions[0])
            await until(lambda: rtt_of(sessions[0]) != known)  # no ping follows one without an answer
            assert sessions[0].alive
        await until(lambda: recorder.of(ConnectionClosed))
    (closed,) = recorder.of(ConnectionClosed)
    assert closed.rtt is not None
    assert 0 <= closed.rtt <= closed.duration


async def test_a_peer_that_answers_no_ping_is_aborted_within_interval_and_timeout(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "uvicorn.error")
    recorder = Recorder([])
    codes: list[Any] = []
    times: list[float] = []
    loop = asyncio.get_running_loop()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        times.append(loop.time())
        await reading([], codes)(scope, receive, send)
        times.append(loop.time())

    limits = ServerConfig(observers=(recorder.events.append,))
    async with serving(app, limits, **PINGS) as served:
        async with opened(served.port) as raw:
            assert (await raw.frame()).opcode == PING
            await raw.ended()
        await until(lambda: len(times) == 2)
    # Not sooner; that it is not later either is shown where no machine's load is on the clock: tests/testing.
    assert 1.5 * TIMEOUT < times[1] - times[0] < (DEFAULTS.ping_timeout or 0)
    assert codes == [1006]
    assert len(recorder.of(KeepaliveTimeout)) == 1
    assert "no pong" in caplog.text


async def test_a_stale_or_unasked_pong_is_no_answer() -> None:
    codes: list[Any] = []
    async with serving(reading([], codes), **PINGS) as served:
        async with opened(served.port) as raw:
            while not codes:
                with contextlib.suppress(ConnectionError):  # aborted meanwhile
                    await raw.send(frame(PONG, b"\xff\xff\xff\xff") + frame(TEXT, b"alive?"))
                await asyncio.sleep(0.02)
                if raw.reader.at_eof():
                    break
            await until(lambda: codes)
    assert codes == [1006]


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
    settings: dict[str, Any] = {"ws_ping_interval": 0.2, "ws_ping_timeout": 10 * PATIENCE}
    async with serving(reading([], []), lifespan="off", **settings) as served:
        async with opened(served.port) as raw:
            for _ in range(3):
                ping = await raw.frame()
                assert ping.opcode == PING
                await asyncio.sleep(0.3)
                await raw.send(frame(PONG, ping.payload))


# In virtual time and on a transport in memory: a peer that is in time here is so however busy the machine is.


MINUTES = 600.0


def in_virtual_time(app: Any, talk: Callable[[Peer], Coroutine[Any, Any, None]]) -> None:
    async def websockets_only(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await app(scope, receive, send)

    async def main() -> None:
        config = ServerConfig(inbound_bytes=1000, ping_interval=20, ping_timeout=20)
        async with Server(websockets_only, config=config) as server:
            async with server.connect("/", timeout=MINUTES) as client:
                await talk(client)

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(main())


def test_an_app_that_does_not_read_does_not_cost_a_healthy_client_its_connection() -> None:
    """The client's pongs wait behind messages that we do not take out of the socket."""
    sessions: list[Pipe] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        session: Pipe = scope["extensions"][CARRIER_EXTENSION]
        sessions.append(session)
        await until(lambda: session.reading_paused)
        for _ in range(50):
            await send({"type": "websocket.send", "text": "tick"})
            await asyncio.sleep(7)
        while (await receive())["type"] == "websocket.receive":
            pass

    async def talk(client: Peer) -> None:
        for _ in range(10):
            await client.send("x" * 1000)
        for _ in range(50):
            assert await client.receive() == "tick"
        await until(lambda: not sessions[0].reading_paused)
        await asyncio.sleep(MINUTES)
        assert sessions[0].alive

    in_virtual_time(app, talk)


def test_a_long_message_that_takes_longer_than_the_timeout_counts_as_life() -> None:
    sizes: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        sizes.append(len((await receive())["bytes"]))

    async def talk(client: Peer) -> None:
        client.pause_reading()  # so that it answers no ping
        data = frame(0x2, b"x" * 100_000)
        for start in range(0, len(data), 10_000):
            client.write_raw(data[start : start + 10_000])
            await asyncio.sleep(10)
        await until(lambda: sizes)

    in_virtual_time(app, talk)
    assert sizes == [100_000]


def test_a_pong_that_waits_behind_what_the_app_does_not_read_is_not_missed() -> None:
    """The ping was sent while we read. Then the app stops, and with it we do."""
    sessions: list[Pipe] = []
    go = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        sessions.append(scope["extensions"][CARRIER_EXTENSION])
        await go.wait()
        while (await receive())["type"] == "websocket.receive":
            pass

    async def talk(client: Peer) -> None:
        client.pause_reading()
        await asyncio.sleep(25)  # a ping is under way
        for _ in range(400):
            await client.send("x" * 1000)
        await until(lambda: sessions[0].reading_paused)
        client.resume_reading()
        await asyncio.sleep(MINUTES)
        assert sessions[0].alive
        assert rtt_of(sessions[0]) is None
        go.set()
        await until(lambda: rtt_of(sessions[0]) is not None)
        await asyncio.sleep(MINUTES)
        assert sessions[0].alive

    in_virtual_time(app, talk)
