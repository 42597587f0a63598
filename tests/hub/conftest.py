"""The hub's tests run on both event loops that uvicorn offers. The contract of each backend on one of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import uvloop

from antiphon.testing.hub_worker import Worker
from tests import forkserver


async def _forked(python: str, *program: str, **options: Any) -> forkserver.AnyProcess:
    return await forkserver.create_subprocess_exec(python, "-W", "error", *program, **options)


Worker.spawn = staticmethod(_forked)

Loops = Mapping[str, Callable[[], asyncio.AbstractEventLoop]]

BOTH: Loops = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}

CONTRACTS: Mapping[str, Loops] = {
    "test_contract_memory": {"asyncio": asyncio.new_event_loop},
    "test_contract_in_process": {"asyncio": asyncio.new_event_loop},
    "test_relay_contract": {"uvloop": uvloop.new_event_loop},
    "test_redis_contract": {"uvloop": uvloop.new_event_loop},
}
"""The longest suites. A loop's own features (timers, sockets that end) have tests beside them, on both."""


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Loops:
    return CONTRACTS.get(item.path.stem, BOTH)
