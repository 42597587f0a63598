"""Members on Redis: timers, leaves that fail, many leaves at once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterator, Mapping

import pytest

from antiphon.hub import Hub, TopicOptions
from antiphon.hub.backends.base import BackendConfig
from antiphon.hub.backends.redis import RedisBackend
from antiphon.hub.records import Track
from antiphon.hub.rooms import Rooms
from antiphon.testing.hub_contract.base import until
from antiphon.testing.hub_sinks import Connection
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
    config = BackendConfig(presence_lease=1.0)
    dead, alive = (RedisBackend(server.url, config) for _ in range(2))
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
    """With the long lease it is the next join; with the short one, upkeep."""

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
