"""A rate asked by hand, and as a dependency of requests and handshakes."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import fastapi
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient as FastAPIClient

from antiphon import App, Depends, HTTPConnection, Request, WebSocket, WebSocketDisconnect, WebSocketException
from antiphon.exceptions import HTTPException, RegistrationError
from antiphon.gate import ADDRESS, CLOSE, CONNECTION, REPLY, TOPIC, USER, Identity, Rate, TooFast, admit, allowances
from antiphon.identity import IDENTITY_KEY
from antiphon.server import ServerConfig
from antiphon.testclient import TestClient
from antiphon.testing import HandshakeRefused, Server, virtual_time


def now() -> float:
    return asyncio.get_running_loop().time()


def connection(address: str | None = "192.0.2.1", **scope: Any) -> Request:
    client = None if address is None else (address, 4711)
    return Request({"type": "http", "headers": [], "client": client, **scope})


def somebody(user: str) -> Request:
    one = connection()
    one.scope[IDENTITY_KEY] = Identity(user=user)
    return one


def allowed(rate: Rate, of: HTTPConnection, times: int = 100, **more: Any) -> int:
    return sum(rate.allow(of, **more) for _ in range(times))


@virtual_time
async def test_addresses_are_told_apart_and_ipv6_by_its_network() -> None:
    rate = Rate("5/minute", per=ADDRESS)
    assert allowed(rate, connection("192.0.2.1")) == 5
    assert allowed(rate, connection("192.0.2.2")) == 5
    assert allowed(rate, connection("::ffff:192.0.2.2")) == 0
    assert allowed(rate, connection("2001:db8::1")) == 5
    assert allowed(rate, connection("2001:db8::ffff:2")) == 0
    assert allowed(rate, connection("2001:db8:0:1::1")) == 5


@virtual_time
async def test_a_user_has_one_bucket_wherever_it_is() -> None:
    rate = Rate("5/minute", per=USER)
    assert allowed(rate, somebody("ann"), 3) == 3
    assert allowed(rate, somebody("ann")) == 2
    assert allowed(rate, somebody("192.0.2.1")) == 5
    assert allowed(rate, connection("192.0.2.1")) == 5
    await asyncio.sleep(12)
    assert allowed(rate, somebody("ann")) == 1


@virtual_time
async def test_who_says_later_who_it_is_is_counted_as_that_from_then_on() -> None:
    rate, one = Rate("5/minute", per=USER), connection()
    share = rate.share(one.scope)
    assert share.take(now(), 5) <= 0
    assert share.take(now(), 1) > 0
    await admit(one, Identity(user="ann"))
    assert share.take(now(), 1) <= 0


@virtual_time
async def test_topics_have_buckets_of_their_own() -> None:
    for per, others in ((TOPIC, 0), (USER | TOPIC, 2), (ADDRESS | TOPIC, 0)):
        rate = Rate("2/minute", per=per)
        assert allowed(rate, somebody("ann"), topic="room/1") == 2
        assert allowed(rate, somebody("ann"), topic="room/2") == 2
        assert allowed(rate, somebody("bob"), topic="room/1") == others


@virtual_time
async def test_bytes_are_asked_with_their_number() -> None:
    rate = Rate("1 KiB/second", per=ADDRESS)
    assert rate.allow(connection(), cost=1000)
    assert not rate.allow(connection(), cost=25)
    assert rate.allow(connection(), cost=24)
    assert rate.allow(connection(), cost=0)


@pytest.mark.parametrize(
    ("rate", "asked", "told"),
    [
        (Rate("1 KiB/second", per=ADDRESS), {}, r"counts bytes: say how many, cost=len\(data\)"),
        (Rate("1/second", per=ADDRESS), {"cost": "3"}, "cost is a number of messages or bytes"),
        (Rate("1/second", per=ADDRESS), {"cost": -1}, "cost is a number of messages or bytes"),
        (Rate("1/second", per=ADDRESS), {"topic": "room"}, "a rate per topic, and no other, is asked with topic="),
        (Rate("1/second", per=TOPIC), {}, "a rate per topic, and no other, is asked with topic="),
        (Rate("1/second"), {}, "a request is a connection of its own; count per ADDRESS or USER"),
        (Rate("1/second", per=CONNECTION | TOPIC), {"topic": "a"}, "a request is a connection of its own"),
    ],
)
async def test_a_rate_that_is_asked_wrongly_says_what_is_missing(rate: Rate, asked: Any, told: str) -> None:
    with pytest.raises(TypeError, match=told):
        rate.allow(connection(), **asked)
    with pytest.raises(TypeError, match=told):
        await rate.wait(connection(), **asked)
    with pytest.raises(TypeError, match=told):
        await rate.spend(connection(), **asked)


@virtual_time
async def test_a_request_waits_or_is_refused_with_429() -> None:
    rate = Rate("1/second", per=ADDRESS, longest_wait=1.5)
    began = now()
    await rate.wait(connection())
    await rate.spend(connection())
    assert now() - began == pytest.approx(1, abs=1e-3)
    hurried = asyncio.create_task(rate.wait(connection()))
    await asyncio.sleep(0)
    with pytest.raises(HTTPException) as refused:
        await rate.wait(connection())
    assert (refused.value.status_code, refused.value.headers) == (429, {"Retry-After": "2"})
    await hurried
    for over in (CLOSE, REPLY):
        strict = Rate("1/minute", per=ADDRESS, over=over)
        await strict.spend(connection())
        with pytest.raises(HTTPException) as refused:
            await strict.spend(connection())
        assert (refused.value.status_code, refused.value.headers) == (429, {"Retry-After": "60"})


def test_a_thread_without_a_loop_may_ask() -> None:
    rate = Rate("5/hour", per=ADDRESS)
    assert allowed(rate, connection()) == 5


def test_without_an_address_nobody_is_limited_and_the_log_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    allowances._told.clear()
    rate = Rate("5/hour", per=ADDRESS)
    assert allowed(rate, connection(None)) == 100
    assert allowed(rate, connection("")) == 100
    told = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(told) == 1
    assert "X-Forwarded-For" in told[0]


def app_that_asks(rate: Rate, heard: list[Any]) -> App:
    app = App()

    @app.websocket("/ws")
    async def ask(websocket: WebSocket) -> None:
        await websocket.accept()
        async for text in websocket.iter_text():
            try:
                await rate.spend(websocket)
            except WebSocketException as exc:
                heard.append((type(exc), exc.code, exc.reason))
                raise
            heard.append((text, now()))

    return app


@virtual_time
async def test_by_hand_a_websocket_waits_or_is_closed() -> None:
    for over, raised in ((CLOSE, WebSocketException), (REPLY, TooFast)):
        heard: list[Any] = []
        app = app_that_asks(Rate("1/second", burst=2, over=over), heard)
        async with Server(app) as server, server.connect("/ws") as client:
            for _ in range(3):
                await client.send("hi")
            assert await client.wait_closed() == 1008
            assert client.close_reason == "too fast"
        assert heard[2:] == [(raised, 1008, "too fast")]


@virtual_time
async def test_by_hand_a_wait_ends_with_the_servers_stop_and_is_bounded() -> None:
    heard: list[Any] = []
    app, rate = App(), Rate("0.2/second", burst=1, longest_wait=6)

    @app.websocket("/ws")
    async def patient(websocket: WebSocket) -> None:
        await websocket.accept()
        await rate.wait(websocket)
        try:
            await rate.wait(websocket)
        except WebSocketDisconnect as exc:
            heard.append((exc.code, now()))
            raise

    async with Server(app, config=ServerConfig(stop_window=0)) as server:
        async with server.connect("/ws") as client:
            await asyncio.sleep(1)
            began = now()
            await server.stop()
            assert await client.wait_closed() == 1012
    assert heard == [(1012, pytest.approx(began, abs=0.1))]


@virtual_time
async def test_by_hand_a_wait_that_is_too_long_closes_with_3008() -> None:
    app, rate = App(), Rate("0.2/second", burst=1, longest_wait=4)

    @app.websocket("/ws")
    async def patient(websocket: WebSocket) -> None:
        await websocket.accept()
        await rate.wait(websocket)
        await rate.wait(websocket)

    async with Server(app) as server, server.connect("/ws") as client:
        assert await client.wait_closed() == 3008


def test_another_frameworks_websocket_is_one_too() -> None:
    app, rate, heard = FastAPI(), Rate("1/second", burst=2), list[Any]()

    @app.websocket("/ws")
    async def ask(websocket: fastapi.WebSocket) -> None:
        await websocket.accept()
        heard.extend(rate.allow(websocket) for _ in range(3))
        began = now()
        await rate.wait(websocket)
        heard.append(now() - began > 0.5)
        await websocket.close()

    with FastAPIClient(app) as client, client.websocket_connect("/ws") as session:
        assert session.receive()["type"] == "websocket.close"
    assert heard == [True, True, False, True]


@virtual_time
async def test_a_connection_has_one_bucket_for_all_who_ask() -> None:
    heard: list[bool] = []
    app, rate = App(), Rate("1/minute", burst=3, over=CLOSE)

    @app.websocket("/ws", rates=[rate])
    async def both(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.receive_text()
        heard.extend(rate.allow(websocket) for _ in range(3))

    async with Server(app) as server, server.connect("/ws") as client:
        await client.send("hi")
        await client.wait_closed()
    assert heard == [True, True, False]


def test_as_a_dependency_it_bounds_requests_and_handshakes() -> None:
    app, rate = App(), Rate("3/hour", per=ADDRESS)

    @app.get("/search", dependencies=[Depends(rate)])
    def search() -> str:
        return "found"

    @app.websocket("/ws", dependencies=[Depends(rate)])
    async def ws(websocket: WebSocket) -> None:
        await websocket.accept()

    with TestClient(app) as client:
        assert [client.get("/search").status_code for _ in range(5)] == [200, 200, 200, 429, 429]
        refused = client.get("/search")
        assert refused.json() == {"detail": "too fast"}
        assert 1100 < int(refused.headers["retry-after"]) <= 1200


@virtual_time
async def test_as_a_dependency_it_counts_users_behind_the_dependency_that_finds_them() -> None:
    app, rate = App(), Rate("2/hour", per=USER)

    async def who(connection: HTTPConnection) -> Identity:
        return await admit(connection, Identity(user=connection.query_params["user"]))

    @app.websocket("/ws", dependencies=[Depends(who), Depends(rate)])
    async def ws(websocket: WebSocket) -> None:
        await websocket.accept()

    @app.websocket("/parameter")
    async def parameter(websocket: WebSocket, user: Identity = Depends(who), counted: None = Depends(rate)) -> None:
        await websocket.accept()

    async with Server(app) as server:
        for user in ("ann", "bob"):
            for path in ("ws", "parameter"):
                async with server.connect(f"/{path}?user={user}"):
                    pass
            with pytest.raises(HandshakeRefused) as refused:
                await server.connect(f"/ws?user={user}").__aenter__()
            assert refused.value.status == 429
            assert refused.value.headers["retry-after"] == "1800"


@virtual_time
async def test_a_dependency_that_counts_what_it_cannot_is_told() -> None:
    for rate in (Rate("1/second"), Rate("1/second", per=TOPIC), Rate("1 KiB/second", per=ADDRESS)):
        with pytest.raises(TypeError, match=r"Depends\(rate\) counts requests, per USER or ADDRESS"):
            await rate(connection())


@pytest.mark.parametrize("rate", [Rate("5/second"), Rate("1 MiB/second", per=USER), Rate("5/second", per=TOPIC)])
def test_a_rate_of_messages_as_a_dependency_is_refused_where_it_is_written(rate: Rate) -> None:
    with pytest.raises(RegistrationError, match=r"Depends\(rate\) counts requests, .* rates=\[\.\.\.\] of the route"):
        App().websocket("/ws", dependencies=[Depends(rate)])(serves)
    with pytest.raises(RegistrationError, match=r"Depends\(rate\) counts requests"):
        App(dependencies=[Depends(rate)]).websocket("/ws")(serves)


async def serves(websocket: WebSocket) -> None: ...
