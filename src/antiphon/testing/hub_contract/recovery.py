"""History, recovery, and code that subscribes."""

from __future__ import annotations

import asyncio

import pytest

from antiphon.exceptions import RegistrationWarning
from antiphon.hub import Hub, MessageKind, Position, SlowSubscriber
from antiphon.testing.hub_sinks import PATIENCE, Connection, eventually

from .base import TTL, Contract


class RecoveryContract(Contract):
    """Recovery of missed messages."""

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
        for since in (*foreign, Position(0, ""), Position(10**18 - 1, "é:* ")):
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
        loop = asyncio.get_running_loop()
        started = loop.time()
        first = await hub.publish("brief", "1")
        await hub.publish("brief", "2")
        there = [m.data for m in await hub.history("brief")]
        assert there == ["1", "2"] or loop.time() - started >= TTL
        while (page := await hub.history("brief", since=first)).recovered:
            assert loop.time() - started < PATIENCE
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
        with pytest.warns(RegistrationWarning, match="keeps none"):
            page = await hub.history("t")
        assert (page, page.position, page.recovered) == ([], None, False)
        connection = Connection()
        with pytest.warns(RegistrationWarning, match="history= for topic 't', which keeps none"):
            asked = hub.join("t", connection, since=Position(1, "x"), history=5)
        async with asked as membership:
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

    # Subscribing without a socket

    async def test_code_gets_messages_as_they_were_published(self, hub: Hub) -> None:
        async with hub.subscribe("kept") as messages:
            for data in ("text", b"bytes", {"json": 1}):
                await hub.publish("kept", data)
            got = [await asyncio.wait_for(anext(messages), PATIENCE) for _ in range(3)]
        assert [message.data for message in got] == ["text", b"bytes", {"json": 1}]
        assert {message.kind for message in got} == {MessageKind.MESSAGE}
        assert {message.topic for message in got} == {"kept"}
        page = await hub.history("kept", since=got[0].position)
        assert [message.data for message in page] == [b"bytes", {"json": 1}]

    async def test_code_goes_on_where_it_left(self, hub: Hub) -> None:
        first = await hub.publish("kept", 1)
        await hub.publish("kept", 2)
        async with hub.subscribe("kept", since=first) as messages:
            assert messages.recovered
            await hub.publish("kept", 3)
            assert [(await asyncio.wait_for(anext(messages), PATIENCE)).data for _ in range(2)] == [2, 3]

    async def test_code_that_does_not_keep_up_is_told(self, hub: Hub) -> None:
        async with hub.subscribe("small-disconnect") as messages:
            for n in range(50):
                await hub.publish("small-disconnect", f"{n:<100}")
            await eventually(lambda: not messages.active)
            for n in range(10):
                assert (await anext(messages)).data == f"{n:<100}"
            with pytest.raises(SlowSubscriber):
                await anext(messages)

    async def test_the_end_of_the_hub_ends_the_iteration(self, hub: Hub) -> None:
        await hub.start()
        async with hub.subscribe("t") as messages:
            stopping = asyncio.create_task(hub.stop())
            assert [message async for message in messages] == []
            await stopping
