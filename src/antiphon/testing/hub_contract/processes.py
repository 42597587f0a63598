"""Several processes on one backend."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from functools import partial

import pytest

from antiphon.hub import Hub, Position
from antiphon.testing.hub_sinks import PATIENCE, Connection, eventually
from antiphon.testing.hub_worker import workers

from .base import GRACES, LEASE, OPTIONS, STEADY_LEASE, TOPICS, Contract, compose, received_count, received_last, until


class ProcessContract(Contract):
    """Several processes on one backend."""

    async def test_publishers_in_four_processes_make_one_order(self, hub: Hub, url: str) -> None:
        async with workers(4, url, TOPICS, presence_lease=PATIENCE) as group:
            mine = Connection()
            async with hub.join("all", mine):
                await asyncio.gather(*(worker.ask("join", topic="all", name="r") for worker in group))
                await asyncio.gather(
                    *(
                        worker.ask("publish", topic="all", data=[f"{number}:{n}" for n in range(1000)])
                        for number, worker in enumerate(group)
                    )
                )
                await eventually(lambda: len(mine.received) == 4_000)
                for worker in group:
                    await received_count(worker, "r", 4_000)
                    assert await worker.received("r") == mine.received
        for number in range(4):
            own = [one for one in mine.received if str(one).startswith(f"{number}:")]
            assert own == [f"{number}:{n}" for n in range(1000)]

    async def test_history_published_elsewhere_is_there_for_a_joiner(self, hub: Hub, url: str) -> None:
        async with workers(1, url, TOPICS) as [worker]:
            positions = await worker.ask("publish", topic="kept", data=["1", "2", "3"])
            connection = Connection()
            async with hub.join("kept", connection, since=Position.parse(positions[0])) as membership:
                assert membership.recovered
                assert connection.received == ["2", "3"]

    async def test_joiners_during_publishes_elsewhere_get_a_contiguous_stream(self, hub: Hub, url: str) -> None:
        async with workers(1, url, TOPICS) as [worker]:
            first = Position.parse((await worker.ask("publish", topic="all", data=["0"]))[0])
            publishing = asyncio.create_task(worker.ask("publish", topic="all", data=[str(n) for n in range(1, 5000)]))
            connections = []
            async with contextlib.AsyncExitStack() as stack:
                while not publishing.done():
                    connection = Connection()
                    await stack.enter_async_context(hub.join("all", connection, since=first))
                    connections.append(connection)
                    await asyncio.sleep(0.01)
                await publishing
                expected = [str(n) for n in range(1, 5000)]
                await eventually(lambda: all(len(connection.received) >= 4999 for connection in connections))
                assert all(connection.received == expected for connection in connections)

    async def test_exclude_names_one_connection_of_one_process(self, hub: Hub, url: str) -> None:
        async with workers(2, url, TOPICS) as [one, two]:
            for worker in (one, two):
                await worker.ask("join", topic="t", name="a")
                await worker.ask("join", topic="t", name="b")
            await one.ask("publish", topic="t", data=["x"], but="a")
            await hub.publish("t", "end")
            for worker in (one, two):
                for name in ("a", "b"):
                    await received_last(worker, name, "end")
            assert await one.received("a") == ["end"]
            assert await one.received("b") == ["x", "end"]
            assert await two.received("a") == ["x", "end"]

    async def test_a_user_in_two_processes_is_one_member(self, hub: Hub, url: str) -> None:
        watcher = Connection()
        async with workers(1, url, TOPICS, presence_lease=PATIENCE) as [worker]:
            async with hub.join("people", watcher, presence={"user": "ann", "at": 1}):
                await worker.ask("join", topic="people", name="c", presence={"user": "ann", "at": 2})
                both = {"ann": [{"user": "ann", "at": 1}, {"user": "ann", "at": 2}]}
                await eventually(lambda: compose(watcher) == both)
                assert await hub.presence("people") == await worker.ask("presence", topic="people") == both
                await worker.ask("leave", topic="people", name="c")
                await eventually(lambda: compose(watcher) == {"ann": [{"user": "ann", "at": 1}]})

    async def test_a_reconnect_to_another_process_makes_no_flicker(self, hub: Hub, url: str) -> None:
        loop = asyncio.get_running_loop()
        async with workers(1, url, TOPICS, presence_lease=PATIENCE) as [worker]:
            for topic, grace in GRACES.items():
                watcher = Connection()
                async with hub.join(topic, watcher, presence="watcher"):
                    await worker.ask("join", topic=topic, name=topic, presence="ann")
                    await eventually(lambda watcher=watcher: "ann" in compose(watcher))  # type: ignore[misc]
                    before = len(watcher.sink.events)
                    died = loop.time()
                    await worker.ask("die", name=topic)
                    await worker.ask("presence", topic=topic)  # answers when the loss has been told
                    async with hub.join(topic, Connection(), presence="ann"):
                        members = await hub.presence(topic)
                        if loop.time() - died > grace:
                            continue
                        await asyncio.sleep(grace + 0.2)  # nothing may happen
                        assert len(watcher.sink.events) == before
                        assert members == await hub.presence(topic) == {"watcher": ["watcher"], "ann": ["ann"]}
                        return
        pytest.fail("the machine is too slow to come back within the longest grace")

    async def test_the_members_of_a_killed_process_leave_within_the_lease(self, url: str) -> None:
        watcher = Connection()
        async with (
            Hub(url, topics=OPTIONS, presence_lease=STEADY_LEASE) as hub,
            workers(1, url, TOPICS, presence_lease=LEASE) as [victim],
            workers(1, url, TOPICS, presence_lease=STEADY_LEASE) as [other],
            hub.join("people", watcher, presence="watcher"),
        ):
            await other.ask("join", topic="people", name="c", presence="other")
            await victim.ask("join", topic="people", name="c", presence="victim")
            await eventually(lambda: "victim" in compose(watcher))
            await victim.kill()
            await eventually(lambda: sorted(compose(watcher)) == ["other", "watcher"])
            await asyncio.sleep(STEADY_LEASE + 0.5)  # the others stay: nothing may happen
            assert sorted(compose(watcher)) == sorted(await hub.presence("people")) == ["other", "watcher"]

    async def test_the_members_of_a_stopped_hub_leave_at_once(self, url: str) -> None:
        async with Hub(url, topics=OPTIONS, presence_lease=PATIENCE) as hub:
            watcher = Connection()
            async with hub.join("people", watcher, presence="watcher"):
                async with workers(1, url, TOPICS, presence_lease=PATIENCE) as [worker]:
                    await worker.ask("join", topic="people", name="c", presence="ann")
                    await eventually(lambda: "ann" in compose(watcher))
                await eventually(lambda: sorted(compose(watcher)) == ["watcher"])

    async def test_a_process_that_slept_beyond_its_lease_misses_nothing_and_is_present_again(self, url: str) -> None:
        watcher = Connection()
        async with (
            Hub(url, topics=OPTIONS, presence_lease=STEADY_LEASE) as hub,
            workers(1, url, TOPICS, presence_lease=LEASE) as [sleeper],
        ):
            async with hub.join("people", watcher, presence="watcher"):
                await sleeper.ask("join", topic="people", name="c", presence="sleeper")
                await sleeper.ask("join", topic="all", name="d", history=1)
                await hub.publish("all", "before")
                await received_last(sleeper, "d", "before")
                sleeper.send_signal(signal.SIGSTOP)
                try:
                    await eventually(lambda: sorted(compose(watcher)) == ["watcher"])
                    for n in range(100):
                        await hub.publish("all", str(n))
                finally:
                    sleeper.send_signal(signal.SIGCONT)
                await received_last(sleeper, "d", "99")
                assert await sleeper.received("d") == ["before", *map(str, range(100))]
                await eventually(lambda: sorted(compose(watcher)) == ["sleeper", "watcher"])

    async def test_connections_are_closed_in_every_process(self, hub: Hub, url: str) -> None:
        async with workers(2, url, TOPICS) as group:
            for worker in group:
                await worker.ask("join", topic="t", name="a", presence={"user": "ann"})
                await worker.ask("join", topic="t", name="b", presence={"user": "bob"})
            await hub.close_connections(user="ann", code=4000)
            for worker in group:
                await until(partial(worker.ask, "closed", name="a"), 4000)
                assert await worker.ask("closed", name="b") is None
