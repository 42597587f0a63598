"""Requests of workers for the gate: values that are taken once, shares of limits, notes. One step each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

from ...records import Note
from ...store import Store
from .wire import Op, Words


class AskingWorker(Protocol):
    """A worker's connection."""

    process: str


class GateRelay(Protocol):
    """The parts of the relay that requests use."""

    store: Store
    clock: Callable[[], float]

    def arm(self, delay: float) -> None: ...
    def let_go(self, now: float) -> None: ...
    def extend(self, worker: Any) -> None: ...


def _put(relay: GateRelay, worker: AskingWorker, key: str, value: bytes, ttl: float) -> None:
    relay.store.put(key, value, ttl, relay.clock())
    relay.arm(ttl)


def _take(relay: GateRelay, worker: AskingWorker, key: str) -> bytes | None:
    return relay.store.take(key, relay.clock())


def _claim(relay: GateRelay, worker: AskingWorker, key: str, ref: str, limit: int | None, evict: bool) -> Words:
    now = relay.clock()
    relay.let_go(now)  # the dead hold nothing
    relay.extend(worker)
    return tuple(relay.store.claim(key, ref, worker.process, limit, evict, now))


def _release(relay: GateRelay, worker: AskingWorker, key: str, ref: str) -> None:
    relay.store.release(key, ref)


def _note(relay: GateRelay, worker: AskingWorker, notes: tuple[Words, ...]) -> None:
    relay.store.note([Note(*words) for words in notes], relay.clock())
    relay.arm(min((words[2] for words in notes), default=0.0))


def _noted(relay: GateRelay, worker: AskingWorker) -> Words:
    return tuple(map(tuple, relay.store.noted(relay.clock())))


GATE_REQUESTS: Final[dict[int, Callable[..., object]]] = {
    Op.PUT: _put,
    Op.TAKE: _take,
    Op.CLAIM: _claim,
    Op.RELEASE: _release,
    Op.NOTE: _note,
    Op.NOTED: _noted,
}
