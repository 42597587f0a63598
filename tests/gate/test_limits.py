"""Rates of apps, routers and routes: the amount that passes, the fate of an excess, and its log lines."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from starlette.applications import Starlette

from antiphon import APIRouter, App, Hub, RegistrationError, WebSocket
from antiphon.endpoints import WebSocketEndpoint
from antiphon.events import AccessRefused, Event, Refusal
from antiphon.gate import ADDRESS, CLOSE, REPLY, TOPIC, USER, Identity, OverRate, Rate, admit
from antiphon.gate.limits import Limits
from antiphon.middleware import Middleware
from antiphon.routing.route import APIWebSocketRoute
from antiphon.server import ServerConfig
from antiphon.server.backend import Twin
from antiphon.testing import ConnectionEnded, HandshakeRefused, Server, virtual_time
from tests.routing.middlemen import Wraps

Receive = Callable[[WebSocket], Awaitable[object]]

RECEIVES: dict[str, tuple[Receive, str | bytes]] = {
    "text": (lambda websocket: websocket.receive_text(), "hi"),
    "bytes": (lambda websocket: websocket.receive_bytes(), b"hi"),
    "payload": (lambda websocket: websocket.receive_payload(), "hi"),
    "json": (lambda websocket: websocket.receive_json(), "{}"),
    "typed": (lambda websocket: websocket.receive_as(dict[str, int]), "{}"),
    "raw": (lambda websocket: websocket.receive(), b"hi"),
}


def now() -> float:
    return asyncio.get_running_loop().time()


def app_that_notes(times: list[float], rates: Any, receive: Receive = RECEIVES["text"][0], **options: Any) -> App:
    app = App(**options)

    @app.websocket("/ws", rates=rates)
    async def take(websocket: WebSocket) -> None:
        await websocket.accept()
        while websocket.is_connected:
            await receive(websocket)
            times.append(now())

    return app


async def note_all(websocket: WebSocket, times: list[float]) -> None:
    while True:
        await websocket.receive_text()
        times.append(now())


async def flood(app: App, message: str | bytes, *, config: ServerConfig | None = None) -> None:
    """Send a thousand times the rate, for a minute."""
    async with Server(app, config=config) as server, server.connect("/ws") as client:
        began = now()
        try:
            while now() < began + 60:
                for _ in range(20):
                    await client.send(message)
                await asyncio.sleep(0.1)
        except ConnectionEnded:
            pass
        client.drop()  # its Close would wait behind all that was not read


def exactly(times: list[float], seconds: float = 60.0) -> int:
    return sum(1 for at in times if at <= times[0] + seconds + 1e-6)


@pytest.mark.parametrize("way", RECEIVES)
@pytest.mark.parametrize("middleware", [[], [Middleware(Wraps)]], ids=["direct", "middleware"])
@virtual_time
async def test_who_waits_gets_exactly_the_burst_and_the_rate(way: str, middleware: Any, twin: Twin) -> None:
    receive, message = RECEIVES[way]
    times: list[float] = []
    await flood(app_that_notes(times, [Rate("5/second", burst=40)], receive, middleware=middleware), message)
    assert exactly(times) == 40 + 5 * 60
    assert times[40] - times[0] == pytest.approx(0.2, abs=1e-3)


@virtual_time
async def test_bytes_are_counted_as_they_are_in_utf8(twin: Twin) -> None:
    times: list[float] = []
    await flood(app_that_notes(times, [Rate("100 B/second", burst=400)]), "€" * 3 + "x")
    assert exactly(times) == (400 + 100 * 60) // 10


@virtual_time
async def test_a_client_within_its_rate_does_not_wait() -> None:
    times: list[float] = []
    app = app_that_notes(times, [Rate("10/second", burst=2), Rate("1 KiB/second")])
    async with Server(app) as server, server.connect("/ws") as client:
        sent = []
        for _ in range(100):
            sent.append(now())
            await client.send("hi")
            await asyncio.sleep(0.1)
    assert times == pytest.approx(sent, abs=1e-6)


@virtual_time
async def test_close_lets_through_what_is_allowed_and_then_closes() -> None:
    times: list[float] = []
    app = app_that_notes(times, [Rate("5/second", burst=40, over=CLOSE)])
    async with Server(app) as server, server.connect("/ws") as client:
        for number in range(5 * 60):  # exactly the rate, for a minute
            await client.send("hi")
            await asyncio.sleep(0.2)
            assert len(times) == number + 1
        for _ in range(41):
            await client.send("hi")
        assert await client.wait_closed() == 1008
        assert client.close_reason == "too fast"
    assert len(times) == 5 * 60 + 40


@virtual_time
async def test_a_wait_that_is_too_long_closes_with_3008() -> None:
    app = app_that_notes([], [Rate("100 B/second", burst=100, longest_wait=2)])
    async with Server(app) as server:
        async with server.connect("/ws") as client:
            await client.send("x" * 300)
            await asyncio.sleep(5)
            assert client.close_code is None
            await client.send("x" * 301)
            assert await client.wait_closed() == 3008
            assert client.close_reason == "too fast"


@pytest.mark.parametrize("level", ["app", "router", "included", "route"])
@virtual_time
async def test_each_level_holds(level: str) -> None:
    def here(name: str) -> Any:
        return [Rate("1/second", burst=1 if name == level else 50)]

    times: list[float] = []
    app, router = App(rates=here("app")), APIRouter(rates=here("included"))

    @router.websocket("/ws", rates=here("route"))
    async def take(websocket: WebSocket) -> None:
        await websocket.accept()
        await note_all(websocket, times)

    outer = APIRouter(rates=here("router"))
    outer.include_router(router)
    app.include_router(outer)
    await flood(app, "hi")
    assert times[1] - times[0] == pytest.approx(1, abs=0.01)
    assert exactly(times) == 61


@virtual_time
async def test_one_rate_at_two_levels_is_one_budget() -> None:
    rate, times = Rate("1/second", burst=4), list[float]()
    app = App(rates=[rate])

    @app.websocket("/ws", rates=[rate])
    async def take(websocket: WebSocket) -> None:
        await websocket.accept()
        await note_all(websocket, times)

    await flood(app, "hi")
    assert exactly(times) == 64


@pytest.mark.parametrize("kind", ["function", "class", "starlette"])
@virtual_time
async def test_plain_routes_keep_to_the_rates_of_their_app(kind: str) -> None:
    times: list[float] = []

    async def function(websocket: WebSocket) -> None:
        await websocket.accept()
        await note_all(websocket, times)

    class Class(WebSocketEndpoint):
        async def on_receive(self, websocket: Any, data: Any) -> None:
            times.append(now())

    rates = [Rate("5/second", burst=10)]
    app: Any = App(rates=rates)
    if kind == "starlette":
        app = Starlette(routes=[APIWebSocketRoute("/ws", function, rates=rates)])
    else:
        app.add_websocket_route("/ws", function if kind == "function" else Class)
    await flood(app, "hi")
    assert exactly(times) == 310


@virtual_time
async def test_all_connections_of_a_user_share_a_rate_and_nobody_else_does() -> None:
    counts: dict[str, int] = {}
    app = App()

    @app.websocket("/ws/{name}", rates=[Rate("5/second", burst=10, per=USER)])
    async def take(websocket: WebSocket, name: str) -> None:
        await websocket.accept()
        await admit(websocket, Identity(user=name))
        async for _ in websocket.iter_text():
            counts[name] = counts.get(name, 0) + 1

    async with Server(app) as server:
        async with server.connect("/ws/ann") as one, server.connect("/ws/ann") as two, server.connect("/ws/bob") as bob:
            await bob.send("hi")
            for _ in range(60):
                for _ in range(10):
                    await one.send("hi")
                    await two.send("hi")
                await asyncio.sleep(1)
            assert counts == {"ann": pytest.approx(310, abs=1), "bob": 1}
            one.drop()
            two.drop()


@virtual_time
async def test_who_has_no_identity_shares_the_rate_of_the_address() -> None:
    times: list[float] = []
    app = app_that_notes(times, [Rate("5/second", burst=10, per=USER)])
    async with Server(app) as server:
        async with server.connect("/ws") as one, server.connect("/ws") as two:
            for client in (one, two):
                for _ in range(10):
                    await client.send("hi")
            await asyncio.sleep(1)
            assert len(times) == 15


@virtual_time
async def test_the_waiting_is_shared_out_in_the_order_of_coming() -> None:
    counts = {0: 0, 1: 0}
    app = App()

    @app.websocket("/ws", rates=[Rate("10/second", burst=1, per=ADDRESS)])
    async def take(websocket: WebSocket, number: int) -> None:
        await websocket.accept()
        async for _ in websocket.iter_text():
            counts[number] += 1

    async with Server(app) as server:
        async with server.connect("/ws?number=0") as one, server.connect("/ws?number=1") as two:
            for _ in range(500):
                await one.send("hi")
                await two.send("hi")
            await asyncio.sleep(30)
            assert sum(counts.values()) == pytest.approx(301, abs=1)
            assert abs(counts[0] - counts[1]) <= 1


@virtual_time
async def test_handshakes_of_an_address_are_refused_beyond_their_rate_with_429() -> None:
    began: list[float] = []
    app = App(connects=Rate("10/minute", burst=3, per=ADDRESS))

    @app.websocket("/ws")
    async def wait(websocket: WebSocket) -> None:
        began.append(now())
        await websocket.accept()

    async with Server(app) as server:
        refused = []
        for _ in range(6):
            try:
                async with server.connect("/ws"):
                    pass
            except HandshakeRefused as exc:
                refused.append(exc)
        assert (len(began), len(refused)) == (3, 3)
        assert refused[0].status == 429
        assert refused[0].headers["retry-after"] == "6"
        assert refused[0].json() == {"detail": "too fast"}
        await asyncio.sleep(6)
        async with server.connect("/ws"):
            pass


@virtual_time
async def test_a_log_line_a_minute_names_the_path_the_rate_and_the_option(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "antiphon")
    await flood(app_that_notes([], [Rate("5/second", burst=40)]), "hi")
    lines = [record.getMessage() for record in caplog.records if "passes" in record.getMessage()]
    assert len(lines) == 1
    assert lines[0].startswith(
        "/ws: a client passes 5/second with a burst of 40 per connection (rates=): it is read more slowly."
    )


@virtual_time
async def test_refusals_are_counted_by_reason_and_waiting_is_none() -> None:
    events: list[Event] = []
    app = app_that_notes([], [Rate("5/second", over=CLOSE)], hub=Hub(observer=events.append))
    await flood(app, "hi")
    assert [event for event in events if isinstance(event, AccessRefused)] == [
        AccessRefused(path="/ws", reason=Refusal.RATE)
    ]
    events.clear()
    await flood(app_that_notes([], [Rate("5/second")], hub=Hub(observer=events.append)), "hi")
    assert not [event for event in events if isinstance(event, AccessRefused)]


async def nothing(websocket: WebSocket) -> None: ...


@pytest.mark.parametrize("where", ["app", "router", "route", "included", "plain"])
def test_a_plain_endpoint_cannot_reply_and_is_told_so(where: str) -> None:
    replying = [Rate("5/second", over=REPLY)]
    app, router = App(rates=replying if where in ("app", "plain") else None), APIRouter()
    if where in ("router", "included"):
        router = APIRouter(rates=replying)
    told = r"nothing: Rate\('5/second', over=REPLY\) answers with an error, and only a channel has a form.*over=WAIT or"

    def attempt() -> None:
        if where == "plain":
            app.add_websocket_route("/ws", nothing)
        elif where == "router":
            router.websocket("/ws")(nothing)
        elif where == "included":
            inner = APIRouter()
            inner.websocket("/ws")(nothing)
            router.include_router(inner)
        else:
            app.websocket("/ws", rates=replying if where == "route" else None)(nothing)

    with pytest.raises(RegistrationError, match=told):
        attempt()


@pytest.mark.parametrize(
    ("options", "error", "told"),
    [
        (
            {"rates": ["20/second"]},
            TypeError,
            r"rates takes Rate\(\"20/second\"\), or several in a list; got \['20",
        ),
        ({"rates": "20/second"}, TypeError, r"rates takes Rate"),
        ({"rates": 20}, TypeError, r"rates takes Rate"),
        ({"connects": 10}, TypeError, r"connects takes Rate"),
        ({"connects": Rate("10/second")}, RegistrationError, "handshakes are counted per=ADDRESS"),
        ({"connects": Rate("10/second", per=USER)}, RegistrationError, r"Depends\(rate\)\] counts per=USER"),
        ({"connects": Rate("10 MB/second", per=ADDRESS)}, RegistrationError, "not in bytes"),
        ({"rates": [Rate("1/second", per=TOPIC)]}, RegistrationError, r"await rate.spend\(websocket, topic=...\)"),
        ({"rates": [Rate("5/hour")]}, RegistrationError, "one message takes 720 s, and nobody waits longer than"),
    ],
)
def test_a_rate_that_cannot_work_is_told_at_registration(options: Any, error: type[Exception], told: str) -> None:
    app = App()
    for attempt in (
        lambda: App(**options),
        lambda: APIRouter(**options),
        lambda: app.websocket("/ws", **options)(nothing),
        lambda: app.add_channel("/chat", **options),
    ):
        with pytest.raises(error, match=told):
            attempt()


def test_a_rate_need_not_stand_in_a_list() -> None:
    rate: Any = Rate("5/second")
    assert App(rates=rate).router.terms.limits.rates == (rate,)


def test_a_route_without_rates_has_the_ordinary_websocket() -> None:
    scope: Any = {"type": "websocket", "headers": [], "path": "/"}
    websocket = Limits().websocket(scope, nothing, nothing)  # type: ignore[arg-type]
    assert type(websocket) is WebSocket
    replying = Limits([Rate("5/second", over=OverRate.REPLY)])
    answered = replying.unanswered.websocket(scope, nothing, nothing)  # type: ignore[arg-type]
    assert type(answered) is WebSocket
