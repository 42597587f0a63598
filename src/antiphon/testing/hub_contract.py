"""What every backend promises, as tests. Subclass in a test module and say how to make a hub:

    class TestMine(HubContract):
        @pytest.fixture
        def url(self) -> str:
            return "mine://..."

`ProcessContract` is for backends that span processes, `BrokerContract` for those with something to kill in the middle.
The tests need pytest with pytest-asyncio in auto mode. Pauses in here are waits for a condition, with a deadline.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import partial
from typing import Any, ClassVar, Protocol

import pytest

from antiphon.exceptions import WebSocketDisconnect
from antiphon.hub import (
    BackendUnavailable,
    Framing,
    Hub,
    InvalidTopic,
    Kind,
    Membership,
    Overflow,
    Position,
    SlowSubscriber,
    TopicOptions,
    Trouble,
    UnencodableData,
)

from .hub_sinks import Connection, RecordingSink, eventually
from .hub_worker import Worker, workers

LEASE = 1.0
"""Of the hubs here; a killed process's members are gone after it, plus what the machine needs."""

TOPICS: dict[str, dict[str, Any]] = {
    "kept*": {"history": 1000},
    "all*": {"history": 100_000},
    "few*": {"history": 3},
    "brief*": {"history": 10, "ttl": 0.3},
    "people*": {"presence": True, "presence_grace": 0.5},
    "prompt*": {"presence": True, "presence_grace": 0.0},
}

OPTIONS = {pattern: TopicOptions(**options) for pattern, options in TOPICS.items()} | {
    "event*": TopicOptions(history=10, framing=Framing.EVENT),
    "small-disconnect": TopicOptions(outbox_bytes=1000),
    "small-newest": TopicOptions(outbox_bytes=1000, overflow=Overflow.DROP_NEWEST),
    "small-oldest": TopicOptions(outbox_bytes=1000, overflow=Overflow.DROP_OLDEST),
    "small-conflate": TopicOptions(outbox_bytes=1000, overflow=Overflow.CONFLATE, conflate_by="key"),
    "tiny-*": TopicOptions(outbox_bytes=1),
}


class Contract:
    """How the suites make their hubs."""

    @pytest.fixture
    def url(self) -> str:
        raise NotImplementedError("the suite needs a fixture `url` that returns the URL of the backend")

    @pytest.fixture
    async def hub(self, url: str) -> AsyncGenerator[Hub]:
        async with Hub(url, topics=OPTIONS, presence_lease=LEASE) as hub:
            yield hub


class HubContract(Contract):
    """One process."""

    opened_topics: ClassVar[int] = 100_000
    """For the test that nothing is left behind; a backend where joining is a round trip may take fewer."""

    async def residue(self, hub: Hub) -> int:
        """How many topics the backend still remembers; override it."""
        return 0

    # Publishing

    async def test_each_kind_of_data_has_its_form_on_the_wire(self, hub: Hub) -> None:
        connection = Connection()
        async with hub.join("t", connection):
            for data in ("tëxt", b"\x00\xff", bytearray(b"b"), {"a": [1, None, "ü"]}, 1.5, None, ""):
                await hub.publish("t", data)
            await eventually(lambda: len(connection.received) == 7)
        assert connection.received == ["tëxt", b"\x00\xff", b"b", '{"a":[1,null,"ü"]}', "1.5", "null", ""]

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

        async def publisher() -> None:
            for n in range(1, total):
                await hub.publish("all", str(n))
                if n % 20 == 0:
                    await asyncio.sleep(0)

        async def joiner(number: int) -> None:
            await eventually(lambda: hub.stats().published >= number * total // 110, 60)
            connection = Connection()
            ways: list[dict[str, Any]] = [{"history": 10}, {"since": start}, {}]
            how = ways[number % 3]
            async with hub.join("all", connection, **how) as membership:
                joined.append((connection, membership))
                await done.wait()

        joiners = [asyncio.create_task(joiner(number)) for number in range(100)]
        await publisher()
        await eventually(lambda: len(joined) == 100)
        last = str(total - 1)
        await eventually(lambda: all(connection.received[-1:] == [last] for connection, _ in joined), 30)
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

    # Recovery and history

    async def test_since_brings_exactly_what_was_missed(self, hub: Hub) -> None:
        positions = [await hub.publish("kept", str(n)) for n in range(5)]
        for seen in range(5):
            connection = Connection()
            async with hub.join("kept", connection, since=positions[seen]) as membership:
                assert membership.recovered
                assert membership.position == positions[4]
                assert connection.received == [str(n) for n in range(seen + 1, 5)]

    async def test_a_stale_position_recovers_nothing(self, hub: Hub) -> None:
        first = await hub.publish("few", "0")
        for n in range(1, 5):
            head = await hub.publish("few", str(n))
        connection = Connection()
        async with hub.join("few", connection, since=first) as membership:
            assert not membership.recovered
            assert connection.received == []
            assert membership.position == head
            await hub.publish("few", "live")
            await eventually(lambda: connection.received == ["live"])

    async def test_the_oldest_position_that_can_be_recovered_is_just_before_the_history(self, hub: Hub) -> None:
        positions = [await hub.publish("few", str(n)) for n in range(5)]
        assert [m.data for m in await hub.history("few", since=positions[1])] == ["2", "3", "4"]
        stale = await hub.history("few", since=positions[0])
        assert stale == []
        assert not stale.recovered
        assert stale.position == positions[4]

    async def test_positions_of_another_epoch_or_of_the_future_recover_nothing(self, hub: Hub) -> None:
        position = await hub.publish("kept", "x")
        assert position is not None
        foreign = (Position(position.offset, "another"), Position(position.offset + 1, position.epoch))
        for since in (*foreign, Position(0, ""), Position(10**18 - 1, "é:*\n")):
            connection = Connection()
            async with hub.join("kept", connection, since=since) as membership:
                assert not membership.recovered
                assert connection.received == []

    async def test_who_cannot_be_recovered_is_a_newcomer_where_history_is_asked_for_too(self, hub: Hub) -> None:
        await hub.publish("kept", "1")
        await hub.publish("kept", "2")
        connection = Connection()
        async with hub.join("kept", connection, since=Position(1, "another"), history=1) as membership:
            assert not membership.recovered
            assert connection.received == ["2"]

    async def test_messages_go_when_their_time_is_over(self, hub: Hub) -> None:
        first = await hub.publish("brief", "1")
        await hub.publish("brief", "2")
        assert [m.data for m in await hub.history("brief")] == ["1", "2"]
        deadline = asyncio.get_running_loop().time() + 10
        while (page := await hub.history("brief", since=first)).recovered:
            assert asyncio.get_running_loop().time() < deadline
            await asyncio.sleep(0.02)
        assert page == []
        assert await hub.history("brief") == []

    async def test_history_on_joining_is_the_newest_and_comes_first(self, hub: Hub) -> None:
        for n in range(5):
            head = await hub.publish("kept", str(n))
        connection = Connection()
        async with hub.join("kept", connection, history=2) as membership:
            assert connection.received == ["3", "4"]
            assert membership.position == head
            assert not membership.recovered
            await hub.publish("kept", "5")
            await eventually(lambda: connection.received == ["3", "4", "5"])

    async def test_history_can_be_paged_through(self, hub: Hub) -> None:
        first = await hub.publish("kept", 0)
        for n in range(1, 10):
            await hub.publish("kept", n)
        found, position = [], first
        while page := await hub.history("kept", since=position, limit=4):
            assert page.recovered
            found += [m.data for m in page]
            position = page.position
        assert found == list(range(1, 10))
        assert [m.data for m in await hub.history("kept", limit=3)] == [7, 8, 9]
        assert await hub.history("kept", limit=0) == []

    async def test_a_topic_without_history_has_none(self, hub: Hub) -> None:
        await hub.publish("t", "x")
        page = await hub.history("t")
        assert (page, page.position, page.recovered) == ([], None, False)
        connection = Connection()
        async with hub.join("t", connection, since=Position(1, "x"), history=5) as membership:
            assert not membership.recovered
            assert membership.position is None
        assert connection.received == []

    async def test_an_event_topic_tells_where_each_message_stands(self, hub: Hub) -> None:
        first = await hub.publish("event", {"n": 1})
        assert first is not None
        connection = Connection()
        async with hub.join("event", connection, since=first):
            second = await hub.publish("event", "two")
            await eventually(lambda: len(connection.received) == 2)
        assert second is not None
        place = {"offset": first.offset, "epoch": first.epoch}
        assert connection.sink.events == [
            {"type": "joined", "topic": "event", **place, "recovered": True},
            {"type": "message", "topic": "event", "offset": second.offset, "epoch": second.epoch, "data": "two"},
        ]

    # Slow receivers

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
            for _ in range(60):
                connection.sink.read(1)
            assert [str(one).strip() for one in connection.received] == [*map(str, range(50)), "live"]

    # Subscribing without a socket

    async def test_code_gets_messages_as_they_were_published(self, hub: Hub) -> None:
        async with hub.subscribe("kept") as messages:
            for data in ("text", b"bytes", {"json": 1}):
                await hub.publish("kept", data)
            got = [await asyncio.wait_for(anext(messages), 10) for _ in range(3)]
        assert [message.data for message in got] == ["text", b"bytes", {"json": 1}]
        assert {message.kind for message in got} == {Kind.MESSAGE}
        assert {message.topic for message in got} == {"kept"}
        page = await hub.history("kept", since=got[0].position)
        assert [message.data for message in page] == [b"bytes", {"json": 1}]

    async def test_code_goes_on_where_it_left(self, hub: Hub) -> None:
        first = await hub.publish("kept", 1)
        await hub.publish("kept", 2)
        async with hub.subscribe("kept", since=first) as messages:
            assert messages.recovered
            await hub.publish("kept", 3)
            assert [(await asyncio.wait_for(anext(messages), 10)).data for _ in range(2)] == [2, 3]

    async def test_code_that_does_not_keep_up_is_told(self, hub: Hub) -> None:
        async with hub.subscribe("small-disconnect") as messages:
            for n in range(50):
                await hub.publish("small-disconnect", f"{n:<100}")
            await eventually(lambda: not messages.active)
            for n in range(10):
                assert (await anext(messages)).data == f"{n:<100}"
            with pytest.raises(SlowSubscriber):
                await anext(messages)

    async def test_the_end_of_the_hub_ends_the_iteration(self, url: str) -> None:
        hub = Hub(url)
        await hub.start()
        async with hub.subscribe("t") as messages:
            stopping = asyncio.create_task(hub.stop())
            assert [message async for message in messages] == []
            await stopping

    # Presence

    async def test_several_connections_of_a_user_are_one_member(self, hub: Hub) -> None:
        tab, phone, other = Connection(), Connection(), Connection()
        async with hub.join("people", tab, presence={"user": "ann", "on": "tab"}):
            async with hub.join("people", phone, presence={"user": "ann", "on": "phone"}):
                async with hub.join("people", other, presence={"user": "bob"}):
                    assert await hub.presence("people") == {
                        "ann": [{"user": "ann", "on": "tab"}, {"user": "ann", "on": "phone"}],
                        "bob": [{"user": "bob"}],
                    }
                    assert await hub.presence_count("people") == 2
            assert await hub.presence("people") == {"ann": [{"user": "ann", "on": "tab"}]}
        assert await hub.presence("people") == {}
        assert await self.residue(hub) == 0

    async def test_diffs_make_the_members(self, hub: Hub) -> None:
        watcher = Connection()
        async with hub.join("people", Connection(), presence="early"):
            async with hub.join("people", watcher, presence="watcher"):
                async with hub.join("people", Connection(), presence={"user": "ann", "n": 1}):
                    async with hub.join("people", Connection(), presence={"user": "ann", "n": 2}):
                        await eventually(lambda: compose(watcher) == {
                            "early": ["early"],
                            "watcher": ["watcher"],
                            "ann": [{"user": "ann", "n": 1}, {"user": "ann", "n": 2}],
                        })  # fmt: skip
                await eventually(lambda: compose(watcher) == {"early": ["early"], "watcher": ["watcher"]})
        kinds = [(sorted(e["joins"]), sorted(e["leaves"]), sorted(e["updates"])) for e in watcher.sink.events]
        assert kinds == [(["early", "watcher"], [], []), (["ann"], [], []), ([], [], ["ann"]), ([], [], ["ann"]),
                         ([], ["ann"], [])]  # fmt: skip

    async def test_a_reconnect_within_the_grace_makes_no_flicker(self, hub: Hub) -> None:
        watcher, first, second = Connection(), Connection(), Connection()
        async with hub.join("people", watcher, presence="watcher"):
            async with hub.join("people", first, presence="ann"):
                await eventually(lambda: len(watcher.sink.events) == 2)
                first.sink.die()
            assert await hub.presence_count("people") == 2
            async with hub.join("people", second, presence="ann"):
                assert await hub.presence("people") == {"watcher": ["watcher"], "ann": ["ann"]}
                await asyncio.sleep(0.7)  # the grace is over; there is nothing to wait for, because nothing may happen
                assert await hub.presence_count("people") == 2
                assert len(watcher.sink.events) == 2
            await eventually(lambda: compose(watcher) == {"watcher": ["watcher"]})

    async def test_who_does_not_come_back_leaves_after_the_grace(self, hub: Hub) -> None:
        watcher, gone = Connection(), Connection()
        async with hub.join("people", watcher, presence="watcher"), hub.join("people", gone, presence="ann"):
            loop = asyncio.get_running_loop()
            died = loop.time()
            gone.sink.die()
            await eventually(lambda: "ann" in str(watcher.sink.events[-1]["leaves"]))
            assert loop.time() - died >= 0.45
            assert await hub.presence("people") == {"watcher": ["watcher"]}

    async def test_without_grace_a_lost_connection_leaves_at_once(self, hub: Hub) -> None:
        watcher, gone = Connection(), Connection()
        async with hub.join("prompt", watcher, presence="watcher"), hub.join("prompt", gone, presence="ann"):
            await eventually(lambda: "ann" in compose(watcher))
            gone.sink.die()
            await eventually(lambda: compose(watcher) == {"watcher": ["watcher"]})

    async def test_a_slow_watcher_gets_the_sum_of_what_it_missed(self, hub: Hub) -> None:
        watcher = Connection()
        big = {"user": "big", "pad": "x" * (1 << 20)}
        async with hub.join("prompt", watcher, presence="watcher"):
            await eventually(lambda: watcher.sink.events)
            watcher.sink.stall()
            async with hub.join("prompt", Connection(), presence=big):
                async with hub.join("prompt", Connection(), presence="ann"):
                    async with hub.join("prompt", Connection(), presence="bob"):
                        pass
                    await self.settle(hub)
                    watcher.sink.read_on()
                    await eventually(
                        lambda: not watcher.sink.alive or sorted(compose(watcher)) == ["ann", "big", "watcher"]
                    )

    async def test_code_may_watch_presence(self, hub: Hub) -> None:
        async with hub.subscribe("people", presence=True) as messages:
            async with hub.join("people", Connection(), presence={"user": "ann"}):
                got = [await asyncio.wait_for(anext(messages), 10) for _ in range(2)]
        assert [message.kind for message in got] == [Kind.PRESENCE_DIFF, Kind.PRESENCE_DIFF]
        assert got[0].data == {"joins": {}, "leaves": {}, "updates": {}}
        assert got[1].data == {"joins": {"ann": [{"user": "ann"}]}, "leaves": {}, "updates": {}}

    async def test_a_connection_without_presence_hears_nothing_of_it(self, hub: Hub) -> None:
        quiet = Connection()
        async with hub.join("people", quiet), hub.join("people", Connection(), presence="ann"):
            assert await hub.presence("people") == {"ann": ["ann"]}
            await hub.publish("people", "x")
            await eventually(lambda: quiet.received)
        assert quiet.received == ["x"]

    # Closing

    async def test_close_connections_finds_them_by_user_topic_or_both(self, hub: Hub) -> None:
        connections = {(user, topic): Connection() for user in ("ann", "bob") for topic in ("a", "b")}
        async with contextlib.AsyncExitStack() as stack:
            for (user, topic), connection in connections.items():
                await stack.enter_async_context(hub.join(topic, connection, user=user))
            await hub.close_connections(user="ann", topic="a", code=4001, reason="out")
            await eventually(lambda: hub.stats().memberships == 3)
            assert connections["ann", "a"].sink.closed == (4001, "out")
            await hub.close_connections(user="ann")
            await eventually(lambda: hub.stats().memberships == 2)
            assert connections["ann", "b"].sink.closed == (1008, "")
            await hub.close_connections(topic="a")
            await eventually(lambda: hub.stats().memberships == 1)
            assert connections["bob", "b"].sink.closed is None

    @pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 2999, 5000])
    async def test_a_code_that_may_not_go_on_the_wire_is_refused(self, hub: Hub, code: int) -> None:
        with pytest.raises(ValueError, match="close code"):
            await hub.close_connections(user="ann", code=code)
        with pytest.raises(ValueError, match="neither"):
            await hub.close_connections()

    async def test_a_hub_can_be_stopped_and_started_again(self, url: str) -> None:
        hub = Hub(url)
        for _ in range(2):
            async with hub:
                connection = Connection()
                async with hub.join("t", connection, presence="me"):
                    await hub.publish("t", "x")
                    await eventually(partial(bool, connection.received))
                    assert connection.received == ["x"]
                    assert await hub.presence("t") == {"me": ["me"]}
        await hub.stop()

    # Helpers

    async def settle(self, hub: Hub) -> None:
        """Wait until everything published so far has arrived."""
        connection = Connection()
        async with hub.join("settle", connection):
            await hub.publish("settle", "x")
            await eventually(lambda: connection.received)

    async def publish_and_settle(self, hub: Hub, topic: str, data: str) -> None:
        await hub.publish(topic, data)
        await self.settle(hub)


class ProcessContract(Contract):
    """Several processes on one backend."""

    async def test_publishers_in_four_processes_make_one_order(self, hub: Hub, url: str) -> None:
        async with workers(4, url, TOPICS, presence_lease=LEASE) as group:
            mine = Connection()
            async with hub.join("all", mine):
                await asyncio.gather(*(worker.ask("join", topic="all", name="r") for worker in group))
                await asyncio.gather(
                    *(
                        worker.ask("publish", topic="all", data=[f"{number}:{n}" for n in range(2500)], timeout=60)
                        for number, worker in enumerate(group)
                    )
                )
                await eventually(lambda: len(mine.received) == 10_000, 30)
                for worker in group:
                    await received_count(worker, "r", 10_000)
                    assert await worker.received("r") == mine.received
        for number in range(4):
            own = [one for one in mine.received if str(one).startswith(f"{number}:")]
            assert own == [f"{number}:{n}" for n in range(2500)]

    async def test_history_published_elsewhere_is_there_for_a_joiner(self, hub: Hub, url: str) -> None:
        async with workers(1, url, TOPICS) as [worker]:
            positions = await worker.ask("publish", topic="kept", data=["1", "2", "3"])
            connection = Connection()
            async with hub.join("kept", connection, since=Position.parse(positions[0])) as membership:
                assert membership.recovered
                assert connection.received == ["2", "3"]

    async def test_joiners_during_publishes_elsewhere_get_a_contiguous_stream(self, hub: Hub, url: str) -> None:
        async with workers(1, url, TOPICS) as [worker]:
            first = Position.parse((await worker.ask("publish", topic="all", data=["0"]))[0])
            publishing = asyncio.create_task(
                worker.ask("publish", topic="all", data=[str(n) for n in range(1, 5000)], timeout=60)
            )
            connections = []
            async with contextlib.AsyncExitStack() as stack:
                while not publishing.done():
                    connection = Connection()
                    await stack.enter_async_context(hub.join("all", connection, since=first))
                    connections.append(connection)
                    await asyncio.sleep(0.01)
                await publishing
                expected = [str(n) for n in range(1, 5000)]
                await eventually(lambda: all(len(connection.received) >= 4999 for connection in connections), 30)
                assert all(connection.received == expected for connection in connections)

    async def test_exclude_names_one_connection_of_one_process(self, hub: Hub, url: str) -> None:
        async with workers(2, url, TOPICS) as [one, two]:
            for worker in (one, two):
                await worker.ask("join", topic="t", name="a")
                await worker.ask("join", topic="t", name="b")
            await one.ask("publish", topic="t", data=["x"], but="a")
            await hub.publish("t", "end")
            for worker in (one, two):
                for name in ("a", "b"):
                    await received_last(worker, name, "end")
            assert await one.received("a") == ["end"]
            assert await one.received("b") == ["x", "end"]
            assert await two.received("a") == ["x", "end"]

    async def test_a_user_in_two_processes_is_one_member(self, hub: Hub, url: str) -> None:
        watcher = Connection()
        async with workers(1, url, TOPICS, presence_lease=LEASE) as [worker]:
            async with hub.join("people", watcher, presence={"user": "ann", "at": 1}):
                await worker.ask("join", topic="people", name="c", presence={"user": "ann", "at": 2})
                both = {"ann": [{"user": "ann", "at": 1}, {"user": "ann", "at": 2}]}
                await eventually(lambda: compose(watcher) == both)
                assert await hub.presence("people") == await worker.ask("presence", topic="people") == both
                await worker.ask("leave", topic="people", name="c")
                await eventually(lambda: compose(watcher) == {"ann": [{"user": "ann", "at": 1}]})

    async def test_a_reconnect_to_another_process_makes_no_flicker(self, hub: Hub, url: str) -> None:
        watcher = Connection()
        async with workers(1, url, TOPICS, presence_lease=LEASE) as [worker]:
            async with hub.join("people", watcher, presence="watcher"):
                await worker.ask("join", topic="people", name="c", presence="ann")
                await eventually(lambda: "ann" in compose(watcher))
                before = len(watcher.sink.events)
                await worker.ask("die", name="c")
                await worker.ask("presence", topic="people")  # answers when the loss has been told
                async with hub.join("people", Connection(), presence="ann"):
                    await asyncio.sleep(0.7)  # longer than the grace: nothing may happen
                    assert len(watcher.sink.events) == before
                    assert await hub.presence("people") == {"watcher": ["watcher"], "ann": ["ann"]}

    async def test_the_members_of_a_killed_process_leave_within_the_lease(self, hub: Hub, url: str) -> None:
        watcher = Connection()
        async with workers(2, url, TOPICS, presence_lease=LEASE) as [victim, other]:
            async with hub.join("people", watcher, presence="watcher"):
                await victim.ask("join", topic="people", name="c", presence="victim")
                await other.ask("join", topic="people", name="c", presence="other")
                await eventually(lambda: len(compose(watcher)) == 3)
                await victim.kill()
                await eventually(lambda: sorted(compose(watcher)) == ["other", "watcher"], LEASE * 2 + 3)
                assert sorted(await hub.presence("people")) == ["other", "watcher"]
                await asyncio.sleep(LEASE * 1.5)  # the others stay: nothing may happen
                assert sorted(compose(watcher)) == ["other", "watcher"]

    async def test_the_members_of_a_stopped_hub_leave_at_once(self, url: str) -> None:
        async with Hub(url, topics=OPTIONS, presence_lease=60) as hub:
            watcher = Connection()
            async with hub.join("people", watcher, presence="watcher"):
                async with workers(1, url, TOPICS, presence_lease=60) as [worker]:
                    await worker.ask("join", topic="people", name="c", presence="ann")
                    await eventually(lambda: "ann" in compose(watcher))
                await eventually(lambda: sorted(compose(watcher)) == ["watcher"])

    async def test_a_process_that_slept_beyond_its_lease_misses_nothing_and_is_present_again(
        self, hub: Hub, url: str
    ) -> None:
        watcher = Connection()
        async with workers(1, url, TOPICS, presence_lease=LEASE) as [sleeper]:
            async with hub.join("people", watcher, presence="watcher"):
                await sleeper.ask("join", topic="people", name="c", presence="sleeper")
                await sleeper.ask("join", topic="all", name="d", history=1)
                await hub.publish("all", "before")
                await received_last(sleeper, "d", "before")
                sleeper.send_signal(signal.SIGSTOP)
                try:
                    await eventually(lambda: sorted(compose(watcher)) == ["watcher"], LEASE * 2 + 3)
                    for n in range(100):
                        await hub.publish("all", str(n))
                finally:
                    sleeper.send_signal(signal.SIGCONT)
                await received_last(sleeper, "d", "99")
                assert await sleeper.received("d") == ["before", *map(str, range(100))]
                await eventually(lambda: sorted(compose(watcher)) == ["sleeper", "watcher"])

    async def test_connections_are_closed_in_every_process(self, hub: Hub, url: str) -> None:
        async with workers(2, url, TOPICS) as group:
            for worker in group:
                await worker.ask("join", topic="t", name="a", presence={"user": "ann"})
                await worker.ask("join", topic="t", name="b", presence={"user": "bob"})
            await hub.close_connections(user="ann", code=4000)
            for worker in group:
                await until(partial(worker.ask, "closed", name="a"), 4000)
                assert await worker.ask("closed", name="b") is None


class Broker(Protocol):
    """The process in the middle, in the test's hands."""

    def kill(self) -> None:
        """kill -9, with all its data; returns when it is gone."""

    def start(self) -> None:
        """Start it at the same address; returns when it answers. May do nothing where it restarts by itself."""

    def stop_answering(self) -> None:
        """SIGSTOP."""

    def answer_again(self) -> None:
        """SIGCONT."""


class BrokerContract(Contract):
    """The thing in the middle dies, or hangs."""

    @pytest.fixture
    def broker(self) -> Broker:
        raise NotImplementedError("the suite needs a fixture `broker`, the running process behind `url`")

    async def test_after_the_death_of_the_broker_nobody_is_left_in_the_dark(self, hub: Hub, broker: Broker) -> None:
        kept, live = Connection(), Connection()
        async with hub.join("kept", kept), hub.join("t", live), hub.join("people", live, presence="me"):
            position = await hub.publish("kept", "before")
            await eventually(lambda: kept.received == ["before"])
            broker.kill()
            await eventually(lambda: not hub.stats().connected, 15)
            assert kept.sink.alive
            broker.start()
            await eventually(lambda: hub.stats().connected, 20)
            for connection in (kept, live):
                await eventually(partial(told_to_resync, connection), 15)
            after = await publish_when_possible(hub, "kept", "after")
            await eventually(lambda: kept.received[-1] == "after")
            await publish_when_possible(hub, "t", "after")
            await eventually(lambda: live.received[-1] == "after")
            assert kept.received.count("before") == 1
            assert position is not None
            assert after is not None
            assert after.epoch != position.epoch
            assert not (await hub.history("kept", since=position)).recovered
            await until(lambda: hub.presence("people"), {"me": ["me"]})

    async def test_publishing_in_trouble_raises(self, hub: Hub, broker: Broker) -> None:
        broker.stop_answering()
        try:
            with pytest.raises(BackendUnavailable):
                await asyncio.wait_for(publish_until_it_fails(hub), 30)
        finally:
            broker.answer_again()
        await publish_when_possible(hub, "t", "x")

    async def test_publishing_in_trouble_waits_where_that_was_chosen(self, url: str, broker: Broker) -> None:
        async with Hub(url, topics=OPTIONS, on_trouble=Trouble.WAIT, trouble_timeout=40) as hub:
            connection = Connection()
            async with hub.join("t", connection):
                broker.kill()
                await eventually(lambda: not hub.stats().connected, 15)
                publishing = asyncio.create_task(hub.publish("t", "patient"))
                await asyncio.sleep(0.1)
                assert connection.sink.alive
                broker.start()
                await asyncio.wait_for(publishing, 30)
                await eventually(lambda: connection.received[-1:] == ["patient"])

    async def test_a_broker_that_hangs_for_seconds_loses_nothing_with_history(
        self, hub: Hub, url: str, broker: Broker
    ) -> None:
        connection = Connection()
        async with workers(1, url, TOPICS, on_trouble="wait") as [worker], hub.join("all", connection):
            await worker.ask("publish", topic="all", data=["first"])
            await eventually(lambda: connection.received == ["first"])
            broker.stop_answering()
            try:
                await asyncio.sleep(5)
            finally:
                broker.answer_again()
            for n in range(20):
                await until_done(worker, "all", str(n))
            await eventually(lambda: "19" in connection.received, 20)
            page = [message.data for message in await hub.history("all")]
            assert connection.received == page
            assert connection.sink.alive


def told_to_resync(connection: Connection) -> bool:
    return any(event["type"] == "resync" for event in connection.sink.events)


def compose(connection: Connection) -> dict[str, list[Any]]:
    """The members, as a page would know them from the diffs it got."""
    members: dict[str, list[Any]] = {}
    for event in connection.sink.events:
        if event["type"] == "presence_diff":
            members |= event["joins"] | event["updates"]
            for user in event["leaves"]:
                del members[user]
    return members


async def received_count(worker: Worker, name: str, count: int) -> None:
    async def enough() -> bool:
        return len(await worker.received(name)) >= count

    await until(enough, True, 30)


async def received_last(worker: Worker, name: str, data: str) -> None:
    async def last() -> list[str]:
        return (await worker.received(name))[-1:]

    await until(last, [data], 30)


async def publish_until_it_fails(hub: Hub) -> None:
    while True:
        await hub.publish("t", "x")


async def until(ask: Callable[[], Awaitable[object]], expected: object, timeout: float = 15.0) -> None:
    """Ask until the answer is the expected one; trouble counts as no answer."""
    answer: object = None
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    while loop.time() < deadline:
        with contextlib.suppress(BackendUnavailable):
            answer = await ask()
            if answer == expected:
                return
        await asyncio.sleep(0.02)
    assert answer == expected


async def publish_when_possible(hub: Hub, topic: str, data: str) -> Position | None:
    async with asyncio.timeout(20):
        while True:
            try:
                return await hub.publish(topic, data)
            except BackendUnavailable:
                await asyncio.sleep(0.05)


async def until_done(worker: Worker, topic: str, data: str) -> None:
    """A publish that may have been done is not done again: the message is another one then, and as good."""
    async with asyncio.timeout(30):
        while True:
            try:
                await worker.ask("publish", topic=topic, data=[data])
                return
            except RuntimeError as error:
                if "BackendUnavailable" not in str(error):
                    raise
                await asyncio.sleep(0.05)


__all__ = ["Broker", "BrokerContract", "Connection", "HubContract", "ProcessContract", "RecordingSink", "eventually"]
