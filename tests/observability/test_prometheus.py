"""Metrics as Prometheus reads them."""

from __future__ import annotations

import httpx2 as httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from antiphon.events import (
    ConnectionClosed,
    ConnectionOpened,
    ConnectionRefused,
    Event,
    KeepaliveTimeout,
    ProtocolViolated,
    SendTimeout,
)
from antiphon.hub import Hub, Overflow, TopicOptions
from antiphon.observability.prometheus import Metrics, metrics_app
from antiphon.testing.hub_sinks import Connection
from antiphon.types import ASGIApp, ClosedBy


async def scrape(app: ASGIApp, accept: str = "text/plain") -> dict[str, float]:
    """Sample (with its labels' values) to value."""
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        response = await client.get("/metrics", headers={"Accept": accept})
    assert response.status_code == 200
    return {
        " ".join([sample.name, *sample.labels.values()]): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


async def test_the_hub_is_shown_as_it_is_when_asked() -> None:
    hub = Hub(topics={"kept": TopicOptions(history=5)})
    app = metrics_app(hub)
    async with hub.join("kept", Connection()), hub.join("other", Connection()):
        position = await hub.publish("kept", "12345")
        async with hub.join("kept", Connection(), since=position):
            shown = await scrape(app)
    assert shown["antiphon_hub_connected memory://"] == 1
    assert shown["antiphon_hub_connections memory://"] == 3
    assert shown["antiphon_hub_topics memory://"] == 2
    assert shown["antiphon_hub_published_total memory://"] == 1
    assert shown["antiphon_hub_delivered_total memory://"] == 1
    assert shown["antiphon_hub_published_bytes_total"] == 5
    assert shown["antiphon_hub_recoveries_total yes"] == 1
    assert shown["antiphon_hub_backend_seconds_count publish"] == 1
    assert (await scrape(app))["antiphon_hub_connections memory://"] == 0


async def test_losses_and_full_outboxes_are_counted() -> None:
    hub = Hub(
        topics={"t": TopicOptions(outbox_bytes=100, overflow=Overflow.DROP_NEWEST), "d": TopicOptions(outbox_bytes=1)}
    )
    app = metrics_app(hub)
    slow = Connection()
    slow.sink.stall()
    async with hub.join("t", slow), hub.join("d", slow):
        for _ in range(13):
            await hub.publish("t", "x" * 10)
        await hub.publish("d", "x")
        shown = await scrape(app)
    assert shown["antiphon_hub_dropped_total drop-newest"] == 3
    assert shown["antiphon_hub_outbox_highest_bytes"] == 100
    assert shown["antiphon_hub_disconnected_total memory://"] == 1


async def test_connections_are_counted_by_how_they_ended() -> None:
    metrics = Metrics()
    metrics(ConnectionOpened(path="/"))
    metrics(ConnectionClosed(path="/", code=1006, closed_by=ClosedBy.NOBODY, duration=5.0))
    metrics(ConnectionClosed(path="/", code=4017, closed_by=ClosedBy.PEER, duration=5.0))
    metrics(ConnectionRefused(path="/", status=403, reason=""))
    metrics(KeepaliveTimeout(path="/", waited=20.0))
    metrics(SendTimeout(path="/", buffered=1))
    metrics(ProtocolViolated(path="/", code=1002, reason=""))
    shown = await scrape(metrics.app)
    assert shown["antiphon_keepalive_timeouts_total"] == 1
    assert shown["antiphon_send_timeouts_total"] == 1
    assert shown["antiphon_protocol_violations_total 1002"] == 1
    assert shown["antiphon_connections_opened_total"] == 1
    assert shown["antiphon_connections_closed_total nobody 1006"] == 1
    assert shown["antiphon_connections_closed_total peer 4xxx"] == 1
    assert shown["antiphon_handshakes_refused_total 403"] == 1
    assert shown["antiphon_connection_seconds_count"] == 2


async def test_an_observer_the_hub_has_already_goes_on_observing() -> None:
    seen: list[Event] = []
    hub = Hub(observer=seen.append)
    metrics_app(hub)
    await hub.publish("t", "x")
    assert {type(event).__name__ for event in seen} == {"Published", "BackendCalled"}


async def test_the_app_answers_prometheus_alone() -> None:
    transport = httpx.ASGITransport(app=metrics_app())
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        assert (await client.post("/")).status_code == 405
        openmetrics = await client.get("/", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert openmetrics.headers["content-type"].startswith("application/openmetrics-text")
    with pytest.raises(RuntimeError, match="add_route"):
        await metrics_app()({"type": "lifespan"}, None, None)  # type: ignore[call-overload]
