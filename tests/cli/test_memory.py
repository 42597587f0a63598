"""The memory of a server that `antiphon run` started, as the system counts it."""

from __future__ import annotations

import contextlib
import re
import sys
import zlib
from pathlib import Path

import pytest

from antiphon.cli import allocator
from tests.commands import ANTIPHON
from tests.patience import until
from tests.server.raw import CLOSE, TEXT, Raw, connect, frame, request
from tests.serving import serve_process

MIB = 1 << 20
BOUND = 32 * MIB
MESSAGE = 4 * MIB
CLIENTS = 40
APP = """\
import asyncio
from antiphon import App, WebSocket

app = App()

@app.websocket("/")
async def read_nothing(websocket: WebSocket) -> None:
    await websocket.accept()
    await asyncio.get_running_loop().create_future()
"""


def bomb(text: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    return frame(TEXT, (compressor.compress(text) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4], rsv1=True)


def memory(pid: int, name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found
    return int(found[1]) << 10


async def has_been_given_up(raw: Raw) -> bool:
    """Or has not, and will not be: its message is in the server."""
    return (await raw.frame()).opcode == CLOSE


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("last", "whole"), [("x", MESSAGE), ("😀", 4 * MESSAGE)], ids=["ascii", "emoji"])
async def test_messages_that_apps_do_not_read_take_as_much_memory_as_is_allowed(
    tmp_path: Path, last: str, whole: int
) -> None:
    (tmp_path / "main.py").write_text(APP)
    attack = bomb(b"x" * (MESSAGE - len(last.encode())) + last.encode())
    settings = {"ANTIPHON_WS_UNREAD_BYTES": str(BOUND)}
    most_kept = BOUND // whole
    async with (
        serve_process("main", app_dir=tmp_path, command=(*ANTIPHON, "run"), env=settings) as server,
        contextlib.AsyncExitStack() as stack,
    ):
        async with connect(server.port) as first:
            await first.send(request())
            await first.read_head()
        pid, before = server.process.pid, memory(server.process.pid, "VmRSS")
        for number in range(1, 4):
            clients = [await stack.enter_async_context(connect(server.port)) for _ in range(CLIENTS)]
            for raw in clients:
                await raw.send(request("/", "Sec-WebSocket-Extensions: permessage-deflate"))
                await raw.read_head()
            for raw in clients:
                await raw.send(attack)
            expected = number * CLIENTS - most_kept
            await until(lambda expected=expected: server.log.count("1013") >= expected)  # type: ignore[misc]
        begun = CLIENTS * MIB // 2  # of messages that wait until those before them are whole
        assert memory(pid, "VmHWM") - before < BOUND + 2 * MESSAGE + whole + begun
        await until(lambda: memory(pid, "VmRSS") - before < BOUND + begun)


def test_a_threshold_that_somebody_has_chosen_is_left_alone() -> None:
    assert not allocator.give_back_large_blocks({"MALLOC_MMAP_THRESHOLD_": "65536"})
    assert not allocator.give_back_large_blocks({"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=65536"})
