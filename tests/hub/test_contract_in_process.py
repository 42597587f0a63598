"""A third party's backend in this process is as free as `memory://` is: it says so, and the hub believes it."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncGenerator, Coroutine
from typing import Any, TypeVar

import pytest

from antiphon.hub import Hub
from antiphon.hub.backends.base import Backend, BackendConfig, Listener
from antiphon.hub.backends.memory import MemoryBackend
from antiphon.hub.records import Change, Keep, Page, Position, Roster, Track
from antiphon.hub.store import Store
from antiphon.testing.hub_contract import OPTIONS, HubContract
from antiphon.testing.hub_sinks import Connection

T = TypeVar("T")


class Drawer:
    """A store of somebody else's, without a base class of ours."""

    loop = None
    in_process = True
    refusing = False

    def __init__(self) -> None:
        self.starts = 0
        self._epochs = 0
        self._listeners: list[Listener] = []
        self._lock = threading.Lock()
        self._begin()

    def _begin(self) -> None:
        self._epochs += 1
        self.store = Store(epoch=f"{id(self):x}.{self._epochs}", version=time.time_ns() // 1000)

    def listen(self, listener: Listener) -> None:
        self._listeners.append(listener)

    async def start(self, listener: Listener) -> None:
        self.starts += 1  # it listens since the hub was made

    async def stop(self) -> None:
        with self._lock:
            self._tell(self.store.drop_process("drawer"))
            self._begin()
        self._flush()

    async def subscribe(self, topic: str, keep: Keep | None) -> Position | None:
        return None if keep is None else self.store.head(topic)

    def unsubscribe(self, topic: str) -> None:
        pass

    async def publish(self, topic: str, data: bytes, keep: Keep | None) -> Position | None:
        with self._lock:
            entry = self.store.publish(topic, data, keep, time.monotonic())
            for listener in self._listeners:
                listener.deliver(topic, entry)
        self._flush()
        return entry.position

    async def history(
        self, topic: str, keep: Keep, since: Position | None, limit: int | None, size: int | None = None
    ) -> Page:
        with self._lock:
            return self.store.page(topic, since, limit, time.monotonic(), size)

    async def track(self, topic: str, track: Track) -> None:
        with self._lock:
            self._tell_one(topic, self.store.track(topic, track, "drawer"))
        self._flush()

    async def untrack(self, topic: str, ref: str, grace: float) -> None:
        with self._lock:
            self._tell_one(topic, self.store.untrack(topic, ref, grace, time.monotonic()))
        self._flush()
        if grace > 0:
            asyncio.get_running_loop().call_later(grace + 0.01, self._sweep)

    async def presence(self, topic: str) -> Roster:
        self._sweep()
        return self.store.roster(topic)

    async def presence_count(self, topic: str) -> int:
        self._sweep()
        return self.store.count(topic)

    async def control(self, payload: bytes) -> None:
        for listener in self._listeners:
            listener.controlled(payload)
        self._flush()

    def _sweep(self) -> None:
        with self._lock:
            self._tell(self.store.sweep(time.monotonic()))
        self._flush()

    def _tell(self, changes: list[tuple[str, Change]]) -> None:
        for topic, change in changes:
            self._tell_one(topic, change)

    def _tell_one(self, topic: str, change: Change | None) -> None:
        if change is not None:
            for listener in self._listeners:
                listener.presence_changed(topic, change)

    def _flush(self) -> None:
        for listener in self._listeners:
            listener.flush()


class TestDrawer(HubContract):
    opened_topics = 10_000

    @pytest.fixture
    async def hub(self) -> AsyncGenerator[Hub]:
        async with Hub(topics=OPTIONS, backend=Drawer()) as hub:
            yield hub

    async def residue(self, hub: Hub) -> int:
        assert isinstance(hub.backend, Drawer)
        return hub.backend.store.topics


@pytest.fixture(params=[Drawer, lambda: MemoryBackend("memory://", BackendConfig())], ids=["foreign", "memory"])
def backend(request: pytest.FixtureRequest) -> Any:
    return request.param()


def at_once(work: Coroutine[Any, Any, T]) -> T:
    """Its result, if it never suspends."""
    try:
        work.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    raise AssertionError("it suspended")


async def test_it_is_used_without_a_start_and_waits_for_nothing(backend: Backend) -> None:
    hub, connection = Hub(topics=OPTIONS, backend=backend), Connection()
    assert hub.connected
    membership = hub.join("kept", connection, history=10, presence="ann")
    assert at_once(membership.__aenter__()) is membership
    assert at_once(hub.publish("kept", "x"))
    assert connection.received == ["x"]
    assert at_once(hub.presence("kept")) == {"ann": ["ann"]}
    assert [message.data for message in at_once(hub.history("kept"))] == ["x"]
    at_once(membership.leave())
    assert at_once(hub.presence_count("kept")) == 0
    assert getattr(backend, "starts", 0) == 0


async def test_it_is_used_on_after_a_stop_and_is_empty_then(backend: Backend) -> None:
    hub = Hub(topics=OPTIONS, backend=backend)
    before = await hub.publish("kept", "x")
    await hub.stop()
    connection = Connection()
    async with hub.join("kept", connection, since=before) as membership:
        assert not membership.recovered
        after = await hub.publish("kept", "y")
        assert connection.received == ["y"]
    assert before is not None
    assert after is not None
    assert after.epoch != before.epoch


async def test_each_thread_has_its_turn_in_its_own_loop(backend: Backend) -> None:
    hub, here = Hub(topics=OPTIONS, backend=backend), Connection()

    async def there() -> tuple[list[str | bytes], float]:
        other = Connection()
        async with hub.join("t", other):
            await hub.publish("t", "x")
            return list(other.received), len((await hub.presence("t"))["ann"])

    async with hub.join("t", here, presence="ann"):
        assert await asyncio.to_thread(lambda: asyncio.run(there())) == (["x"], 1)


async def test_beside_other_workers_it_is_warned_of_by_its_name(
    backend: Backend, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("antiphon.hub.workers._warned", set())
    monkeypatch.setattr("antiphon.hub.workers._workers", lambda: 4)
    with caplog.at_level(logging.WARNING, "antiphon.hub"):
        await Hub(backend=backend).publish("t", "x")
    assert f"the hub's {type(backend).__name__} does not reach the other workers" in caplog.text


async def test_one_that_does_not_say_so_is_started_before_it_is_used() -> None:
    class Started(Drawer):
        in_process = False

        async def start(self, listener: Listener) -> None:
            await super().start(listener)
            self.listen(listener)

    backend = Started()
    hub = Hub(backend=backend)
    assert not hub.connected
    await hub.publish("t", "x")
    assert backend.starts == 1
    await hub.stop()
