"""A short run of `tests/leaks.py`: memory stays where it is while connections come and go."""

from __future__ import annotations

import contextlib
import sys

import pytest

from antiphon.wire import NATIVE
from tests import leaks

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads the process's size from /proc")


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
async def test_connections_that_come_and_go_in_every_way_leave_no_memory_behind(loop: str) -> None:
    exact = leaks.can_be_exact()
    count = 400 if exact else 4000
    measuring = leaks.measure(count, pure=not NATIVE, loop=loop, warm_up=count // 2, exact=exact)
    async with contextlib.aclosing(measuring) as measured:
        async for growth in measured:
            assert not growth.leaks, str(growth)
