"""The time and the content of diffs for the watchers of a topic."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.hub import Hub, TopicOptions
from antiphon.hub.audience import REST_PER_WATCHER, Audience
from antiphon.hub.envelope import encode_json
from antiphon.hub.message import Parcel, presence_diff
from antiphon.hub.presence import Diff, Listed
from antiphon.hub.records import Change, Roster
from antiphon.hub.store import Store
from antiphon.testing import virtual_time
from antiphon.testing.hub_contract import compose
from antiphon.testing.hub_sinks import Connection

MANY = 1000
REST = MANY * REST_PER_WATCHER
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(), lambda inner: st.lists(inner), max_leaves=5
)


class Told:
    """An audience of so many watchers, and the parcels that each of them got."""

    def __init__(self, watchers: int) -> None:
        self.parcels: defaultdict[str, list[Parcel]] = defaultdict(list)
        self.behind: set[str] = set()
        self.audience: Audience[str] = Audience("t", asyncio.get_running_loop(), self._tell, self.behind.__contains__)
        self.audience.refresh(Roster(1, {"ann": (b"1",)}), [], first=True)
        self.watchers = [f"watcher {number}" for number in range(watchers)]
        for watcher in self.watchers:
            self.join(watcher)

    def join(self, watcher: str) -> None:
        self.parcels[watcher].append(self.audience.watch(watcher))

    def _tell(self, watcher: str, parcel: Parcel) -> None:
        self.parcels[watcher].append(parcel)

    def catch_up(self, watcher: str) -> None:
        self.behind.discard(watcher)
        missed = self.audience.caught_up(watcher)
        if missed is not None:
            self.parcels[watcher].append(missed)

    def come(self, version: int, user: str) -> None:
        self.audience.change(Change(version, user, (b"1",)))

    def go(self, version: int, user: str) -> None:
        self.audience.change(Change(version, user, ()))

    def diffs(self, watcher: str) -> list[tuple[list[str], list[str]]]:
        """Joins and leaves, event by event, behind the first."""
        events = [json.loads(str(one.payload)) for one in self.parcels[watcher][1:]]
        return [(list(event["joins"]), list(event["leaves"])) for event in events]

    def known(self, watcher: str) -> set[str]:
        """As a page composes it. Nobody comes who is there, or goes who is not."""
        known: set[str] = set()
        for parcel in self.parcels[watcher]:
            event = json.loads(str(parcel.payload))
            assert not known & event["joins"].keys()
            assert known >= event["leaves"].keys() | event["updates"].keys()
            known = (known | event["joins"].keys()) - event["leaves"].keys()
        return known


@virtual_time
async def test_a_few_watchers_are_told_of_each_change_at_once() -> None:
    told = Told(20)
    for version in range(2, 12):
        told.come(version, f"user {version}")
    assert [len(parcels) for parcels in told.parcels.values()] == [11] * 20


@virtual_time
async def test_many_watchers_are_told_of_the_first_change_at_once_and_of_those_behind_it_together() -> None:
    told = Told(MANY)
    for version in range(2, 12):
        told.come(version, f"user {version}")
    told.go(12, "user 11")
    told.go(13, "ann")
    assert told.diffs("watcher 7") == [(["user 2"], [])]
    await asyncio.sleep(REST * 0.9)
    assert len(told.diffs("watcher 7")) == 1
    await asyncio.sleep(REST * 0.2)
    assert told.diffs("watcher 7")[1:] == [([f"user {version}" for version in range(3, 11)], ["ann"])]
    await asyncio.sleep(REST)
    told.come(14, "bob")
    assert told.diffs("watcher 7")[2:] == [(["bob"], [])]
    assert told.parcels["watcher 7"][1:] == told.parcels["watcher 8"][1:], "made once for all"


@virtual_time
async def test_a_newcomer_knows_what_there_is_before_the_others_are_told_of_it() -> None:
    told = Told(MANY)
    told.come(2, "bob")
    told.come(3, "cem")
    told.join("late")
    told.join("with it")
    assert told.known("late") == {"ann", "bob", "cem"}
    assert told.parcels["late"][0] is told.parcels["with it"][0], "made once for both"
    told.go(4, "cem")
    told.come(5, "dan")
    told.join("later")
    await asyncio.sleep(2 * REST)
    for watcher in ("watcher 7", "late", "with it", "later"):
        assert told.known(watcher) == {"ann", "bob", "dan"}
    assert told.diffs("watcher 7")[1:] == [(["dan"], [])]
    assert told.diffs("late") == [(["dan"], ["cem"])]
    assert told.diffs("later") == []


@virtual_time
async def test_what_a_newcomer_alone_has_seen_is_taken_back_from_it_alone() -> None:
    told = Told(MANY)
    told.come(2, "bob")
    told.come(3, "cem")
    told.join("late")
    told.go(4, "cem")
    await asyncio.sleep(2 * REST)
    assert told.diffs("watcher 7") == [(["bob"], [])]
    assert told.diffs("late") == [([], ["cem"])]


@virtual_time
async def test_a_roster_brings_what_waits_to_be_told_and_what_was_never_heard() -> None:
    told = Told(MANY)
    told.come(2, "bob")
    told.come(3, "cem")
    told.audience.refresh(Roster(5, dict.fromkeys(("bob", "cem", "lost"), (b"1",))), [], first=True)
    told.join("late")
    told.go(6, "cem")
    await asyncio.sleep(2 * REST)
    for watcher in ("watcher 7", "late"):
        assert told.known(watcher) == {"bob", "lost"}
    assert told.diffs("watcher 7") == [(["bob"], []), (["lost"], ["ann"])]


@virtual_time
async def test_who_fell_behind_together_catches_up_with_one_parcel() -> None:
    """However many are slow, there is one copy of their state, and one diff for those that catch up together."""
    told = Told(MANY)
    told.behind = set(told.watchers[:500])
    told.come(2, "bob")
    await asyncio.sleep(2 * REST)
    told.behind |= set(told.watchers[:600])
    told.go(3, "ann")
    await asyncio.sleep(2 * REST)
    for watcher in told.watchers[:600]:
        told.catch_up(watcher)
    assert len({id(told.parcels[watcher][-1]) for watcher in told.watchers[:500]}) == 1
    assert len({id(told.parcels[watcher][-1]) for watcher in told.watchers[500:600]}) == 1
    told.come(4, "cem")
    for watcher in ("watcher 0", "watcher 550", "watcher 700"):
        assert told.known(watcher) == {"bob", "cem"}


@virtual_time
async def test_an_audience_that_is_closed_leaves_no_timer() -> None:
    told = Told(MANY)
    told.come(2, "bob")
    told.come(3, "cem")
    told.audience.close()
    await asyncio.sleep(2 * REST)
    assert len(told.diffs("watcher 7")) == 1


@pytest.mark.parametrize("together", [True, False], ids=["at once", "one after the other"])
@virtual_time
async def test_a_crowd_costs_each_member_less_than_an_event_for_each_other(together: bool) -> None:
    """In memory, where nothing brings changes together before they come."""
    hub = Hub(topics={"t": TopicOptions(presence=True)})
    crowd = [Connection() for _ in range(400)]
    joins = [hub.join("t", one, presence=f"user {number}") for number, one in enumerate(crowd)]
    if together:
        await asyncio.gather(*(join.__aenter__() for join in joins))
    else:
        for join in joins:
            await join.__aenter__()
            await asyncio.sleep(0.001)
    await asyncio.sleep(1)
    everybody = {f"user {number}": [f"user {number}"] for number in range(400)}
    assert all(compose(one) == everybody for one in crowd)
    assert max(len(one.received) for one in crowd) < 150
    await asyncio.gather(*(join.leave() for join in joins[1:]))
    await asyncio.sleep(1)
    assert compose(crowd[0]) == {"user 0": ["user 0"]}
    assert len(crowd[0].received) < 250
    await joins[0].leave()
    assert not hub._rooms.rooms


@virtual_time
async def test_in_memory_the_members_are_read_once_for_all_who_join(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every change after that is heard, and none is lost."""
    rosters: list[str] = []
    read = Store.roster

    def counting(self: Store, topic: str) -> Roster:
        rosters.append(topic)
        return read(self, topic)

    monkeypatch.setattr(Store, "roster", counting)
    hub = Hub(topics={"t": TopicOptions(presence=True, presence_grace=5)})
    for number in range(50):
        lost = Connection()
        async with hub.join("t", lost, presence=f"user {number}"):
            lost.sink.die()
    ann = Connection()
    async with hub.join("t", ann, presence="ann"):
        assert rosters == ["t"] * 51, "nobody is left who has heard of them"
        for _ in range(20):
            late = Connection()
            async with hub.join("t", late, presence="ben"):
                assert compose(late) == compose(ann)
                assert set(compose(late)) == {"ann", "ben", *(f"user {number}" for number in range(50))}
        assert len(rosters) == 51
        await asyncio.sleep(6)
        late = Connection()
        async with hub.join("t", late, presence="cem"):
            assert set(compose(late)) == {"ann", "cem"}
        assert len(rosters) == 51


@given(st.dictionaries(st.text(), st.tuples(st.lists(JSON, min_size=1, max_size=3), st.integers(0, 2))))
def test_what_members_gave_arrives_as_they_gave_it(given_by: dict[str, tuple[list[Any], int]]) -> None:
    members = {user: Listed(tuple(map(encode_json, infos)), more) for user, (infos, more) in given_by.items()}
    parcel = presence_diff("t", Diff(joins=members))
    event = json.loads(str(parcel.payload))
    assert event == {"type": "presence_diff", "topic": "t", **json.loads(parcel.raw)}
    assert event["joins"] == {user: infos for user, (infos, _) in given_by.items()}
    assert (event["leaves"], event["updates"]) == ({}, {})
    assert event.get("counts", {}) == {user: len(infos) + more for user, (infos, more) in given_by.items() if more}
