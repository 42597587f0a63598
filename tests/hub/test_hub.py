"""The hub beyond every backend's promises: event loops, users, options, life."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import tracemalloc
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from typing import Any

import pytest
from starlette.authentication import SimpleUser, UnauthenticatedUser

from antiphon.events import Event
from antiphon.hub import (
    BackendUnavailable,
    Framing,
    Hub,
    HubNotRunning,
    InvalidTopic,
    OnOutage,
    Overflow,
    Position,
    TopicOptions,
    UnknownBackend,
)
from antiphon.hub.backends.base import BackendConfig, redact
from antiphon.hub.backends.memory import MemoryBackend
from antiphon.hub.delivery import LocalReceiver
from antiphon.hub.records import Roster
from antiphon.testing import VirtualTimeLoop
from antiphon.testing.hub_sinks import Connection, RecordingSink, eventually
from antiphon.types import PreparedMessage


@pytest.mark.parametrize(
    "url", ["", "memory", "memory:", "memory://x", "ftp://x", "redis:/x", "relay://relative", "http://u:secret@h/"]
)
def test_an_unknown_url_is_a_named_error_without_the_password(url: str) -> None:
    with pytest.raises(UnknownBackend) as caught:
        Hub(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("password", ["se/cret", "se#cret", "se?cret", "se@cret", "se:cret", "[secret"])
def test_a_password_that_should_have_been_encoded_is_not_shown(password: str) -> None:
    try:
        shown = Hub(f"redis://user:{password}@host:6379/0").url
    except UnknownBackend as error:
        shown = f"{error!r} {error.__cause__!r}"
    for part in ("se", "cret", "user:"):
        assert part not in shown.replace("user:password@", "")


def test_a_url_is_shown_without_user_and_password() -> None:
    assert redact("rediss://h?ssl_password=secret&ssl_ca_certs=a") == "rediss://h?ssl_password=***&ssl_ca_certs=a"
    assert redact("redis://u:se@cret@host:1/0?password=secret&x=1") == "redis://***@host:1/0?password=***&x=1"
    assert redact("redis://host/0") == "redis://host/0"


async def test_an_unreachable_backend_fails_at_start_and_shows_no_password() -> None:
    hub = Hub("redis://user:secret@127.0.0.1:1/0")
    with pytest.raises(BackendUnavailable) as caught:
        await hub.start()
    assert "127.0.0.1:1" in str(caught.value)
    assert "secret" not in str(caught.value)
    with pytest.raises(BackendUnavailable, match=r"redis://\*\*\*@"):
        await hub.publish("t", "x")
    await hub.stop()
    with pytest.raises(HubNotRunning, match=r"redis://\*\*\*@"):
        await hub.publish("t", "x")
    with pytest.raises(HubNotRunning):
        hub.join("t", Connection())


@pytest.mark.parametrize(
    "options",
    [
        {"history": -1},
        {"ttl": 0},
        {"ttl": float("nan")},
        {"outbox_bytes": 0},
        {"presence_grace": -1},
        {"conflate_by": "key"},
    ],
)
def test_options_that_cannot_be_meant_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(options))}: "):
        TopicOptions(**options)


def test_patterns_are_checked_and_the_exact_name_wins() -> None:
    with pytest.raises(InvalidTopic):
        Hub(topics={"": TopicOptions()})
    with pytest.raises(TypeError, match="TopicOptions"):
        Hub(topics={"t": {"history": 5}})  # type: ignore[arg-type]
    hub = Hub(
        topics={
            "room:*": TopicOptions(history=1),
            "room:a": TopicOptions(history=2),
            "room:*:log": TopicOptions(history=3),
            "a.c": TopicOptions(history=4),
        }
    )

    def history(topic: str) -> int:
        return hub._topics.find(topic)[1].history

    assert [history(topic) for topic in ("room:a", "room:b", "room:b:log", "room", "abc", "a.c")] == [2, 1, 1, 0, 0, 4]


@pytest.mark.parametrize("text", ["", "5", "-", "x-y", "-1-e", "٣-e", "9" * 30 + "-e", " 5-e", 5, None])
def test_what_is_no_position_is_a_value_error(text: Any) -> None:
    with pytest.raises(ValueError, match="position"):
        Position.parse(text)


def test_a_position_survives_being_text() -> None:
    for position in (Position(0, ""), Position(7, "a-b"), Position(10**17, "ü")):
        assert Position.parse(str(position)) == position


async def test_a_socket_the_hub_cannot_deliver_to_is_a_clear_error() -> None:
    with pytest.raises(TypeError, match="antiphon WebSocket"):
        Hub().join("t", object())  # type: ignore[arg-type]


async def test_since_must_be_a_position() -> None:
    hub = Hub()
    with pytest.raises(TypeError, match=r"Position\.parse"):
        hub.join("t", Connection(), since="5-e")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="history"):
        hub.join("t", Connection(), history=-1)


class UserConnection(Connection):
    def __init__(self, user: object) -> None:
        super().__init__()
        self.scope = {"type": "websocket", "user": user}


@pytest.mark.parametrize(
    ("connection_user", "presence", "user", "expected"),
    [
        (None, {}, 7, "7"),
        (None, {"user": 7}, None, "7"),
        (None, {"id": "x", "name": "Ann"}, None, "x"),
        (None, "ann", None, "ann"),
        (None, "ann", "other", "other"),
        (SimpleUser("sue"), {"name": "Sue"}, None, "sue"),
        (SimpleUser("sue"), {"user": "given"}, None, "given"),
        ("plain", {}, None, "plain"),
    ],
)
async def test_who_a_connection_is(
    connection_user: object, presence: object, user: str | int | None, expected: str
) -> None:
    hub = Hub()
    async with hub.join("t", UserConnection(connection_user), presence=presence, user=user) as membership:
        assert membership.user == expected
        assert list(await hub.presence("t")) == [expected]


async def test_connections_nobody_can_name_are_members_of_their_own() -> None:
    hub = Hub()
    nobody = UserConnection(UnauthenticatedUser())
    async with hub.join("t", nobody, presence={"n": 1}), hub.join("t", Connection(), presence={"n": 2}):
        assert sorted(infos[0]["n"] for infos in (await hub.presence("t")).values()) == [1, 2]


async def test_the_authenticated_user_is_known_to_close_connections_without_presence() -> None:
    hub = Hub()
    connection = UserConnection(SimpleUser("sue"))
    async with hub.join("t", connection):
        await hub.close_connections(user="sue")
    assert connection.sink.closed == (1008, "")


async def test_a_reason_is_cut_to_what_fits_on_the_wire() -> None:
    hub = Hub()
    connection = Connection()
    async with hub.join("t", connection):
        await hub.close_connections(topic="t", reason="é" * 100)
    assert connection.sink.closed == (1008, "é" * 61)


async def test_a_user_may_be_a_number() -> None:
    hub = Hub()
    connection = Connection()
    async with hub.join("t", connection, user=7):
        await hub.close_connections(user=7)
    assert connection.sink.closed == (1008, "")


async def test_a_sink_that_breaks_its_contract_harms_nobody_else(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(RecordingSink):
        def offer(self, message: PreparedMessage, limit: int) -> bool:
            raise ZeroDivisionError

    hub = Hub()
    before, broken, after = Connection(), Connection(), Connection()
    broken.sink = Broken()
    async with hub.join("t", before), hub.join("t", broken), hub.join("t", after):
        await hub.publish("t", "x")
    assert before.received == after.received == ["x"]
    assert "failed to take a message" in caplog.text


async def test_a_message_is_prepared_once_for_all_receivers() -> None:
    seen: list[PreparedMessage] = []

    class Looking(RecordingSink):
        def offer(self, message: PreparedMessage, limit: int) -> bool:
            seen.append(message)
            return True

    hub = Hub()
    one, two = Connection(), Connection()
    one.sink, two.sink = Looking(), Looking()
    async with hub.join("t", one), hub.join("t", two):
        await hub.publish("t", "x")
    assert seen[0] is seen[1]


async def test_a_subscription_that_was_not_entered_says_so_instead_of_yielding_nothing() -> None:
    messages = Hub().subscribe("t")
    with pytest.raises(RuntimeError, match=r"inside of `async with hub\.subscribe\('t'\) as messages"):
        aiter(messages)


async def test_two_loops_over_one_subscription_are_a_clear_error() -> None:
    hub = Hub()
    async with hub.subscribe("t") as messages:
        first = asyncio.create_task(anext(messages))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="two tasks"):
            await anext(messages)
        first.cancel()


async def test_entering_a_membership_twice_is_a_clear_error() -> None:
    hub = Hub()
    async with hub.join("t", Connection()) as membership:
        with pytest.raises(RuntimeError, match="entered already"):
            await membership.__aenter__()


async def test_an_observer_sees_what_happens() -> None:
    seen: list[str] = []

    def observe(event: Event) -> None:
        seen.append(type(event).__name__)

    topics = {
        "t": TopicOptions(history=1, outbox_bytes=10, overflow=Overflow.DROP_NEWEST),
        "d": TopicOptions(outbox_bytes=1),
    }
    hub = Hub(topics=topics, observer=observe)
    slow = Connection()
    slow.sink.stall()
    async with hub.join("t", slow, since=Position(1, "e")), hub.join("d", slow):
        for topic in ("t", "t", "t", "d"):
            await hub.publish(topic, "x" * 6)
    assert set(seen) == {
        *("BackendCalled", "Published", "Delivered", "Recovery", "Dropped", "OutboxHighWater", "ReceiverTooSlow"),
    }


async def test_topics_that_come_and_go_take_no_memory() -> None:
    hub = Hub(topics={"*": TopicOptions(presence=True, presence_grace=0)})
    connection = Connection()

    async def visit(topics: range) -> None:
        for n in topics:
            async with hub.join(f"topic-{n}", connection, presence="me"):
                await hub.publish(f"topic-{n}", "x")
        connection.received.clear()
        await asyncio.sleep(0.01)  # a loop lets go of cancelled timers when it turns
        gc.collect()

    await visit(range(1500))  # more than the options by topic that a hub remembers
    tracemalloc.start()
    try:
        await visit(range(1500, 2100))
        before = tracemalloc.get_traced_memory()[0]
        await visit(range(2100, 2700))
        after = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    # A hundred bytes for each would be as much again.
    assert after - before < 30_000


async def test_expired_history_goes_without_anybody_asking() -> None:
    hub = Hub(topics={"*": TopicOptions(history=5, ttl=0.05)})
    assert isinstance(hub.backend, MemoryBackend)
    for n in range(100):
        await hub.publish(f"t{n}", "x")
    store = hub.backend.store
    await eventually(lambda: store.topics == 0)


class Loop:
    """An event loop in a thread of its own, as a test-client session has."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()

    def run(self, work: Coroutine[Any, Any, Any]) -> Future[Any]:
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


async def in_thread(loop: Loop, make: Callable[[], Any]) -> Any:
    async def made() -> Any:
        return make()

    return await asyncio.wrap_future(loop.run(made()))


async def test_receivers_in_two_event_loops_see_one_order() -> None:
    hub = Hub(topics={"t": TopicOptions(history=10_000)})
    other = Loop()
    try:
        here, there = Connection(), await in_thread(other, Connection)
        async with hub.join("t", here), hub.join("t", there):

            async def publish(name: str) -> None:
                for n in range(1000):
                    await hub.publish("t", f"{name}{n}")
                    if n % 10 == 0:
                        await asyncio.sleep(0)

            elsewhere = asyncio.wrap_future(other.run(publish("b")))
            await publish("a")
            await elsewhere
            await eventually(lambda: len(here.received) == len(there.received) == 2000)
        assert here.received == there.received == [message.data for message in await hub.history("t")]
        assert hub.stats().topics == 0
        assert hub.stats().delivered == 4000
    finally:
        other.stop()


async def test_joiners_in_another_loop_get_a_contiguous_stream() -> None:
    hub = Hub(topics={"t": TopicOptions(history=10_000)})
    first = await hub.publish("t", "0")
    other = Loop()
    results: list[list[str | bytes]] = []
    stop = threading.Event()

    async def visitor() -> None:
        while not stop.is_set():
            connection = Connection()
            async with hub.join("t", connection, since=first) as membership:
                assert membership.recovered
                await asyncio.sleep(0.001)
            results.append(connection.received)

    try:
        visiting = [other.run(visitor()) for _ in range(3)]
        for n in range(1, 3000):
            await hub.publish("t", str(n))
            if n % 50 == 0:
                await asyncio.sleep(0.001)
        await eventually(lambda: len(results) > 3)  # the other thread may have had no turn yet
        stop.set()
        for one in visiting:
            await asyncio.wrap_future(one)
    finally:
        stop.set()
        other.stop()
    published = [str(n) for n in range(1, 3000)]
    for received in results:
        assert received == published[: len(received)]


async def test_an_event_loop_that_was_cut_short_is_forgotten() -> None:
    hub = Hub()
    other = Loop()
    lost = await in_thread(other, Connection)
    here = Connection()
    await hub.join("t", lost).__aenter__()
    await hub.join("only there", lost).__aenter__()
    other.stop()
    async with hub.join("t", here):
        await hub.publish("t", "1")
        await hub.publish("t", "2")
        assert here.received == ["1", "2"]
    assert hub.stats().topics == 0


def test_waiting_for_a_backend_that_stays_away_ends() -> None:
    class Away(MemoryBackend):
        in_process = False
        calls = 0

        async def publish(self, topic: str, data: bytes, keep: Any) -> None:
            self.calls += 1
            raise BackendUnavailable("away")

    backend = Away("memory://", BackendConfig())

    async def main() -> float:
        async with Hub(backend=backend, on_outage=OnOutage.WAIT, outage_timeout=30) as hub:
            with pytest.raises(BackendUnavailable, match="away"):
                await hub.publish("t", "x")
        return asyncio.get_running_loop().time()

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        assert 29 < runner.run(main()) <= 31
    assert backend.calls > 1


async def test_a_publish_that_may_have_been_done_is_not_repeated() -> None:
    class Uncertain(MemoryBackend):
        in_process = False
        calls = 0

        async def publish(self, topic: str, data: bytes, keep: Any) -> None:
            self.calls += 1
            raise BackendUnavailable("broke off", uncertain=True)

    backend = Uncertain("memory://", BackendConfig())
    async with Hub(backend=backend, on_outage=OnOutage.WAIT) as hub:
        with pytest.raises(BackendUnavailable) as caught:
            await hub.publish("t", "x")
    assert caught.value.uncertain
    assert backend.calls == 1


async def test_text_in_an_event_is_json_whatever_it_holds() -> None:
    hub = Hub(topics={"e": TopicOptions(framing=Framing.EVENT)})
    connection = Connection()
    async with hub.join("e", connection):
        await hub.publish("e", 'quote " and \\ and \u2028')
    assert connection.sink.events[-1] == {"type": "message", "topic": "e", "data": 'quote " and \\ and \u2028'}


async def test_numbers_are_kept_and_not_counted_anew_at_every_scrape() -> None:
    class Untouchable(dict[LocalReceiver, None]):
        def __iter__(self) -> Iterator[LocalReceiver]:
            raise AssertionError("stats() walked over the memberships")

    small = TopicOptions(outbox_bytes=1, overflow=Overflow.DROP_NEWEST)
    async with Hub("memory://", topics={"small-*": small}) as hub:
        slow, fast = Connection(), Connection()
        slow.sink.stall()
        memberships = [hub.join(topic, slow) for topic in ("small-a", "small-b", "c")]
        for membership in (*memberships, hub.join("c", fast)):
            await membership.__aenter__()
        for _ in range(3):
            await hub.publish("small-a", "x")
            await hub.publish("small-b", "x")
        for local in next(iter(hub._rooms.stations.values())).topics.values():
            local.receivers = Untouchable(local.receivers)
        stats = hub.stats()
        assert (stats.connections, stats.topics, stats.memberships) == (2, 3, 4)
        assert stats.dropped_now == {"small-a": 2, "small-b": 3}
        await memberships[0].leave()
        stats = hub.stats()
        assert (stats.connections, stats.topics, stats.memberships) == (2, 2, 3)
        assert stats.dropped_now == {"small-b": 3}
        assert stats.dropped == 5
        slow.sink.die()
        stats = hub.stats()
        assert (stats.connections, stats.topics, stats.memberships) == (1, 1, 1)
        assert stats.dropped_now == {}


async def test_members_are_counted_where_they_are_kept() -> None:
    class Counting(MemoryBackend):
        async def presence(self, topic: str) -> Roster:
            raise AssertionError("presence_count() fetched all members")

    async with Hub(backend=Counting("memory://", BackendConfig())) as hub, contextlib.AsyncExitStack() as stack:
        assert await hub.presence_count("t") == 0
        for user in ("ann", "bob", "ann"):
            await stack.enter_async_context(hub.join("t", Connection(), presence=user))
        assert await hub.presence_count("t") == 2
