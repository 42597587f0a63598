"""The time that a test waits for an expected event: a bound on hanging, never part of a promise.

A machine that is busy with something else makes everything take many times as long. These waits find out whether
something comes *at all*. Where *when* is the promise, the clock is virtual or both moments are taken in the same run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

PATIENCE: Final = 100.0
"""Seconds."""

SCALES: Final = (0.4, 4.0, 40.0)
"""Seconds, for a promise that depends on being in time: where the machine was too slow for that, the next is tried."""


async def until(condition: Callable[[], object], timeout: float = PATIENCE) -> None:
    """Wait for a condition that somebody else makes true. Raises TimeoutError."""
    async with asyncio.timeout(timeout):
        while not condition():  # noqa: ASYNC110  whoever makes it true knows nothing of tests
            await asyncio.sleep(0.005)
