"""The process in the middle dies, or hangs."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Protocol

import pytest

from antiphon.hub import BackendUnavailable, Hub, OnOutage
from antiphon.testing.hub_sinks import PATIENCE, Connection, eventually
from antiphon.testing.hub_worker import workers

from .base import (
    OPTIONS,
    TOPICS,
    Contract,
    publish_until_it_fails,
    publish_when_possible,
    told_to_resync,
    until,
    until_done,
)


class Broker(Protocol):
    """The process in the middle, in the test's hands."""

    def kill(self) -> None:
        """kill -9, with all its data. Returns when it is gone."""

    def start(self) -> None:
        """Start it at the same address. Returns when it answers. May do nothing where it restarts by itself."""

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
            await eventually(lambda: not hub.stats().connected)
            assert kept.sink.alive
            broker.start()
            await eventually(lambda: hub.stats().connected)
            for connection in (kept, live):
                await eventually(partial(told_to_resync, connection))
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
                await asyncio.wait_for(publish_until_it_fails(hub), PATIENCE)
        finally:
            broker.answer_again()
        await publish_when_possible(hub, "t", "x")

    async def test_publishing_in_trouble_waits_where_that_was_chosen(self, url: str, broker: Broker) -> None:
        async with Hub(url, topics=OPTIONS, on_outage=OnOutage.WAIT, outage_timeout=2 * PATIENCE) as hub:
            connection = Connection()
            async with hub.join("t", connection):
                broker.kill()
                await eventually(lambda: not hub.stats().connected)
                publishing = asyncio.create_task(hub.publish("t", "patient"))
                await asyncio.sleep(0.1)
                assert connection.sink.alive
                broker.start()
                await asyncio.wait_for(publishing, PATIENCE)
                await eventually(lambda: connection.received[-1:] == ["patient"])

    async def test_a_broker_that_hangs_for_seconds_loses_nothing_with_history(
        self, hub: Hub, url: str, broker: Broker
    ) -> None:
        connection = Connection()
        async with workers(1, url, TOPICS, on_outage="wait") as [worker], hub.join("all", connection):
            await worker.ask("publish", topic="all", data=["first"])
            await eventually(lambda: connection.received == ["first"])
            broker.stop_answering()
            try:
                await asyncio.sleep(5)
            finally:
                broker.answer_again()
            for n in range(20):
                await until_done(worker, "all", str(n))
            await eventually(lambda: "19" in connection.received)
            page = [message.data for message in await hub.history("all")]
            assert connection.received == page
            assert connection.sink.alive
