"""The arithmetic of token buckets, and that a table of them neither grows nor forgets who is over its rate."""

from __future__ import annotations

import itertools
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.gate.buckets import EMPTY, Bucket, Buckets, Measure


class OneOfMany:
    """A bucket of a table, with the methods of one."""

    def __init__(self, measure: Measure) -> None:
        self.buckets = Buckets(measure, 10)

    def lack(self, now: float, cost: float) -> float:
        return self.buckets.lack("ann", now, cost)

    def spend(self, now: float, cost: float) -> None:
        self.buckets.spend("ann", now, cost)

    def take(self, now: float, cost: float) -> float:
        return self.buckets.take("ann", now, cost)


KINDS = [Bucket, OneOfMany]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("per_second", [0.1, 1, 3, 20, 7.7, 1000])
def test_exactly_the_burst_and_the_rate_pass(kind: type[Bucket], per_second: float) -> None:
    bucket = kind(Measure(per_second, 1.0, 40, 10))
    step, passed = 1 / per_second / 4, 0
    for tick in itertools.count():
        if tick * step > 60 + step / 2:
            break
        while bucket.take(tick * step, 1) <= 0:
            passed += 1
    assert passed == 40 + int(per_second * 60 + 1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_refused_costs_nothing(kind: type[Bucket]) -> None:
    bucket = kind(Measure(1, 1.0, 1, 10))
    assert bucket.take(100.0, 1) <= 0
    for _ in range(1000):
        assert bucket.take(100.5, 1) == pytest.approx(0.5, abs=1e-6)
    assert bucket.take(101.0, 1) <= 0


@pytest.mark.parametrize("kind", KINDS)
def test_who_spends_what_is_still_to_come_is_waited_for_by_the_next(kind: type[Bucket]) -> None:
    bucket = kind(Measure(2, 1.0, 1, 10))
    bucket.spend(0.0, 1)
    bucket.spend(0.0, 1)
    assert bucket.lack(0.0, 1) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_more_than_a_bucket_holds_never_passes(kind: type[Bucket]) -> None:
    bucket = kind(Measure(10, 1.0, 10, 10))
    assert bucket.lack(1e6, 11) == pytest.approx(0.1, abs=1e-6)
    assert bucket.take(1e6, 11) > 0
    assert bucket.take(1e6, 10) <= 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_clock_that_starts_anew_finds_a_full_bucket(kind: type[Bucket]) -> None:
    bucket = kind(Measure(1, 1.0, 1, 10))
    assert bucket.take(1e6, 1) <= 0
    assert bucket.take(0.5, 1) <= 0
    assert bucket.take(0.5, 1) > 0


@given(st.lists(st.tuples(st.floats(0, 2), st.integers(1, 5)), max_size=60))
def test_in_no_stretch_of_time_more_passes_than_the_burst_and_the_rate(steps: list[tuple[float, int]]) -> None:
    bucket, now, passed = Bucket(Measure(3, 1.0, 7, 10)), 0.0, []
    for pause, cost in steps:
        now += pause
        if bucket.take(now, cost) <= 0:
            passed.append((now, cost))
    for first, last in itertools.combinations_with_replacement(range(len(passed)), 2):
        seconds = passed[last][0] - passed[first][0]
        assert sum(cost for _, cost in passed[first : last + 1]) <= 7 + 3 * seconds + 1e-5


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 4), st.integers(1, 3)), max_size=80))
def test_a_table_decides_as_buckets_of_their_own_do(steps: list[tuple[str, float, int]]) -> None:
    measure = Measure(2, 1.0, 4, 1)
    own, table, now = {key: Bucket(measure) for key in "abc"}, Buckets(measure, 100), 0.0
    for key, pause, cost in steps:
        now += pause
        assert (own[key].take(now, cost) <= 0) == (table.take(key, now, cost) <= 0)


def test_a_million_addresses_leave_no_more_than_is_remembered() -> None:
    table = Buckets(Measure(10, 1.0, 10, 10), 1000)
    most, largest = 0, 0
    for number in range(1_000_000):
        table.take(number, number * 1e-6, 1)
        if number % 1000 == 0:
            most = max(most, len(table))
            largest = max(largest, sys.getsizeof(table._young) + sys.getsizeof(table._old))
    assert most <= 1000
    assert largest < 100_000


def test_who_is_over_the_rate_is_not_forgotten_among_newcomers_of_its_time() -> None:
    table = Buckets(Measure(1, 1.0, 5, 10), 1000)
    for _ in range(5):
        assert table.take("abuser", 0.0, 1) <= 0
    for number in range(499):
        table.take(number, 0.001, 1)
    assert table.take("abuser", 0.002, 1) > 0


def test_full_buckets_are_forgotten_as_time_passes() -> None:
    table = Buckets(Measure(10, 1.0, 10, 1), 1_000_000)
    for second in range(100):
        for number in range(100):
            table.take((second, number), float(second), 1)
    assert len(table) <= 100 * 2 * 3


def test_a_bucket_is_kept_as_long_as_it_may_not_be_full() -> None:
    """Ten tokens borrowed: full again only after twenty seconds, however the generations change meanwhile."""
    table = Buckets(Measure(1, 1.0, 10, 10), 1_000_000)
    for start in (0.0, 107.3, 219.9):
        now = 1000.0 + start
        table.spend("ann", now, 20)
        for number in range(19):
            table.take(("other", start, number), now + number, 1)
            assert table.take("ann", now + number, 10) > 0
        assert table.take("ann", now + 20, 10) <= 0


def test_the_empty_one_gives_nothing_and_stays_as_it_is() -> None:
    assert EMPTY.take(5.0, 1) > 0
    assert EMPTY.due == 0.0
