"""Refusals that a page can read: the handshake is accepted, and closed with code and reason, on every server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any

import fastapi
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from antiphon import (
    APIRouter,
    App,
    BackendUnavailable,
    ChannelOptions,
    Denials,
    Depends,
    HTTPException,
    JSONResponse,
    Query,
    WebSocket,
    WebSocketException,
)
from antiphon.connection.denials import close_code_of, close_reason_of, subprotocol_to_answer
from tests.matrix.servers import SERVERS, ServerUnderTest
from tests.patience import PATIENCE
from tests.serving import serve

on_every_server = pytest.mark.parametrize("server", SERVERS, ids=lambda server: server.name)


async def seen(url: str, *offered: str) -> tuple[int, str] | int:
    """The code and the reason of the Close, or the status of an HTTP response."""
    subprotocols = [Subprotocol(one) for one in offered] or None
    try:
        async with connect(url, subprotocols=subprotocols, open_timeout=PATIENCE) as client:
            with pytest.raises(ConnectionClosed):
                await client.recv()
    except InvalidStatus as refused:
        return refused.response.status_code
    assert client.close_code is not None
    return client.close_code, client.close_reason or ""


class Full(Exception):
    """An error of the app's, with a handler."""


RAISED: dict[str, tuple[Exception, tuple[int, str]]] = {
    "400": (HTTPException(400, "bad"), (1008, "bad")),
    "401": (HTTPException(401, "log in", headers={"WWW-Authenticate": "Bearer"}), (3000, "log in")),
    "403": (HTTPException(403), (3003, "Forbidden")),
    "404": (HTTPException(404, "no such room"), (4404, "no such room")),
    "409": (HTTPException(409, "taken"), (4409, "taken")),
    "422": (HTTPException(422, "odd"), (1008, "odd")),
    "429": (HTTPException(429, "too many", headers={"Retry-After": "5"}), (1013, "too many; retry-after=5")),
    "503": (HTTPException(503, "x" * 200, headers={"retry-after": "30"}), (1013, "x" * 107 + "; retry-after=30")),
    "503-date": (
        HTTPException(503, "later", headers={"Retry-After": "Wed, 21 Oct 2026 07:28:00"}),
        (1013, "later"),
    ),
    "500": (HTTPException(500, "ours"), (1011, "ours")),
    "websocket": (WebSocketException(4321, "mine"), (4321, "mine")),
    "policy": (WebSocketException(1008, "no"), (1008, "no")),
    "away": (BackendUnavailable("redis is away"), (1013, "try again later")),
    "bug": (ZeroDivisionError("the secret is 42"), (1011, "Internal Server Error")),
    "handled": (Full(), (4418, "I'm a Teapot")),
}


def refusing(**said: Any) -> App:
    app = App(**said)

    @app.exception_handler(Full)
    async def full(websocket: WebSocket, error: Full) -> JSONResponse:
        return JSONResponse({"detail": "full"}, 418)

    async def endpoint(websocket: WebSocket) -> None: ...

    for name, (error, _) in RAISED.items():
        app.add_api_websocket_route(f"/plain/{name}", endpoint, dependencies=[Depends(_raising(error))])
        app.add_channel(f"/channel/{name}", dependencies=[Depends(_raising(error))])
    return app


def _raising(error: Exception) -> Any:
    def refuse() -> None:
        raise error

    return refuse


@on_every_server
async def test_every_refusal_has_its_code_and_reason(server: ServerUnderTest) -> None:
    async with server.run(refusing(denials=Denials.CLOSE)) as served:
        got = {name: await seen(f"{served.url}/plain/{name}") for name in RAISED}
    assert got == {name: close for name, (_, close) in RAISED.items()}


@on_every_server
async def test_channels_close_without_being_told_and_plain_routes_do_not(server: ServerUnderTest) -> None:
    async with server.run(refusing()) as served:
        assert {name: await seen(f"{served.url}/channel/{name}") for name in ("401", "404", "bug")} == {
            "401": (3000, "log in"),
            "404": (4404, "no such room"),
            "bug": (1011, "Internal Server Error"),
        }
        assert [await seen(f"{served.url}/plain/{name}") for name in ("401", "404", "bug")] == [401, 404, 500]
        assert await seen(f"{served.url}/nowhere") == 404


async def test_who_says_how_is_the_nearest() -> None:
    app = App(denials=Denials.CLOSE, channel_options=ChannelOptions(streams=1))
    router = APIRouter(prefix="/http", denials=Denials.HTTP)
    forbidden = [Depends(_raising(HTTPException(403)))]

    async def endpoint(websocket: WebSocket) -> None: ...

    for one in (app, router):
        one.add_api_websocket_route("/plain", endpoint, dependencies=forbidden)
        one.add_api_websocket_route("/own", endpoint, dependencies=forbidden, denials=Denials.HTTP)
        one.add_channel("/channel", dependencies=forbidden)
        one.add_channel("/options", dependencies=forbidden, options=ChannelOptions(denials=Denials.HTTP))
        one.add_channel(
            "/argument",
            dependencies=forbidden,
            options=ChannelOptions(denials=Denials.HTTP),
            denials=Denials.CLOSE,
        )
    app.include_router(router)
    paths = ("/plain", "/own", "/channel", "/options", "/argument")
    close = (3003, "Forbidden")
    async with serve(app, ws="antiphon.server:WebSocketProtocol") as served:
        assert [await seen(served.url + path) for path in paths] == [close, 403, close, 403, close]
        assert [await seen(f"{served.url}/http{path}") for path in paths] == [403, 403, 403, 403, close]


@on_every_server
async def test_what_an_endpoint_says_before_accept_is_read_too(
    server: ServerUnderTest, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    app = App(denials=Denials.CLOSE)

    @app.websocket("/closes")
    async def closes(websocket: WebSocket) -> None:
        await websocket.close(4010, "go away")

    @app.websocket("/closes-plainly")
    async def closes_plainly(websocket: WebSocket) -> None:
        await websocket.close()

    @app.websocket("/returns")
    async def returns(websocket: WebSocket) -> None: ...

    @app.websocket("/parameters")
    async def parameters(websocket: WebSocket, room: Annotated[int, Query()]) -> None: ...

    @app.websocket("/responds")
    async def responds(websocket: WebSocket) -> None:
        await websocket.send_denial_response(JSONResponse({}, 402))

    async with server.run(app) as served:
        assert await seen(f"{served.url}/closes") == (4010, "go away")
        assert await seen(f"{served.url}/closes-plainly") == (3003, "")
        assert await seen(f"{served.url}/returns") == (3003, "")
        assert await seen(f"{served.url}/parameters") == (1008, "invalid parameters")
        assert await seen(f"{served.url}/responds") == 402
    assert "closes (/closes) refused: accepted, closed with 4010 go away before accept" in caplog.text
    assert not [one for one in caplog.records if one.exc_info]


async def test_the_log_says_with_what_a_page_was_refused(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with serve(refusing(denials=Denials.CLOSE)) as served:
        await seen(f"{served.url}/plain/401")
    assert "(/plain/401) refused: Close 3000, log in (HTTPException in " in caplog.text


@on_every_server
async def test_a_guest_in_fastapi_closes_too_also_for_a_bug(server: ServerUnderTest) -> None:
    router = APIRouter(denials=Denials.CLOSE)

    @router.websocket("/forbidden", dependencies=[Depends(_raising(HTTPException(401, "log in")))])
    async def forbidden(websocket: WebSocket) -> None: ...

    @router.websocket("/bug", dependencies=[Depends(_raising(ZeroDivisionError()))])
    async def bug(websocket: WebSocket) -> None: ...

    host = fastapi.FastAPI()
    host.include_router(router)  # type: ignore[arg-type]
    async with server.run(host) as served:
        assert await seen(f"{served.url}/forbidden") == (3000, "log in")
        assert await seen(f"{served.url}/bug") == (1011, "Internal Server Error")


K8S = "base64url.bearer.authorization.k8s.io.c2VjcmV0"

OFFERS: list[tuple[Sequence[str], str | None]] = [
    ((), None),
    (("chat",), "chat"),
    (("bearer", "secret"), "bearer"),
    (("Bearer", "secret", "chat"), "Bearer"),
    ((K8S, "chat"), "chat"),
    ((K8S, "bearer", "secret"), "bearer"),
    ((K8S,), None),
    (("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbm4ifQ.c2lnbmF0dXJl", "chat"), "chat"),
]


@pytest.mark.parametrize(("offered", "answered"), OFFERS, ids=str)
def test_the_subprotocol_that_is_answered_is_no_token(offered: Sequence[str], answered: str | None) -> None:
    assert subprotocol_to_answer(offered) == answered


@on_every_server
async def test_a_page_that_offers_subprotocols_is_answered_one(server: ServerUnderTest) -> None:
    app = App(denials=Denials.CLOSE)

    def forgets_the_token(websocket: WebSocket) -> None:
        websocket.scope["subprotocols"] = []
        raise HTTPException(401, "expired")

    @app.websocket("/ws", dependencies=[Depends(forgets_the_token)])
    async def endpoint(websocket: WebSocket) -> None: ...

    async with server.run(app) as served:
        async with connect(f"{served.url}/ws", subprotocols=[Subprotocol("bearer"), Subprotocol("secret")]) as client:
            assert client.subprotocol == "bearer"
            await client.wait_closed()
    assert client.close_code == 3000


def test_statuses_and_reasons_at_the_edges() -> None:
    assert [close_code_of(one) for one in (200, 302, 402, 418, 499, 500, 504, 599)] == [
        *(1008, 4302, 4402, 4418, 4499),
        *(1011, 1011, 1011),
    ]
    assert close_reason_of("", "7") == "retry-after=7"
    assert close_reason_of("ä" * 100, "7").endswith("; retry-after=7")
    assert len(close_reason_of("ä" * 100, "7").encode()) <= 123
    assert close_reason_of("x", "9" * 7) == "x"


async def test_a_client_that_is_gone_before_its_refusal_is_quiet(caplog: pytest.LogCaptureFixture) -> None:
    entered, left = asyncio.Event(), asyncio.Event()
    app = App(denials=Denials.CLOSE)

    async def waits() -> AsyncIterator[None]:
        entered.set()
        await left.wait()
        raise HTTPException(401)
        yield

    @app.websocket("/ws", dependencies=[Depends(waits)])
    async def endpoint(websocket: WebSocket) -> None: ...

    async with serve(app, ws="antiphon.server:WebSocketProtocol") as served:
        _, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(
            b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        await asyncio.wait_for(entered.wait(), PATIENCE)
        writer.transport.abort()
        await asyncio.sleep(0.05)  # nothing tells when the server has seen the reset; too early only makes it easier
        left.set()
    assert not [one for one in caplog.records if one.exc_info]
