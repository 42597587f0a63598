"""The hub's tests run on both event loops that uvicorn offers; the contract of each backend on one of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop

Loops = Mapping[str, Callable[[], asyncio.AbstractEventLoop]]

BOTH: Loops = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}

CONTRACTS: Mapping[str, Loops] = {
    "test_contract_memory": {"asyncio": asyncio.new_event_loop},
    "test_contract_in_process": {"asyncio": asyncio.new_event_loop},
    "test_relay_contract": {"uvloop": uvloop.new_event_loop},
    "test_redis_contract": {"uvloop": uvloop.new_event_loop},
}
"""The longest suites. What is a loop's own (timers, sockets that end) has tests beside them, on both."""


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Loops:
    return CONTRACTS.get(item.path.stem, BOTH)
