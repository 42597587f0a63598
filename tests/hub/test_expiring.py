"""Values kept until they expire: never longer, never more than the bound, and nothing left behind."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.hub.expiring import STALE, Expiring

steps = st.lists(
    st.tuples(st.sampled_from(["put", "take", "wait", "sweep"]), st.sampled_from("abc"), st.integers(1, 9)), max_size=80
)


@given(steps)
def test_it_is_a_table_of_what_is_not_over(steps: list[tuple[str, str, int]]) -> None:
    kept, expected, now = Expiring[int]("things"), dict[str, tuple[int, float]](), 0.0
    for number, (what, key, seconds) in enumerate(steps):
        if what == "put":
            kept.put(key, number, now + seconds)
            expected[key] = number, now + seconds
        elif what == "take":
            value, until = expected.pop(key, (None, 0.0))
            assert kept.take(key, now) == (value if until > now else None)
        elif what == "wait":
            now += seconds
        else:
            kept.sweep(now)
            expected = {key: one for key, one in expected.items() if one[1] > now}
            assert len(kept) == len(expected)
        there = {key: value for key, (value, until) in expected.items() if until > now}
        assert {key: value for key, value, _ in kept.items(now)} == there
        assert all(kept.get(key, now) == value for key, value in there.items())


def test_too_many_lose_those_that_end_first_and_the_log_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    kept = Expiring[int]("things", most=10)
    for number in range(100):
        kept.put(str(number), number, 1000.0 - number)
    assert [key for key, _, _ in kept.items(0.0)] == [str(number) for number in range(10)]
    assert [record.getMessage() for record in caplog.records] == [
        "more than 10 things: those that end first are forgotten"
    ]


def test_what_was_taken_or_put_again_leaves_nothing_behind() -> None:
    kept = Expiring[int]("things")
    for number in range(10_000):
        kept.put(str(number), number, 1e9)
        kept.put("same", number, 1e9 + number)
        assert kept.take(str(number), 0.0) == number
    assert len(kept) == 1
    assert len(kept._deadlines) <= 2 + STALE


def test_nobody_gets_what_is_over_though_nothing_has_swept_it() -> None:
    kept = Expiring[int]("things")
    for key in ("taken", "asked for"):
        kept.put(key, 1, 5.0)
    assert kept.get("asked for", 5.0) is None
    assert kept.take("taken", 5.0) is None
    assert not list(kept.items(5.0))
