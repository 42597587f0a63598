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
    async with contextlib.aclosing(leaks.measure(4000, pure=not NATIVE, loop=loop, warm_up=2000)) as measured:
        async for growth in measured:
            assert not growth.leaks, str(growth)
