"""One timer for all deadlines, with a clock of the test's own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import pytest

from antiphon.deadlines import SLOTS, Deadlines


class Clock:
    """Time that passes when told to, and the one timer that waits for it."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def call_later(self, delay: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
        self.timers.append((self.now + delay, callback))
        return cast("asyncio.TimerHandle", None)

    def run_until(self, when: float) -> None:
        while self.timers and min(self.timers)[0] <= when:
            timer = min(self.timers, key=lambda entry: entry[0])
            self.timers.remove(timer)
            self.now = timer[0]
            timer[1]()
        self.now = when


class Entry:
    def __init__(self, clock: Clock, *more: float) -> None:
        self.slot = -1
        self.clock = clock
        self.more = list(more)
        self.calls: list[float] = []

    def on_deadline(self, now: float) -> float | None:
        self.calls.append(now)
        return self.more.pop(0) if self.more else None


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def deadlines(clock: Clock) -> Deadlines:
    return Deadlines(0.1, lambda: clock.now, clock.call_later)


def test_an_entry_is_called_once_not_before_its_time_and_at_most_two_ticks_after(
    clock: Clock, deadlines: Deadlines
) -> None:
    entries = [(when, Entry(clock)) for when in (1000.0, 1000.05, 1001.0, 1003.33, 1049.9)]
    for when, entry in entries:
        deadlines.enter(entry, when)
    assert len(deadlines) == 5
    clock.run_until(1060.0)
    for when, entry in entries:
        (called,) = entry.calls
        assert when <= called <= when + 0.2 + 1e-6
    assert len(deadlines) == 0
    assert clock.timers == []


def test_what_on_deadline_returns_is_the_next_time(clock: Clock, deadlines: Deadlines) -> None:
    entry = Entry(clock, 1002.0, 1003.0)
    deadlines.enter(entry, 1001.0)
    clock.run_until(1010.0)
    assert [round(call, 1) for call in entry.calls] == [1001.1, 1002.1, 1003.1]


def test_entering_again_moves_only_to_the_front(clock: Clock, deadlines: Deadlines) -> None:
    entry = Entry(clock)
    deadlines.enter(entry, 1005.0)
    deadlines.enter(entry, 1009.0)
    assert len(deadlines) == 1
    deadlines.enter(entry, 1001.0)
    assert len(deadlines) == 1
    clock.run_until(1020.0)
    (called,) = entry.calls
    assert called == pytest.approx(1001.1)


def test_who_left_is_not_called_and_the_timer_rests(clock: Clock, deadlines: Deadlines) -> None:
    entry = Entry(clock)
    deadlines.enter(entry, 1001.0)
    deadlines.leave(entry)
    deadlines.leave(entry)
    clock.run_until(1020.0)
    assert entry.calls == []
    assert clock.timers == []


def test_a_time_beyond_the_wheel_is_asked_again_until_it_comes(clock: Clock, deadlines: Deadlines) -> None:
    far = 1000.0 + 3 * SLOTS * 0.1

    class Patient(Entry):
        def on_deadline(self, now: float) -> float | None:
            self.calls.append(now)
            return far if now < far else None

    entry = Patient(clock)
    deadlines.enter(entry, far)
    clock.run_until(far + 1)
    assert far <= entry.calls[-1] <= far + 0.1 + 1e-6
    assert len(entry.calls) == 4


def test_an_entry_that_fails_does_not_keep_others_from_being_called(clock: Clock, deadlines: Deadlines) -> None:
    class Failing(Entry):
        def on_deadline(self, now: float) -> float | None:
            raise ValueError("a bug")

    entries = [Entry(clock, 1002.0), Failing(clock), Entry(clock, 1002.0)]
    for entry in entries:
        deadlines.enter(entry, 1001.0)
    with pytest.raises(ValueError, match="a bug"):
        clock.run_until(1005.0)
    clock.run_until(1005.0)
    assert [len(entry.calls) for entry in entries] == [2, 0, 2]


def test_a_loop_that_was_blocked_calls_everything_that_became_due_meanwhile(clock: Clock, deadlines: Deadlines) -> None:
    entries = [Entry(clock) for _ in range(10)]
    for number, entry in enumerate(entries):
        deadlines.enter(entry, 1001.0 + number)
    (_due, turn) = clock.timers.pop()
    clock.now = 1500.0
    turn()
    assert [entry.calls for entry in entries] == [[1500.0]] * 10


@pytest.mark.parametrize("when", [1001.0, 1004.95, 1005.0, 1009.0, 1090.0])
def test_an_heir_is_called_in_its_own_time_at_the_latest_and_who_went_before_not_at_all(
    clock: Clock, deadlines: Deadlines, when: float
) -> None:
    entry, heir = Entry(clock), Entry(clock, when, when)
    deadlines.enter(entry, 1005.0)
    deadlines.succeed(entry, heir, when)
    assert (len(deadlines), entry.slot) == (1, -1)
    clock.run_until(when + 0.2 + 1e-6)
    assert entry.calls == []
    assert any(called >= when for called in heir.calls)


def test_an_heir_is_called_where_nobody_went_before_and_where_it_has_a_place(
    clock: Clock, deadlines: Deadlines
) -> None:
    gone, heir, placed, entry = Entry(clock), Entry(clock), Entry(clock), Entry(clock)
    deadlines.succeed(gone, heir, 1003.0)
    deadlines.enter(placed, 1002.0)
    deadlines.enter(entry, 1001.0)
    deadlines.succeed(entry, placed, 1006.0)
    assert len(deadlines) == 2
    clock.run_until(1010.0)
    assert [round(call, 1) for call in (*heir.calls, *placed.calls)] == [1003.1, 1002.1]
    assert gone.calls == entry.calls == []
    assert len(deadlines) == 0
