"""The memory that a client can make a channel hold, as the system counts it: messages at work, one behind them, and no
more."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from pathlib import Path

import pytest

from tests.cli.test_memory import memory
from tests.commands import run
from tests.patience import until
from tests.server.raw import PING, TEXT, Raw, connect, frame, request

SIZE = 512 << 10
CLIENTS, STREAMS, CONCURRENT = 3, 4, 2
AT_WORK = STREAMS + CONCURRENT + 1
"""Messages of one connection: its streams, the requests beside its line, and the one in line."""
UNREAD = 2
"""One that waits for the line, and one that is not whole yet."""
PROGRAM = f"""
import asyncio
from collections.abc import AsyncIterator
from antiphon import App, ChannelOptions
from pydantic import BaseModel

app = App(channel_options=ChannelOptions(streams={STREAMS}, max_message_size={SIZE}))
chat = app.add_channel("/")

class Much(BaseModel):
    text: str

gate = asyncio.Event()

async def hold(message: Much) -> None:
    print("holds", len(message.text), flush=True)
    await gate.wait()

@chat.on("stream")
async def stream(message: Much) -> AsyncIterator[int]:
    await hold(message)
    yield 1

@chat.on("beside", concurrent={CONCURRENT})
async def beside(message: Much) -> None:
    await hold(message)

@chat.on("release", concurrent=2)
async def release() -> None:
    gate.set()

@chat.on("line")
async def line(message: Much) -> None:
    await hold(message)
"""


def largest(tag: str, ref: int) -> bytes:
    head = b'{"type":"%s","ref":%d,"text":"' % (tag.encode(), ref)
    return frame(TEXT, head + b"x" * (SIZE - len(head) - 2) + b'"}')


async def flood(raw: Raw, sent: list[int]) -> None:
    """Far more streams than may be at work, then far more requests."""
    tags = ["stream"] * 6 * STREAMS + ["beside"] * CONCURRENT + ["line"] * 40
    for ref, tag in enumerate(tags):
        await raw.send(largest(tag, ref))
        sent.append(ref)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_a_client_that_fills_every_lane_with_the_largest_messages_takes_a_bounded_share_of_memory(
    tmp_path: Path,
) -> None:
    (tmp_path / "main.py").write_text(PROGRAM)
    sent: list[int] = []
    async with run("main:app", app_dir=tmp_path) as server, contextlib.AsyncExitStack() as stack:
        idle, *clients = [await stack.enter_async_context(connect(server.port)) for _ in range(1 + CLIENTS)]
        for raw in (idle, *clients):
            await raw.send(request())
            await raw.read_head()
        before = memory(server.process.pid, "VmRSS")
        floods = [asyncio.create_task(flood(raw, sent)) for raw in clients]
        try:
            await until(lambda: server.log.count("holds") >= CLIENTS * AT_WORK)
            quiet, taken = 0, -1
            while quiet < 20:  # the server answers others, and takes nothing more of these
                await idle.send(frame(PING))
                await idle.frame()
                quiet, taken = (quiet + 1, taken) if len(sent) == taken else (0, len(sent))
            most = memory(server.process.pid, "VmHWM") - before
        finally:
            for raw, task in zip(clients, floods, strict=True):
                raw.reset()  # unread bytes are never sent
                task.cancel()
            await asyncio.wait(floods)
        assert most < 1.5 * CLIENTS * (AT_WORK + UNREAD) * SIZE  # the text of the one in line is held beside its value
        assert server.log.count("holds") == CLIENTS * AT_WORK
        await idle.send(frame(TEXT, b'{"type":"release"}'))
