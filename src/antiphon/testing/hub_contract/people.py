"""Presence, and closing the connections of users."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial

import pytest

from antiphon.hub import Hub, MessageKind
from antiphon.hub.records import LISTED
from antiphon.testing.hub_sinks import PATIENCE, Connection, eventually

from .base import GRACES, Contract, compose


class PeopleContract(Contract):
    """Presence."""

    async def test_several_connections_of_a_user_are_one_member(self, hub: Hub) -> None:
        tab, phone, other = Connection(), Connection(), Connection()
        async with hub.join("people", tab, presence={"user": "ann", "on": "tab"}):
            async with hub.join("people", phone, presence={"user": "ann", "on": "phone"}):
                async with hub.join("people", other, presence={"user": "bob"}):
                    assert await hub.presence("people") == {
                        "ann": [{"user": "ann", "on": "tab"}, {"user": "ann", "on": "phone"}],
                        "bob": [{"user": "bob"}],
                    }
                    assert await hub.presence_count("people") == 2
            assert await hub.presence("people") == {"ann": [{"user": "ann", "on": "tab"}]}
        assert await hub.presence("people") == {}
        assert await self.residue(hub) == 0

    async def test_diffs_make_the_members(self, hub: Hub) -> None:
        watcher = Connection()
        async with hub.join("people", Connection(), presence="early"):
            async with hub.join("people", watcher, presence="watcher"):
                async with hub.join("people", Connection(), presence={"user": "ann", "n": 1}):
                    async with hub.join("people", Connection(), presence={"user": "ann", "n": 2}):
                        await eventually(lambda: compose(watcher) == {
                            "early": ["early"],
                            "watcher": ["watcher"],
                            "ann": [{"user": "ann", "n": 1}, {"user": "ann", "n": 2}],
                        })  # fmt: skip
                await eventually(lambda: compose(watcher) == {"early": ["early"], "watcher": ["watcher"]})
        kinds = [(sorted(e["joins"]), sorted(e["leaves"]), sorted(e["updates"])) for e in watcher.sink.events]
        assert kinds == [(["early", "watcher"], [], []), (["ann"], [], []), ([], [], ["ann"]), ([], [], ["ann"]),
                         ([], ["ann"], [])]  # fmt: skip

    async def test_each_tab_of_a_user_costs_the_others_the_same_however_many_there_are(self, hub: Hub) -> None:
        watcher = Connection()
        async with hub.join("prompt", watcher, presence="watcher"), contextlib.AsyncExitStack() as tabs:
            for tab in range(LISTED):
                await tabs.enter_async_context(hub.join("prompt", Connection(), presence={"user": "ann", "tab": tab}))
            async with contextlib.AsyncExitStack() as more:
                for tab in range(LISTED, 60):
                    info = {"user": "ann", "tab": tab}
                    await more.enter_async_context(hub.join("prompt", Connection(), presence=info))
                newest = [{"user": "ann", "tab": tab} for tab in range(60 - LISTED, 60)]
                assert (await hub.presence("prompt"))["ann"] == newest
                assert await hub.presence_count("prompt") == 2
                await eventually(lambda: compose(watcher)["ann"] == newest)
                assert watcher.sink.events[-1]["counts"] == {"ann": 60}
                late = Connection()
                async with hub.join("prompt", late, presence={"user": "ann", "tab": 60}):
                    assert late.sink.events[0]["counts"] == {"ann": 61}
            first = [{"user": "ann", "tab": tab} for tab in range(LISTED)]
            await eventually(lambda: compose(watcher)["ann"] == first)
            assert "counts" not in watcher.sink.events[-1]
        told = [len(one) for one in watcher.received]
        assert max(told) < 2 * told[LISTED]

    async def test_a_crowd_that_comes_and_goes_at_once_is_told_of_all_of_it_together(self, hub: Hub) -> None:
        """Nobody is missing anywhere, and nobody stays."""
        crowd = [Connection() for _ in range(150)]
        everybody = {f"user {number}": [f"user {number}"] for number in range(len(crowd))}
        joining = [hub.join("prompt", one, presence=f"user {number}") for number, one in enumerate(crowd)]
        await asyncio.gather(*(membership.__aenter__() for membership in joining))
        for one in crowd:
            await eventually(lambda one=one: compose(one) == everybody)  # type: ignore[misc]
        assert await hub.presence_count("prompt") == len(crowd)
        for one in crowd[1:]:
            one.sink.die()
        await eventually(lambda: compose(crowd[0]) == {"user 0": ["user 0"]})
        assert await hub.presence("prompt") == {"user 0": ["user 0"]}
        await joining[0].leave()
        assert await self.residue(hub) == 0

    async def test_a_reconnect_within_the_grace_makes_no_flicker(self, hub: Hub) -> None:
        loop = asyncio.get_running_loop()
        for topic, grace in GRACES.items():
            watcher, first, second = Connection(), Connection(), Connection()
            async with hub.join(topic, watcher, presence="watcher"):
                async with hub.join(topic, first, presence="ann"):
                    await eventually(lambda watcher=watcher: len(watcher.sink.events) == 2)  # type: ignore[misc]
                    died = loop.time()
                    first.sink.die()
                count = await hub.presence_count(topic)
                async with hub.join(topic, second, presence="ann"):
                    members = await hub.presence(topic)
                    if loop.time() - died > grace:
                        continue
                    assert count == 2
                    assert members == {"watcher": ["watcher"], "ann": ["ann"]}
                    await asyncio.sleep(grace + 0.2)  # there is nothing to wait for, because nothing may happen
                    assert await hub.presence_count(topic) == 2
                    assert len(watcher.sink.events) == 2
                await eventually(lambda watcher=watcher: compose(watcher) == {"watcher": ["watcher"]})  # type: ignore[misc]
                return
        pytest.fail("the machine is too slow to come back within the longest grace")

    async def test_who_does_not_come_back_leaves_after_the_grace(self, hub: Hub) -> None:
        watcher, gone = Connection(), Connection()
        async with hub.join("people", watcher, presence="watcher"), hub.join("people", gone, presence="ann"):
            loop = asyncio.get_running_loop()
            died = loop.time()
            gone.sink.die()
            await eventually(lambda: "ann" in str(watcher.sink.events[-1]["leaves"]))
            assert loop.time() - died >= 0.45
            assert await hub.presence("people") == {"watcher": ["watcher"]}

    async def test_without_grace_a_lost_connection_leaves_at_once(self, hub: Hub) -> None:
        watcher, gone = Connection(), Connection()
        async with hub.join("prompt", watcher, presence="watcher"), hub.join("prompt", gone, presence="ann"):
            await eventually(lambda: "ann" in compose(watcher))
            gone.sink.die()
            await eventually(lambda: compose(watcher) == {"watcher": ["watcher"]})

    async def test_a_slow_watcher_gets_the_sum_of_what_it_missed(self, hub: Hub) -> None:
        watcher = Connection()
        big = {"user": "big", "pad": "x" * (1 << 20)}
        async with hub.join("prompt", watcher, presence="watcher"):
            await eventually(lambda: watcher.sink.events)
            watcher.sink.stall()
            async with hub.join("prompt", Connection(), presence=big):
                async with hub.join("prompt", Connection(), presence="ann"):
                    async with hub.join("prompt", Connection(), presence="bob"):
                        pass
                    await self.settle(hub)
                    watcher.sink.read_on()
                    await eventually(
                        lambda: not watcher.sink.alive or sorted(compose(watcher)) == ["ann", "big", "watcher"]
                    )

    async def test_code_may_watch_presence(self, hub: Hub) -> None:
        async with hub.subscribe("people", presence=True) as messages:
            async with hub.join("people", Connection(), presence={"user": "ann"}):
                got = [await asyncio.wait_for(anext(messages), PATIENCE) for _ in range(2)]
        assert [message.kind for message in got] == [MessageKind.PRESENCE_DIFF, MessageKind.PRESENCE_DIFF]
        assert got[0].data == {"joins": {}, "leaves": {}, "updates": {}}
        assert got[1].data == {"joins": {"ann": [{"user": "ann"}]}, "leaves": {}, "updates": {}}

    async def test_a_connection_without_presence_hears_nothing_of_it(self, hub: Hub) -> None:
        quiet = Connection()
        async with hub.join("people", quiet), hub.join("people", Connection(), presence="ann"):
            assert await hub.presence("people") == {"ann": ["ann"]}
            await hub.publish("people", "x")
            await eventually(lambda: quiet.received)
        assert quiet.received == ["x"]

    # Closing, and the life of a hub

    async def test_close_connections_finds_them_by_user_topic_or_both(self, hub: Hub) -> None:
        connections = {(user, topic): Connection() for user in ("ann", "bob") for topic in ("a", "b")}
        async with contextlib.AsyncExitStack() as stack:
            for (user, topic), connection in connections.items():
                await stack.enter_async_context(hub.join(topic, connection, user=user))
            await hub.close_connections(user="ann", topic="a", code=4001, reason="out")
            await eventually(lambda: hub.stats().memberships == 3)
            assert connections["ann", "a"].sink.closed == (4001, "out")
            await hub.close_connections(user="ann")
            await eventually(lambda: hub.stats().memberships == 2)
            assert connections["ann", "b"].sink.closed == (1008, "")
            await hub.close_connections(topic="a")
            await eventually(lambda: hub.stats().memberships == 1)
            assert connections["bob", "b"].sink.closed is None

    @pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 2999, 5000])
    async def test_a_code_that_may_not_go_on_the_wire_is_refused(self, hub: Hub, code: int) -> None:
        with pytest.raises(ValueError, match="close code"):
            await hub.close_connections(user="ann", code=code)
        with pytest.raises(ValueError, match="neither"):
            await hub.close_connections()

    async def test_a_hub_can_be_stopped_and_started_again(self, hub: Hub) -> None:
        for _ in range(2):
            async with hub:
                connection = Connection()
                async with hub.join("t", connection, presence="me"):
                    await hub.publish("t", "x")
                    await eventually(partial(bool, connection.received))
                    assert connection.received == ["x"]
                    assert await hub.presence("t") == {"me": ["me"]}
        await hub.stop()
