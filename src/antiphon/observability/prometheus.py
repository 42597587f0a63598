"""Metrics for Prometheus (extra `metrics`): an observer that counts events, and an ASGI app that shows the numbers.

No topic is ever a label: their number has no bound, and each would be a time series for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from starlette.requests import Request
from starlette.responses import Response

from antiphon import events
from antiphon.events import Event, Observer
from antiphon.hub import Hub
from antiphon.hub import events as hub_events
from antiphon.types import ASGIApp

from .reading import ReadOnly

LATENCIES: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)
"""Seconds; a healthy backend is in the first half, `call_timeout` is the last."""

DURATIONS: Final = (1.0, 10.0, 60.0, 600.0, 3600.0, 6 * 3600.0, 24 * 3600.0)
"""Seconds a connection lasts."""


class Metrics:
    """An `Observer` for hubs and servers; unknown events are ignored.

    `Metrics(registry).watch(hub)` makes it the hub's observer (beside one it already has) and exposes `hub.stats()`.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = CollectorRegistry() if registry is None else registry
        """Its own by default, so that several apps of one process do not collide."""
        self._hubs: list[Hub] = []
        self._handlers: dict[type[Event], Callable[[Any], None]] = {}
        self.app: Final = ReadOnly(self._answer)
        """The ASGI app that answers Prometheus."""
        self._count_connections()
        self._count_hub_events()
        self.registry.register(_Stats(self._hubs))

    def __call__(self, event: Event) -> None:
        handler = self._handlers.get(type(event))
        if handler is not None:
            handler(event)

    def watch(self, hub: Hub) -> None:
        """Observe this hub too."""
        self._hubs.append(hub)
        hub.observer = self if hub.observer is None else both(hub.observer, self)

    def _answer(self, request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(self.registry), headers={"Content-Type": content_type, "Cache-Control": "no-store"})

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"antiphon_{name}", text, labels, registry=self.registry)

    def _count_connections(self) -> None:
        opened = self._counter("connections_opened", "WebSocket handshakes accepted")
        closed = self._counter("connections_closed", "Connections ended, by close code and by whom", "code", "by")
        refused = self._counter("handshakes_refused", "Connections turned away before accept", "status")
        silent = self._counter("keepalive_timeouts", "Peers that did not answer a ping in time")
        stuck = self._counter("send_timeouts", "Peers that took nothing for send_timeout")
        broken = self._counter("protocol_violations", "Peers that broke the protocol or a limit", "code")
        lasted = Histogram(
            "antiphon_connection_seconds", "How long connections lasted", buckets=DURATIONS, registry=self.registry
        )

        def ended(event: events.ConnectionClosed) -> None:
            closed.labels(_code(event.code), event.closed_by.value).inc()
            lasted.observe(event.duration)

        self._handlers |= {
            events.ConnectionOpened: lambda event: opened.inc(),
            events.ConnectionClosed: ended,
            events.KeepaliveTimeout: lambda event: silent.inc(),
            events.SendTimeout: lambda event: stuck.inc(),
            events.ProtocolViolated: lambda event: broken.labels(_code(event.code)).inc(),
            events.HandshakeRefused: lambda event: refused.labels(str(event.status)).inc(),
        }

    def _count_hub_events(self) -> None:
        published = self._counter("hub_published_bytes", "Bytes of data published from this process")
        dropped = self._counter("hub_dropped", "Messages lost by overflow policies", "policy")
        recoveries = self._counter("hub_recoveries", "Attempts to go on from a position", "recovered")
        recovered = self._counter("hub_recovered_messages", "Messages delivered by recovery")
        losses = self._counter("hub_backend_losses", "Times the connection to the backend broke")
        failures = self._counter("hub_backend_failures", "Requests to the backend that failed", "operation")
        latency = Histogram(
            "antiphon_hub_backend_seconds",
            "Time the backend took for one request",
            ["operation"],
            buckets=LATENCIES,
            registry=self.registry,
        )
        highest = Gauge("antiphon_hub_outbox_highest_bytes", "Fullest outbox so far", registry=self.registry)

        def called(event: hub_events.BackendCalled) -> None:
            latency.labels(event.operation).observe(event.seconds)
            if event.failed:
                failures.labels(event.operation).inc()

        def tried(event: hub_events.Recovery) -> None:
            recoveries.labels("yes" if event.recovered else "no").inc()
            recovered.inc(event.messages)

        self._handlers |= {
            hub_events.Published: lambda event: published.inc(event.size),
            hub_events.Dropped: lambda event: dropped.labels(event.policy.value).inc(event.count),
            hub_events.Recovery: tried,
            hub_events.BackendCalled: called,
            hub_events.BackendLost: lambda event: losses.inc(),
            hub_events.OutboxHighWater: lambda event: highest.set(event.bytes),
        }


class _Stats:
    """`hub.stats()` of all hubs, read when Prometheus asks."""

    def __init__(self, hubs: Iterable[Hub]) -> None:
        self._hubs = hubs

    def collect(self) -> Iterable[Metric]:
        gauges = {
            "connected": ("1 while the backend is there", lambda s: int(s.connected)),
            "connections": ("Connections in at least one topic", lambda s: s.connections),
            "topics": ("Topics with receivers in this process", lambda s: s.topics),
            "memberships": ("Connections times topics", lambda s: s.memberships),
        }
        counters = {
            "published": ("Messages published from this process", lambda s: s.published),
            "delivered": ("Messages handed to receivers", lambda s: s.delivered),
            "disconnected": ("Receivers disconnected for being too slow", lambda s: s.disconnected),
        }
        stats = [hub.stats() for hub in self._hubs]
        for name, (text, read) in gauges.items():
            yield self._fill(GaugeMetricFamily(f"antiphon_hub_{name}", text, labels=["backend"]), stats, read)
        for name, (text, read) in counters.items():
            yield self._fill(CounterMetricFamily(f"antiphon_hub_{name}", text, labels=["backend"]), stats, read)

    @staticmethod
    def _fill(family: Any, stats: Iterable[Any], read: Callable[[Any], int]) -> Metric:
        sums: dict[str, int] = {}
        for one in stats:
            sums[one.backend] = sums.get(one.backend, 0) + read(one)
        for backend, value in sums.items():
            family.add_metric([backend], value)
        filled: Metric = family
        return filled


def metrics_app(*hubs: Hub, registry: CollectorRegistry | None = None) -> ASGIApp:
    """An ASGI app to mount that shows these hubs: `app.add_route("/metrics", metrics_app(app.hub))`.

    To count connections too, build a `Metrics`, give it to the server as observer, and mount its `app`.
    """
    metrics = Metrics(registry)
    for hub in hubs:
        metrics.watch(hub)
    return metrics.app


def both(first: Observer, second: Observer) -> Observer:
    """An observer that tells two."""

    def observe(event: Event) -> None:
        first(event)
        second(event)

    return observe


def _code(code: int) -> str:
    """Private codes (RFC 6455 §7.4.2) are a peer's choice and would be a time series each."""
    return str(code) if code < 3000 else f"{code // 1000}xxx"
