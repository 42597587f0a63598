"""The spelling of a rate, and the errors for a wrong one."""

from __future__ import annotations

import re
from typing import Any

import pytest

from antiphon.gate import CLOSE, CONNECTION, TOPIC, USER, Rate
from antiphon.gate.spelling import RIGHT, Spelled, read_burst, read_rate


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("20/second", Spelled(20, 1, False)),
        ("100/minute", Spelled(100, 60, False)),
        ("5/hour", Spelled(5, 3600, False)),
        ("1/day", Spelled(1, 86400, False)),
        ("0.5/second", Spelled(0.5, 1, False)),
        (" 20 / second ", Spelled(20, 1, False)),
        ("1 MiB/second", Spelled(1 << 20, 1, True)),
        ("64KiB/second", Spelled(64 << 10, 1, True)),
        ("1.5 MB/minute", Spelled(1_500_000, 60, True)),
        ("800 kB/second", Spelled(800_000, 1, True)),
        ("100 B/day", Spelled(100, 86400, True)),
    ],
)
def test_a_rate_is_an_amount_in_a_unit_of_time(text: str, expected: Spelled) -> None:
    assert read_rate(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "20/seconds", "20/s", "20 per second", "20/Second", "twenty/second", "20", "", "/second", "-1/second",
        "1 mib/second", "1 MIB/second", "1 Mb/second", "1 KB/second", "1 GiB/second", "٣/second", "20//second",
        "1,5/second", "0/second", "0.0/minute", "9" * 400 + "/second", "20/second/x", "1e3/second",
        20, None, b"20/second", 20.0, ("20", "second"),
    ],
)  # fmt: skip
def test_a_wrong_spelling_is_told_with_the_right_ones(text: Any) -> None:
    with pytest.raises(ValueError, match=re.escape(repr(text)[:60])) as told:
        Rate(text)
    assert RIGHT in str(told.value) or "more than nothing" in str(told.value)


@pytest.mark.parametrize(
    ("burst", "expected"), [(None, 1 << 20), (4 << 20, 4 << 20), ("4 MiB", 4 << 20), (1.5e6, 1.5e6)]
)
def test_a_burst_of_bytes_is_a_number_or_a_size(burst: Any, expected: float) -> None:
    assert read_burst(burst, read_rate("1 MiB/second")) == expected


def test_without_a_burst_the_unit_of_time_has_one_and_never_less_than_one_message() -> None:
    assert read_burst(None, read_rate("100/minute")) == 100
    assert read_burst(None, read_rate("0.5/second")) == 1


@pytest.mark.parametrize("burst", [0, 0.5, -1, "40", "4 MiB", float("inf"), float("nan"), True, [], object])
def test_a_burst_that_is_none_is_told(burst: Any) -> None:
    with pytest.raises(ValueError, match="burst is how many may come at once, 1 or more messages"):
        Rate("20/second", burst=burst)
    if burst != "4 MiB":
        with pytest.raises(ValueError, match='bytes, as in 65536 or "64 KiB"'):
            Rate("1 MiB/second", burst=burst)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"per": "user"}, "per is one of CONNECTION, USER, ADDRESS, and TOPIC"),
        ({"per": USER | CONNECTION}, "per is one of CONNECTION, USER, ADDRESS"),
        ({"per": USER & TOPIC}, "per is one of"),
        ({"over": "wait"}, "over is WAIT, REPLY or CLOSE"),
        ({"over": None}, "over is WAIT, REPLY or CLOSE"),
        ({"longest_wait": 0}, "longest_wait is a number of seconds"),
        ({"longest_wait": float("inf")}, "longest_wait is a number of seconds"),
        ({"longest_wait": "10"}, "longest_wait is a number of seconds"),
        ({"remembered": 1}, "remembered is a number of users"),
        ({"remembered": 1e6}, "remembered is a number of users"),
    ],
)
def test_an_option_that_is_none_is_told(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Rate("20/second", **options)


def test_a_rate_is_shown_as_it_was_written() -> None:
    rate = Rate("20/second", burst=40, per=USER | TOPIC, over=CLOSE)
    assert repr(rate) == "Rate('20/second', burst=40, per=USER | TOPIC, over=CLOSE)"
    assert str(rate) == "20/second with a burst of 40 per user and topic"
    assert (repr(Rate("1/day")), str(Rate("1/day"))) == ("Rate('1/day')", "1/day per connection")
