"""Metrics for Prometheus (extra `metrics`): an observer that counts events, and an ASGI app that shows the numbers.

No topic is ever a label: their number has no bound, and each would be a time series for ever. The numbers are in a
`Ledger`, so that those of several workers can be shown together. `families.py` has their meaning.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterable
from typing import Any, Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from starlette.requests import Request
from starlette.responses import Response

from antiphon import events
from antiphon.events import Event, Observer, Observers
from antiphon.hub import Hub
from antiphon.hub import events as hub_events
from antiphon.hub.hub import greet_hubs
from antiphon.resource import Resource

from .families import holds_on, key_of, observe, shown
from .ledger import Ledger
from .reading import ReadOnly

__all__ = [
    "Metrics",
    "both",
    "metrics_app",
]

REFRESH: Final = 0.5
"""Seconds between two looks at `hub.stats()`, which the other workers show: their figures are at most so old."""


class Metrics:
    """An `Observer` for hubs and servers. Unknown events are ignored.

    `Metrics(registry).watch(hub)` makes it the hub's observer (beside one it already has) and exposes `hub.stats()`.
    Processes that are given the same `folder` show the sum of all of them, whichever is asked, those that have ended
    included. Without one, each shows itself.

        from prometheus_client import CollectorRegistry

        from antiphon.observability.prometheus import Metrics

        metrics = Metrics(CollectorRegistry())
        metrics.watch(hub)
    """

    def __init__(
        self, registry: CollectorRegistry | None = None, *, folder: str | os.PathLike[str] | None = None
    ) -> None:
        self.registry: CollectorRegistry = CollectorRegistry() if registry is None else registry
        """Its own by default, so that several apps of one process do not collide."""
        self._ledger = Ledger(folder, holds_on)
        self._hubs: list[Hub] = []
        self._shares = folder is not None
        self._before: dict[str, float] = {}
        """The counts of earlier processes, by key."""
        self._refreshing: int | None = None
        self._refresh_lock = threading.Lock()
        self._handlers = {**self._of_connections(), **self._of_hubs()}
        self.app: Final = ReadOnly(self._answer)
        """The ASGI app that answers Prometheus."""
        self.registry.register(self)

    def __call__(self, event: Event) -> None:
        if self._shares and self._refreshing != os.getpid():
            self._keep_fresh()
        handler = self._handlers.get(type(event))
        if handler is not None:
            handler(event)

    def watch(self, hub: Hub) -> None:
        """Observe this hub too."""
        if hub in self._hubs:
            return
        self._hubs.append(hub)
        hub.observer = self if hub.observer is None else both(hub.observer, self)

    def watch_all(self) -> None:
        """Observe every hub of this process, and those that are made later."""
        greet_hubs(self.watch)

    def collect(self) -> Iterable[Metric]:
        """All numbers as they are now (the registry calls it)."""
        if self._shares:
            self._keep_fresh()
        self._refresh()
        return shown(self._ledger.read())

    def _answer(self, request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(self.registry), headers={"Content-Type": content_type, "Cache-Control": "no-store"})

    def _count(self, name: str, *labels: str, by: float = 1.0) -> None:
        self._ledger.add(key_of(name, labels), by)

    def _of_connections(self) -> dict[type[Event], Callable[[Any], None]]:
        def opened(event: events.ConnectionOpened) -> None:
            self._count("connections_opened")
            self._count("connections_open")

        def closed(event: events.ConnectionClosed) -> None:
            self._count("connections_closed", _code(event.code), event.closed_by.value)
            self._count("connections_open", by=-1.0)
            observe(self._ledger, "connection_seconds", (), event.duration)

        return {
            events.ConnectionOpened: opened,
            events.ConnectionClosed: closed,
            events.KeepaliveTimeout: lambda event: self._count("keepalive_timeouts"),
            events.SendTimeout: lambda event: self._count("send_timeouts"),
            events.ProtocolViolated: lambda event: self._count("protocol_violations", _code(event.code)),
            events.ConnectionRefused: lambda event: self._count("handshakes_refused", str(event.status)),
            events.AccessRefused: lambda event: self._count("refusals", event.reason.value),
        }

    def _of_hubs(self) -> dict[type[Event], Callable[[Any], None]]:
        def called(event: hub_events.BackendCalled) -> None:
            observe(self._ledger, "hub_backend_seconds", (event.operation,), event.seconds)
            if event.failed:
                self._count("hub_backend_failures", event.operation)

        def tried(event: hub_events.Recovery) -> None:
            self._count("hub_recoveries", "yes" if event.recovered else "no")
            self._count("hub_recovered_messages", by=event.messages)

        return {
            hub_events.Published: lambda event: self._count("hub_published_bytes", by=event.size),
            hub_events.Dropped: lambda event: self._count("hub_dropped", event.policy.value, by=event.count),
            hub_events.Recovery: tried,
            hub_events.BackendCalled: called,
            hub_events.BackendLost: lambda event: self._count("hub_backend_losses"),
            hub_events.OutboxHighWater: lambda event: self._ledger.set(
                key_of("hub_outbox_highest_bytes", ()), event.bytes
            ),
        }

    def _refresh(self) -> None:
        """Write down `hub.stats()`: counters go on from those of earlier processes."""
        with self._refresh_lock:
            for key, value in self._sums().items():
                if key not in self._before:
                    self._before[key] = self._ledger.value(key) if holds_on(key) else 0.0
                self._ledger.set(key, self._before[key] + value)

    def _sums(self) -> dict[str, float]:
        sums: dict[str, float] = {}
        for hub in self._hubs:
            stats = hub.stats()
            for name in ("connected", "connections", "topics", "memberships", "published", "delivered", "disconnected"):
                key = key_of(f"hub_{name}", (stats.backend,))
                value = float(getattr(stats, name))
                sums[key] = min(sums.get(key, 1.0), value) if name == "connected" else sums.get(key, 0.0) + value
        return sums

    def _keep_fresh(self) -> None:
        """From the first use in a process on, others may show its numbers: a thread of its own writes them down."""
        with self._refresh_lock:
            if self._refreshing == os.getpid():
                return
            self._refreshing = os.getpid()
            self._before.clear()
        threading.Thread(target=_refresh_forever, args=(weakref.ref(self),), daemon=True).start()


def _refresh_forever(reference: weakref.ref[Metrics]) -> None:
    pause = threading.Event()
    while (metrics := reference()) is not None:
        metrics._refresh()
        del metrics
        pause.wait(REFRESH)


def metrics_app(*hubs: Hub, registry: CollectorRegistry | None = None) -> Resource:
    """An ASGI app that shows these hubs, in this process: `app.add_route("/metrics", metrics_app(app.hub))`.

    It knows nothing of the server: `antiphon run --metrics` shows connections too, and all workers together.

        from prometheus_client import CollectorRegistry

        from antiphon.observability.prometheus import metrics_app

        app.add_route("/metrics", metrics_app(app.hub, registry=CollectorRegistry()))
    """
    metrics = Metrics(registry)
    for hub in hubs:
        metrics.watch(hub)
    return metrics.app


def both(first: Observer, second: Observer) -> Observer:
    """An observer that tells two, and one that is both once.

    For example:

        from antiphon.observability.prometheus import both

        hub = Hub(observer=both(print, logging.info))
    """
    return Observers(first, second)


def _code(code: int) -> str:
    """Private codes (RFC 6455 §7.4.2) are a peer's choice and would be a time series each."""
    return str(code) if code < 3000 else f"{code // 1000}xxx"
