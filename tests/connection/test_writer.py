"""The one writer of a connection on a server that is not ours."""

from __future__ import annotations

import asyncio

import pytest

from antiphon.connection.state import Closed
from antiphon.connection.writer import AsgiWriter
from antiphon.types import Message, PreparedMessage
from tests.patience import until


async def test_a_send_that_makes_another_error_of_its_cancellation_spoils_no_line() -> None:
    """Middleware may do so. The message was given up before."""
    loop, ended, sent = asyncio.get_running_loop(), list[Closed](), list[str]()
    first = loop.create_future()

    async def send(message: Message) -> None:
        sent.append(message["text"])
        try:
            await (first if len(sent) == 1 else loop.create_future())
        except asyncio.CancelledError:
            raise RuntimeError("middleware") from None

    writer = AsgiWriter(send, loop=loop, timeout=60.0, on_ended=ended.append, watch=lambda: None)
    assert writer.offer(PreparedMessage("from elsewhere"), 100)
    await until(lambda: sent)
    own = asyncio.create_task(writer.send({"type": "websocket.send", "text": "own"}))
    await asyncio.sleep(0)
    first.set_result(None)
    await until(lambda: len(sent) == 2)
    writer.abort()
    with pytest.raises(ConnectionAbortedError):
        await own
    assert len(ended) == 1
    task = writer._writer
    assert task is not None
    writer.stop()
    await asyncio.wait({task})
    assert task.cancelled()
