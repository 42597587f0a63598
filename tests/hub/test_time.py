"""The hub's time is the running loop's: in virtual time minutes take none, and one line of time holds for all loops."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref

import pytest

from antiphon import App, Hub, TopicOptions, WebSocket
from antiphon.hub import MessageKind
from antiphon.hub.backends.base import BackendConfig
from antiphon.hub.backends.memory import MemoryBackend
from antiphon.hub.backends.relay import process as relay_process
from antiphon.hub.backends.relay.trust import new_key
from antiphon.hub.backends.relay.wire import MAX_REQUEST, Op, Splitter, frame
from antiphon.hub.clock import LoopClock
from antiphon.hub.records import Keep
from antiphon.server import ServerConfig
from antiphon.testing import Server, VirtualTimeLoop, virtual_time
from antiphon.testing.transport import pair

GRACE, TTL, LEASE = 30.0, 600.0, 45.0

TOPICS = {
    "people": TopicOptions(presence=True, presence_grace=GRACE),
    "news": TopicOptions(history=10, ttl=TTL),
}


def chat() -> App:
    app = App(hub=Hub(topics=TOPICS))

    @app.websocket("/")
    async def enter(websocket: WebSocket, hub: Hub) -> None:
        await websocket.accept()
        async with hub.join("people", websocket, presence="ada"):
            await websocket.wait_closed()

    return app


@virtual_time
async def test_who_lost_the_connection_leaves_when_the_grace_is_over() -> None:
    app, loop = chat(), asyncio.get_running_loop()
    async with Server(app) as server, app.hub.subscribe("people", presence=True) as messages:
        peer = await server.connect("/").__aenter__()
        async for message in messages:
            assert message.kind is MessageKind.PRESENCE_DIFF
            if message.data["joins"]:
                lost = loop.time()
                peer.drop()
            if message.data["leaves"]:
                break
        assert loop.time() - lost == pytest.approx(GRACE, abs=0.1)


@virtual_time
async def test_who_is_asked_for_is_away_when_the_grace_is_over() -> None:
    app = chat()
    async with Server(app) as server:
        async with server.connect("/") as peer:
            await asyncio.sleep(1)
            peer.drop()
        await asyncio.sleep(GRACE - 1)
        assert await app.hub.presence_count("people") == 1
        await asyncio.sleep(1)
        assert await app.hub.presence_count("people") == 0


@virtual_time
async def test_a_message_is_kept_for_its_ttl_and_no_longer() -> None:
    async with Hub(topics=TOPICS) as hub:
        await hub.publish("news", "old")
        await asyncio.sleep(TTL / 2)
        await hub.publish("news", "new")
        assert [message.data for message in await hub.history("news")] == ["old", "new"]
        await asyncio.sleep(TTL / 2 + 1)
        assert [message.data for message in await hub.history("news")] == ["new"]
        await asyncio.sleep(TTL / 2)
        assert isinstance(hub.backend, MemoryBackend)
        assert hub.backend.store.topics == 0  # by itself: nobody asked


@virtual_time
async def test_a_relay_forgets_a_silent_worker_when_its_lease_is_over() -> None:
    loop, relay = asyncio.get_running_loop(), relay_process.Relay(new_key())
    told: list[tuple[float, int]] = []
    splitter = Splitter(MAX_REQUEST)

    class WorkerHandshake(asyncio.Protocol):
        def data_received(self, data: bytes) -> None:
            told.extend((loop.time(), op) for op, *_ in splitter.feed(data))

    here, _ = pair(loop, WorkerHandshake(), Unguarded(relay), first_address=("", 0), second_address=("", 0))
    for words in (frame(Op.HELLO, 0, "w", LEASE), frame(Op.TRACK, 0, "people", "r", "ada", b"1")):
        here.write(words if isinstance(words, bytes) else b"".join(words))
    await asyncio.sleep(LEASE - 1)
    assert relay.store.roster("people").members
    await asyncio.sleep(2)
    assert not relay.store.roster("people").members
    assert [moment for moment, op in told if op == Op.FORGOTTEN] == [pytest.approx(LEASE, abs=0.1)]


class Unguarded(relay_process.WorkerLink):
    """A transport in memory has no user to ask for, and shows no key."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._door = None
        self.relay.workers.add(self)


@virtual_time
async def test_pings_and_the_apps_own_intervals_go_by_the_same_clock() -> None:
    app, loop = App(hub=Hub()), asyncio.get_running_loop()

    @app.websocket("/")
    async def beat(websocket: WebSocket, hub: Hub) -> None:
        await websocket.accept()
        async with hub.join("beats", websocket):
            while True:
                await asyncio.sleep(20)
                await hub.publish("beats", str(loop.time()))

    before = time.monotonic()
    async with Server(app, config=ServerConfig(ping_interval=7, ping_timeout=7)) as server:
        async with server.connect("/") as peer:
            for number in range(1, 181):
                assert float(await peer.receive(timeout=21)) == pytest.approx(20 * number)
            peer.pause_reading()  # no pong any more: the ping times out
            started = loop.time()
            assert await peer.wait_closed(timeout=60) == 1006
            assert loop.time() - started <= 15
    assert time.monotonic() - before < 3600


@virtual_time
async def test_a_call_gives_up_waiting_for_the_backend_in_virtual_time() -> None:
    loop = asyncio.get_running_loop()
    async with Hub(topics=TOPICS, outage_timeout=500) as hub:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(400), hub.subscribe("news") as messages:
                await anext(aiter(messages))
    assert loop.time() == pytest.approx(400)


def test_time_goes_on_from_one_virtual_loop_to_the_next_and_a_lost_timer_comes_again() -> None:
    backend = MemoryBackend("memory://", BackendConfig())
    keep = Keep(10, 100.0)

    async def publish(wait: float) -> int:
        await backend.publish("a", b"x", keep)
        await asyncio.sleep(wait)
        return len((await backend.history("a", keep, None, None)).entries)

    async def touch() -> int:
        await backend.publish("b", b"x", Keep(10, 1000.0))
        await asyncio.sleep(50)
        return backend.store.topics

    for main, expected in ((publish(60), 1), (publish(60), 1), (touch(), 1)):
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            assert runner.run(main) == expected


def test_loops_on_the_systems_clock_share_one_line_of_time() -> None:
    clock = LoopClock()

    async def ask() -> tuple[float, float]:
        return clock(), time.monotonic()

    first, at_first = asyncio.run(ask())
    second, at_second = asyncio.run(ask())
    assert second - first == pytest.approx(at_second - at_first, abs=0.5)
    assert clock() >= second


def test_the_clock_never_goes_back_and_keeps_no_loop_alive() -> None:
    clock = LoopClock()
    loops: list[weakref.ref[asyncio.AbstractEventLoop]] = []

    async def wait(seconds: float) -> list[float]:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        before = clock()
        await asyncio.sleep(seconds)
        return [before, clock()]

    seen: list[float] = []
    for seconds in (1000.0, 0.0, 5.0):
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            seen += runner.run(wait(seconds))
        seen += asyncio.run(wait(0))
    assert seen == sorted(seen)
    assert seen[1] - seen[0] == pytest.approx(1000)
    gc.collect()
    assert [loop() for loop in loops] == [None] * len(loops)


async def test_a_busy_topic_keeps_one_timer() -> None:
    backend = MemoryBackend("memory://", BackendConfig())
    loop = asyncio.get_running_loop()
    kind = type(loop.call_later(0, lambda: None))

    def timers() -> int:
        return sum(isinstance(one, kind) for one in gc.get_objects())

    before = timers()
    for _ in range(1000):
        await backend.publish("news", b"x", Keep(10, TTL))
    assert timers() - before <= 2
    await backend.stop()


async def test_a_hub_that_was_stopped_starts_empty() -> None:
    hub = Hub(topics=TOPICS)
    async with hub:
        first = await hub.publish("news", "of the first life")
    async with hub:
        assert await hub.history("news") == []
        second = await hub.publish("news", "of the second life")
        assert first is not None
        assert second is not None
        assert (second.offset, second.epoch != first.epoch) == (1, True)
        assert not (await hub.history("news", since=first)).recovered


async def test_a_socket_that_stayed_up_hears_what_the_next_life_brings() -> None:
    app = App(hub=Hub(topics=TOPICS))

    @app.websocket("/")
    async def listen(websocket: WebSocket, hub: Hub) -> None:
        await websocket.accept()
        async with hub.join("news", websocket, history=10):
            await websocket.wait_closed()

    async with Server(app) as server, server.connect("/") as old:
        for number in range(5):
            await app.hub.publish("news", f"before {number}")
            assert await old.receive() == f"before {number}"
        await app.hub.stop()
        await app.hub.start()
        async with server.connect("/") as new:
            position = await app.hub.publish("news", "after")
            assert position is not None
            assert position.offset == 1
            assert await old.receive() == await new.receive() == "after"
            assert old.received() == new.received() == []
