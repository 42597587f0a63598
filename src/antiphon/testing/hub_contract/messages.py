"""Publishing, joining and leaving, and the order of it all."""

from __future__ import annotations

import asyncio
import contextlib
import enum
from typing import Any

import pytest

from antiphon.exceptions import WebSocketDisconnect
from antiphon.hub import Hub, InvalidTopic, Membership, Position, UnencodableData
from antiphon.hub.envelope import MAX_DATA
from antiphon.testing.hub_sinks import Connection, eventually

from .base import Contract


class Name(enum.StrEnum):
    """A type in which programs like to keep their names."""

    KEPT = "kept"
    ANN = "ann"


class MessagesContract(Contract):
    """Published messages reach the members."""

    # Publishing

    async def test_each_kind_of_data_has_its_form_on_the_wire(self, hub: Hub) -> None:
        connection = Connection()
        async with hub.join("t", connection):
            for data in ("tëxt", b"\x00\xff", bytearray(b"b"), {"a": [1, None, "ü"]}, 1.5, None, ""):
                await hub.publish("t", data)
            await eventually(lambda: len(connection.received) == 7)
        assert connection.received == ["tëxt", b"\x00\xff", b"b", '{"a":[1,null,"ü"]}', "1.5", "null", ""]

    async def test_the_largest_message_arrives_and_a_larger_one_disturbs_nobody(self, hub: Hub) -> None:
        connection = Connection()
        async with hub.join("kept", connection):
            for size in (MAX_DATA, MAX_DATA):
                await hub.publish("kept", "x" * size)
            with pytest.raises(UnencodableData, match="expected at most"):
                await hub.publish("kept", "x" * (MAX_DATA + 1))
            await hub.publish("kept", "end")
            await eventually(lambda: connection.received[-1:] == ["end"])
            assert [len(one) for one in connection.received] == [MAX_DATA, MAX_DATA, 3]
        assert [len(message.data) for message in await hub.history("kept")] == [MAX_DATA, MAX_DATA, 3]

    async def test_names_may_be_members_of_an_enum(self, hub: Hub) -> None:
        connection = Connection()
        async with hub.join(Name.KEPT, connection, presence=Name.ANN, since=Position(1, Name.ANN)) as membership:
            assert not membership.recovered
            await hub.publish("kept", "x")
            await hub.publish(Name.KEPT, "y")
            await eventually(lambda: connection.received == ["x", "y"])
            assert await hub.presence(Name.KEPT) == {"ann": ["ann"]}

    async def test_only_topics_with_history_give_positions_and_these_grow_by_one(self, hub: Hub) -> None:
        assert await hub.publish("t", "x") is None
        positions = [await hub.publish("kept", "x") for _ in range(3)]
        first = positions[0]
        assert first is not None
        assert positions == [Position(first.offset + n, first.epoch) for n in range(3)]
        assert Position.parse(str(first)) == first

    async def test_a_message_reaches_the_receivers_of_its_topic_alone(self, hub: Hub) -> None:
        here, there = Connection(), Connection()
        async with hub.join("here", here), hub.join("there", there):
            await hub.publish("here", "1")
            await hub.publish("there", "2")
            await eventually(lambda: here.received and there.received)
        assert here.received == ["1"]
        assert there.received == ["2"]

    async def test_the_excluded_connection_alone_does_not_hear_the_message(self, hub: Hub) -> None:
        speaker, listener = Connection(), Connection()
        async with hub.join("t", speaker), hub.join("t", listener):
            await hub.publish("t", "mine", exclude=speaker)
            await hub.publish("t", "end")
            await eventually(lambda: "end" in speaker.received and "end" in listener.received)
        assert speaker.received == ["end"]
        assert listener.received == ["mine", "end"]

    async def test_data_that_cannot_be_encoded_is_refused_before_anything_is_sent(self, hub: Hub) -> None:
        connection = Connection()
        loop: list[object] = []
        loop.append(loop)
        async with hub.join("t", connection), hub.join("event", connection):
            for data in (object(), "\ud800", {"a": {object()}}, loop):
                with pytest.raises(UnencodableData):
                    await hub.publish("t", data)
            with pytest.raises(UnencodableData, match="EVENT"):
                await hub.publish("event", b"bytes")
            with pytest.raises(UnencodableData, match="key"):
                await hub.publish("small-conflate", {"no": "such field"})
            await hub.publish("t", "end")
            await eventually(lambda: "end" in connection.received)
        assert [one for one in connection.received if "joined" not in str(one)] == ["end"]

    @pytest.mark.parametrize(
        "topic", ["", "a\x00b", "line\nbreak", "\x7f", "\ud800", "x" * 256, "é" * 128, 5, None, ["t"]]
    )
    async def test_what_is_no_topic_name_is_refused_by_every_method(self, hub: Hub, topic: Any) -> None:
        with pytest.raises(InvalidTopic):
            await hub.publish(topic, "x")
        with pytest.raises(InvalidTopic):
            hub.join(topic, Connection())
        with pytest.raises(InvalidTopic):
            hub.subscribe(topic)
        with pytest.raises(InvalidTopic):
            await hub.history(topic)
        with pytest.raises(InvalidTopic):
            await hub.presence(topic)
        with pytest.raises(InvalidTopic):
            await hub.close_connections(topic=topic or "")

    @pytest.mark.parametrize("topic", ["x" * 255, "a b", "raum/ü/🎉", "*", "%00", "{tag}", "a:b", "-"])
    async def test_a_name_may_hold_anything_else(self, hub: Hub, topic: str) -> None:
        connection = Connection()
        async with hub.join(topic, connection, presence="me"):
            await hub.publish(topic, "x")
            await eventually(lambda: connection.received)
            assert await hub.presence(topic) == {"me": ["me"]}

    # Joining and leaving

    async def test_the_end_of_the_block_leaves(self, hub: Hub) -> None:
        connection = Connection()
        async with hub.join("t", connection) as membership:
            assert membership.active
        assert not membership.active
        await self.publish_and_settle(hub, "t", "late")
        assert connection.received == []
        assert connection.sink.callbacks == 0
        assert hub.stats().topics == 0

    async def test_the_end_of_the_connection_leaves_before_the_block_ends(self, hub: Hub) -> None:
        connection = Connection()
        async with hub.join("t", connection) as membership:
            connection.sink.die()
            assert not membership.active
            assert hub.stats().memberships == 0

    async def test_leaving_twice_and_leaving_before_the_end_of_the_block_are_fine(self, hub: Hub) -> None:
        async with hub.join("t", Connection()) as membership:
            await membership.leave()
            await membership.leave()
        assert hub.stats().memberships == 0

    async def test_joining_a_closed_connection_is_a_disconnect_that_names_the_topic(self, hub: Hub) -> None:
        connection = Connection()
        connection.sink.die(1001)
        with pytest.raises(WebSocketDisconnect, match="'t'") as caught:
            async with hub.join("t", connection):
                pytest.fail("joined")
        assert caught.value.code == 1001
        assert hub.stats().topics == 0

    async def test_one_connection_may_be_in_many_topics(self, hub: Hub) -> None:
        connection = Connection()
        async with hub.join("a", connection), hub.join("b", connection):
            await hub.publish("a", "1")
            await eventually(lambda: len(connection.received) == 1)
            await hub.publish("b", "2")
            await eventually(lambda: len(connection.received) == 2)
            assert hub.stats().connections == 1
            assert hub.stats().memberships == 2

    async def test_an_exception_in_the_block_leaves_and_goes_on(self, hub: Hub) -> None:
        with pytest.raises(ZeroDivisionError):
            async with hub.join("t", Connection(), presence="me"):
                raise ZeroDivisionError
        assert hub.stats().memberships == 0
        assert await hub.presence("t") == {}

    async def test_topics_that_were_opened_and_left_leave_nothing_behind(self, hub: Hub) -> None:
        connection = Connection()
        for start in range(0, self.opened_topics, 500):
            async with contextlib.AsyncExitStack() as stack:
                for n in range(start, min(start + 500, self.opened_topics)):
                    await stack.enter_async_context(hub.join(f"kept-{n}", connection))
        assert hub.stats().topics == 0
        assert connection.sink.callbacks == 0
        assert await self.residue(hub) == 0

    # Order and gaps

    async def test_all_receivers_see_one_order_and_each_publisher_its_own(self, hub: Hub) -> None:
        connections = [Connection() for _ in range(5)]
        async with contextlib.AsyncExitStack() as stack:
            for connection in connections:
                await stack.enter_async_context(hub.join("t", connection))

            async def publisher(name: int) -> None:
                for n in range(100):
                    await hub.publish("t", f"{name}:{n}")
                    if n % 7 == name % 7:
                        await asyncio.sleep(0)

            await asyncio.gather(*(publisher(name) for name in range(10)))
            await eventually(lambda: all(len(connection.received) == 1000 for connection in connections))
        assert all(connection.received == connections[0].received for connection in connections)
        for name in range(10):
            mine = [one for one in connections[0].received if str(one).startswith(f"{name}:")]
            assert mine == [f"{name}:{n}" for n in range(100)]

    async def test_joiners_during_publishes_get_a_contiguous_stream(self, hub: Hub) -> None:
        """100 joiners during 10 000 publishes: with history, with `since`, and with neither."""
        total = 10_000
        joined: list[tuple[Connection, Membership]] = []
        start = await hub.publish("all", "0")
        done = asyncio.Event()
        turns = {number * total // 110 + 1: asyncio.Event() for number in range(100)}

        async def publisher() -> None:
            for n in range(1, total):
                await hub.publish("all", str(n))
                if n in turns:
                    turns[n].set()
                if n % 20 == 0:
                    await asyncio.sleep(0)

        async def joiner(number: int, turn: asyncio.Event) -> None:
            await turn.wait()
            connection = Connection()
            ways: list[dict[str, Any]] = [{"history": 10}, {"since": start}, {}]
            how = ways[number % 3]
            async with hub.join("all", connection, **how) as membership:
                joined.append((connection, membership))
                await done.wait()

        joiners = [asyncio.create_task(joiner(number, turn)) for number, turn in enumerate(turns.values())]
        await publisher()
        await eventually(lambda: len(joined) == 100)
        last = str(total - 1)
        await eventually(lambda: all(connection.received[-1:] == [last] for connection, _ in joined))
        done.set()
        await asyncio.gather(*joiners)
        assert start is not None
        for connection, membership in joined:
            numbers = [int(one) for one in connection.received]
            assert numbers == list(range(numbers[0], total))
            if membership.recovered:
                assert numbers[0] == 1
        assert sum(membership.recovered for _, membership in joined) == 33

    async def test_nobody_who_joins_and_leaves_disturbs_the_others(self, hub: Hub) -> None:
        steady = Connection()

        async def visitor() -> None:
            for _ in range(20):
                async with hub.join("t", Connection()):
                    await asyncio.sleep(0)

        async with hub.join("t", steady):
            visitors = [asyncio.create_task(visitor()) for _ in range(20)]
            for n in range(500):
                await hub.publish("t", str(n))
                await asyncio.sleep(0)
            await asyncio.gather(*visitors)
            await eventually(lambda: len(steady.received) == 500)
        assert steady.received == [str(n) for n in range(500)]
