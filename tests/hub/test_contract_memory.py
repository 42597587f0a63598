"""The contract on `memory://`."""

from __future__ import annotations

import pytest

from antiphon.hub import Hub
from antiphon.hub.backends.memory import MemoryBackend
from antiphon.testing.hub_contract import HubContract


class TestMemory(HubContract):
    @pytest.fixture
    def url(self) -> str:
        return "memory://"

    async def residue(self, hub: Hub) -> int:
        assert isinstance(hub.backend, MemoryBackend)
        return hub.backend.store.topics
