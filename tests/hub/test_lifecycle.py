"""A hub that nobody starts starts at its first use, and ends with its event loop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from antiphon.hub import BackendUnavailable, Hub, HubNotRunning, OnOutage, TopicOptions
from antiphon.hub.backends.relay import RelayBackend
from antiphon.hub.environment import ENVIRONMENT
from antiphon.testing.hub_sinks import Connection, eventually
from tests.patience import PATIENCE
from tests.redis_server import RedisServer
from tests.relay_server import RelayServer

TOPICS = {"t": TopicOptions(history=10, presence=True, presence_grace=0)}


@pytest.fixture(params=["relay", "redis"])
def server(request: pytest.FixtureRequest) -> Iterator[RelayServer | RedisServer]:
    with RelayServer() if request.param == "relay" else RedisServer() as server:
        yield server


async def workers(hub: Hub) -> int:
    assert isinstance(hub.backend, RelayBackend)
    return (await hub.backend.stats()).workers


@pytest.mark.parametrize("use", ["publish", "join", "subscribe", "history", "presence", "close_connections"])
async def test_any_use_starts_the_hub(server: RelayServer | RedisServer, use: str) -> None:
    hub = Hub(server.url, topics=TOPICS)
    match use:
        case "publish":
            await hub.publish("t", "x")
        case "join":
            async with hub.join("t", Connection(), presence="ann"):
                pass
        case "subscribe":
            async with hub.subscribe("t"):
                pass
        case "history":
            assert await hub.history("t") == []
        case "presence":
            assert await hub.presence("t") == {}
        case _:
            await hub.close_connections(topic="t")
    assert hub.stats().connected
    await hub.stop()
    with pytest.raises(HubNotRunning, match="was stopped"):
        await hub.publish("t", "x")


async def test_a_hundred_first_uses_at_once_are_one_start() -> None:
    with RelayServer() as relay:
        hub = Hub(relay.url)
        connections = [Connection() for _ in range(100)]
        async with contextlib.AsyncExitStack() as stack:
            await asyncio.gather(*(stack.enter_async_context(hub.join("t", one)) for one in connections))
            await hub.publish("t", "x")
            await eventually(lambda: all(one.received == ["x"] for one in connections))
            assert await workers(hub) == 1
        await hub.stop()


async def test_a_first_use_that_is_given_up_leaves_the_start_to_the_others() -> None:
    with RelayServer() as relay:
        relay.stop_answering()
        hub = Hub(relay.url)
        given_up, other = (asyncio.create_task(hub.publish("t", "x")) for _ in range(2))
        await asyncio.sleep(0)
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
        relay.answer_again()
        assert await other is None
        assert await workers(hub) == 1
        await hub.stop()


async def test_a_start_that_is_given_up_is_taken_back() -> None:
    with RelayServer() as relay:
        relay.stop_answering()
        before = asyncio.all_tasks()
        hub = Hub(relay.url)
        starting = asyncio.create_task(hub.start())
        await asyncio.sleep(0)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert asyncio.all_tasks() == before
        relay.answer_again()
        assert not hub.stats().connected
        await hub.publish("t", "x")
        await hub.stop()


async def test_a_stop_ends_a_start_that_is_under_way() -> None:
    with RelayServer() as relay:
        relay.stop_answering()
        hub = Hub(relay.url)
        using = asyncio.create_task(hub.publish("t", "x"))
        await asyncio.sleep(0.05)
        await hub.stop()
        with pytest.raises(BackendUnavailable, match="was stopped"):
            await using
        relay.answer_again()


async def test_a_backend_that_is_away_is_asked_again_at_the_next_use(server: RelayServer | RedisServer) -> None:
    server.kill()
    hub = Hub(server.url)
    for _ in range(2):
        with pytest.raises(BackendUnavailable):
            await hub.publish("t", "x")
    server.start()
    await hub.publish("t", "x")
    await hub.stop()


async def test_a_hub_that_waits_in_trouble_waits_for_its_first_start_too(server: RelayServer | RedisServer) -> None:
    server.kill()
    hub = Hub(server.url, on_outage=OnOutage.WAIT, outage_timeout=PATIENCE)
    using = asyncio.create_task(hub.publish("t", "x"))
    await asyncio.sleep(0.2)
    assert not using.done()
    server.start()
    await using
    await hub.stop()


def test_a_hub_ends_with_its_loop_and_starts_again_in_the_next(server: RelayServer | RedisServer) -> None:
    hub, other = (Hub(server.url, topics=TOPICS) for _ in range(2))

    async def stay() -> None:
        async with hub.join("t", Connection(), presence="ann"):
            assert await hub.presence_count("t") == 1
            raise ZeroDivisionError

    async def come_back() -> None:
        assert await other.presence("t") == {}
        await stay()

    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            asyncio.run(come_back())
        assert not hub.stats().connected


def test_the_members_of_a_hub_whose_loop_ends_leave_with_it(server: RelayServer | RedisServer) -> None:
    hub, other = (Hub(server.url, topics=TOPICS, presence_lease=1000) for _ in range(2))

    async def be_there() -> None:
        await hub.join("t", Connection(), presence="ann").__aenter__()

    async def look() -> None:
        assert await other.presence("t") == {}

    asyncio.run(be_there())
    asyncio.run(look())


def test_a_relay_of_its_own_ends_with_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    hub = Hub("relay://")

    async def use() -> int:
        await hub.publish("t", "x")
        assert isinstance(hub.backend, RelayBackend)
        assert hub.backend._supervisor is not None
        assert hub.backend._supervisor.pid is not None
        return hub.backend._supervisor.pid

    assert not Path(f"/proc/{asyncio.run(use())}").exists()


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_hub_whose_loop_was_cut_off_starts_in_the_next() -> None:
    with RelayServer() as relay:
        hub = Hub(relay.url)

        async def use() -> None:
            async with hub.join("t", (connection := Connection())):
                await hub.publish("t", "x")
                await eventually(lambda: connection.received == ["x"])

        loop = asyncio.new_event_loop()
        loop.run_until_complete(use())
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()  # and its async generators were never told
        asyncio.run(use())
        gc.collect()  # leftovers of the loop show up here


def test_receivers_in_another_loop_go_on_when_the_hubs_loop_ends() -> None:
    with RelayServer() as relay:
        hub = Hub(relay.url, topics={"t": TopicOptions(history=10)})
        joined, over = threading.Event(), threading.Event()
        heard: list[str | bytes] = []

        async def listen() -> None:
            async with hub.join("t", (connection := Connection())):
                joined.set()
                await eventually(lambda: "after" in connection.received)
                heard.extend(connection.received)
            over.set()

        async def begin() -> None:
            await hub.publish("t", "before")
            listener.start()
            assert await asyncio.to_thread(joined.wait, PATIENCE)

        async def elsewhere() -> None:
            async with Hub(relay.url, topics={"t": TopicOptions(history=10)}) as other:
                await other.publish("t", "after")
                assert await asyncio.to_thread(over.wait, PATIENCE)

        listener = threading.Thread(target=lambda: asyncio.run(listen()))
        asyncio.run(begin())
        asyncio.run(elsewhere())
        listener.join(PATIENCE)
        assert heard == ["after"]


def in_short_loops_of_four_threads(work: Callable[[], Coroutine[Any, Any, None]], times: int) -> None:
    """Each run of the work has a loop of its own, and has to come to an end without an error."""
    done: list[BaseException | None] = []

    def run() -> None:
        for _ in range(times):
            try:
                asyncio.run(work())
            except BaseException as error:
                done.append(error)
            else:
                done.append(None)

    threads = [threading.Thread(target=run, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert done == [None] * 4 * times


def test_callers_in_many_short_loops_share_a_hub_and_learn_what_became_of_each_message(
    server: RelayServer | RedisServer,
) -> None:
    hub = Hub(server.url)

    async def publish() -> None:
        try:
            await hub.publish("t", "x")
        except BackendUnavailable as error:  # it was under way when another thread's loop, the hub's, ended
            if not error.uncertain:
                raise

    in_short_loops_of_four_threads(publish, 25)


def test_a_hub_in_a_loop_that_stands_still_keeps_no_other_loop_waiting(server: RelayServer | RedisServer) -> None:
    hub = Hub(server.url)
    idle = asyncio.new_event_loop()  # of a notebook, say
    idle.run_until_complete(hub.publish("t", "x"))
    try:
        with pytest.raises(BackendUnavailable, match="event loop"):
            asyncio.run(asyncio.wait_for(hub.publish("t", "y"), PATIENCE))
    finally:
        idle.run_until_complete(hub.stop())
        idle.close()


async def test_starting_while_it_stops_is_one_after_the_other(server: RelayServer | RedisServer) -> None:
    hub = Hub(server.url)
    for _ in range(5):
        await hub.start()
        stopping = asyncio.create_task(hub.stop())
        await asyncio.sleep(0)
        await hub.start()
        await stopping
        await hub.publish("t", "x")
    await hub.stop()


async def test_starting_twice_at_once_is_starting_once() -> None:
    with RelayServer() as relay:
        hub = Hub(relay.url)
        await asyncio.gather(hub.start(), hub.start(), hub.publish("t", "x"))
        assert await workers(hub) == 1
        await hub.stop()


def test_a_call_that_is_given_up_before_the_hubs_loop_took_it_leaves_nothing(server: RelayServer | RedisServer) -> None:
    """No task, no message, and no coroutine that nobody awaited."""
    hub = Hub(server.url, topics=TOPICS)
    home = asyncio.new_event_loop()
    home.run_until_complete(hub.publish("t", "first"))
    tasks = asyncio.all_tasks(home)

    async def elsewhere() -> None:
        call = asyncio.create_task(hub.publish("t", "given up"))
        await asyncio.sleep(0)  # it is with the other loop, which stands still
        call.cancel()
        await asyncio.wait([call])
        assert call.cancelled()

    try:
        asyncio.run(elsewhere())
        kept = home.run_until_complete(hub.history("t"))
        assert [one.data for one in kept] == ["first"]
        assert asyncio.all_tasks(home) == tasks
        gc.collect()
    finally:
        home.run_until_complete(hub.stop())
        home.close()
