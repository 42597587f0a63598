"""The making of hubs for the suites, and their common questions."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, ClassVar

import pytest

from antiphon.hub import BackendUnavailable, Framing, Hub, Overflow, Position, TopicOptions
from antiphon.testing.hub_sinks import PATIENCE, Connection, eventually
from antiphon.testing.hub_worker import Worker

LEASE = 1.0
"""Of processes that are killed or stopped: their members are gone after it, plus the time that the machine needs."""

STEADY_LEASE = 5.0
"""Lease of the processes that watch others go. They should not count as dead themselves where a busy machine delays
them for seconds."""

TTL = 0.3
"""Of the topics `brief…`."""

TOPICS: dict[str, dict[str, Any]] = {
    "kept*": {"history": 1000},
    "all*": {"history": 100_000},
    "few*": {"history": 3},
    "pages": {"history": 101, "outbox_bytes": 20_000},
    "brief*": {"history": 10, "ttl": TTL},
    "people*": {"presence": True, "presence_grace": 0.5},
    "unhurried*": {"presence": True, "presence_grace": 5.0},
    "patient*": {"presence": True, "presence_grace": 50.0},
    "prompt*": {"presence": True, "presence_grace": 0.0},
}

GRACES = {"people": 0.5, "unhurried": 5.0, "patient": 50.0}
"""Topics and their grace. A member that is back in time is not reported as gone. Where a machine was too slow, the next
topic shows it."""

OPTIONS = {pattern: TopicOptions(**options) for pattern, options in TOPICS.items()} | {
    "event*": TopicOptions(history=10, framing=Framing.EVENT),
    "small-disconnect": TopicOptions(outbox_bytes=1000),
    "small-newest": TopicOptions(outbox_bytes=1000, overflow=Overflow.DROP_NEWEST),
    "small-oldest": TopicOptions(outbox_bytes=1000, overflow=Overflow.DROP_OLDEST),
    "small-conflate": TopicOptions(outbox_bytes=1000, overflow=Overflow.CONFLATE, conflate_by="key"),
    "lossy-pages": TopicOptions(history=100, outbox_bytes=20_000, overflow=Overflow.DROP_OLDEST),
    "tiny-*": TopicOptions(outbox_bytes=1),
}


class Contract:
    """How the suites make their hubs."""

    @pytest.fixture
    def url(self) -> str:
        raise NotImplementedError("the suite needs a fixture `url` that returns the URL of the backend")

    @pytest.fixture
    async def hub(self, url: str) -> AsyncGenerator[Hub]:
        async with Hub(url, topics=OPTIONS) as hub:
            yield hub

    opened_topics: ClassVar[int] = 100_000
    """For the test that nothing is left behind. A backend where joining is a round trip may take fewer."""

    async def residue(self, hub: Hub) -> int:
        """How many topics the backend still remembers. Override it."""
        return 0

    async def settle(self, hub: Hub) -> None:
        """Wait until everything published so far has arrived."""
        connection = Connection()
        async with hub.join("settle", connection):
            await hub.publish("settle", "x")
            await eventually(lambda: connection.received)

    async def publish_and_settle(self, hub: Hub, topic: str, data: str) -> None:
        await hub.publish(topic, data)
        await self.settle(hub)


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

    await until(enough, True)


async def received_last(worker: Worker, name: str, data: str) -> None:
    async def last() -> list[str]:
        return (await worker.received(name))[-1:]

    await until(last, [data])


async def publish_until_it_fails(hub: Hub) -> None:
    while True:
        await hub.publish("t", "x")


async def until(ask: Callable[[], Awaitable[object]], expected: object) -> None:
    """Ask until the answer is the expected one; trouble counts as no answer."""
    answer: object = None
    loop = asyncio.get_running_loop()
    deadline = loop.time() + PATIENCE
    while loop.time() < deadline:
        with contextlib.suppress(BackendUnavailable):
            answer = await ask()
            if answer == expected:
                return
        await asyncio.sleep(0.02)
    assert answer == expected


async def publish_when_possible(hub: Hub, topic: str, data: str) -> Position | None:
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                return await hub.publish(topic, data)
            except BackendUnavailable:
                await asyncio.sleep(0.05)


async def until_done(worker: Worker, topic: str, data: str) -> None:
    """A publish that may have been done is not done again: the message is another one then, and as good."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                await worker.ask("publish", topic=topic, data=[data])
                return
            except RuntimeError as error:
                if "BackendUnavailable" not in str(error):
                    raise
                await asyncio.sleep(0.05)
