"""A heartbeat that a page can see: one small message per interval where it is on, nothing where it is off."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import Coroutine
from typing import Any

import pytest
from websockets.asyncio.client import connect

from antiphon import App, Hub, TopicOptions, WebSocket
from antiphon.heartbeat import HEARTBEAT
from antiphon.hub import Framing, Overflow
from antiphon.testing import VirtualTimeLoop
from antiphon.testing.hub_sinks import Connection
from tests.patience import PATIENCE
from tests.serving import serve

BEAT = {"type": "heartbeat"}
TOPICS = {
    "events/*": TopicOptions(framing=Framing.EVENT, history=10),
    "tight": TopicOptions(framing=Framing.EVENT, overflow=Overflow.DISCONNECT, outbox_bytes=1),
    "raw": TopicOptions(),
}


def in_virtual_time(work: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(work)


def beats(connection: Connection) -> int:
    return connection.sink.events.count(BEAT)


def test_each_connection_gets_one_per_interval_and_is_told_so_when_it_joins() -> None:
    async def main() -> None:
        hub = Hub("memory://", topics=TOPICS, heartbeat=10)
        connections = [Connection() for _ in range(20)]
        for connection in connections:
            membership = hub.join("events/a", connection)
            await membership.__aenter__()
            joined = connection.sink.events[0]
            assert joined["heartbeat"] == 10
            await asyncio.sleep(0.7)
        await asyncio.sleep(86)
        for number, connection in enumerate(connections):
            lasted = 100 - 0.7 * number
            assert abs(beats(connection) - lasted / 10) <= 1
        assert len({id(one) for one in [HEARTBEAT]}) == 1

    in_virtual_time(main())


def test_the_longest_silence_is_one_interval() -> None:
    async def main() -> None:
        hub, connection = Hub("memory://", topics=TOPICS, heartbeat=8), Connection()
        async with hub.join("events/a", connection):
            for seconds in range(1, 100):
                await asyncio.sleep(1)
                assert seconds // 8 <= beats(connection) <= seconds / 8, "nor is one told what is known: it has joined"

    in_virtual_time(main())


def test_several_topics_on_one_connection_are_one_heartbeat() -> None:
    async def main() -> None:
        hub, connection = Hub("memory://", topics=TOPICS, heartbeat=10), Connection()
        async with hub.join("events/a", connection), hub.join("raw", connection):
            await asyncio.sleep(3)
            async with hub.join("events/b", connection):  # at another turn of the wheel
                await asyncio.sleep(98)
            assert beats(connection) == 10

    in_virtual_time(main())


def test_where_it_is_off_nothing_is_announced_sent_or_timed() -> None:
    async def main() -> None:
        hub, connection = Hub("memory://", topics=TOPICS), Connection()
        loop: Any = asyncio.get_running_loop()
        async with hub.join("events/a", connection):
            assert loop._scheduled == []
            await asyncio.sleep(1000)
            (joined,) = connection.sink.events
            assert "heartbeat" not in joined

    in_virtual_time(main())


def test_raw_topics_and_code_get_none() -> None:
    async def main() -> None:
        hub, connection = Hub("memory://", topics=TOPICS, heartbeat=1), Connection()
        async with hub.join("raw", connection), hub.subscribe("events/a") as messages:
            await asyncio.sleep(10)
            assert connection.received == []
            await hub.publish("events/a", "first")
            assert (await anext(messages)).data == "first"

    in_virtual_time(main())


def test_it_goes_on_when_the_topics_are_left_and_ends_with_the_connection() -> None:
    async def main() -> None:
        hub, connection = Hub("memory://", topics=TOPICS, heartbeat=10), Connection()
        loop: Any = asyncio.get_running_loop()
        async with hub.join("events/a", connection):
            await asyncio.sleep(10)
        await asyncio.sleep(50.5)
        assert beats(connection) == 6
        connection.sink.die()
        await asyncio.sleep(30)
        assert beats(connection) == 6
        assert all(handle.cancelled() for handle in loop._scheduled), "a timer was left behind"

    in_virtual_time(main())


@pytest.mark.parametrize("topic", ["events/a", "tight"])
def test_a_peer_that_is_stuck_gets_no_more_than_one_and_is_not_judged_by_it(topic: str) -> None:
    async def main() -> None:
        hub, connection = Hub("memory://", topics=TOPICS, heartbeat=1), Connection()
        async with hub.join(topic, connection) as membership:
            connection.sink.stall()
            await asyncio.sleep(1000)
            assert connection.sink.most_buffered <= len(HEARTBEAT.payload)
            assert connection.sink.alive
            assert membership.dropped == 0
            assert hub.stats().dropped == hub.stats().disconnected == 0
            connection.sink.read_on()
            await asyncio.sleep(10)
            assert beats(connection) >= 10

    in_virtual_time(main())


def test_it_is_no_message_of_the_topic() -> None:
    async def main() -> None:
        hub, connection = Hub("memory://", topics=TOPICS, heartbeat=1), Connection()
        async with hub.join("events/a", connection):
            await asyncio.sleep(10)
            assert beats(connection) >= 9
            assert await hub.history("events/a", limit=10) == []
            assert hub.stats().delivered == 0
            position = await hub.publish("events/a", "first")
            assert position is not None
            assert position.offset == 1

    in_virtual_time(main())


def test_hubs_in_several_loops_one_after_the_other_keep_nothing_of_a_loop_that_was_closed() -> None:
    hub = Hub("memory://", topics=TOPICS, heartbeat=1)

    async def cut_short() -> None:
        await hub.join("events/a", Connection()).__aenter__()

    for _ in range(5):
        in_virtual_time(cut_short())
    hearts = hub._joining._hearts
    assert hearts is not None
    assert len(hearts._hearts) == 1
    gc.collect()


@pytest.mark.parametrize("seconds", [0, 0.5, -1, 3601, float("nan"), float("inf")])
def test_an_interval_that_makes_no_sense_is_told_where_it_is_given(seconds: float) -> None:
    with pytest.raises(ValueError, match="heartbeat: expected"):
        Hub("memory://", heartbeat=seconds)


def test_an_interval_that_is_no_number_is_told_where_it_is_given() -> None:
    with pytest.raises(TypeError, match="heartbeat: expected a number"):
        Hub("memory://", heartbeat="10")  # type: ignore[arg-type]


@pytest.mark.parametrize("ws", ["antiphon.server:WebSocketProtocol", "websockets-sansio", "wsproto"])
async def test_a_page_hears_it_on_every_server(ws: str) -> None:
    app = App(hub=Hub("memory://", topics=TOPICS, heartbeat=1))

    @app.websocket("/")
    async def room(websocket: WebSocket, hub: Hub) -> None:
        await websocket.accept()
        async with hub.join("events/a", websocket):
            await websocket.wait_closed()

    async with serve(app, ws=ws) as server, connect(server.url) as client, asyncio.timeout(PATIENCE):
        assert json.loads(await client.recv())["heartbeat"] == 1
        for _ in range(2):
            assert json.loads(await client.recv()) == BEAT


async def test_a_peer_that_answers_no_ping_is_given_up_in_spite_of_heartbeats() -> None:
    app = App(hub=Hub("memory://", topics=TOPICS, heartbeat=1))
    ended = asyncio.Event()

    @app.websocket("/")
    async def room(websocket: WebSocket, hub: Hub) -> None:
        await websocket.accept()
        async with hub.join("events/a", websocket):
            await websocket.wait_closed()
        ended.set()

    pings = {"ws_ping_interval": 0.5, "ws_ping_timeout": 2.0}
    async with serve(app, ws="antiphon.server:WebSocketProtocol", **pings) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(
            b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
        )
        async with asyncio.timeout(PATIENCE):
            heard = b""
            while chunk := await reader.read(1000):  # it reads, and says nothing
                heard += chunk
            await ended.wait()
        writer.close()
    assert b'{"type":"heartbeat"}' in heard
