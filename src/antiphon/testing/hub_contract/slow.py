"""Receivers that do not keep up."""

from __future__ import annotations

import contextlib
import json

from antiphon.hub import Hub, Position
from antiphon.testing.hub_sinks import Connection, eventually

from .base import Contract


class SlowReceiversContract(Contract):
    """Nobody waits for them."""

    async def test_a_stalled_receiver_among_a_thousand_delays_nobody_and_is_told(self, hub: Hub) -> None:
        connections = [Connection() for _ in range(1000)]
        stalled = connections[500]
        stalled.sink.stall()
        async with contextlib.AsyncExitStack() as stack:
            for connection in connections:
                await stack.enter_async_context(hub.join("small-disconnect", connection))
            for n in range(30):
                await hub.publish("small-disconnect", f"{n:<100}")
            await eventually(lambda: all(len(c.received) == 30 for c in connections if c is not stalled))
            assert stalled.sink.closed is not None
            assert stalled.sink.closed[0] == 1013
            assert stalled.sink.most_buffered <= 1000
            assert hub.stats().memberships == 999
            assert hub.stats().disconnected == 1

    async def test_drop_newest_keeps_what_came_first(self, hub: Hub) -> None:
        received, dropped = await self._overflow(hub, "small-newest")
        assert received == list(range(10))
        assert dropped == 90

    async def test_drop_oldest_keeps_what_came_last(self, hub: Hub) -> None:
        received, dropped = await self._overflow(hub, "small-oldest")
        assert received == [0, 1, 2, 3, 4, 95, 96, 97, 98, 99]
        assert dropped == 90

    async def test_conflate_keeps_the_newest_of_each_key(self, hub: Hub) -> None:
        connection = Connection()
        connection.sink.stall()
        async with hub.join("small-conflate", connection) as membership:
            for n in range(100):
                await hub.publish("small-conflate", {"key": f"k{n % 3}", "n": n, "pad": "x" * 70})
            await self.settle(hub)
            connection.sink.read_on()
            numbers = [json.loads(one)["n"] for one in connection.received]
            assert numbers[-3:] == [97, 98, 99]
            assert numbers == sorted(numbers)
            assert membership.dropped == 100 - len(numbers)

    async def test_many_who_stall_in_a_long_page_hold_the_same_messages_and_few_of_them(self, hub: Hub) -> None:
        for n in range(100):
            await hub.publish("pages", f"{n:<1000}")
        connections = [Connection() for _ in range(20)]
        for connection in connections:
            connection.sink.stall()
        async with contextlib.AsyncExitStack() as stack:
            for connection in connections:
                await stack.enter_async_context(hub.join("pages", connection, history=100))
            await hub.publish("pages", "100")
            await self.settle(hub)
            assert all(0 < connection.sink.buffered <= 20_000 for connection in connections)
            assert len({id(one) for connection in connections for one in connection.sink._buffer}) <= 20
            for connection in connections:
                connection.sink.read_on()
            await eventually(lambda: all(len(connection.received) == 101 for connection in connections))
            assert all([int(one) for one in connection.received] == list(range(101)) for connection in connections)

    async def test_a_long_page_is_all_there_or_its_gap_is_told(self, hub: Hub) -> None:
        for n in range(100):
            first = await hub.publish("lossy-pages", f"{n:<1000}")
        since = None if first is None else Position(first.offset - 99, first.epoch)
        connection = Connection()
        connection.sink.stall()
        async with hub.join("lossy-pages", connection, since=since) as membership:
            assert membership.recovered
            assert membership.position == first
            for n in range(100, 201):
                await hub.publish("lossy-pages", f"{n:<1000}")
            await self.settle(hub)
            connection.sink.read_on()
            await eventually(lambda: str(connection.received[-1]).strip() == "200")
            texts = [str(one).strip() for one in connection.received]
            gap = next((n for n, one in enumerate(texts) if "resync" in one), 99)
            assert texts[:gap] == [str(1 + n) for n in range(gap)]
            numbers = [int(one) for one in texts if "resync" not in one]
            assert numbers == sorted(set(numbers))

    async def _overflow(self, hub: Hub, topic: str) -> tuple[list[int], int]:
        """100 messages of 100 bytes at a receiver that holds 1000."""
        connection, other = Connection(), Connection()
        connection.sink.stall()
        async with hub.join(topic, connection) as membership, hub.join(topic, other):
            for n in range(100):
                await hub.publish(topic, f"{n:<100}")
            await eventually(lambda: len(other.received) == 100)
            connection.sink.read_on()
            received = [int(one) for one in connection.received]
            await hub.publish(topic, "100")
            await eventually(lambda: connection.received[-1] == "100")
            assert hub.stats().dropped_now == {topic: membership.dropped}
            assert hub.stats().dropped == membership.dropped
            return received, membership.dropped

    async def test_an_outbox_smaller_than_one_message_takes_one_at_a_time(self, hub: Hub) -> None:
        connection = Connection()
        connection.sink.stall()
        async with hub.join("tiny-t", connection):
            await hub.publish("tiny-t", "x" * 100)
            await self.settle(hub)
            assert connection.sink.alive
            connection.sink.read_on()
            await hub.publish("tiny-t", "y" * 100)
            await eventually(lambda: len(connection.received) == 2)

    async def test_a_page_larger_than_the_outbox_arrives_as_the_peer_reads(self, hub: Hub) -> None:
        for n in range(50):
            await hub.publish("kept", f"{n:<50000}")
        connection = Connection()
        connection.sink.stall()
        async with hub.join("kept", connection, history=50):
            await hub.publish("kept", "live")
            await self.settle(hub)
            assert connection.sink.alive

            def read_one() -> bool:
                connection.sink.read(1)
                return len(connection.received) > 50

            await eventually(read_one)
            assert [str(one).strip() for one in connection.received] == [*map(str, range(50)), "live"]
