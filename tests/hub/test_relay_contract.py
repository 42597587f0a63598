"""The contract on `relay://`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from antiphon.hub import Hub
from antiphon.hub.backends.relay import RelayBackend
from antiphon.testing.hub_contract import (
    BrokerContract,
    GateBrokerContract,
    GateContract,
    GateProcessContract,
    HubContract,
    ProcessContract,
)
from tests.relay_server import RelayServer


class TestRelay(HubContract, ProcessContract, BrokerContract, GateContract, GateProcessContract, GateBrokerContract):
    opened_topics = 2_000

    @pytest.fixture
    def broker(self) -> Iterator[RelayServer]:
        with RelayServer() as running:
            yield running

    @pytest.fixture
    def url(self, broker: RelayServer) -> str:
        return broker.url

    async def residue(self, hub: Hub) -> int:
        assert isinstance(hub.backend, RelayBackend)
        stats = await hub.backend.stats()
        return stats.stored + stats.subscribed
