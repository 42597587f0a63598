"""A ticket counts once, in whichever process it lands."""

from __future__ import annotations

import asyncio
import textwrap
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from antiphon import App, Depends, Hub, WebSocket
from antiphon.gate import Identity, Tickets
from antiphon.hub.backends.base import BackendConfig
from antiphon.hub.backends.memory import MemoryBackend
from antiphon.testing import virtual_time
from tests.commands import run
from tests.hub.test_contract_in_process import Drawer
from tests.matrix.servers import SERVERS, ServerUnderTest
from tests.patience import PATIENCE
from tests.redis_server import redis_server
from tests.serving import serve


def application(hub: Hub, tickets: Tickets) -> App:
    app = App(hub=hub)

    @app.post("/tickets")
    async def ticket(user: str) -> str:
        return await tickets.issue(user)

    @app.websocket("/in", dependencies=[Depends(tickets)])
    async def enter(websocket: WebSocket, identity: Identity) -> None:
        await websocket.accept()
        await websocket.send_text(identity.user)
        await websocket.wait_closed()

    return app


async def visit(url: str, ticket: str) -> int:
    """The status of the handshake."""
    try:
        async with connect(f"{url}/in?ticket={ticket}", open_timeout=PATIENCE) as client:
            assert await client.recv()
            return 101
    except InvalidStatus as error:
        return error.response.status_code


@pytest.mark.parametrize("server", SERVERS, ids=lambda server: server.name)
async def test_a_ticket_opens_one_connection(server: ServerUnderTest, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "antiphon")
    hub = Hub()
    tickets = Tickets(hub)
    async with server.run(application(hub, tickets)) as served:
        ticket = await tickets.issue("ann")
        async with connect(f"{served.url}/in?ticket={ticket}") as client:
            assert await client.recv() == "ann"
            await hub.send("found", user="ann")
            assert await client.recv() == "found"
        assert await visit(served.url, ticket) == 401
        forged = ("x" * len(ticket), ticket[:-1], "", "x" * 5000, "%00" * len(ticket), "%ff")
        assert [await visit(served.url, one) for one in forged] == [401] * len(forged)
    assert "was used" in caplog.text


async def test_what_a_ticket_says_is_what_the_connection_is() -> None:
    tickets = Tickets(Hub())
    identity = Identity(
        user="ann",
        session="s\u00e9",
        issued_at=12.5,
        expires_at=1e12,
        scopes=frozenset({"read", "write"}),
        claims={"a": [1, None, {"b": "\ud800"}]},
    )
    assert tickets.verify is not None
    found = await tickets.verify(await tickets.issue(identity))
    assert found == identity
    assert found.claims == identity.claims
    before = time.time()
    known = await tickets.verify(await tickets.issue("bob", session="s", scopes=["read"], claims={"x": 1}))
    assert (known.user, known.session, known.scopes) == ("bob", "s", frozenset({"read"}))
    assert known.claims == {"x": 1}
    assert known.issued_at is not None
    assert before <= known.issued_at <= time.time()


@virtual_time
async def test_a_ticket_is_over_after_its_lifetime() -> None:
    tickets = Tickets(Hub(), lifetime=30)
    assert tickets.verify is not None
    early, late = await tickets.issue("ann"), await tickets.issue("ann")
    await asyncio.sleep(29)
    assert (await tickets.verify(early)).user == "ann"
    await asyncio.sleep(1.1)
    with pytest.raises(Exception, match="401"):
        await tickets.verify(late)


async def test_a_ticket_of_who_was_revoked_meanwhile_opens_nothing() -> None:
    hub = Hub()
    tickets = Tickets(hub)
    async with serve(application(hub, tickets)) as served:
        ticket = await tickets.issue("ann")
        await hub.revoke(user="ann")
        assert await visit(served.url, ticket) == 401
        assert await visit(served.url, await tickets.issue("ann")) == 101


async def test_tickets_of_another_purpose_are_none_here() -> None:
    hub = Hub()
    chat, admin = Tickets(hub, purpose="chat"), Tickets(hub, purpose="admin")
    assert admin.verify is not None
    with pytest.raises(Exception, match="401"):
        await admin.verify(await chat.issue("ann"))
    assert (await admin.verify(await admin.issue("ann"))).user == "ann"


async def test_the_backend_holds_no_ticket_in_clear() -> None:
    kept: list[str] = []

    class Watched(MemoryBackend):
        async def put(self, key: str, value: bytes, ttl: float) -> None:
            kept.append(f"{key} {value!r}")
            await super().put(key, value, ttl)

    ticket = await Tickets(Hub(backend=Watched("memory://", BackendConfig()))).issue("ann")
    assert len(kept) == 1
    assert ticket not in kept[0]


@pytest.mark.parametrize(
    ("given", "error", "match"),
    [
        ({"who": ""}, ValueError, "needs a user"),
        ({"who": 7}, TypeError, "user and session are a str"),
        ({"who": "a", "scopes": "read write"}, TypeError, "split it"),
        ({"who": "a", "claims": {"x": object()}}, TypeError, "no JSON form"),
        ({"who": "a", "claims": {"x": float("nan")}}, TypeError, "no JSON form"),
        ({"who": "a", "claims": {"x": "y" * 20_000}}, ValueError, "16384"),
        ({"who": Identity(user="a"), "session": "s"}, TypeError, "says all"),
    ],
)
async def test_what_no_ticket_can_say_is_told(given: dict[str, Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        await Tickets(Hub()).issue(**given)


@pytest.mark.parametrize(
    "given", [{"hub": "memory://"}, {"lifetime": 0}, {"lifetime": True}, {"lifetime": 1e9}, {"purpose": None}]
)
def test_what_tickets_cannot_be_is_told(given: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError), match="Tickets"):
        Tickets(**{"hub": Hub(), **given})


async def test_a_backend_that_keeps_none_says_so_at_the_first_ticket() -> None:
    with pytest.raises(RuntimeError, match=r"Tickets needs put, take.*Drawer"):
        await Tickets(Hub(backend=Drawer())).issue("ann")


async def test_while_the_backend_is_away_it_is_503() -> None:
    with redis_server() as redis:
        async with Hub(redis.url) as hub:
            tickets = Tickets(hub)
            async with serve(application(hub, tickets)) as served, httpx.AsyncClient() as client:
                ticket = await tickets.issue("ann")
                redis.kill()
                assert await visit(served.url, ticket) == 503
                assert (await client.post(f"{served.http_url}/tickets?user=ann")).status_code == 503


PROGRAM = textwrap.dedent(
    """
    import os
    from typing import Annotated
    from antiphon import App, Depends, Hub, WebSocket
    from antiphon.gate import Identity, Tickets

    hub = Hub(os.environ.get("TICKETS_AT"))
    app = App(hub=hub)
    tickets = Tickets(hub, lifetime=600)

    @app.post("/tickets")
    async def issue(count: int) -> list[str]:
        return [await tickets.issue(f"user {number}") for number in range(count)]

    @app.websocket("/in")
    async def enter(websocket: WebSocket, identity: Annotated[Identity, Depends(tickets)]) -> None:
        await websocket.accept()
        await websocket.send_text(f"{os.getpid()} {identity.user}")
    """
)


@pytest.mark.parametrize("backend", ["relay", "redis"])
async def test_a_thousand_tickets_over_four_workers_each_twice(
    backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    with redis_server() as redis:
        if backend == "redis":
            monkeypatch.setenv("TICKETS_AT", redis.url)
        async with run("program:app", "--workers", "4", "--no-state", app_dir=tmp_path) as server:
            async with httpx.AsyncClient(timeout=PATIENCE) as client:
                issued = (await client.post(f"http://127.0.0.1:{server.port}/tickets?count=1000")).json()
            assert len(set(issued)) == 1000
            turns, served_by = asyncio.Semaphore(100), Counter[str]()

            async def redeem(ticket: str) -> int:
                url = f"ws://127.0.0.1:{server.port}/in?ticket={ticket}"
                async with turns:
                    try:
                        async with connect(url, open_timeout=PATIENCE) as client:
                            served_by[str(await client.recv()).partition(" ")[0]] += 1
                            return 101
                    except InvalidStatus as error:
                        return error.response.status_code

            statuses = await asyncio.gather(*(redeem(ticket) for ticket in issued for _ in range(2)))
    assert Counter(statuses) == {101: 1000, 401: 1000}
    for start in range(0, 2000, 2):
        assert sorted(statuses[start : start + 2]) == [101, 401]
    assert len(served_by) > 1
