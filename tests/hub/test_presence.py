"""Members, lingering, and the replicas readers make of changes."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.hub.presence import Diff, Listed, Members, Replica
from antiphon.hub.records import LISTED, Roster, Track
from antiphon.hub.store import Store

users = st.sampled_from(["ann", "bob", "cem"])
metas = st.sampled_from([b"1", b"2"])


def listed(roster: Roster) -> dict[str, Listed]:
    return {user: Listed(metas, roster.more.get(user, 0)) for user, metas in roster.members.items()}


rosters = st.dictionaries(users, st.lists(metas, min_size=1, max_size=3).map(tuple))


def apply(state: Mapping[str, tuple[bytes, ...]], diff: Diff[tuple[bytes, ...]]) -> dict[str, tuple[bytes, ...]]:
    """As a page does."""
    assert not diff.joins.keys() & state.keys()
    assert diff.leaves.keys() <= state.keys()
    assert diff.updates.keys() <= state.keys()
    return {user: value for user, value in {**state, **diff.joins, **diff.updates}.items() if user not in diff.leaves}


@given(st.lists(rosters, max_size=6))
def test_diffs_compose_to_the_state(states: list[dict[str, tuple[bytes, ...]]]) -> None:
    replica: Replica[tuple[bytes, ...]] = Replica(0, {})
    page: dict[str, tuple[bytes, ...]] = {}
    for version, state in enumerate(states, 1):
        page = apply(page, replica.replace(version, state))
        assert page == state == replica.members


operations = st.lists(
    st.tuples(st.sampled_from(["track", "untrack", "linger", "wait"]), st.integers(0, 7), users, metas), max_size=40
)


@given(operations, st.booleans())
def test_changes_told_by_the_store_are_exactly_its_state(steps: list[tuple[str, int, str, bytes]], late: bool) -> None:
    """A reader that starts in the middle, from a roster, ends with the same replica."""
    store, now = Store(epoch="e", version=0), 0.0
    changes = []
    start = store.roster("t")
    for number, (what, which, user, meta) in enumerate(steps):
        ref = f"{user}{which}"
        if what == "track":
            changes.append(store.track("t", Track(ref, user, meta), f"p{which % 2}"))
        elif what == "wait":
            now += which
            changes += [change for _, change in store.sweep(now)]
        else:
            changes.append(store.untrack("t", ref, 2.0 if what == "linger" else 0.0, now))
        if late and number == len(steps) // 2:
            start = store.roster("t")
    replica = Replica(start.version, listed(start))
    for change in changes:
        if change is not None:
            replica.change(change.version, change.user, Listed(change.metas, change.more))
    assert replica.members == listed(store.roster("t"))
    for process in ("p0", "p1"):
        for _, change in store.drop_process(process):
            replica.change(change.version, change.user, Listed(change.metas, change.more))
    assert replica.members == {}
    assert store.topics == 0


def test_a_connection_takes_the_place_of_a_lingering_one() -> None:
    members = Members()
    members.track(Track("1", "ann", b"tab"))
    members.track(Track("2", "ann", b"phone"))
    members.linger("1", until=5)
    members.linger("2", until=5)
    assert members.track(Track("3", "ann", b"phone")) == (False, "2")
    assert members.listed("ann").metas == (b"tab", b"phone")
    assert members.track(Track("4", "ann", b"other")) == (True, "1")
    assert members.listed("ann").metas == (b"other", b"phone")
    assert members.track(Track("5", "ann", b"third")) == (True, None)


def test_a_lingering_connection_goes_when_its_time_is_over_and_not_before() -> None:
    members = Members()
    members.track(Track("1", "ann", b""))
    assert members.expire("1", now=100) is None
    members.linger("1", until=5)
    assert members.expire("1", now=4.9) is None
    assert members.expire("1", now=5) == "ann"
    assert len(members) == 0


def test_a_connection_tracked_again_does_not_linger_any_more() -> None:
    members = Members()
    members.track(Track("1", "ann", b""))
    members.linger("1", until=5)
    members.track(Track("1", "ann", b""))
    assert members.expire("1", now=10) is None


def test_a_ref_belongs_to_one_user() -> None:
    members = Members()
    members.track(Track("1", "ann", b""))
    with pytest.raises(ValueError, match="belongs to 'ann'"):
        members.track(Track("1", "bob", b""))


def test_the_members_of_a_process_leave_when_its_lease_runs_out() -> None:
    store = Store(epoch="e", version=0)
    assert not store.renew("p", until=10)
    store.renew("q", until=20)
    store.track("t", Track("1", "ann", b""), "p")
    store.track("t", Track("2", "bob", b""), "q")
    assert store.sweep(9.9) == []
    assert store.renew("p", until=15)
    assert store.sweep(10) == []
    assert [(topic, change.user, change.metas) for topic, change in store.sweep(15)] == [("t", "ann", ())]
    assert store.roster("t").members == {"bob": (b"",)}
    assert not store.renew("p", until=30)


def test_versions_grow_across_the_topic_being_forgotten() -> None:
    store = Store(epoch="e", version=7)
    versions = []
    for ref in ("1", "2"):
        joined = store.track("t", Track(ref, "ann", b""), "p")
        left = store.untrack("t", ref, 0, 0)
        assert joined is not None
        assert left is not None
        versions += [joined.version, left.version]
        assert store.topics == 0
    assert versions == sorted(set(versions))
    assert versions[0] > 7


def test_of_a_member_with_many_connections_the_newest_are_listed_and_the_others_counted() -> None:
    members = Members()
    for number in range(LISTED + 3):
        members.track(Track(str(number), "ann", b"%d" % number))
    assert members.listed("ann") == (tuple(b"%d" % number for number in range(3, LISTED + 3)), 3)
    members.untrack("0")
    assert members.listed("ann").more == 2
    for number in range(1, LISTED + 3):
        members.untrack(str(number))
    assert not members.listed("ann")
