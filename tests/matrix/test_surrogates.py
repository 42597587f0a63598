"""A lone surrogate in a peer's JSON goes back as it came, or closes. It is never a traceback that peers can ask for."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from websockets.asyncio.client import connect

from antiphon import App, Hub, Position, WebSocket
from antiphon.hub import Framing, TopicOptions
from tests.patience import PATIENCE

from .servers import SERVERS, ServerUnderTest

pytestmark = pytest.mark.parametrize("server", SERVERS, ids=lambda server: server.name)

SAYS = '{"x":"\\ud800ä","\\udfff":[1e400]}'


def app() -> App:
    app = App(hub=Hub(topics={"event": TopicOptions(history=9, framing=Framing.EVENT)}))

    async def told(websocket: WebSocket) -> Any:
        await websocket.accept()
        return await websocket.receive_json()

    @app.websocket("/echo/{mode}")
    async def echo(websocket: WebSocket, mode: str) -> None:
        await websocket.send_json(await told(websocket), mode)

    @app.websocket("/text")
    async def text(websocket: WebSocket) -> None:
        await websocket.send_text((await told(websocket))["x"])

    @app.websocket("/publish/{topic}")
    async def publish(websocket: WebSocket, topic: str, hub: Hub) -> None:
        data = await told(websocket)
        del data["\udfff"]
        async with hub.join(topic, websocket):
            await hub.publish(topic, data)
            await websocket.wait_closed()

    @app.websocket("/publish-infinity")
    async def publish_infinity(websocket: WebSocket, hub: Hub) -> None:
        await hub.publish("raw", await told(websocket))

    @app.websocket("/publish-text")
    async def publish_text(websocket: WebSocket, hub: Hub) -> None:
        await hub.publish("raw", (await told(websocket))["x"])

    @app.websocket("/join")
    async def join(websocket: WebSocket, hub: Hub) -> None:
        async with hub.join((await told(websocket))["x"], websocket):
            pass

    @app.websocket("/position")
    async def position(websocket: WebSocket) -> None:
        Position.parse((await told(websocket))["x"])

    @app.websocket("/presence")
    async def presence(websocket: WebSocket, hub: Hub) -> None:
        async with hub.join("raw", websocket, presence=await told(websocket)):
            pass

    return app


@pytest.mark.parametrize("path", ["echo/text", "echo/binary", "publish/raw", "publish/event"])
async def test_what_a_peer_said_goes_on_as_it_came(
    server: ServerUnderTest, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with server.run(app()) as served, connect(f"{served.url}/{path}") as client:
        await client.send(SAYS)
        async with asyncio.timeout(PATIENCE):
            while "x" not in (said := json.loads(await client.recv())):
                if said.get("type") == "message":
                    said = said["data"]
                    break
    assert said["x"] == "\ud800ä"
    assert [record for record in caplog.records if record.exc_info] == []


@pytest.mark.parametrize(
    ("path", "code", "line"),
    [
        (
            "text",
            1007,
            "app.<locals>.text (/text): text that UTF-8 cannot hold was to be sent: lone surrogate '\\ud800'",
        ),
        ("publish-text", 1007, "text that is not UTF-8"),
        ("publish-infinity", 1007, "has no JSON form"),
        ("join", 1008, "not a topic name: '\\ud800\\xe4': control character or lone surrogate U+D800"),
        ("position", 1008, "not a position (offset-epoch): '\\ud800\\xe4'"),
        ("presence", 1007, "has no JSON form"),
    ],
)
async def test_what_cannot_go_on_closes_with_one_line_and_no_traceback(
    server: ServerUnderTest, path: str, code: int, line: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with server.run(app()) as served, connect(f"{served.url}/{path}") as client:
        await client.send(SAYS)
        async with asyncio.timeout(PATIENCE):
            await client.wait_closed()
    assert client.close_code == code
    assert [record for record in caplog.records if record.exc_info] == []
    (said,) = [record.getMessage() for record in caplog.records if record.name == "antiphon"]
    assert line in said
