"""Observers hear of every refusal of the gate, once, on every server."""

from __future__ import annotations

import time

import jwt as pyjwt
import pytest
from websockets.asyncio.client import connect

from antiphon import App, Depends, Hub, WebSocket
from antiphon.events import AccessRefused, Event, Refusal
from antiphon.gate import FIRST_MESSAGE, HEADER, JWT, Identity, note_refusal, requires
from antiphon.observability.prometheus import Metrics
from antiphon.server import ServerConfig, WebSocketProtocol
from antiphon.testclient import TestClient
from antiphon.testing import HandshakeRefused, Server, virtual_time
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


# ---------------------------------------------------------------- each reason where it belongs

SECRET = "a secret of thirty-two characters"
jwt = JWT(SECRET, algorithms=["HS256"], required=[], leeway=0, sources=[HEADER, FIRST_MESSAGE(timeout=0.05)])


def signed(**claims: object) -> str:
    return pyjwt.encode({"sub": "ann", **claims}, SECRET, "HS256")


def guarded(told: list[Event]) -> App:
    app = App(hub=Hub(observer=told.append), dependencies=[Depends(jwt)])

    @app.websocket("/live")
    async def live(websocket: WebSocket) -> None:
        await websocket.accept()
        async for user in websocket.iter_text():
            await websocket.renew(Identity(user=user))

    @app.websocket("/orders", dependencies=[Depends(requires("orders"))])
    async def orders(websocket: WebSocket) -> None: ...

    return app


def reasons(told: list[Event]) -> list[Refusal]:
    return [event.reason for event in told if isinstance(event, AccessRefused)]


@pytest.mark.parametrize(
    ("path", "token", "reason"),
    [
        ("/live", "forged", Refusal.TOKEN_INVALID),
        ("/live", signed(exp=time.time() - 5), Refusal.TOKEN_EXPIRED),
        ("/orders", signed(scope="other"), Refusal.SCOPE),
    ],
)
async def test_credentials_that_do_not_do_are_counted_by_their_reason(path: str, token: str, reason: Refusal) -> None:
    told: list[Event] = []
    async with Server(guarded(told)) as server:
        with pytest.raises(HandshakeRefused):
            async with server.connect(path, headers={"authorization": f"Bearer {token}"}):
                pass
    assert reasons(told) == [reason]


async def test_a_first_message_that_does_not_come_is_counted_as_late() -> None:
    told: list[Event] = []
    async with Server(guarded(told)) as server, server.connect("/live") as peer:
        assert await peer.wait_closed() == 3000
    assert reasons(told) == [Refusal.TOKEN_LATE]


async def test_no_credentials_at_all_are_counted_as_missing() -> None:
    told: list[Event] = []
    app = App(hub=Hub(observer=told.append))

    @app.get("/me", dependencies=[Depends(JWT(SECRET, algorithms=["HS256"]))])
    async def me() -> str:
        return "me"

    assert TestClient(app).get("/me").status_code == 401
    assert reasons(told) == [Refusal.TOKEN_MISSING]


@virtual_time
async def test_an_identity_that_expires_on_an_open_connection_is_counted() -> None:
    told: list[Event] = []
    token = signed(exp=int(time.time()) + 3600)
    async with Server(guarded(told)) as server:
        async with server.connect("/live", headers={"authorization": f"Bearer {token}"}) as peer:
            assert await peer.wait_closed(timeout=4000) == 3000
    assert reasons(told) == [Refusal.TOKEN_EXPIRED]


async def test_a_renewal_as_somebody_else_is_counted() -> None:
    told: list[Event] = []
    async with Server(guarded(told)) as server:
        async with server.connect("/live", headers={"authorization": f"Bearer {signed()}"}) as peer:
            await peer.send("bob")
            assert await peer.wait_closed() == 3003
    assert reasons(told) == [Refusal.OTHER_USER]


async def test_who_was_revoked_is_counted_once() -> None:
    told: list[Event] = []
    app = guarded(told)
    async with Server(app) as server:
        await app.hub.revoke(user="ann")
        with pytest.raises(HandshakeRefused):
            async with server.connect("/live", headers={"authorization": f"Bearer {signed(iat=1)}"}):
                pass
    assert reasons(told) == [Refusal.REVOKED]
