"""The contract on `memory://`, as it is and with a pause at every step where a backend over a network has one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from antiphon.hub import Hub
from antiphon.hub.backends.base import BackendConfig
from antiphon.hub.backends.memory import MemoryBackend
from antiphon.hub.records import Keep, Page, Position, Roster, Track
from antiphon.testing.hub_contract import OPTIONS, GateContract, HubContract


class TestMemory(HubContract, GateContract):
    opened_topics = 10_000

    @pytest.fixture
    def url(self) -> str:
        return "memory://"

    async def residue(self, hub: Hub) -> int:
        assert isinstance(hub.backend, MemoryBackend)
        return hub.backend.store.topics


class Pausing(MemoryBackend):
    """Others get their turn before and after everything it does."""

    in_process = False

    async def subscribe(self, topic: str, keep: Keep | None) -> Position | None:
        await asyncio.sleep(0)
        position = await super().subscribe(topic, keep)
        await asyncio.sleep(0)
        return position

    async def publish(self, topic: str, data: bytes, keep: Keep | None) -> Position | None:
        await asyncio.sleep(0)
        position = await super().publish(topic, data, keep)
        await asyncio.sleep(0)
        return position

    async def history(
        self, topic: str, keep: Keep, since: Position | None, limit: int | None, size: int | None = None
    ) -> Page:
        await asyncio.sleep(0)
        page = await super().history(topic, keep, since, limit, size)
        await asyncio.sleep(0)
        return page

    async def track(self, topic: str, track: Track) -> None:
        await asyncio.sleep(0)
        await super().track(topic, track)
        await asyncio.sleep(0)

    async def presence(self, topic: str) -> Roster:
        await asyncio.sleep(0)
        roster = await super().presence(topic)
        await asyncio.sleep(0)
        return roster


class TestMemoryWithPauses(TestMemory):
    opened_topics = 2000

    @pytest.fixture
    async def hub(self, url: str) -> AsyncGenerator[Hub]:
        async with Hub(topics=OPTIONS, backend=Pausing(url, BackendConfig())) as hub:
            yield hub
