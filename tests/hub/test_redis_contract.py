"""The contract on `redis://`, with a redis-server of its own for each test."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from antiphon.hub import Hub
from antiphon.testing.hub_contract import (
    BrokerContract,
    GateBrokerContract,
    GateContract,
    GateProcessContract,
    HubContract,
    ProcessContract,
    eventually,
)
from tests.redis_server import RedisServer, redis_server


class TestRedis(HubContract, ProcessContract, BrokerContract, GateContract, GateProcessContract, GateBrokerContract):
    opened_topics = 2_000

    @pytest.fixture
    def broker(self) -> Iterator[RedisServer]:
        with redis_server() as running:
            yield running

    @pytest.fixture
    def url(self, broker: RedisServer) -> str:
        self.server = broker
        return broker.url

    async def residue(self, hub: Hub) -> int:
        """Keys named after a topic, and channels. The state of a bucket is always there."""
        with contextlib.suppress(AssertionError):
            await eventually(lambda: not self._left())  # unsubscribing is not waited for
        return len(self._left())

    def _left(self) -> list[str]:
        keys = [key for key in self.server.key_names() if not key.endswith(":state")]
        return keys + [channel for channel in self.server.channels() if ":t:" in channel]
