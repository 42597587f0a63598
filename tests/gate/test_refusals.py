"""What the gate refuses is told to whoever observes, once, on every server."""

from __future__ import annotations

import pytest
from websockets.asyncio.client import connect

from antiphon import App, Hub, WebSocket
from antiphon.events import AccessRefused, Event, Refusal
from antiphon.gate import note_refusal
from antiphon.observability.prometheus import Metrics
from antiphon.server import ServerConfig, WebSocketProtocol
from tests.matrix.servers import SERVERS, ServerUnderTest
from tests.serving import serve


def application(hub: Hub) -> App:
    app = App(hub=hub)

    @app.websocket("/door")
    async def door(websocket: WebSocket) -> None:
        note_refusal(websocket.scope, Refusal.QUOTA)
        await websocket.accept()

    return app


async def visit(url: str) -> None:
    async with connect(f"{url}/door?token=secret") as client:
        await client.wait_closed()


def counted(metrics: Metrics) -> dict[str, float]:
    return {
        sample.labels["reason"]: sample.value
        for family in metrics.collect()
        for sample in family.samples
        if sample.name == "antiphon_refusals_total"
    }


@pytest.mark.parametrize("server", SERVERS, ids=lambda server: server.name)
async def test_the_hubs_observer_is_told_on_every_server(server: ServerUnderTest) -> None:
    told: list[Event] = []
    async with server.run(application(Hub(observer=told.append))) as served:
        await visit(served.url)
    assert [event for event in told if isinstance(event, AccessRefused)] == [
        AccessRefused(path="/door", reason=Refusal.QUOTA)
    ]


async def test_metrics_that_watch_the_hub_and_the_server_count_a_refusal_once() -> None:
    metrics, hub = Metrics(), Hub()
    metrics.watch(hub)
    ws = WebSocketProtocol.with_config(ServerConfig(observers=(metrics,)))
    async with serve(application(hub), ws=ws) as served:
        await visit(served.url)
    assert counted(metrics) == {"quota": 1.0}


async def test_metrics_beside_another_observer_of_the_hub_still_count_once() -> None:
    told: list[Event] = []
    metrics, hub = Metrics(), Hub(observer=told.append)
    metrics.watch(hub)
    ws = WebSocketProtocol.with_config(ServerConfig(observers=(metrics,)))
    async with serve(application(hub), ws=ws) as served:
        await visit(served.url)
    assert counted(metrics) == {"quota": 1.0}
    assert AccessRefused(path="/door", reason=Refusal.QUOTA) in told


async def test_an_observer_that_fails_is_logged_and_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def failing(event: Event) -> None:
        if isinstance(event, AccessRefused):
            raise ZeroDivisionError

    async with serve(application(Hub(observer=failing))) as served:
        await visit(served.url)
    assert "an observer failed on AccessRefused(path='/door'" in caplog.text


def test_the_words_are_few_and_fit_a_label() -> None:
    assert len(Refusal) < 20
    assert all(one.value.replace("_", "").isalpha() for one in Refusal)
