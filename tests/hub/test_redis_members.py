"""Members on Redis: timers, leaves that fail, many leaves at once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterator, Mapping

import pytest

from antiphon.hub import Hub, OnOutage, Position, TopicOptions
from antiphon.hub.backends.base import BackendConfig
from antiphon.hub.backends.redis import RedisBackend
from antiphon.hub.records import Keep, Track
from antiphon.hub.rooms import Rooms
from antiphon.testing.hub_contract import compose
from antiphon.testing.hub_contract.base import until
from antiphon.testing.hub_sinks import Connection, eventually
from tests.redis_server import RedisServer, redis_server


@pytest.fixture(scope="module")
def shared() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture
def server(shared: RedisServer) -> RedisServer:
    shared.command("FLUSHALL")
    return shared


@pytest.fixture
async def backend(server: RedisServer) -> AsyncGenerator[RedisBackend]:
    backend = RedisBackend(server.url, BackendConfig())
    await backend.start(Rooms("test"))
    yield backend
    await backend.stop()


async def members(backend: RedisBackend, topic: str) -> Mapping[str, tuple[bytes, ...]]:
    return (await backend.presence(topic)).members


async def test_a_leave_while_another_grace_ends_is_a_leave_like_any_other(backend: RedisBackend) -> None:
    """Graces end a fraction of a millisecond apart: the next end is always as good as due."""

    async def come_and_go(name: str) -> None:
        for number in range(100):
            await backend.track("t", Track(f"{name}.{number}", name, b"1"))
            await backend.untrack("t", f"{name}.{number}", 0.005)

    await asyncio.gather(*(come_and_go(f"user-{n}") for n in range(20)))
    await until(lambda: members(backend, "t"), {})


async def test_who_leaves_while_the_hub_stops_disturbs_nothing(server: RedisServer, backend: RedisBackend) -> None:
    """Topics of many buckets: each that is left is forgotten, while the stop goes through all of them."""
    for number in range(64):
        await backend.track(f"t-{number}", Track(f"r{number}", "ann", b"1"))
    # No task is switched between: the leaves are on their way when the stop begins.
    leaving = [asyncio.create_task(backend.untrack(f"t-{number}", f"r{number}", 0)) for number in range(64)]
    await asyncio.sleep(0)
    await backend.stop()
    await asyncio.gather(*leaving)
    assert not [name for name in server.key_names() if not name.endswith(":state")]


async def test_members_of_a_dead_process_leave_although_the_clock_was_set_back(server: RedisServer) -> None:
    """As seen from the new clock, everything was to end an hour later."""
    dead, alive = (RedisBackend(server.url, BackendConfig(presence_lease=lease)) for lease in (1.0, 6.0))
    for backend in (dead, alive):
        await backend.start(Rooms("test"))
    try:
        await dead.track("t", Track("dead", "ann", b"1"))
        await alive.track("t", Track("broken off", "cem", b"1"))
        await alive.untrack("t", "broken off", 1.0)
        await alive.track("t", Track("alive", "bob", b"1"))
        for task in dead._tasks:
            task.cancel()
        for key in server.key_names():
            if key.endswith((":leases", ":linger")):
                for name in server.lines("ZRANGE", key, "0", "-1"):
                    server.command("ZINCRBY", key, "3600000", name)
        await until(lambda: members(alive, "t"), {"bob": (b"1",)})
        seen = [await members(alive, "t") for _ in range(5)]
        assert all(one == {"bob": (b"1",)} for one in seen)
    finally:
        await alive.stop()
        await dead.stop()


async def test_members_are_back_after_a_loss_of_data_also_when_the_next_join_comes_before_it_is_noticed(
    server: RedisServer,
) -> None:
    async with Hub(server.url, topics={"*": TopicOptions(presence=True)}) as hub:
        async with hub.join("t", Connection(), presence="ann"):
            server.command("FLUSHALL")
            async with hub.join("t", Connection(), presence="bob"):
                await until(lambda: hub.presence("t"), {"ann": ["ann"], "bob": ["bob"]})


@pytest.mark.parametrize("lease", [30.0, 3.0])
async def test_members_are_back_after_their_lease_ran_out_however_many_they_are_and_whoever_notices(
    server: RedisServer, lease: float
) -> None:
    """With the long lease it is the next join. With the short one, upkeep."""

    async def still_there() -> int:
        return await hub.presence_count("t")

    async with Hub(server.url, presence_lease=lease) as hub, contextlib.AsyncExitStack() as stack:
        joining = [hub.join("t", Connection(), presence={"id": number}) for number in range(600)]
        await asyncio.gather(*map(stack.enter_async_context, joining))
        leases = next(key for key in server.key_names() if key.endswith("leases"))
        for process in server.lines("ZRANGE", leases, "0", "-1"):
            server.command("ZADD", leases, "1", process)
        assert await still_there() < 600  # asking lets some of them go
        late = {601} if lease > 10 else set()
        for number in late:
            await stack.enter_async_context(hub.join("t", Connection(), presence={"id": number}))
        await until(still_there, 600 + len(late))


def rosters_read(server: RedisServer) -> int:
    """Whole ones: each is an HGETALL."""
    _, _, counted = server.command("INFO", "commandstats").partition("cmdstat_hgetall:calls=")
    return int(counted.partition(",")[0] or 0)


async def test_a_crowd_that_joins_at_once_reads_its_members_a_few_times_and_not_each_for_itself(
    server: RedisServer,
) -> None:
    """Two processes, as far as Redis knows."""
    topics = {"t": TopicOptions(presence=True, presence_grace=0)}
    everybody = {f"user-{number}": [f"user-{number}"] for number in range(400)}
    crowd = [Connection() for _ in everybody]
    async with Hub(server.url, topics=topics) as one, Hub(server.url, topics=topics) as other:
        server.command("CONFIG", "RESETSTAT")
        async with contextlib.AsyncExitStack() as stack:
            joining = [
                (one if number % 2 else other).join("t", connection, presence=f"user-{number}")
                for number, connection in enumerate(crowd)
            ]
            await asyncio.gather(*map(stack.enter_async_context, joining))
            for connection in crowd:
                await eventually(lambda connection=connection: compose(connection) == everybody)  # type: ignore[misc]
            assert rosters_read(server) < 20
            late = Connection()
            await stack.enter_async_context(one.join("t", late, presence="late"))
            assert compose(late) == everybody | {"late": ["late"]}
            await asyncio.gather(*(membership.leave() for membership in joining[1:]))
            await eventually(lambda: compose(late) == {"user-0": ["user-0"], "late": ["late"]})
            await eventually(lambda: compose(crowd[0]) == compose(late))
            assert rosters_read(server) < 20
        assert await one.presence("t") == {}


async def test_a_change_that_pub_sub_lost_is_in_the_next_roster(server: RedisServer) -> None:
    """Whether it was one in the middle, which the next one shows, or the last."""
    async with Hub(server.url, topics={"t": TopicOptions(presence=True, presence_grace=0)}) as hub:
        backend = hub._access.backend
        assert isinstance(backend, RedisBackend)
        hear, lost = backend._received, list[bytes]()

        def deaf(channel: bytes, data: bytes) -> None:
            if b"lost" in data:
                lost.append(data)
            else:
                hear(channel, data)

        assert backend._feed is not None
        backend._feed._received = deaf
        async with hub.join("t", Connection(), presence="ann"):
            for presence, behind in (("lost 1", "bob"), ("lost 2", "")):
                async with contextlib.AsyncExitStack() as stack:
                    expected = {"ann": ["ann"]}
                    for user in filter(None, (presence, behind)):
                        await backend.track("t", Track(user, user, b'"%s"' % user.encode()))
                        expected[user] = [user]
                    watcher = Connection()
                    await stack.enter_async_context(hub.join("t", watcher, presence="watcher"))
                    assert compose(watcher) == expected | {"watcher": ["watcher"]}
                    assert await hub.presence("t") == expected | {"watcher": ["watcher"]}
                for user in expected.keys() - {"ann"}:
                    await backend.untrack("t", user, 0)
        assert lost


async def test_a_topic_that_is_not_joined_here_any_more_is_read_as_a_whole(server: RedisServer) -> None:
    """Nothing is kept of it, and changes of others meanwhile are not missed."""
    topics = {"t": TopicOptions(presence=True, presence_grace=0)}
    async with Hub(server.url, topics=topics) as here, Hub(server.url, topics=topics) as there:
        backend = here._access.backend
        assert isinstance(backend, RedisBackend)
        async with there.join("t", Connection(), presence="ann"):
            async with here.join("t", Connection(), presence="bob"):
                assert backend._members.copies.version("t") is not None
            assert backend._members.copies.version("t") is None
            async with there.join("t", Connection(), presence="cem"):
                assert await here.presence("t") == {"ann": ["ann"], "cem": ["cem"]}
                watcher = Connection()
                async with here.join("t", watcher, presence="dan"):
                    assert sorted(compose(watcher)) == ["ann", "cem", "dan"]


async def test_a_join_that_is_given_up_while_redis_is_away_subscribes_nothing_when_it_is_back() -> None:
    with redis_server() as server:
        hub = Hub(server.url, on_outage=OnOutage.WAIT, outage_timeout=60.0)
        async with hub:
            backend, began = hub._access.backend, asyncio.Event()
            assert isinstance(backend, RedisBackend)
            server.kill()
            await eventually(lambda: not hub.stats().connected)
            subscribe = backend.subscribe

            async def subscribing(topic: str, keep: Keep | None) -> Position | None:
                began.set()
                return await subscribe(topic, keep)

            backend.subscribe = subscribing  # type: ignore[method-assign]
            joining = asyncio.create_task(hub.join("t", Connection()).__aenter__())
            await began.wait()
            joining.cancel()
            await asyncio.wait([joining])
            server.start()
            await eventually(lambda: hub.stats().connected)
            await eventually(lambda: not hub._access._tasks)
            assert not backend._channels
            await eventually(lambda: server.channels() == ["antiphon:control"])
