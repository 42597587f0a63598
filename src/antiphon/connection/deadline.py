"""A bound on the time an awaitable may take, free of charge for one that does not suspend.

On ASGI servers almost every `send` ends without suspending, and a timer for each would cost more than the rest of ours.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Awaitable, Generator
from typing import Any


async def within(work: Awaitable[None], seconds: float) -> None:
    """Await `work`; cancel it and raise TimeoutError when it takes longer. It runs in the caller's task."""
    steps = work.__await__()
    try:
        waiting = next(steps)
    except StopIteration:
        return
    async with asyncio.timeout(seconds):
        await rest_of(steps, waiting)


@types.coroutine
def rest_of(steps: Generator[Any, Any, None], waiting: Any) -> Generator[Any, Any, None]:
    """The same as `yield from steps`, for steps that have begun."""
    while True:
        try:
            try:
                value = yield waiting
            except GeneratorExit:
                steps.close()
                raise
            except BaseException as exc:
                waiting = steps.throw(exc)
            else:
                waiting = steps.send(value)
        except StopIteration:
            return
