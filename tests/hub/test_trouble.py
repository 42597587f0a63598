"""The hub's reaction to a backend that is lost and comes back, on command."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import AsyncGenerator, Callable

import pytest

from antiphon.events import Event
from antiphon.hub import BackendUnavailable, Hub, MessageKind, Position, TopicOptions
from antiphon.hub.backends.base import BackendConfig, Listener
from antiphon.hub.backends.memory import MemoryBackend
from antiphon.hub.events import Recovery
from antiphon.hub.records import Keep, Page, Roster, Track
from antiphon.testing.hub_contract import compose
from antiphon.testing.hub_sinks import Connection, eventually


class Fragile(MemoryBackend):
    """A store that others publish to, and a connection to it that breaks."""

    in_process = False

    def __init__(self) -> None:
        super().__init__("memory://", BackendConfig())
        self.broken = False
        self.refusing = False
        """Subscriptions."""
        self.on_history: Callable[[], None] = lambda: None
        self.listener: Listener | None = None
        self.confirm = asyncio.Event()
        self.confirm.set()
        self.confirm_leaving = asyncio.Event()
        self.confirm_leaving.set()
        self.on_the_way = asyncio.Event()
        self.on_the_way.set()
        self.tracking = 0
        self.subscribing = 0

    def listen(self, listener: Listener) -> None:
        self.listener = listener
        super().listen(listener)

    async def stop(self) -> None:
        """The process stops. The backend that it stands for keeps its histories."""
        store = self._store
        await super().stop()
        self._store = store

    def lose(self) -> None:
        assert self.listener is not None
        self.broken = True
        self._listener = None
        self.listener.lost()

    def restore(self) -> None:
        assert self.listener is not None
        self.broken = False
        self._listener = self.listener
        self.listener.restored()

    def forget_everything(self) -> None:
        fresh = MemoryBackend("memory://", BackendConfig())
        self._store = fresh.store

    async def elsewhere(self, topic: str, *data: bytes, keep: Keep | None) -> None:
        """Another process publishes."""
        for one in data:
            await super().publish(topic, b"\x01\x01\0\0\0\0" + one, keep)

    async def subscribe(self, topic: str, keep: Keep | None) -> Position | None:
        if self.refusing:
            raise BackendUnavailable("lost again")
        position = await super().subscribe(topic, keep)
        self.subscribing += 1
        await self.confirm.wait()
        return position

    def _check(self) -> None:
        if self.broken:
            raise BackendUnavailable("broken")

    async def publish(self, topic: str, data: bytes, keep: Keep | None) -> Position | None:
        self._check()
        return await super().publish(topic, data, keep)

    async def history(
        self, topic: str, keep: Keep, since: Position | None, limit: int | None, size: int | None = None
    ) -> Page:
        await asyncio.sleep(0)
        self._check()
        page = await super().history(topic, keep, since, limit, size)
        self.on_history()
        await asyncio.sleep(0)
        return page

    async def track(self, topic: str, track: Track) -> None:
        self._check()
        self.tracking += not self.on_the_way.is_set()
        await self.on_the_way.wait()
        await super().track(topic, track)

    async def untrack(self, topic: str, ref: str, grace: float) -> None:
        self._check()
        await super().untrack(topic, ref, grace)
        await self.confirm_leaving.wait()

    async def presence(self, topic: str) -> Roster:
        self._check()
        return await super().presence(topic)


KEPT = TopicOptions(history=5)
KEEP = Keep(5, KEPT.ttl)


@pytest.fixture
def backend() -> Fragile:
    return Fragile()


@pytest.fixture
def seen() -> list[Event]:
    return []


@pytest.fixture
async def hub(backend: Fragile, seen: list[Event]) -> AsyncGenerator[Hub]:
    topics = {"kept": KEPT, "people": TopicOptions(presence=True, presence_grace=0)}
    async with Hub(backend=backend, topics=topics, observer=seen.append) as hub:
        yield hub


async def test_what_was_missed_is_delivered_before_what_comes(hub: Hub, backend: Fragile, seen: list[Event]) -> None:
    connection = Connection()
    async with hub.join("kept", connection):
        await hub.publish("kept", "1")
        backend.lose()
        await backend.elsewhere("kept", b"2", b"3", keep=KEEP)
        backend.restore()
        await backend.elsewhere("kept", b"4", keep=KEEP)
        assert connection.received == ["1"]
        await eventually(lambda: connection.received == ["1", "2", "3", "4"])
        await hub.publish("kept", "5")
        assert connection.received[-1] == "5"
    assert Recovery(topic="kept", recovered=True, messages=3) in seen


async def test_more_than_the_history_is_a_gap_that_is_told(hub: Hub, backend: Fragile) -> None:
    connection = Connection()
    async with hub.join("kept", connection), hub.subscribe("kept") as messages:
        await hub.publish("kept", "0")
        backend.lose()
        await backend.elsewhere("kept", *(b"%d" % n for n in range(1, 8)), keep=KEEP)
        backend.restore()
        await eventually(lambda: len(connection.received) == 2)
        assert connection.sink.events == [{"type": "resync", "topic": "kept"}]
        await hub.publish("kept", "live")
        assert connection.received[-1] == "live"
        assert [(await anext(messages)).kind for _ in range(3)] == [
            MessageKind.MESSAGE,
            MessageKind.RESYNC,
            MessageKind.MESSAGE,
        ]


async def test_a_backend_that_lost_its_data_is_a_gap_even_if_nothing_was_published(hub: Hub, backend: Fragile) -> None:
    connection = Connection()
    async with hub.join("kept", connection):
        await hub.publish("kept", "1")
        backend.lose()
        backend.forget_everything()
        backend.restore()
        await eventually(lambda: len(connection.received) == 2)
        assert connection.sink.events[-1]["type"] == "resync"
        await hub.publish("kept", "first of the new epoch")
        assert connection.received[-1] == "first of the new epoch"


async def test_a_topic_without_history_is_told_at_once(hub: Hub, backend: Fragile) -> None:
    connection = Connection()
    async with hub.join("plain", connection):
        backend.lose()
        assert connection.received == []
        backend.restore()
        await hub.publish("plain", "x")
    assert connection.received == ['{"type":"resync","topic":"plain"}', "x"]


@pytest.mark.parametrize(("burst", "resyncs"), [(1000, 0), (1025, 1)])
async def test_a_burst_during_recovery_is_held_back_up_to_a_bound_and_then_a_gap(
    hub: Hub, backend: Fragile, burst: int, resyncs: int
) -> None:
    connection = Connection()
    async with hub.join("kept", connection):
        await hub.publish("kept", "0")
        backend.lose()
        backend.restore()

        def busy() -> None:
            """It comes while the page is on its way, and is not in it."""
            backend.on_history = lambda: None
            for n in range(burst):
                entry = backend.store.publish("kept", b"\x01\x01\0\0\0\0%d" % (n + 1), KEEP, 0)
                assert backend.listener is not None
                backend.listener.deliver("kept", entry)

        backend.on_history = busy
        await eventually(lambda: connection.received[-1:] == [str(burst)])
        numbers = [int(one) for one in connection.received if str(one).isdecimal()]
        assert len(connection.sink.events) == resyncs
        assert numbers == [0, *range(burst - min(burst, 1024) + 1, burst + 1)]


async def test_a_joiner_during_recovery_misses_nothing_and_gets_nothing_twice(hub: Hub, backend: Fragile) -> None:
    steady, joiner = Connection(), Connection()
    async with hub.join("kept", steady):
        start = await hub.publish("kept", "1")
        backend.lose()
        await backend.elsewhere("kept", b"2", b"3", keep=KEEP)
        backend.restore()
        async with hub.join("kept", joiner, since=start):
            await hub.publish("kept", "4")
            await eventually(lambda: joiner.received == ["2", "3", "4"])
            await eventually(lambda: steady.received == ["1", "2", "3", "4"])


async def test_losing_the_backend_again_during_recovery_loses_nothing(hub: Hub, backend: Fragile) -> None:
    connection = Connection()
    async with hub.join("kept", connection):
        await hub.publish("kept", "1")
        for n in range(2, 5):
            backend.lose()
            await backend.elsewhere("kept", b"%d" % n, keep=KEEP)
            backend.restore()
        await eventually(lambda: connection.received == ["1", "2", "3", "4"])


async def test_a_failing_recovery_is_tried_again(hub: Hub, backend: Fragile) -> None:
    connection = Connection()
    async with hub.join("kept", connection):
        await hub.publish("kept", "1")
        backend.lose()
        await backend.elsewhere("kept", b"2", keep=KEEP)
        backend.restore()
        backend.broken = True
        await asyncio.sleep(0.02)
        assert connection.received == ["1"]
        backend.broken = False
        await eventually(lambda: connection.received == ["1", "2"])


async def test_publishing_in_trouble_raises_and_sockets_stay(hub: Hub, backend: Fragile) -> None:
    connection = Connection()
    async with hub.join("plain", connection):
        backend.lose()
        assert not hub.stats().connected
        with pytest.raises(BackendUnavailable):
            await hub.publish("plain", "x")
        assert connection.sink.alive
        backend.restore()
        assert hub.stats().connected


async def test_members_are_tracked_again_and_those_who_left_meanwhile_are_not(hub: Hub, backend: Fragile) -> None:
    watcher, leaver = Connection(), Connection()
    async with hub.join("people", watcher, presence="watcher"):
        async with hub.join("people", leaver, presence="leaver"):
            backend.lose()
        backend.forget_everything()
        backend.restore()
        await eventually(lambda: compose(watcher) == {"watcher": ["watcher"]})
        assert await hub.presence("people") == {"watcher": ["watcher"]}


async def test_a_member_who_left_in_trouble_leaves_when_it_is_over(hub: Hub, backend: Fragile) -> None:
    watcher, leaver = Connection(), Connection()
    async with hub.join("people", watcher, presence="watcher"):
        async with hub.join("people", leaver, presence="leaver"):
            await eventually(lambda: len(compose(watcher)) == 2)
            backend.lose()
            leaver.sink.die()
        assert len(compose(watcher)) == 2
        backend.restore()
        await eventually(lambda: compose(watcher) == {"watcher": ["watcher"]})


async def test_a_lease_that_ran_out_is_put_right(hub: Hub, backend: Fragile) -> None:
    watcher = Connection()
    async with hub.join("people", watcher, presence="watcher"):
        backend._tell(backend.store.drop_process("memory"))
        backend._flush()
        assert compose(watcher) == {}
        assert backend.listener is not None
        backend.listener.forgotten()
        await eventually(lambda: compose(watcher) == {"watcher": ["watcher"]})


async def test_nonsense_from_the_backend_is_logged_and_passed_over(
    hub: Hub, backend: Fragile, caplog: pytest.LogCaptureFixture
) -> None:
    connection = Connection()
    assert backend.listener is not None
    async with hub.join("plain", connection):
        for data in (
            b"",
            b"\x01",
            b"\x09\x01\0\0\0\0",
            b"\x01\x09\0\0\0\0",
            b"\x01\x01\xff\xff\0\0",
            b"\x01\x01\0\0\0\0\xff",
        ):
            await MemoryBackend.publish(backend, "plain", data, None)
        backend.listener.controlled(b"{}")
        backend.listener.controlled(b"\xff")
        await hub.publish("plain", "x")
    assert connection.received == ["x"]
    assert caplog.text.count("came from the backend") == 8


async def test_sockets_that_stay_while_the_hub_is_stopped_are_served_when_it_is_started_again(backend: Fragile) -> None:
    hub = Hub(backend=backend, topics={"kept": KEPT})
    await hub.start()
    kept, plain = Connection(), Connection()
    async with hub.join("kept", kept), hub.join("plain", plain):
        await hub.publish("kept", "1")
        await hub.stop()
        backend._listener = None
        await backend.elsewhere("kept", b"2", keep=KEEP)
        await hub.start()
        await eventually(lambda: kept.received == ["1", "2"])
        assert plain.sink.events == [{"type": "resync", "topic": "plain"}]
        await hub.publish("plain", "x")
        assert plain.received[-1] == "x"
    await hub.stop()


async def test_a_subscription_confirmed_late_does_not_set_the_room_back(hub: Hub, backend: Fragile) -> None:
    backend.confirm.clear()
    connection = Connection()
    joining = asyncio.create_task(hub.join("kept", connection).__aenter__())
    await eventually(lambda: backend.subscribing)
    await backend.elsewhere("kept", b"1", b"2", keep=KEEP)
    backend.confirm.set()
    membership = await joining
    backend.lose()
    await backend.elsewhere("kept", b"3", keep=KEEP)
    backend.restore()
    await eventually(lambda: connection.received[-1:] == ["3"])
    assert connection.received == ["1", "2", "3"]
    await membership.leave()


async def test_a_place_that_was_told_before_a_loss_is_asked_for_again(hub: Hub, backend: Fragile) -> None:
    backend.confirm.clear()
    connection = Connection()
    membership = hub.join("kept", connection)
    joining = asyncio.create_task(membership.__aenter__())
    await eventually(lambda: hub.stats().topics)
    backend.lose()
    await backend.elsewhere("kept", b"1", b"2", keep=KEEP)
    backend.restore()
    backend.confirm.set()
    await joining
    assert membership.position is not None
    assert membership.position.offset == 2
    await hub.publish("kept", "3")
    assert connection.received == ["3"]
    await membership.leave()


async def test_an_older_answer_that_comes_last_leaves_no_gap(hub: Hub, backend: Fragile) -> None:
    """Two join at once, and the backend's answer to the first comes behind the one to the second."""
    first, second = Connection(), Connection()
    backend.confirm.clear()
    early = asyncio.create_task(hub.join("kept", first).__aenter__())
    await asyncio.sleep(0)
    listener, backend._listener = backend._listener, None
    await backend.elsewhere("kept", b"1", keep=KEEP)  # on its way
    late, backend.confirm = backend.confirm, asyncio.Event()
    backend.confirm.set()
    newer = await hub.join("kept", second).__aenter__()
    late.set()
    older = await early
    backend._listener = listener
    hub._rooms.deliver("kept", (await backend.history("kept", KEEP, None, 1)).entries[0])
    await hub.publish("kept", "2")
    for membership, connection in ((older, first), (newer, second)):
        assert membership.position is not None
        expected = [str(offset) for offset in range(membership.position.offset + 1, 3)]
        assert connection.received == expected
        await membership.leave()


async def test_a_leave_does_not_overtake_the_tracking_after_trouble(hub: Hub, backend: Fragile) -> None:
    connection = Connection()
    membership = await hub.join("people", connection, presence="ann").__aenter__()
    backend.lose()
    backend.forget_everything()
    backend.on_the_way.clear()
    backend.restore()
    await eventually(lambda: backend.tracking)
    leaving = asyncio.create_task(membership.leave())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    backend.on_the_way.set()
    await leaving
    assert await hub.presence("people") == {}


async def test_entries_of_an_earlier_subscription_do_not_say_where_a_joiner_stands(hub: Hub, backend: Fragile) -> None:
    """A topic left and joined again: entries on the way come first, and entries published in between do not come."""
    backend.confirm.clear()
    first, second = Connection(), Connection()
    await backend.elsewhere("kept", b"1", keep=KEEP)
    old = (await backend.history("kept", KEEP, None, 1)).entries
    listener, backend._listener = backend._listener, None
    await backend.elsewhere("kept", b"2", keep=KEEP)
    opening = asyncio.create_task(hub.join("kept", first).__aenter__())
    await asyncio.sleep(0)
    hub._rooms.deliver("kept", old[0])
    backend.confirm.set()
    backend._listener = listener
    opened = await opening
    async with hub.join("kept", second) as membership:
        assert membership.position is not None
        assert membership.position.offset == 2
        await hub.publish("kept", "3")
        assert second.received == ["3"]
    await opened.leave()


async def test_a_hub_stopped_at_the_moment_a_member_is_lost_leaves_nothing_unawaited(hub: Hub) -> None:
    connection = Connection()
    async with hub.join("people", connection, presence="ann"):
        connection.sink.die()
        await hub.stop()
    gc.collect()


async def test_who_leaves_while_the_hub_is_stopped_is_not_cancelled(hub: Hub, backend: Fragile) -> None:
    membership = await hub.join("people", Connection(), presence="ann").__aenter__()
    backend.confirm_leaving.clear()
    leaving = asyncio.create_task(membership.leave())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await hub.stop()
    await leaving


async def test_entries_of_an_attempt_to_come_back_that_failed_hide_no_gap(hub: Hub, backend: Fragile) -> None:
    connection = Connection()
    async with hub.join("kept", connection):
        backend.lose()
        backend._listener = backend.listener  # connected, and lost again before everything was subscribed
        await backend.elsewhere("kept", b"1", keep=KEEP)
        backend._listener = None
        await backend.elsewhere("kept", *[str(number).encode() for number in range(2, 9)], keep=KEEP)
        backend.restore()
        await backend.elsewhere("kept", b"9", keep=KEEP)
        await eventually(lambda: connection.received[-1:] == ["9"])
        assert [json.loads(one).get("type") if one[0] == "{" else one for one in map(str, connection.received)] == [
            "resync",
            "9",
        ]


async def test_a_hub_that_could_not_be_started_again_may_be_tried_once_more(backend: Fragile) -> None:
    connection = Connection()
    hub = Hub(backend=backend, topics={"kept": KEPT})
    await hub.start()
    async with hub.join("kept", connection):
        await hub.stop()
        backend.refusing = True
        with pytest.raises(BackendUnavailable):
            await hub.start()
        assert not hub.stats().connected
        backend.refusing = False
        await hub.start()
        await hub.publish("kept", "x")
        await eventually(lambda: connection.received[-1:] == ["x"])
    await hub.stop()


async def test_a_leave_that_failed_without_a_loss_is_told_again(hub: Hub, backend: Fragile) -> None:
    async with hub.join("people", Connection(), presence="ann"):
        backend.broken = True
    assert backend.store.roster("people").members
    backend.broken = False
    await eventually(lambda: not backend.store.roster("people").members)


async def test_a_tracking_that_failed_without_a_loss_is_tried_again(hub: Hub, backend: Fragile) -> None:
    async with hub.join("people", Connection(), presence="ann"):
        backend._tell(backend.store.drop_process("memory"))
        backend.broken = True
        assert backend.listener is not None
        backend.listener.forgotten()
        await asyncio.sleep(0.01)
        backend.broken = False
        await eventually(lambda: backend.store.roster("people").members)


async def test_who_joins_waits_for_the_leaves_of_its_own_topic_only(hub: Hub, backend: Fragile) -> None:
    leaver = await hub.join("people", Connection(), presence="ann").__aenter__()
    backend.confirm_leaving.clear()
    leaving = asyncio.create_task(leaver.leave())
    async with hub.join("elsewhere", Connection(), presence="bob"):
        assert await hub.presence("elsewhere") == {"bob": ["bob"]}
        waiting = asyncio.create_task(hub.presence("people"))
        await asyncio.sleep(0.01)
        assert not waiting.done()
        backend.confirm_leaving.set()
        assert await waiting == {}
        await leaving


@pytest.mark.parametrize("turns", range(8))
async def test_who_gives_up_waiting_for_a_leave_as_it_is_told_stops_nobody(
    hub: Hub, backend: Fragile, turns: int
) -> None:
    connection = Connection()
    await hub.join("people", connection, presence="ann").__aenter__()
    backend.confirm_leaving.clear()
    connection.sink.die()
    asking = asyncio.create_task(hub.presence("people"))
    for _ in range(3):
        await asyncio.sleep(0)
    backend.confirm_leaving.set()
    for _ in range(turns):
        await asyncio.sleep(0)
    asking.cancel()
    await asyncio.wait([asking])
    assert await hub.presence("people") == {}
