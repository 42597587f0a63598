"""A hub whose Redis is reachable and unwell: connections it closes, writes it refuses, round trips."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncGenerator, Iterator

import pytest

from antiphon.events import Event
from antiphon.hub import BackendUnavailable, Hub, TopicOptions
from antiphon.hub.events import BackendLost
from antiphon.testing.hub_contract.base import publish_when_possible, told_to_resync, until
from antiphon.testing.hub_sinks import Connection, eventually
from tests.hub.chaos import Proxy, Streams
from tests.redis_server import RedisServer, redis_server

TOPICS = {
    "kept": TopicOptions(history=100),
    "people*": TopicOptions(presence=True, presence_grace=0),
    "crowd": TopicOptions(presence_grace=0),
}
LEASE = 0.6
LEAVERS = 1000
ROUND_TRIPS = (0.02, 0.1)
"""Seconds: where the machine was too slow for the first, the next tells."""


@pytest.fixture(scope="module")
def shared() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture
def server(shared: RedisServer) -> RedisServer:
    shared.command("FLUSHALL")
    return shared


@pytest.fixture
async def hub(server: RedisServer) -> AsyncGenerator[Hub]:
    async with Hub(server.url, topics=TOPICS, presence_lease=LEASE) as hub:
        yield hub


class Address:
    """A name that leads to one server, and later to another."""

    def __init__(self, server: RedisServer) -> None:
        self.server = server
        self.proxy = Proxy(self._dial, random.Random(0))

    async def __aenter__(self) -> str:
        return f"redis://127.0.0.1:{await self.proxy.listen_tcp()}"

    async def __aexit__(self, *_: object) -> None:
        await self.proxy.close()

    async def _dial(self) -> Streams:
        return await asyncio.open_connection("127.0.0.1", self.server.port)


def idle_clients(server: RedisServer) -> int:
    return server.command("CLIENT", "LIST", "TYPE", "normal").count(" addr=") - 1


# Connections that are closed


async def test_a_leave_whose_connection_was_cut_leaves_no_ghost(server: RedisServer, hub: Hub) -> None:
    """The subscribing connection stays up: no loss is reported."""
    async with Hub(server.url, topics=TOPICS, presence_lease=LEASE) as other:
        membership = await hub.join("people", Connection(), presence="ann").__aenter__()
        server.command("CLIENT", "KILL", "TYPE", "normal")
        await membership.leave()
        await until(lambda: other.presence("people"), {})


async def test_connections_that_redis_closed_for_being_idle_cost_nobody_a_call(server: RedisServer) -> None:
    connection, hub = Connection(), Hub(server.url, topics=TOPICS)
    async with hub, hub.join("people", connection, presence="ann"), hub.join("kept", connection):
        await hub.publish("kept", "before")
        await hub.publish("people", "before")
        for attempt in range(3):
            server.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            await eventually(lambda: not idle_clients(server))
            await asyncio.sleep(0.01)  # the end of the connections arrives
            await hub.publish("kept", f"after {attempt}")
            assert len(await hub.history("kept", limit=1)) == 1
            assert await hub.presence("people") == {"ann": ["ann"]}
            async with hub.join("people", Connection(), presence=f"bob {attempt}"):
                pass
        assert not told_to_resync(connection)


async def test_the_upkeep_asks_idle_connections_for_a_sign_of_life(server: RedisServer) -> None:
    async with Address(server) as url, Hub(url, topics=TOPICS, presence_lease=LEASE) as hub:
        await hub.publish("t", "x")
        lines = server.command("CLIENT", "LIST", "TYPE", "normal").count("cmd=publish")
        assert lines == 1
        await eventually(lambda: "cmd=publish" not in server.command("CLIENT", "LIST", "TYPE", "normal"))


# Writes that are refused


async def test_after_a_failover_the_name_is_resolved_again(server: RedisServer) -> None:
    seen: list[Event] = []
    with redis_server() as successor:
        address, connection = Address(server), Connection()
        async with address as url, Hub(url, topics=TOPICS, presence_lease=LEASE, observer=seen.append) as hub:
            async with hub.join("kept", connection), hub.join("people", Connection(), presence="ann"):
                await hub.publish("kept", "before")
                address.server = successor
                server.command("REPLICAOF", "127.0.0.1", str(successor.port))
                try:
                    await publish_when_possible(hub, "kept", "after")
                    await eventually(lambda: connection.received[-1] == "after")
                    await until(lambda: hub.presence("people"), {"ann": ["ann"]})
                    assert any(isinstance(event, BackendLost) for event in seen)
                finally:
                    server.command("REPLICAOF", "NO", "ONE")


async def test_a_hub_does_not_come_back_to_a_server_that_is_read_only(server: RedisServer) -> None:
    """It is detected even without a publish."""
    async with Hub(server.url, topics=TOPICS, presence_lease=LEASE) as hub:
        server.command("REPLICAOF", "127.0.0.1", "1")
        try:
            await eventually(lambda: not hub.stats().connected)
            for _ in range(20):
                await asyncio.sleep(0.01)
                assert not hub.stats().connected
        finally:
            server.command("REPLICAOF", "NO", "ONE")
        await eventually(lambda: hub.stats().connected)
        await publish_when_possible(hub, "kept", "x")


async def test_a_full_server_is_told_in_the_stats_and_is_no_loss(server: RedisServer, hub: Hub) -> None:
    connection = Connection()
    async with hub.join("kept", connection), hub.join("t", connection):
        await hub.publish("kept", "before")
        server.command("CONFIG", "SET", "maxmemory", "1")
        try:
            await eventually(lambda: not hub.stats().connected)
            with pytest.raises(BackendUnavailable, match="maxmemory"):
                await hub.publish("kept", "refused")
            await hub.publish("t", "what is not kept needs no room")
            assert len(await hub.history("kept")) == 1
        finally:
            server.command("CONFIG", "SET", "maxmemory", "0")
        await eventually(lambda: hub.stats().connected)
        await hub.publish("kept", "after")
        await eventually(lambda: connection.received[-1] == "after")
        assert not told_to_resync(connection)


# Round trips


@pytest.mark.parametrize("topic", ["crowd", "people"], ids=["their topic", "another"])
async def test_who_joins_does_not_wait_for_a_round_trip_of_each_who_leaves(server: RedisServer, topic: str) -> None:
    """A switch reboots: all of them are cut at once. benchmarks/leaves.py has the seconds."""
    for round_trip in ROUND_TRIPS:
        took = await joining_beside_leaves(server, LEAVERS, round_trip, topic)
        if took < LEAVERS * round_trip / 4:
            return
    pytest.fail(f"{took:.2f} s, with round trips of {round_trip} s: it waited for the others")


async def joining_beside_leaves(server: RedisServer, members: int, round_trip: float, topic: str) -> float:
    """Seconds."""
    address = Address(server)
    async with address as url, Hub(url, topics=TOPICS, presence_lease=60) as hub:
        crowd = [Connection() for _ in range(members)]
        joining = (hub.join("crowd", one, presence=f"user {n}").__aenter__() for n, one in enumerate(crowd))
        await asyncio.gather(*joining)
        address.proxy.latency = round_trip / 2
        for one in crowd:
            one.sink.die()
        started = time.monotonic()
        async with hub.join(topic, Connection(), presence="innocent"):
            took = time.monotonic() - started
        address.proxy.latency = 0
        await until(lambda: hub.presence_count("crowd"), 0)
    return took


async def test_a_start_takes_few_round_trips(server: RedisServer) -> None:
    address = Address(server)
    async with address as url:
        for round_trip in (0.1, 0.4, 0.7):
            address.proxy.latency = round_trip / 2
            started = time.monotonic()
            with contextlib.suppress(BackendUnavailable):  # on a busy machine: not within 5 seconds
                async with Hub(url, topics=TOPICS):
                    took = time.monotonic() - started
                if took < 6 * round_trip:
                    return
    pytest.fail(f"{took:.2f} s for round trips of {round_trip} s")
