"""A peer's last message is handled to the end, for everybody else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest
from websockets.asyncio.client import connect

from antiphon import App, WebSocket, WebSocketDisconnect
from antiphon.connection import life
from antiphon.types import Message
from tests.connection.clients import RawClient
from tests.patience import PATIENCE
from tests.serving import HOST, UVICORN_PROTOCOLS, Served, serve

BURST = 50


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A message stays at work for as long as a busy machine takes. The simulation has the moments to the tick."""
    monkeypatch.setattr(life, "HANDLING_SECONDS", PATIENCE)


def chat_app(log: list[str]) -> App:
    """The connection manager of every tutorial."""
    app = App()
    active: list[WebSocket] = []

    @app.websocket("/{name}")
    async def chat(websocket: WebSocket, name: str) -> None:
        await websocket.accept()
        active.append(websocket)
        try:
            while True:
                text = await websocket.receive_text()
                await websocket.send_text(f"you: {text}")
                for connection in active:
                    await connection.send_text(f"{name}: {text}")
        except WebSocketDisconnect:
            active.remove(websocket)
            log.append(f"{name} left")
            for connection in active:
                await connection.send_text(f"{name} left")

    return app


@pytest.fixture(params=[*UVICORN_PROTOCOLS, "antiphon.server:WebSocketProtocol"])
async def chat(request: pytest.FixtureRequest, patient: None) -> AsyncGenerator[tuple[Served, list[str]]]:
    log: list[str] = []
    async with serve(chat_app(log), ws=request.param) as server:
        yield server, log


async def test_a_burst_reaches_everybody_although_its_sender_closes_behind_it(chat: tuple[Served, list[str]]) -> None:
    server, log = chat
    async with connect(f"{server.url}/listener") as listener, asyncio.timeout(PATIENCE):
        speaker = await connect(f"{server.url}/speaker", max_queue=None)
        for number in range(BURST):
            await speaker.send(str(number))
        await speaker.close()
        heard = [await listener.recv() for _ in range(BURST + 1)]
    assert heard == [*(f"speaker: {number}" for number in range(BURST)), "speaker left"]
    assert "speaker left" in log


async def test_a_burst_reaches_everybody_although_its_sender_vanishes_behind_it(chat: tuple[Served, list[str]]) -> None:
    server, _ = chat
    frames = b"".join(b"\x81\x82\0\0\0\0%02d" % number for number in range(BURST))
    async with connect(f"{server.url}/listener") as listener, asyncio.timeout(PATIENCE):
        with await RawClient.connect(server.port, "/speaker") as speaker:
            await asyncio.get_running_loop().sock_sendall(speaker.sock, frames)
            speaker.vanish()
        heard = [await listener.recv() for _ in range(BURST + 1)]
    assert heard == [*(f"speaker: {number:02d}" for number in range(BURST)), "speaker left"]


@pytest.mark.parametrize("ws", [*UVICORN_PROTOCOLS, "antiphon.server:WebSocketProtocol"])
async def test_an_endpoint_that_goes_on_sending_learns_of_the_end(ws: str) -> None:
    app = App()
    ended = asyncio.get_running_loop().create_future()

    @app.websocket("/")
    async def stream(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.receive_text()
        await websocket.wait_closed()
        try:
            while True:
                await websocket.send_text("token")
                await asyncio.sleep(0.001)
        except WebSocketDisconnect:
            ended.set_result(None)

    async with serve(app, ws=ws) as server:
        async with connect(f"ws://{HOST}:{server.port}/") as client:
            await client.send("go")
        async with asyncio.timeout(PATIENCE):
            await ended


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("reply", ["send_text", "send"])
@pytest.mark.parametrize("ws", [*UVICORN_PROTOCOLS, "antiphon.server:WebSocketProtocol"])
async def test_a_loop_over_receive_gets_to_the_disconnect_message_behind_a_burst(ws: str, reply: str) -> None:
    app = App()
    heard: asyncio.Queue[Message] = asyncio.Queue()
    vanished = asyncio.Event()

    @app.websocket("/")
    async def raw(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.receive()
        await vanished.wait()
        while (message := await websocket.receive())["type"] == "websocket.receive":
            heard.put_nowait(message)
            await asyncio.sleep(0)  # work, while which the server learns that the peer is gone
            if reply == "send":
                await websocket.send({"type": "websocket.send", "text": message["text"]})
            else:
                await websocket.send_text(message["text"])
        heard.put_nowait(message)

    frames = b"".join(b"\x81\x82\0\0\0\0%02d" % number for number in range(BURST))
    async with serve(app, ws=ws) as server, asyncio.timeout(PATIENCE):
        with await RawClient.connect(server.port, "/") as speaker:
            await asyncio.get_running_loop().sock_sendall(speaker.sock, frames)
            speaker.vanish()
        vanished.set()
        messages = [await heard.get() for _ in range(BURST)]
    assert [message.get("text") for message in messages[:-1]] == [f"{number:02d}" for number in range(1, BURST)]
    assert (messages[-1]["type"], messages[-1]["code"]) == ("websocket.disconnect", 1006)
