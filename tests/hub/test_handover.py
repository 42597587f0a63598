"""The data that one server leaves and the next one takes: all of it, once, and nothing that somebody else put there."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.events import Event
from antiphon.hub import Hub, TopicOptions
from antiphon.hub.backends import handover
from antiphon.hub.backends.handover import Handover, Unusable, fit, pack, unpack
from antiphon.hub.backends.relay import Supervisor
from antiphon.hub.backends.relay.trust import target
from antiphon.hub.events import BackendRestored
from antiphon.hub.records import Entry, Keep, Position
from antiphon.hub.store import Saved, Snapshot, Store
from antiphon.testing.hub_sinks import Connection
from tests.patience import until
from tests.relay_server import RelayServer

KEEP = Keep(3, 10.0)


@pytest.fixture
def place(tmp_path: Path) -> Handover:
    return Handover(str(tmp_path / "chat.state"))


@pytest.fixture
def offered(place: Handover) -> Iterator[Handover]:
    """This process serves by itself, and may use the place."""
    handover.offer(place.path)
    yield place
    handover.offer(None)


def left(place: Handover) -> bool:
    return os.path.exists(place.path)


def a_store() -> Store:
    store = Store(epoch="e", version=0)
    for number in range(5):
        store.publish("room", b"%d" % number, KEEP, 0.0)
    store.publish("forgotten", b"", Keep(1, 0.5), 0.0)
    store.publish("room", b"last", KEEP, 1.0)
    return store


def data_of(entries: tuple[Entry, ...] | list[Entry]) -> list[bytes]:
    return [entry.data for entry in entries]


async def test_a_store_goes_on_where_the_one_before_ended(place: Handover) -> None:
    before = a_store()
    place.leave(before.snapshot(2.0))
    snapshot = place.take()
    assert snapshot is not None
    after = Store.restored(snapshot, version=0, now=500.0)
    assert after.head("room") == before.head("room") == Position(6, "e")
    page = after.page("room", Position(4, "e"), None, 500.0)
    assert page.recovered
    assert data_of(list(page.entries)) == [b"4", b"last"]
    assert not after.page("room", Position(2, "e"), None, 500.0).recovered  # three are kept
    entry = after.publish("room", b"news", KEEP, 500.0)
    assert entry.position == Position(7, "e")
    new = after.publish("new", b"", KEEP, 500.0)
    assert new.position == Position(before.head("new").offset + 1, "e")


histories = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(0, 6), st.integers(1, 4), st.integers(1, 9)), max_size=40
)


@given(histories, st.integers(0, 40), st.floats(0, 20), st.integers(60, 400))
def test_recovery_stays_exact_or_nothing_across_the_gap(
    published: list[tuple[str, int, int, int]], when: int, gap: float, room: int
) -> None:
    """With any options, after any time, and with any bound."""
    store, now = Store(epoch="e", version=0), 0.0
    since, missed = store.head("a"), list[bytes]()
    for number, (topic, pause, size, ttl) in enumerate(published):
        if number == when:
            since, missed = store.head("a"), []
        now += pause
        data = b"%d" % number
        store.publish(topic, data, Keep(size, float(ttl)), now)
        if topic == "a":
            missed.append(data)
    written = b"".join(pack(fit(store.snapshot(now), room), 1000.0))
    header = handover._HEADER.pack(b"antiphon", 1, len(written), hashlib.sha256(written).digest())
    _, snapshot = unpack(header + written, 1000.0 + gap)
    after = Store.restored(snapshot, version=0, now=0.0)
    page = after.page("a", since, None, 0.0)
    if page.recovered:
        assert data_of(list(page.entries)) == missed
    else:
        assert page.entries == ()
    seen = store.head("a").offset
    assert after.publish("a", b"", KEEP, 0.0).position > Position(seen, "e")  # type: ignore[operator]


@pytest.mark.parametrize(
    ("later", "kept"),
    [(8.5, [b"3", b"4", b"last"]), (9.5, [b"last"]), (10.5, []), (-500.0, [b"3", b"4", b"last"])],
)
def test_the_time_between_two_starts_counts_and_a_clock_put_back_does_not(
    tmp_path: Path, later: float, kept: list[bytes]
) -> None:
    clock = [1000.0]
    place = Handover(str(tmp_path / "state"), wall=lambda: clock[0])
    place.leave(a_store().snapshot(1.0))  # the last one has ten seconds left, the others nine
    clock[0] += later
    snapshot = place.take()
    assert snapshot is not None
    store = Store.restored(snapshot, version=0, now=0.0)
    assert data_of(list(store.page("room", None, None, 0.0).entries)) == kept
    assert store.head("room").offset == 6


def test_it_is_taken_once(place: Handover) -> None:
    place.leave(a_store().snapshot(1.0))
    assert place.take() is not None
    assert place.take() is None
    assert os.listdir(os.path.dirname(place.path)) == []


def test_of_two_servers_that_start_at_once_one_takes_it(place: Handover) -> None:
    for _ in range(20):
        place.leave(a_store().snapshot(1.0))
        with ThreadPoolExecutor(8) as servers:
            taken = list(servers.map(lambda _: Handover(place.path).take(), range(8)))
        assert sum(snapshot is not None for snapshot in taken) == 1


def test_what_a_server_left_half_written_is_in_nobodys_way(place: Handover) -> None:
    Path(f"{place.path}.part").write_bytes(b"antiphon, and then the power went")
    assert place.take() is None
    place.leave(a_store().snapshot(1.0))
    assert os.listdir(os.path.dirname(place.path)) == [os.path.basename(place.path)]
    assert place.take() is not None


def test_a_store_without_histories_leaves_nothing(place: Handover) -> None:
    place.leave(Store(epoch="e", version=0).snapshot(0.0))
    assert not left(place)


def test_only_its_owner_can_read_it_whatever_the_umask(place: Handover) -> None:
    old = os.umask(0)
    try:
        place.leave(a_store().snapshot(1.0))
    finally:
        os.umask(old)
    assert os.stat(place.path).st_mode & 0o777 == 0o600


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def one_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)


def newer_version(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[9] = 7
    path.write_bytes(data)


def only_a_header(path: Path) -> None:
    path.write_bytes(b"antiphon")


def somebody_elses_work(path: Path) -> None:
    path.write_bytes(b"SQLite format 3\0")


def readable_by_all(path: Path) -> None:
    path.chmod(0o644)


def second_name(path: Path) -> None:
    os.link(path, path.with_name("copy"))


def of_another_user(path: Path) -> None:
    os.chown(path, 12345, -1)


def a_link(path: Path) -> None:
    path.rename(path.with_name("real"))
    path.symlink_to(path.with_name("real"))


def a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    "harm",
    [
        *(cut_short, one_bit, newer_version, only_a_header, somebody_elses_work, readable_by_all, second_name),
        pytest.param(of_another_user, marks=pytest.mark.skipif(os.geteuid() != 0, reason="needs root")),
        *(a_link, a_pipe, a_folder),
    ],
)
def test_what_was_not_left_by_this_user_and_whole_is_not_taken_and_told_once(
    place: Handover, harm: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    place.leave(a_store().snapshot(1.0))
    harm(Path(place.path))
    caplog.clear()
    assert place.take() is None
    assert len(caplog.records) == 1, caplog.text
    assert "histories start anew" in caplog.text
    assert place.path in caplog.text


@pytest.mark.parametrize("harm", [somebody_elses_work, a_folder])
def test_what_is_not_of_antiphon_is_not_overwritten(
    place: Handover, harm: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    place.leave(a_store().snapshot(1.0))
    harm(Path(place.path))
    place.take()
    caplog.clear()
    place.leave(a_store().snapshot(1.0))
    assert "cannot write" in caplog.text
    assert Path(place.path).is_dir() or Path(place.path).read_bytes() == b"SQLite format 3\0"


def test_a_file_that_was_left_behind_long_ago_is_not_taken(place: Handover) -> None:
    clock = [0.0]
    old = Handover(place.path, wall=lambda: clock[0])
    old.leave(a_store().snapshot(1.0))
    clock[0] = 3601.0
    assert old.take() is None
    long_lived = Store(epoch="e", version=0)
    long_lived.publish("t", b"", Keep(1, 86_400.0), 0.0)
    old.leave(long_lived.snapshot(0.0))
    clock[0] += 80_000.0
    assert old.take() is not None


@given(st.binary(max_size=300))
def test_hostile_bytes_behind_a_true_checksum_are_damage_and_nothing_worse(body: bytes) -> None:
    header = handover._HEADER.pack(b"antiphon", 1, len(body), hashlib.sha256(body).digest())
    try:
        _, snapshot = unpack(header + body, 0.0)
    except Unusable:
        return
    Store.restored(snapshot, version=0, now=0.0)


def test_what_does_not_fit_goes_oldest_first_and_each_topic_has_its_turn(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    snapshot = Snapshot(
        "e",
        0,
        [
            Saved("long", 50, [(9.0, b"x" * 100)] * 50),
            Saved("short", 2, [(9.0, b"first"), (9.0, b"second")]),
            Saved("large", 2, [(9.0, b"x" * 5000), (9.0, b"y")]),
        ],
    )
    place = Handover(str(tmp_path / "state"), most=2000)
    place.leave(snapshot)
    assert os.stat(place.path).st_size <= 2000
    assert "older messages are not handed over" in caplog.text
    taken = place.take()
    assert taken is not None
    kept = {topic: [data for _, data in entries] for topic, _, entries in taken.histories}
    assert kept["short"] == [b"first", b"second"]
    assert kept["large"] == [b"y"]
    assert 10 < len(kept["long"]) < 50
    Handover(place.path, most=80).leave(snapshot)  # not even the names
    taken = place.take()
    assert taken is not None
    assert taken.histories == []
    assert taken.forgotten == 50


TOPICS = {"*": TopicOptions(history=10)}


async def test_a_hub_in_memory_goes_on_where_the_one_before_stopped(offered: Handover) -> None:
    async with Hub("memory://", topics=TOPICS) as hub:
        first = await hub.publish("t", "one")
        last = await hub.publish("t", "two")
    late = await hub.publish("t", "behind the stop")
    assert late is not None
    assert last is not None
    assert late.epoch != last.epoch, "this message was not handed over: nobody may take it for one that was"
    async with Hub("memory://", topics=TOPICS) as hub:
        page = await hub.history("t", since=first)
        assert page.recovered
        assert [message.data for message in page] == ["two"]
        assert await hub.publish("t", "three") == last._replace(offset=last.offset + 1)
        other = Hub("memory://", topics=TOPICS)  # one hub of a process has the place
        async with other:
            assert await other.history("t", limit=5) == []


async def test_members_are_not_handed_over(offered: Handover) -> None:
    async with Hub("memory://", topics=TOPICS) as hub:
        await hub.publish("t", "one")
        async with hub.join("t", Connection(), presence="ann"):
            await hub.stop()
    async with Hub("memory://", topics=TOPICS) as hub:
        assert await hub.presence("t") == {}
        assert len(await hub.history("t", limit=5)) == 1


async def test_a_hub_that_was_used_before_it_started_keeps_what_it_has(offered: Handover) -> None:
    async with Hub("memory://", topics=TOPICS) as hub:
        await hub.publish("t", "of the server before")
    hub = Hub("memory://", topics=TOPICS)
    await hub.publish("t", "mine")
    async with hub:
        assert [message.data for message in await hub.history("t", limit=5)] == ["mine"]


async def test_expired_messages_of_the_server_before_are_let_go_of_by_themselves(offered: Handover) -> None:
    topics = {"*": TopicOptions(history=10, ttl=0.5)}
    async with Hub("memory://", topics=topics) as hub:
        await hub.publish("t", "one")
    async with Hub("memory://", topics=topics) as hub:
        await until(lambda: hub.backend.store.topics == 0)  # type: ignore[attr-defined]


def spoken_to(relay: Supervisor | RelayServer) -> str:
    return f"relay://{target(relay.key, relay.address)}"


async def test_a_relay_hands_over_when_it_is_stopped_and_not_when_it_is_killed(place: Handover) -> None:
    with Supervisor(place.path) as relay:
        async with Hub(spoken_to(relay), topics=TOPICS) as hub:
            first = await hub.publish("t", "one")
            await hub.publish("t", "two")
    assert left(place)
    events: list[Event] = []
    with Supervisor(place.path) as relay:
        async with Hub(spoken_to(relay), topics=TOPICS, observer=events.append) as hub:
            page = await hub.history("t", since=first)
            assert page.recovered
            assert [message.data for message in page] == ["two"]
            assert not left(place)
            assert relay.pid is not None
            os.kill(relay.pid, 9)
            await until(lambda: any(isinstance(event, BackendRestored) for event in events))
            page = await hub.history("t", since=first)
            assert not page.recovered
    assert not left(place)  # the new one has nothing to hand over


async def test_a_process_manager_that_signals_the_whole_group_does_not_end_the_relay_before_the_workers(
    place: Handover,
) -> None:
    with Supervisor(place.path) as relay:
        async with Hub(spoken_to(relay), topics=TOPICS) as hub:
            first = await hub.publish("t", "one")
            assert relay.pid is not None
            os.kill(relay.pid, 15)
            await asyncio.gather(*(hub.publish("t", f"{number}") for number in range(100)))
            assert hub.stats().connected
    with Supervisor(place.path) as relay:
        async with Hub(spoken_to(relay), topics={"*": TopicOptions(history=10)}) as hub:
            assert first is not None
            assert len(await hub.history("t", since=first._replace(offset=101 - 10))) == 10


async def test_workers_that_a_relay_by_hand_left_recover_with_the_next_one(
    place: Handover, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    relay = RelayServer("--state", place.path)
    with relay:
        async with Hub(relay.url, topics=TOPICS) as hub, hub.subscribe("t") as messages:
            first = await hub.publish("t", "one")
            assert (await anext(messages)).data == "one"
            relay.terminate()
            await until(lambda: not hub.stats().connected)
            relay.start()
            await until(lambda: hub.stats().connected)
            second = await hub.publish("t", "two")
            assert first is not None
            assert second == first._replace(offset=first.offset + 1)
            assert (await anext(messages)).data == "two"  # and no resync
