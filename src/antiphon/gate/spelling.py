"""The spelling of a rate: "20/second", "1.5 MiB/minute". From text to numbers, and the errors for a wrong spelling."""

from __future__ import annotations

import math
import re
from typing import Final, NamedTuple

SECONDS: Final = {"second": 1.0, "minute": 60.0, "hour": 3600.0, "day": 86_400.0}
SIZES: Final = {"B": 1, "kB": 1000, "KiB": 1 << 10, "MB": 1_000_000, "MiB": 1 << 20}

RIGHT: Final = 'as in "20/second", "100/minute", "5/hour", "1/day", or for bytes "64 KiB/second" (B, kB, KiB, MB, MiB)'

_RATE: Final = re.compile(r"(?P<amount>\d+(?:\.\d+)?) *(?P<size>[A-Za-z]*) */ *(?P<unit>[A-Za-z]+)", re.ASCII)
_SIZE: Final = re.compile(r"(?P<amount>\d+(?:\.\d+)?) *(?P<size>[A-Za-z]+)", re.ASCII)


class Spelled(NamedTuple):
    """The numbers in a rate's text."""

    amount: float
    """Messages, or bytes,"""
    seconds: float
    """in so many."""
    in_bytes: bool


def read_rate(text: object) -> Spelled:
    """Parse the text of a rate. Raises ValueError for a wrong spelling, with the right ones."""
    found = _RATE.fullmatch(text.strip()) if isinstance(text, str) else None
    if found is None:
        raise ValueError(f"a rate is written {RIGHT}; got {text!r}")
    size, unit = found["size"], found["unit"]
    if unit not in SECONDS:
        raise ValueError(f"a rate is per second, minute, hour or day, {RIGHT}; got {text!r}")
    if size and size not in SIZES:
        raise ValueError(f"a rate counts messages, without a unit, or B, kB, KiB, MB, MiB, {RIGHT}; got {text!r}")
    amount = float(found["amount"]) * SIZES.get(size, 1)
    if not 0 < amount < math.inf:
        raise ValueError(f"a rate is more than nothing; got {text!r}. To let a client send nothing, close() it")
    return Spelled(amount, SECONDS[unit], bool(size))


def read_burst(burst: object, spelled: Spelled) -> float:
    """The number that may come at once: as given, else the rate's amount in its unit of time. Raises ValueError."""
    if burst is None:
        return max(1.0, spelled.amount)
    if isinstance(burst, str) and spelled.in_bytes:
        found = _SIZE.fullmatch(burst.strip())
        if found is not None and found["size"] in SIZES:
            burst = float(found["amount"]) * SIZES[found["size"]]
    if isinstance(burst, bool) or not isinstance(burst, int | float) or not 1 <= burst < math.inf:
        kind = 'bytes, as in 65536 or "64 KiB"' if spelled.in_bytes else "messages, a number"
        raise ValueError(f"burst is how many may come at once, 1 or more {kind}; got {burst!r}")
    return float(burst)
