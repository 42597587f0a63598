"""The four overflow policies, against a model that keeps everything."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.hub.backlog import Backlog
from antiphon.hub.envelope import PayloadForm
from antiphon.hub.message import MessageKind, Parcel, resync
from antiphon.testing.hub_sinks import RecordingSink
from antiphon.types import Overflow

LIMIT = 100


def parcel(number: int, size: int = 10, key: str | None = None) -> Parcel:
    made = Parcel("t", MessageKind.MESSAGE, f"{number:<{size}}", b"", PayloadForm.TEXT)
    made.key = key
    return made


def numbers(sink: RecordingSink) -> list[int]:
    return [int(one) for one in sink.received]


# Puts of a size with a key, and reads of so many messages.
steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(3, 150), st.sampled_from("abc")),
        st.tuples(st.just("read"), st.integers(1, 12), st.just("")),
    ),
    max_size=80,
)


@given(steps, st.sampled_from(list(Overflow)))
def test_what_arrives_is_in_order_bounded_and_everything_else_is_counted(
    todo: list[tuple[str, int, str]], policy: Overflow
) -> None:
    async def run() -> None:
        sink = RecordingSink()
        sink.stall()
        backlog = Backlog(sink, policy, LIMIT, lambda: None)
        sizes: list[int] = []
        for what, amount, key in todo:
            if what == "read":
                sink.read(amount)
            else:
                sizes.append(amount)
                backlog.put(parcel(len(sizes) - 1, amount, key))
            largest = max([*sizes, 0])
            assert sink.buffered + backlog.pending_bytes <= max(LIMIT, LIMIT // 2 + largest, 2 * largest)
            assert backlog.waiting == bool(backlog.pending_bytes)
        sink.read_on()
        assert not backlog.waiting
        got = numbers(sink)
        assert got == sorted(set(got))
        if not backlog.disconnected:
            assert len(got) + backlog.dropped == len(sizes)
        if policy is Overflow.DISCONNECT:
            assert backlog.dropped == 0
            assert backlog.disconnected == (sink.closed is not None)
        if policy in (Overflow.DROP_OLDEST, Overflow.CONFLATE) and sizes:
            assert got[-1] == len(sizes) - 1

    asyncio.run(run())


@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=60))
def test_conflating_never_loses_the_newest_of_a_key(keys: list[str]) -> None:
    async def run() -> None:
        sink = RecordingSink()
        sink.stall()
        backlog = Backlog(sink, Overflow.CONFLATE, LIMIT, lambda: None)
        for number, key in enumerate(keys):
            backlog.put(parcel(number, 10, key))
        sink.read_on()
        for key in set(keys):
            assert max(n for n, one in enumerate(keys) if one == key) in numbers(sink)

    asyncio.run(run())


async def test_disconnecting_tells_the_peer_to_try_again_later() -> None:
    sink = RecordingSink()
    sink.stall()
    backlog = Backlog(sink, Overflow.DISCONNECT, LIMIT, lambda: None)
    for number in range(11):
        backlog.put(parcel(number))
    assert sink.closed is not None
    assert sink.closed[0] == 1013
    assert backlog.disconnected


@pytest.mark.parametrize("policy", list(Overflow))
async def test_what_is_owed_comes_first_and_is_never_dropped(policy: Overflow) -> None:
    sink = RecordingSink()
    sink.stall()
    idle = []
    backlog = Backlog(sink, policy, LIMIT, lambda: idle.append(True))
    backlog.hold()
    for number in range(100, 105):
        backlog.put(parcel(number))
    backlog.release([parcel(number) for number in range(100)], wanted=lambda one: one.payload != f"{100:<10}")
    assert not idle
    for _ in range(200):
        sink.read(1)
    assert numbers(sink) == [*range(100), 101, 102, 103, 104]
    assert idle
    assert backlog.dropped == 0


async def test_too_much_while_catching_up_is_a_slow_receiver_too() -> None:
    sink = RecordingSink()
    backlog = Backlog(sink, Overflow.DISCONNECT, LIMIT, lambda: None)
    backlog.hold()
    for number in range(11):
        backlog.put(parcel(number))
    assert sink.closed is not None
    assert sink.closed[0] == 1013


@pytest.mark.parametrize("policy", [Overflow.DROP_NEWEST, Overflow.DROP_OLDEST, Overflow.CONFLATE])
async def test_a_resync_is_never_lost(policy: Overflow) -> None:
    sink = RecordingSink()
    sink.stall()
    backlog = Backlog(sink, policy, LIMIT, lambda: None)
    for number in range(30):
        backlog.put(parcel(number, key=str(number)))
    backlog.put(resync("t"))
    for number in range(30, 60):
        backlog.put(parcel(number, key=str(number)))
    sink.read_on()
    assert [event["type"] for event in sink.events] == ["resync"]


async def test_a_dead_sink_empties_the_outbox() -> None:
    sink = RecordingSink()
    sink.stall()
    backlog = Backlog(sink, Overflow.DROP_OLDEST, LIMIT, lambda: None)
    for number in range(20):
        backlog.put(parcel(number))
    assert backlog.pending_bytes
    sink.die()
    assert not backlog.waiting
    assert backlog.pending_bytes == 0


async def test_a_gap_told_while_a_receiver_catches_up_comes_behind_what_it_is_owed() -> None:
    sink = RecordingSink()
    backlog = Backlog(sink, Overflow.DISCONNECT, LIMIT, lambda: None)
    backlog.hold()
    backlog.put(parcel(1))
    backlog.put(resync("t"))
    backlog.put(parcel(3))
    backlog.release([parcel(0)], lambda _: True)
    assert [one[:10].strip() for one in map(str, sink.received)] == ["0", '{"type":"r', "3"]
