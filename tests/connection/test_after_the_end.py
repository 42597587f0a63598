"""Who goes on with a connection that has ended delays nobody else, and is told once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from antiphon import App, Hub, WebSocket, WebSocketDisconnect
from antiphon.testing import Server, virtual_time

from .peer import Peer

USES = 20_000
"""For ever, in a test that has to end."""


async def joined(websocket: WebSocket, hub: Hub) -> None:
    async with hub.join("news", websocket):
        raise AssertionError("nobody is there")


async def iterated(websocket: WebSocket) -> None:
    async for _ in websocket.iter_text():
        raise AssertionError("nobody is there")


CALLS: dict[str, Callable[[WebSocket, Hub], Awaitable[Any]]] = {
    "receive": lambda websocket, hub: websocket.receive(),
    "receive_text": lambda websocket, hub: websocket.receive_text(),
    "receive_json": lambda websocket, hub: websocket.receive_json(),
    "iter_text": lambda websocket, hub: iterated(websocket),
    "send_text": lambda websocket, hub: websocket.send_text("hi"),
    "send_json": lambda websocket, hub: websocket.send_json([1]),
    "hub.join": joined,
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@virtual_time
async def test_a_loop_that_ignores_the_end_leaves_the_others_alone(
    call: Callable[[WebSocket, Hub], Awaitable[Any]], caplog: pytest.LogCaptureFixture
) -> None:
    app = App(hub=Hub())
    uses = 0
    spinning = asyncio.Event()

    @app.websocket("/spin")
    async def spin(websocket: WebSocket, hub: Hub) -> None:
        nonlocal uses
        await websocket.accept()
        await websocket.wait_closed()
        spinning.set()
        while uses < USES:
            uses += 1
            try:
                await call(websocket, hub)
            except Exception:  # the mistake
                pass

    @app.websocket("/echo")
    async def echo(websocket: WebSocket) -> None:
        await websocket.accept()
        async for text in websocket.iter_text():
            await websocket.send_text(text)

    async with Server(app) as server:
        async with server.connect("/spin"):
            pass
        await spinning.wait()
        async with server.connect("/echo") as peer:
            await peer.send("still here")
            assert await peer.receive() == "still here"
        assert uses < USES
    told = [record.getMessage() for record in caplog.records if "has ended" in record.getMessage()]
    assert len(told) == 1
    assert told[0].startswith("/spin: ")
    assert "except WebSocketDisconnect" in told[0]


@virtual_time
async def test_some_uses_behind_the_end_wait_for_nothing(caplog: pytest.LogCaptureFixture) -> None:
    peer = Peer()
    websocket = await peer.accepted()
    peer.leave(1001)
    before = asyncio.get_running_loop().time()
    for _ in range(100):
        with pytest.raises(WebSocketDisconnect):
            await websocket.receive_text()
    assert asyncio.get_running_loop().time() == before
    assert not caplog.records


@virtual_time
async def test_a_list_with_connections_that_have_ended_is_served_without_delay(
    caplog: pytest.LogCaptureFixture,
) -> None:
    alive, *gone = [Peer() for _ in range(4)]
    websockets = [await peer.accepted() for peer in (alive, *gone)]
    for peer, websocket in zip(gone, websockets[1:], strict=True):
        peer.leave(1001)
        await websocket.wait_closed()
    before = asyncio.get_running_loop().time()
    for number in range(300):
        for websocket in websockets:
            with contextlib.suppress(Exception):  # the mistake: nobody is taken out
                await websocket.send_text(str(number))
    assert asyncio.get_running_loop().time() == before
    assert "out of your list" in caplog.text
