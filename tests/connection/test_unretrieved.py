"""asyncio's log lines on tasks that an endpoint leaves behind: bugs, but not the peer's leaving."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from antiphon.connection import WebSocket
from antiphon.exceptions import WebSocketDisconnect
from tests.connection.peer import Peer
from tests.patience import PATIENCE

Work = Callable[[WebSocket], Awaitable[Any]]


async def in_group(websocket: WebSocket) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(websocket.receive_text())
        group.create_task(websocket.send_text("x"))


async def never_retrieved(work: Work, *messages: bytes) -> list[str]:
    """Run the work in a task that nobody awaits, on a connection whose peer has left. Returns asyncio's complaints."""
    told: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["message"]))
    peer = Peer()
    websocket = await peer.accepted()
    peer.come(*messages)
    peer.leave(1001)
    peer.lost = True
    task = asyncio.ensure_future(work(websocket))
    await asyncio.wait([task])
    del task
    gc.collect()
    return told


@pytest.mark.parametrize(
    "work",
    [
        lambda websocket: websocket.receive_text(),
        lambda websocket: websocket.send_text("x"),
        lambda websocket: websocket.send_bytes(b"x"),
        lambda websocket: websocket.send_json({}),
        in_group,
    ],
)
async def test_a_task_that_ends_with_its_connection_is_no_traceback(work: Work) -> None:
    assert await never_retrieved(work) == []


async def test_a_message_of_the_wrong_kind_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    async def work(websocket: WebSocket) -> None:
        await asyncio.wait_for(websocket.receive_text(), PATIENCE)

    assert await never_retrieved(work, b"binary") == []
    (record,) = caplog.records
    assert "expected a text message" in record.getMessage()
    assert record.exc_info is None


async def test_a_bug_in_such_a_task_is_told_as_ever() -> None:
    async def work(websocket: WebSocket) -> None:
        try:
            await websocket.send_text("x")
        except WebSocketDisconnect:
            raise ValueError("a bug") from None

    assert await never_retrieved(work) == ["Task exception was never retrieved"]


async def test_who_awaits_the_task_gets_the_disconnect() -> None:
    peer = Peer()
    websocket = await peer.accepted()
    peer.leave(1001)
    task = asyncio.create_task(websocket.receive_text())
    await asyncio.wait([task])
    with pytest.raises(WebSocketDisconnect):
        await task
