"""The limit of open files: raised as far as it goes, and told where it is low."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from websockets.asyncio.client import connect

from tests.commands import ANTIPHON
from tests.serving import serve_process

APP = """\
from antiphon import App, WebSocket

app = App()

@app.websocket("/")
async def greet(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.wait_closed()
"""


def limited(limit: str) -> tuple[str, ...]:
    return ("sh", "-c", f'ulimit {limit}; exec "$@"', "sh", *ANTIPHON, "run")


@pytest.mark.parametrize("options", [(), ("--workers", "2")], ids=["alone", "workers"])
async def test_more_connections_come_in_than_the_soft_limit_has_files(tmp_path: Path, options: tuple[str, ...]) -> None:
    (tmp_path / "main.py").write_text(APP)
    async with (
        serve_process("main", *options, app_dir=tmp_path, command=limited("-Sn 64")) as server,
        contextlib.AsyncExitStack() as stack,
    ):
        for _ in range(160):
            await stack.enter_async_context(connect(f"{server.url}/"))
        assert "open files" not in server.log


async def test_a_low_hard_limit_is_told_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(APP)
    async with serve_process("main", app_dir=tmp_path, command=limited("-n 100")) as server:
        assert "At most 100 open files here" in await server.wait_for_line("open files")
    assert server.log.count("open files") == 1
