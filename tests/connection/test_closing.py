"""A Close reaches a peer that reads, even if the task that sent it is cancelled. In memory."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from antiphon import App
from antiphon.connection import Closed, WebSocket, WebSocketState
from antiphon.exceptions import WebSocketDisconnect, WebSocketDisconnected
from antiphon.types import ClosedBy, PreparedMessage
from tests.connection.peer import Peer
from tests.connection.test_foreign import Impatient, foreign, turns
from tests.patience import PATIENCE


async def test_an_endpoint_that_is_over_waits_for_the_close_that_another_left_with_a_stalled_peer() -> None:
    app, peer = App(), Peer()
    sockets: list[WebSocket] = []

    @app.websocket("/")
    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        sockets.append(websocket)
        with contextlib.suppress(WebSocketDisconnect):
            await websocket.receive_text()

    peer.come({"type": "websocket.connect"})
    serving = foreign(app(peer.scope, peer.receive, peer.send))
    await turns()
    peer.blocked = True
    await foreign(sockets[0].send_text("last words"))
    await foreign(sockets[0].close(4000, "kicked"))
    peer.come("x")
    await turns()
    assert not serving.done()
    peer.blocked = False
    await serving
    assert [message.get("text", message.get("code")) for message in peer.sent[1:]] == ["last words", 4000]


async def test_a_close_whose_sender_was_cancelled_is_sent_all_the_same() -> None:
    peer = Peer()
    websocket = await peer.accepted()
    peer.blocked = True
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await websocket.close(4000)
    assert websocket.application_state is WebSocketState.DISCONNECTED
    with pytest.raises(WebSocketDisconnected) as caught:
        await websocket.send_text("x")
    assert caught.value.code == 4000
    peer.blocked = False
    await websocket.flushed()
    assert [message["type"] for message in peer.sent] == ["websocket.close"]
    assert websocket.closed is not None
    assert (websocket.closed.code, websocket.closed.by) == (4000, ClosedBy.US)


async def test_a_close_whose_sender_was_cancelled_waits_no_longer_than_send_timeout() -> None:
    peer = Peer()
    websocket = await peer.accepted(Impatient)
    peer.blocked = True
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await websocket.close(4000)
    async with asyncio.timeout(PATIENCE):
        await websocket.flushed()
        assert (await websocket.wait_closed()).code == 1006


async def test_nothing_is_sent_behind_a_close_that_waits_for_its_peer() -> None:
    peer = Peer()
    websocket = await peer.accepted()
    peer.blocked = True
    closing = asyncio.create_task(websocket.close())
    await turns()
    assert websocket.sink.offer(PreparedMessage("too late"), 100)
    websocket.sink.disconnect(1013, "too late")
    peer.blocked = False
    await closing
    await turns()
    assert peer.sent == [{"type": "websocket.close", "code": 1000, "reason": ""}]


async def test_an_answer_that_comes_while_the_close_is_being_sent_does_not_make_it_the_peers() -> None:
    peer = Peer()
    websocket = await peer.accepted()
    ending = asyncio.create_task(websocket.wait_closed())
    await turns()
    peer.blocked = True
    closing = asyncio.create_task(websocket.close(4000, "why"))
    await turns()
    peer.leave(1000)
    assert await ending == Closed(code=4000, reason="why", by=ClosedBy.US)
    peer.blocked = False
    await closing
