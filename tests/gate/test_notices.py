"""One line for each key and minute, and a bound on how many keys have one."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from antiphon.gate.notices import Notices


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def saying(text: str) -> Callable[[], str]:
    return lambda: text


def test_a_key_is_told_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    notices = Notices(logging.getLogger("antiphon"), clock=clock)
    for now in (0.0, 1.0, 59.9, 60.0, 60.1, 119.9, 120.0):
        clock.now = now
        notices.warn("a", saying(f"a at {now}"))
        notices.warn("b", saying(f"b at {now}"))
    assert [one.getMessage() for one in caplog.records] == [
        *("a at 0.0", "b at 0.0", "a at 60.0", "b at 60.0", "a at 120.0", "b at 120.0")
    ]


def test_more_keys_than_fit_get_one_line_together_and_no_memory(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    notices = Notices(logging.getLogger("antiphon"), most=3, clock=clock)
    for number in range(1000):
        notices.warn(str(number), saying(str(number)))
    assert [one.getMessage() for one in caplog.records] == [
        *("0", "1", "2", "more of these, of others, than are logged in a minute")
    ]
    caplog.clear()
    clock.now = 60.0
    for number in range(500, 1500):
        notices.warn(str(number), saying(str(number)))
    assert [one.getMessage() for one in caplog.records][:3] == ["500", "501", "502"]
    assert len(caplog.records) == 4
    assert len(notices._told) == 3
