"""Histories of many topics: forgotten entries, which never count as present."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from antiphon.hub.records import Keep, Position
from antiphon.hub.store import Store

KEEP = Keep(3, 10.0)

steps = st.lists(
    st.tuples(st.sampled_from(["publish", "sweep", "wait"]), st.sampled_from("ab"), st.integers(0, 12)), max_size=60
)


@given(steps, st.integers(0, 59))
def test_recovery_is_exact_or_nothing_whatever_is_forgotten(steps: list[tuple[str, str, int]], when: int) -> None:
    """A client of topic a, gone since step `when`: it gets all it missed, or an answer that it cannot."""
    store, now = Store(epoch="e", version=0), 0.0
    since: Position | None = None
    missed: list[bytes] = []
    for number, (what, topic, seconds) in enumerate(steps):
        if number == when:
            since, missed = store.head("a"), []
        if what == "publish":
            data = b"%d" % number
            entry = store.publish(topic, data, KEEP, now)
            assert entry.position == store.head(topic)
            if topic == "a":
                missed.append(data)
        elif what == "wait":
            now += seconds
        else:
            store.sweep(now)
    if since is None:
        return
    page = store.page("a", since, None, now)
    assert page.position == (store.head("a"))
    if page.recovered:
        assert [entry.data for entry in page.entries] == missed
    else:
        assert page.entries == ()


def test_a_client_that_missed_nothing_is_recovered_when_the_history_was_forgotten() -> None:
    store = Store(epoch="e", version=0)
    position = store.publish("a", b"1", KEEP, 0).position
    store.sweep(100)
    assert store.topics == 0
    assert store.page("a", position, None, 100).recovered
    store.publish("a", b"2", KEEP, 100)
    assert [entry.data for entry in store.page("a", position, None, 100).entries] == [b"2"]


def test_no_position_is_used_twice() -> None:
    store = Store(epoch="e", version=0)
    positions = []
    for now in range(0, 100, 20):
        positions += [store.publish("a", b"", KEEP, now).position for _ in range(2)]
        positions += [store.publish("b", b"", KEEP, now).position]
        store.sweep(now + 15)
        assert store.topics == 0
    a = [position for n, position in enumerate(positions) if n % 3 != 2]
    assert len(set(a)) == len(a)


def test_publishing_forgets_expired_topics_without_a_sweep() -> None:
    store = Store(epoch="e", version=0)
    for n in range(1000):
        store.publish(f"old-{n}", b"", KEEP, 0)
    for n in range(200):
        store.publish("new", b"", KEEP, 100 + n / 1000)
    assert store.topics == 1


def test_the_deadline_is_the_next_thing_to_do() -> None:
    store = Store(epoch="e", version=0)
    assert store.deadline is None
    store.publish("a", b"", KEEP, 0)
    assert store.deadline == 10
    store.renew("p", until=7)
    assert store.deadline == 7
    store.sweep(10)
    assert store.deadline is None


def test_a_busy_topic_is_not_forgotten() -> None:
    store = Store(epoch="e", version=0)
    for now in range(0, 50, 5):
        store.publish("a", b"%d" % now, KEEP, now)
        store.sweep(now)
    assert [entry.data for entry in store.page("a", None, None, 45).entries] == [b"40", b"45"]
