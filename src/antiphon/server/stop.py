"""When each connection hears that the server stops; pure, randomness is passed in."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class StopTimes:
    """Seconds after the start of a stop."""

    window: float
    """By then every connection has been told (Close 1012)."""
    cancel: float
    """Then endpoints that still run are cancelled, and remaining connections are aborted. Every connection has the time
    from `window` to here: where a busy machine tells the last one later, this is later too."""


def stop_times(window: float, grace: float, close_timeout: float, bound: float | None) -> StopTimes:
    """Fit the window and the grace period into `bound` (uvicorn's timeout), keeping their proportions.

    A tenth of the bound is left for the cleanup after a cancellation. Endpoints are never cancelled before the last
    Close could have been answered, unless the bound says so.
    """
    cancel = window + max(grace, close_timeout)
    if bound is None or cancel <= bound * 0.9:
        return StopTimes(window=window, cancel=cancel)
    scale = bound * 0.9 / cancel if cancel else 0.0
    return StopTimes(window=window * scale, cancel=bound * 0.9)


def staggered(entries: Sequence[T], window: float, rng: random.Random) -> list[tuple[float, T]]:
    """Each entry with its moment in the window, the earliest first: evenly spread, in a random order."""
    order = list(entries)
    rng.shuffle(order)
    step = window / len(order) if order else 0.0
    return [((number + rng.random()) * step, entry) for number, entry in enumerate(order)]
