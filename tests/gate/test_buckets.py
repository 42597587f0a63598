"""The arithmetic of token buckets, and that a table of them neither grows nor forgets who is over its rate."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Hashable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.gate import spending as pure
from antiphon.gate.allowances import Allowance, CommonAllowance, Per
from antiphon.gate.buckets import Buckets, Measure
from antiphon.identity import IDENTITY_KEY, Identity

try:
    from antiphon.gate import _spending
except ImportError:
    _spending = None  # type: ignore[assignment]


def of_a_table(buckets: Buckets, key: Hashable = "ann") -> Allowance:
    """A user's share of a table: nothing is known of it but the user."""
    return CommonAllowance(buckets, Per.USER, {IDENTITY_KEY: Identity(user=str(key))}, None)


def one_of_many(measure: Measure) -> Allowance:
    return of_a_table(Buckets(measure, 10))


KINDS = [Allowance, one_of_many]
Kind = Callable[[Measure], Allowance]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("per_second", [0.1, 1, 3, 20, 7.7, 1000])
def test_exactly_the_burst_and_the_rate_pass(kind: Kind, per_second: float) -> None:
    bucket = kind(Measure(per_second, 1.0, 40, 10))
    step, passed = 1 / per_second / 4, 0
    for tick in itertools.count():
        if tick * step > 60 + step / 2:
            break
        while bucket.take(tick * step, 1) <= 0:
            passed += 1
    assert passed == 40 + int(per_second * 60 + 1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_refused_costs_nothing(kind: Kind) -> None:
    bucket = kind(Measure(1, 1.0, 1, 10))
    assert bucket.take(100.0, 1) <= 0
    for _ in range(1000):
        assert bucket.take(100.5, 1) == pytest.approx(0.5, abs=1e-6)
    assert bucket.take(101.0, 1) <= 0


@pytest.mark.parametrize("kind", KINDS)
def test_who_spends_what_is_still_to_come_is_waited_for_by_the_next(kind: Kind) -> None:
    bucket = kind(Measure(2, 1.0, 1, 10))
    bucket.spend(0.0, 1)
    bucket.spend(0.0, 1)
    assert bucket.lack(0.0, 1) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_more_than_a_bucket_holds_never_passes(kind: Kind) -> None:
    bucket = kind(Measure(10, 1.0, 10, 10))
    assert bucket.lack(1e6, 11) == pytest.approx(0.1, abs=1e-6)
    assert bucket.take(1e6, 11) > 0
    assert bucket.take(1e6, 10) <= 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_clock_that_starts_anew_finds_a_full_bucket(kind: Kind) -> None:
    bucket = kind(Measure(1, 1.0, 1, 10))
    assert bucket.take(1e6, 1) <= 0
    assert bucket.take(0.5, 1) <= 0
    assert bucket.take(0.5, 1) > 0


@given(st.lists(st.tuples(st.floats(0, 2), st.integers(1, 5)), max_size=60))
def test_in_no_stretch_of_time_more_passes_than_the_burst_and_the_rate(steps: list[tuple[float, int]]) -> None:
    bucket, now, passed = Allowance(Measure(3, 1.0, 7, 10)), 0.0, []
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
    table, now = Buckets(measure, 100), 0.0
    own = {key: Allowance(measure) for key in "abc"}
    kept = {key: of_a_table(table, key) for key in "abc"}  # some ask anew each time, some keep their bucket
    for number, (key, pause, cost) in enumerate(steps):
        now += pause
        share = kept[key] if number % 2 else of_a_table(table, key)
        assert (own[key].take(now, cost) <= 0) == (share.take(now, cost) <= 0)


def test_a_hundred_times_as_many_addresses_leave_no_more_than_is_remembered() -> None:
    table = Buckets(Measure(10, 1.0, 10, 10), 1000)
    most, largest = 0, 0
    for number in range(100_000):
        of_a_table(table, number).take(number * 1e-5, 1)
        if number % 1000 == 0:
            most = max(most, len(table))
            largest = max(largest, sys.getsizeof(table._young) + sys.getsizeof(table._old))
    assert most <= 1000
    assert largest < 100_000


def test_who_is_over_the_rate_is_not_forgotten_among_newcomers_of_its_time() -> None:
    table = Buckets(Measure(1, 1.0, 5, 10), 1000)
    for _ in range(5):
        assert of_a_table(table, "abuser").take(0.0, 1) <= 0
    for number in range(499):
        of_a_table(table, number).take(0.001, 1)
    assert of_a_table(table, "abuser").take(0.002, 1) > 0


def test_full_buckets_are_forgotten_as_time_passes() -> None:
    table = Buckets(Measure(10, 1.0, 10, 1), 1_000_000)
    for second in range(100):
        for number in range(100):
            of_a_table(table, (second, number)).take(float(second), 1)
    assert len(table) <= 100 * 2 * 3


def test_a_bucket_is_kept_as_long_as_it_may_not_be_full() -> None:
    """Ten tokens borrowed: full again only after twenty seconds, however the generations change meanwhile."""
    table = Buckets(Measure(1, 1.0, 10, 10), 1_000_000)
    for start in (0.0, 107.3, 219.9):
        now = 1000.0 + start
        of_a_table(table, "ann").spend(now, 20)
        for number in range(19):
            of_a_table(table, ("other", start, number)).take(now + number, 1)
            assert of_a_table(table, "ann").take(now + number, 10) > 0
        assert of_a_table(table, "ann").take(now + 20, 10) <= 0


def test_who_keeps_a_bucket_finds_the_one_that_others_find_after_any_turn() -> None:
    """A connection looks up its bucket once: when the table turns it must not go on with one that is forgotten."""
    table = Buckets(Measure(1, 1.0, 3, 10), 8)
    kept = of_a_table(table)
    assert kept.take(0.0, 1) <= 0
    for number in range(20):
        of_a_table(table, f"other {number}").take(0.001, 1)
    assert kept.take(0.002, 1) <= 0
    assert of_a_table(table).take(0.003, 1) <= 0
    assert kept.lack(0.004, 3) == of_a_table(table).lack(0.004, 3) > 0


TWINS = [pytest.param(pure, id="pure"), *([pytest.param(_spending, id="native")] if _spending is not None else [])]
MESSAGES = st.one_of(st.text(max_size=40), st.binary(max_size=40))


def spent(twin: Any, rates: list[tuple[float, float, bool]], messages: list[tuple[float, str | bytes]]) -> list[Any]:
    """The messages that pass, and the times at which the buckets are full afterwards."""
    table = twin.Table()
    shares = [twin.Purse(step, depth, table) for step, depth, _ in rates]
    passes = twin.Spending(zip(shares, (in_bytes for _, _, in_bytes in rates), strict=True)).passes
    now, found = 100.0, []
    for pause, data in messages:
        now += pause
        found.append((passes(now, data), *(share.bucket.due for share in shares)))
    return found


@pytest.mark.skipif(_spending is None, reason="the native twin was not built")
@given(
    st.lists(st.tuples(st.floats(0.01, 3), st.floats(0, 9), st.booleans()), max_size=3),
    st.lists(st.tuples(st.floats(0, 2), MESSAGES), max_size=30),
)
def test_both_twins_let_the_same_pass(
    rates: list[tuple[float, float, bool]], messages: list[tuple[float, str | bytes]]
) -> None:
    assert spent(_spending, rates, messages) == spent(pure, rates, messages)


@pytest.mark.parametrize("twin", TWINS)
def test_who_is_over_one_rate_spends_from_none(twin: Any) -> None:
    found = spent(twin, [(1.0, 2.0, False), (1.0, 5.0, True)], [(0, "four"), (0, b"two"), (0, "\u20ac"), (1, "a")])
    assert [passed for passed, *_ in found] == [True, False, False, True]
    assert found[0][1:] == found[1][1:] == found[2][1:] == (101.0, 104.0)
    assert found[3][1:] == (102.0, 105.0)


@pytest.mark.parametrize("twin", TWINS)
def test_a_share_of_an_earlier_turn_lets_nothing_pass(twin: Any) -> None:
    table = twin.Table()
    share = twin.Purse(1.0, 5.0, table)
    passes = twin.Spending([(share, False)]).passes
    assert passes(1.0, "a")
    table.turn += 1
    assert not passes(2.0, "a")
    share.turn = table.turn
    assert passes(3.0, "a")
