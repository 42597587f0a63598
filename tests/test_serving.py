"""The servers that other tests stand on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import websockets

from tests.serving import UVICORN_PROTOCOLS, serve, serve_hypercorn, serve_process

ECHO = """
async def app(scope, receive, send):
    if scope["type"] != "websocket":
        return
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})
"""


def _echo() -> Any:
    names: dict[str, Any] = {}
    exec(ECHO, names)
    return names["app"]


async def _echoes(url: str) -> bool:
    async with websockets.connect(url) as client:
        await client.send("hello")
        return await client.recv() == "hello"


@pytest.mark.parametrize("ws", UVICORN_PROTOCOLS)
async def test_an_app_is_served_in_the_loop_of_the_test(ws: str) -> None:
    async with serve(_echo(), ws=ws) as server:
        assert await _echoes(server.url)


async def test_an_app_is_served_by_hypercorn() -> None:
    async with serve_hypercorn(_echo()) as server:
        assert await _echoes(server.url)


async def test_an_app_is_served_by_a_process_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(ECHO)
    async with serve_process("program:app", app_dir=tmp_path) as server:
        assert await _echoes(server.url)
    assert "Finished server process" in server.log


async def test_a_program_that_cannot_start_is_an_error_with_its_output(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text("raise ValueError('no such luck')")
    with pytest.raises(RuntimeError, match="no such luck"):
        async with serve_process("program:app", app_dir=tmp_path):
            pass
