"""Local delivery, where the test orders the events from outside."""

from __future__ import annotations

import asyncio

import pytest

from antiphon.hub import BackendUnavailable, Hub, Overflow, Position, TopicOptions
from antiphon.hub.backends.base import BackendConfig
from antiphon.hub.backends.memory import MemoryBackend
from antiphon.hub.counters import Counters
from antiphon.hub.delivery import LocalReceiver, LocalTopic, Station
from antiphon.hub.envelope import Envelope, PayloadForm, pack
from antiphon.hub.message import MessageKind, Parcel
from antiphon.hub.records import Change, Entry, Keep, Roster, Track
from antiphon.testing.hub_contract import compose
from antiphon.testing.hub_sinks import Connection, RecordingSink
from antiphon.types import PreparedMessage


def parcel(text: str, position: Position | None = None) -> Parcel:
    made = Parcel("t", MessageKind.MESSAGE, text, text.encode(), PayloadForm.TEXT)
    made.position = position
    return made


def make_station() -> Station:
    return Station(asyncio.get_running_loop(), "process", Counters())


async def test_what_comes_while_something_is_delivered_comes_after_it() -> None:
    station = make_station()

    class Answering(RecordingSink):
        """Something happens in the middle of a delivery."""

        def offer(self, message: PreparedMessage, limit: int) -> bool:
            if message.payload == "1":
                station.put(station.deliver, "t", parcel("2"))
                station.drain()
            return super().offer(message, limit)

    first, second = Answering(), RecordingSink()
    for sink in (first, second):
        station.add("t", TopicOptions(), LocalReceiver(sink, 1, None))
    station.put(station.deliver, "t", parcel("1"))
    station.drain()
    assert first.received == second.received == ["1", "2"]


async def test_a_page_says_nothing_about_another_epoch() -> None:
    receiver = LocalReceiver(RecordingSink(), 1, None)
    receiver.behind = Position(5, "a")
    assert receiver.knows(parcel("", Position(5, "a")))
    assert not receiver.knows(parcel("", Position(6, "a")))
    assert not receiver.knows(parcel("", Position(3, "b")))
    assert not receiver.knows(parcel(""))


def watch(local: LocalTopic, receiver: LocalReceiver, roster: Roster, *meanwhile: Change) -> None:
    """The receiver asks who is there, and changes come before the answer."""
    came: list[Change] = []
    audience = local.see()
    audience.expect(came)
    for change in meanwhile:
        audience.change(change)
    audience.refresh(roster, came, first=True)
    local.tell(receiver, local.watch(receiver))


async def test_a_change_that_a_newcomers_roster_contains_is_not_told_to_it_again() -> None:
    """The others' replica may be behind the roster that the newcomer was given."""
    station = make_station()
    early, late = RecordingSink(), RecordingSink()
    receivers = [LocalReceiver(sink, 1, None) for sink in (early, late)]
    local = station.add("t", TopicOptions(presence=True), receivers[0])
    watch(local, receivers[0], Roster(1, {}))
    station.add("t", local.options, receivers[1])
    watch(local, receivers[1], Roster(3, {"bob": (b'"b"',)}))
    local.see().change(Change(2, "ann", (b'"a"',)))
    local.see().change(Change(3, "ann", ()))
    local.see().change(Change(3, "bob", (b'"b"',)))
    local.see().change(Change(4, "cem", (b'"c"',)))
    assert [sorted(event["joins"]) for event in late.events] == [["bob"], ["cem"]]
    assert [sorted(event["joins"]) for event in early.events] == [[], ["bob"], ["cem"]]


async def test_a_change_that_overtakes_the_roster_reaches_the_newcomer() -> None:
    """With and without watchers there already."""
    station = make_station()
    sinks = [RecordingSink(), RecordingSink()]
    for sink in sinks:
        receiver = LocalReceiver(sink, 1, None)
        local = station.add("t", TopicOptions(presence=True), receiver)
        watch(local, receiver, Roster(1, {"ann": (b'"a"',)}), Change(2, "ann", ()), Change(3, "bob", (b'"b"',)))
    assert [event["joins"] for sink in sinks for event in sink.events] == [{"bob": ["b"]}] * 2


async def test_a_roster_that_changes_overtook_does_not_set_the_picture_back() -> None:
    local, sink, came = asking_again()
    local.see().change(Change(2, "ann", ()))
    local.see().refresh(Roster(1, {"ann": (b'"a"',)}), came)
    local.see().change(Change(3, "bob", (b'"b"',)))
    assert _joins_and_leaves(sink) == [(["ann"], []), ([], ["ann"]), (["bob"], [])]


async def test_a_refreshed_roster_shows_what_was_missed_although_newer_changes_came() -> None:
    """After trouble: that ann left is known to the roster alone."""
    local, sink, came = asking_again()
    local.see().change(Change(4, "bob", (b'"b"',)))
    local.see().refresh(Roster(3, {}), came)
    assert _joins_and_leaves(sink) == [(["ann"], []), (["bob"], []), ([], ["ann"])]


def asking_again() -> tuple[LocalTopic, RecordingSink, list[Change]]:
    """A topic with one watcher that knows of ann, while the roster is being read anew."""
    sink = RecordingSink()
    receiver = LocalReceiver(sink, 1, None)
    local = make_station().add("t", TopicOptions(presence=True), receiver)
    watch(local, receiver, Roster(1, {"ann": (b'"a"',)}))
    came: list[Change] = []
    local.see().expect(came)
    return local, sink, came


def _joins_and_leaves(sink: RecordingSink) -> list[tuple[list[str], list[str]]]:
    return [(list(event["joins"]), list(event["leaves"])) for event in sink.events]


async def test_an_entry_that_comes_twice_is_delivered_once() -> None:
    hub = Hub(topics={"t": TopicOptions(history=5)})
    connection = Connection()
    async with hub.join("t", connection) as membership:
        assert membership.position is not None
        entry = Entry(pack(Envelope(PayloadForm.TEXT, b"x", "", "")), Position(1, membership.position.epoch))
        for _ in range(2):
            hub._rooms.deliver("t", entry)
        hub._rooms.flush()
    assert connection.received == ["x"]


async def test_a_new_connection_with_the_identity_of_an_old_one_is_not_excluded_for_it() -> None:
    hub = Hub()
    connection = Connection()
    named_before_joining = hub._name_of(connection)
    async with hub.join("t", connection):
        hub._rooms.deliver("t", Entry(pack(Envelope(PayloadForm.TEXT, b"x", "", named_before_joining)), None))
        hub._rooms.flush()
        await hub.publish("t", "not for you", exclude=connection)
    assert connection.received == ["x"]


@pytest.mark.parametrize("policy", [Overflow.DROP_OLDEST, Overflow.DROP_NEWEST, Overflow.CONFLATE])
async def test_no_policy_loses_a_presence_diff(policy: Overflow) -> None:
    hub = Hub(topics={"t": TopicOptions(presence=True, presence_grace=0, outbox_bytes=500, overflow=policy)})
    watcher = Connection()
    async with hub.join("t", watcher, presence="watcher"):
        watcher.sink.stall()
        for n in range(30):
            await hub.publish("t", f"{n:<100}")
        async with hub.join("t", Connection(), presence="ann"):
            for n in range(10):
                async with hub.join("t", Connection(), presence=f"visitor {n}"):
                    await hub.publish("t", "x")
            for _ in range(100):
                watcher.sink.read(1)
            assert compose(watcher) == {"watcher": ["watcher"], "ann": ["ann"]}


async def test_code_takes_one_message_larger_than_its_outbox() -> None:
    hub = Hub(topics={"t": TopicOptions(outbox_bytes=1)})
    async with hub.subscribe("t") as messages:
        await hub.publish("t", "x" * 100)
        assert (await anext(messages)).data == "x" * 100


class Failing(MemoryBackend):
    """Fails at the calls that the test names."""

    in_process = False

    at = ""

    async def track(self, topic: str, track: Track) -> None:
        if self.at == "track":
            raise BackendUnavailable("away")
        await super().track(topic, track)

    async def presence(self, topic: str) -> Roster:
        if self.at == "presence":
            raise BackendUnavailable("away")
        return await super().presence(topic)

    async def subscribe(self, topic: str, keep: Keep | None) -> Position | None:
        if self.at == "subscribe":
            raise BackendUnavailable("away")
        return await super().subscribe(topic, keep)


@pytest.mark.parametrize("at", ["subscribe", "track", "presence"])
async def test_a_join_that_fails_leaves_nothing_behind(at: str) -> None:
    backend = Failing("memory://", BackendConfig())
    async with Hub(backend=backend, topics={"t": TopicOptions(presence=True)}) as hub:
        connection = Connection()
        backend.at = at
        with pytest.raises(BackendUnavailable):
            await hub.join("t", connection, presence="me").__aenter__()
        backend.at = ""
        assert hub.stats().topics == 0
        assert connection.sink.callbacks == 0
        assert await hub.presence("t") == {}
        hub._rooms.restored()
        await asyncio.sleep(0)
        assert await hub.presence("t") == {}


async def test_a_loop_that_was_closed_before_it_could_deliver_holds_nothing() -> None:
    hub, loop = Hub("memory://"), asyncio.new_event_loop()

    async def join() -> None:
        await hub.join("t", Connection()).__aenter__()

    await asyncio.to_thread(loop.run_until_complete, join())
    (station,) = hub._rooms.stations.values()
    await hub.publish("t", "on its way")
    loop.close()
    for _ in range(3):
        await hub.publish("t", "to nobody")
    assert not station._mailbox
    assert hub.stats().topics == 0


async def test_what_was_on_its_way_when_the_data_was_lost_does_not_make_a_page_come_again() -> None:
    sink = RecordingSink()
    receiver = LocalReceiver(sink, 1, None)
    local = make_station().add("t", TopicOptions(history=5), receiver)
    local.hold(receiver)
    local.release(receiver, [parcel("3", Position(3, "new"))], Position(3, "new"))
    for number, epoch in ((55, "old"), (1, "new"), (2, "new"), (3, "new"), (4, "new")):
        local.deliver(parcel(str(number), Position(number, epoch)))
    assert [one if one[0] != "{" else "resync" for one in map(str, sink.received)] == ["3", "resync", "55", "4"]
    assert not receiver.off_the_fast_path


async def test_a_joiner_whose_place_and_live_messages_are_of_two_epochs_is_told_of_a_gap() -> None:
    sink = RecordingSink()
    receiver = LocalReceiver(sink, 1, None)
    local = make_station().add("t", TopicOptions(history=5), receiver)
    local.hold(receiver)
    local.deliver(parcel("1", Position(1, "new")))
    local.release(receiver, [], Position(9, "old"))
    assert [one if one[0] != "{" else "resync" for one in map(str, sink.received)] == ["resync", "1"]


async def test_an_entry_of_another_epoch_is_a_gap_for_all() -> None:
    hub = Hub(topics={"t": TopicOptions(history=5)})
    connection = Connection()
    async with hub.join("t", connection):
        for offset, epoch in ((1, "a"), (1, "b"), (2, "b")):
            hub._rooms.deliver("t", Entry(pack(Envelope(PayloadForm.TEXT, b"x", "", "")), Position(offset, epoch)))
            hub._rooms.flush()
    told = '{"type":"resync","topic":"t"}'
    assert connection.received == [told, "x", told, "x", "x"]
