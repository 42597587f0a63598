"""Long pages of history: one request for all that want the same, part by part, with a notice of lost parts."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from antiphon.hub import BackendUnavailable, Framing, Hub, Overflow, Position, TopicOptions
from antiphon.hub.backends.base import BackendConfig
from antiphon.hub.backends.memory import MemoryBackend
from antiphon.hub.pages import AT_ONCE
from antiphon.hub.passage import HELD, PART, ROOM
from antiphon.hub.records import Keep, Page
from antiphon.hub.store import Store
from antiphon.testing.hub_sinks import Connection, eventually
from tests.patience import PATIENCE

OUTBOX = 20_000
LONG = TopicOptions(history=100, outbox_bytes=OUTBOX)
TOPICS = {
    "lossy": TopicOptions(history=100, outbox_bytes=OUTBOX, overflow=Overflow.DROP_OLDEST),
    "event": TopicOptions(history=100, outbox_bytes=OUTBOX, framing=Framing.EVENT),
    "wide*": TopicOptions(history=100),
    "*": LONG,
}


class Remote(MemoryBackend):
    """Answers later, like a backend behind a connection, and counts its requests."""

    in_process = False

    def __init__(self) -> None:
        super().__init__("memory://", BackendConfig())
        self.asked = 0
        self.under_way = 0
        self.most_under_way = 0
        self.sent = 0
        self.broken = False
        self.answering = asyncio.Event()
        self.answering.set()
        self.arriving = asyncio.Event()
        self.arriving.set()
        self.pause_after = -1
        self.keeps = False
        """Its histories, when this process lets go of it."""

    async def stop(self) -> None:
        store = self._store
        await super().stop()
        if self.keeps:
            self._store = store

    async def history(
        self, topic: str, keep: Keep, since: Position | None, limit: int | None, size: int | None = None
    ) -> Page:
        self.asked += 1
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await asyncio.sleep(0)
            await self.answering.wait()
            if self.broken:
                raise BackendUnavailable("broken")
            page = await super().history(topic, keep, since, limit, size)
            self.sent += sum(len(entry.data) for entry in page.entries)
            await asyncio.sleep(0)
            await self.arriving.wait()
            self.pause_after -= 1
            if not self.pause_after:
                self.answering.clear()
            return page
        finally:
            self.under_way -= 1


@pytest.fixture
def remote() -> Remote:
    return Remote()


async def fill(hub: Hub, topic: str, count: int = 100) -> list[Position]:
    return [await hub.publish(topic, f"{n:<1000}") for n in range(count)]  # type: ignore[misc]


def numbers(connection: Connection) -> list[int]:
    return [int(str(one)) for one in connection.received]


async def test_a_page_is_asked_for_once_by_all_who_want_the_same(remote: Remote) -> None:
    async with Hub(backend=remote, topics=TOPICS) as hub, contextlib.AsyncExitStack() as stack:
        await fill(hub, "t", 5)
        await stack.enter_async_context(hub.join("t", Connection()))
        remote.answering.clear()
        connections = [Connection() for _ in range(50)]
        joins = [asyncio.create_task(stack.enter_async_context(hub.join("t", c, history=5))) for c in connections]
        await eventually(lambda: remote.asked)
        await asyncio.sleep(0)
        remote.answering.set()
        await asyncio.gather(*joins)
        assert remote.asked == 1
        assert all(numbers(connection) == list(range(5)) for connection in connections)
        assert len({id(connection.received[0]) for connection in connections}) == 1


async def test_an_answer_that_is_older_than_the_question_is_asked_for_again(remote: Remote) -> None:
    """It was computed before something that the joiner, registered later, will not hear live."""
    async with Hub(backend=remote, topics=TOPICS) as hub, contextlib.AsyncExitStack() as stack:
        await fill(hub, "t", 3)
        await stack.enter_async_context(hub.join("t", Connection()))
        remote.arriving.clear()
        early, late = Connection(), Connection()
        first = asyncio.create_task(stack.enter_async_context(hub.join("t", early, history=10)))
        await eventually(lambda: remote.sent)
        await hub.publish("t", "3")
        second = asyncio.create_task(stack.enter_async_context(hub.join("t", late, history=10)))
        await asyncio.sleep(0.01)  # it waits for the same answer, which nothing shows
        remote.arriving.set()
        await asyncio.gather(first, second)
        assert numbers(early) == numbers(late) == [0, 1, 2, 3]


async def test_joiners_who_are_cancelled_do_not_take_the_page_from_the_others(remote: Remote) -> None:
    async with Hub(backend=remote, topics=TOPICS) as hub:
        await fill(hub, "t", 5)
        remote.answering.clear()
        first, second = Connection(), Connection()
        leaving = asyncio.create_task(hub.join("t", first, history=5).__aenter__())
        await eventually(lambda: remote.asked)
        membership = hub.join("t", second, history=5)
        staying = asyncio.create_task(membership.__aenter__())
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.wait([leaving])
        remote.answering.set()
        await staying
        assert numbers(second) == list(range(5))
        await membership.leave()


async def test_the_parts_under_way_are_few_however_many_ask(remote: Remote) -> None:
    async with Hub(backend=remote, topics=TOPICS) as hub, contextlib.AsyncExitStack() as stack:
        await asyncio.gather(*(fill(hub, f"t{n}", 3) for n in range(100)))
        await asyncio.gather(
            *(stack.enter_async_context(hub.join(f"t{n}", Connection(), history=1 + n % 3)) for n in range(100))
        )
        assert remote.most_under_way == AT_ONCE


async def test_stalled_readers_of_a_long_page_hold_the_same_bytes_and_few_of_them(remote: Remote) -> None:
    async with Hub(backend=remote, topics=TOPICS) as hub, contextlib.AsyncExitStack() as stack:
        await fill(hub, "t")
        connections = [Connection() for _ in range(20)]
        for connection in connections:
            connection.sink.stall()
        await asyncio.gather(*(stack.enter_async_context(hub.join("t", c, history=100)) for c in connections))
        await eventually(lambda: not remote.under_way)
        assert remote.sent < 5 * OUTBOX
        held = [connection.sink._buffer for connection in connections]
        assert all(connection.sink.buffered <= OUTBOX for connection in connections)
        assert len({id(one) for buffer in held for one in buffer}) == len(held[0])
        for connection in connections:
            connection.sink.read_on()
        await eventually(lambda: all(numbers(connection) == list(range(100)) for connection in connections))


async def test_a_peer_that_takes_all_of_a_long_page_takes_no_long_turn(remote: Remote) -> None:
    for hub in (Hub(topics=TOPICS), Hub(backend=remote, topics=TOPICS)):
        async with hub:
            await fill(hub, "t")
            connection = Connection()
            async with hub.join("t", connection, history=100):
                assert 0 < len(connection.received) < 20
                before = 0
                while len(connection.received) < 100:
                    assert len(connection.received) - before < 20
                    before = len(connection.received)
                    await asyncio.sleep(0)
                assert numbers(connection) == list(range(100))


@pytest.mark.parametrize("local", [True, False])
async def test_of_many_who_have_their_page_at_once_only_some_take_it_in_a_turn_of_the_loop(
    remote: Remote, local: bool
) -> None:
    async with Hub(backend=None if local else remote, topics=TOPICS) as hub, contextlib.AsyncExitStack() as stack:
        for topic in ("wide", "wider"):
            await fill(hub, topic, 20)
        await stack.enter_async_context(hub.join("wide", Connection()))
        remote.answering.clear()
        crowd, other = [Connection() for _ in range(100)], Connection()
        joins = [asyncio.create_task(stack.enter_async_context(hub.join("wide", c, history=20))) for c in crowd]
        joins.append(asyncio.create_task(stack.enter_async_context(hub.join("wider", other, history=20))))
        if not local:
            await eventually(lambda: remote.asked == 2)
        remote.answering.set()
        before, most, behind = 0, 0, 0
        while before < 100:
            await asyncio.sleep(0)
            now = sum(bool(one.received) for one in crowd)
            most, before = max(most, now - before), now
            behind = behind or bool(other.received) * now
        assert most <= ROOM // 3, "20 kB count 3"
        assert 0 < behind < 100, "who is in another topic waits for all of this one"
        await asyncio.gather(*joins)
        assert all(numbers(connection) == list(range(20)) for connection in (*crowd, other))


async def test_pages_that_are_too_many_to_be_kept_while_they_wait_are_asked_for_again(remote: Remote) -> None:
    async with Hub(backend=remote, topics=TOPICS) as hub, contextlib.AsyncExitStack() as stack:
        positions = await fill(hub, "t")
        await stack.enter_async_context(hub.join("t", Connection()))
        passage = hub._pages.passage
        for _ in range(ROOM // PART):
            await passage.enter("t")
        crowd = [Connection() for _ in range(90)]
        joins = [
            asyncio.create_task(stack.enter_async_context(hub.join("t", one, since=positions[n])))
            for n, one in enumerate(crowd)
        ]
        await eventually(lambda: len(passage._waiting.get("t", ())) == 90)
        assert len(passage._held) == HELD
        assert remote.asked == 90
        for join in joins[:10]:
            join.cancel()
        await asyncio.wait(joins[:10])
        for _ in range(ROOM // PART):
            passage.leave()
        await asyncio.gather(*joins[10:])
        await eventually(lambda: len(crowd[10].received) == 89)
        for n, one in enumerate(crowd[10:], 10):
            await eventually(lambda n=n, one=one: numbers(one) == list(range(n + 1, 100)))  # type: ignore[misc]
        assert all(membership.recovered for membership in [join.result() for join in joins[10:]])
        assert remote.asked >= 90 + 90 - HELD
        assert not passage._held
        assert not passage._waiting
        await eventually(lambda: passage._free == ROOM)


@pytest.mark.parametrize("kept", [True, False])
async def test_what_history_loses_in_the_middle_of_a_page_is_told_in_its_place(kept: bool) -> None:
    """The topic keeps a hundred. A hundred more come while the reader stalls."""
    async with Hub(topics=TOPICS) as hub:
        await fill(hub, "lossy")
        connection = Connection()
        connection.sink.stall()
        async with hub.join("lossy", connection, history=100) as membership:
            for n in range(100, 100 if kept else 200):
                await hub.publish("lossy", f"{n:<1000}")
            hub._rooms.shelf.clear()
            await hub.publish("lossy", "-1")
            connection.sink.read_on()
            await eventually(lambda: str(connection.received[-1]).strip() == "-1")
            told = [str(one).strip() for one in connection.received]
            if kept:
                assert told == [*map(str, range(100)), "-1"]
                assert membership.dropped == 0
            else:
                gap = next(n for n, one in enumerate(told) if "resync" in one)
                assert told[:gap] == [*map(str, range(gap))]
                live = [int(one) for one in told[gap + 1 : -1]]
                assert live == list(range(live[0], 200))
                assert len(told) - 1 + membership.dropped == 201
                assert hub.stats().dropped == membership.dropped


async def test_a_page_goes_on_when_the_backend_is_back(remote: Remote) -> None:
    async with Hub(backend=remote, topics=TOPICS) as hub:
        positions = await fill(hub, "event")
        connection = Connection()
        connection.sink.stall()
        async with hub.join("event", connection, since=positions[9]) as membership:
            assert membership.recovered
            assert membership.position == positions[-1]
            remote.broken = True
            hub._rooms.shelf.clear()
            asked = remote.asked
            connection.sink.read_on()
            await eventually(lambda: remote.asked > asked + 1)
            remote.broken = False
            await eventually(lambda: len(connection.received) == 91)
            offsets = [event["offset"] for event in connection.sink.events[1:]]
            assert offsets == [position.offset for position in positions[10:]]


async def test_a_hub_that_stops_in_the_middle_of_a_page_tells_the_reader(remote: Remote) -> None:
    hub = Hub(backend=remote, topics=TOPICS)
    await hub.start()
    await fill(hub, "t")
    connection = Connection()
    connection.sink.stall()
    membership = hub.join("t", connection, history=100)
    async with membership:
        hub._rooms.shelf.clear()
        remote.answering.clear()
        asked = remote.asked
        connection.sink.read_on()
        await eventually(lambda: remote.asked > asked)
        await hub.stop()
        await eventually(lambda: connection.sink.events)
        assert [event["type"] for event in connection.sink.events] == ["resync"]


async def test_a_page_asked_for_while_the_hub_is_stopped_goes_on_with_its_next_start(remote: Remote) -> None:
    remote.keeps = True
    hub = Hub(backend=remote, topics=TOPICS)
    await hub.start()
    await fill(hub, "t")
    connection = Connection()
    connection.sink.stall()
    async with hub.join("t", connection, history=100):
        await eventually(lambda: not hub._access._tasks)  # the next part has come, and waits for the peer
        hub._rooms.shelf.clear()
        await hub.stop()
        connection.sink.read_on()
        await eventually(lambda: hub._access._up._waiters)  # the reader knows that the hub is stopped, and waits
        await hub.start()
        await eventually(lambda: len(connection.received) == 100)
        assert numbers(connection) == list(range(100))
    await hub.stop()


async def test_a_hub_that_stops_while_joiners_wait_for_their_page_does_not_leave_them_waiting(remote: Remote) -> None:
    hub = Hub(backend=remote, topics=TOPICS)
    await hub.start()
    await fill(hub, "t", 5)
    remote.answering.clear()
    joins = [asyncio.create_task(hub.join("t", Connection(), history=5).__aenter__()) for _ in range(3)]
    await eventually(lambda: remote.asked)
    await hub.stop()
    async with asyncio.timeout(PATIENCE):
        outcomes = await asyncio.gather(*joins, return_exceptions=True)
    assert [type(one) for one in outcomes] == [BackendUnavailable] * 3


async def test_who_leaves_in_the_middle_of_a_page_leaves_nothing_behind(remote: Remote) -> None:
    async with Hub(backend=remote, topics=TOPICS) as hub:
        await fill(hub, "t")
        for die in (True, False):
            connection = Connection()
            connection.sink.stall()
            async with hub.join("t", connection, history=100):
                hub._rooms.shelf.clear()
                remote.answering.clear()
                asked = remote.asked
                connection.sink.read(1000)
                await eventually(lambda asked=asked: remote.asked > asked)  # type: ignore[misc]
                if die:
                    connection.sink.die()
            remote.answering.set()
            received = len(connection.received)
            await eventually(lambda: not hub._access._tasks)
            assert len(connection.received) == received
        await eventually(lambda: len(hub._rooms.shelf) == 0)


async def test_a_resync_ends_the_page_it_finds(remote: Remote) -> None:
    """The entries behind it must not wait for a page that is worthless by now."""
    async with Hub(backend=remote, topics=TOPICS) as hub:
        await fill(hub, "t")
        connection = Connection()
        async with hub.join("t", connection, history=100):
            remote.answering.clear()
            hub._rooms.lost()
            remote._store = Store(epoch="another", version=1)
            hub._rooms.restored()
            remote.answering.set()
            await eventually(lambda: connection.sink.events)
            await hub.publish("t", "1000")
            await eventually(lambda: connection.received[-1] == "1000")
            texts = [str(one).strip() for one in connection.received[:-1] if "resync" not in str(one)]
            assert texts == [*map(str, range(len(texts)))]
            assert len(texts) < 100


def test_event_loops_that_are_over_are_forgotten() -> None:
    hub = Hub(topics=TOPICS)

    async def read() -> None:
        await fill(hub, "t", 3)
        connections = [Connection() for _ in range(10)]
        async with contextlib.AsyncExitStack() as stack:
            for connection in connections:
                await stack.enter_async_context(hub.join("t", connection, history=3))
            assert len(await hub.history("t", limit=3)) == 3

    for _ in range(3):
        asyncio.run(read())
    assert len(hub._pages._loops) == 1


async def test_a_long_history_is_read_whole_and_with_turns(remote: Remote) -> None:
    for hub in (Hub(topics={"*": TopicOptions(history=1000)}), Hub(backend=remote, topics=TOPICS)):
        hub._pages.part_bytes = 5000
        async with hub:
            positions = await fill(hub, "t")
            page = await hub.history("t")
            assert [int(message.data) for message in page] == list(range(100))
            assert (page.position, page.recovered) == (positions[-1], False)
            page = await hub.history("t", since=positions[49], limit=20)
            assert [int(message.data) for message in page] == list(range(50, 70))
            assert (page.position, page.recovered) == (positions[69], True)


async def test_a_history_that_is_trimmed_while_it_is_read_is_read_again_or_not_recovered(remote: Remote) -> None:
    async with Hub(backend=remote, topics=TOPICS) as hub:
        hub._pages.part_bytes = 20_000
        for recovering in (False, True):
            positions = await fill(hub, "t")
            since = positions[0] if recovering else None
            remote.pause_after = 1
            reading = asyncio.create_task(hub.history("t", since=since))
            await eventually(lambda: not remote.answering.is_set() and remote.under_way)
            await fill(hub, "t", 120)
            remote.answering.set()
            page = await reading
            if since is None:
                assert [int(message.data) for message in page] == list(range(20, 120))
            else:
                assert (list(page), page.recovered) == ([], False)


async def test_who_asks_as_an_older_answer_comes_asks_again_and_the_loop_goes_on() -> None:
    class Asked(MemoryBackend):
        asked = 0

        async def history(self, *args: Any) -> Page:
            self.asked += 1
            await asyncio.sleep(0)
            return Page((), Position(self.asked, "epoch"), True)

    backend = Asked("memory://", BackendConfig())
    hub = Hub(backend=backend)
    async with hub:
        pages, keep = hub._pages, Keep(10, 60.0)
        late: list[asyncio.Task[Page]] = []

        async def first(needed: int) -> Page:
            return await pages.first("news", keep, None, 5, 1000, Position(needed, "epoch"))

        early = asyncio.create_task(first(1))
        for _ in range(8):  # one of them comes between the answer and the end of the task that brought it
            await asyncio.sleep(0)
            late.append(asyncio.create_task(first(2)))
        assert (await early).end.offset == 1
        assert all(page.end.offset >= 2 for page in await asyncio.gather(*late))
