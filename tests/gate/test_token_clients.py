"""Tokens from others' clients, on every server: Python's websockets, and Node.js with ws and its own WebSocket."""

import asyncio
import base64
import json
import subprocess
from pathlib import Path
from typing import Annotated, Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from antiphon import App, Depends, WebSocket
from antiphon.gate import COOKIE, FIRST_MESSAGE, HEADER, JWT, SUBPROTOCOL, Identity
from tests.matrix.servers import SERVERS, ServerUnderTest
from tests.node import tools
from tests.patience import PATIENCE

from .tokens import SECRET, Watch, no_token_in_logs, signed

__all__ = ["Watch", "no_token_in_logs"]

HERE = Path(__file__).parent


def app_of() -> App:
    app = App()
    jwt = JWT(SECRET, algorithms=["HS256"], sources=[HEADER, SUBPROTOCOL, COOKIE("session"), FIRST_MESSAGE(PATIENCE)])

    @app.websocket("/ws")
    async def endpoint(websocket: WebSocket, who: Annotated[Identity, Depends(jwt)]) -> None:
        await websocket.accept()
        await websocket.send_json([who.user, websocket.scope["subprotocols"]])
        await websocket.send_text(await websocket.receive_text())

    return app


def kubernetes(token: str) -> str:
    return "base64url.bearer.authorization.k8s.io." + base64.urlsafe_b64encode(token.encode()).decode().rstrip("=")


@pytest.mark.parametrize("server", SERVERS, ids=lambda one: one.name)
async def test_every_source_on_every_server(server: ServerUnderTest) -> None:
    token = signed()
    ways: list[tuple[dict[str, Any], str | None, list[str]]] = [
        ({"additional_headers": {"Authorization": f"Bearer {token}"}}, None, []),
        ({"additional_headers": {"Cookie": f"session={token}"}}, None, []),
        ({"subprotocols": ["bearer", token]}, "bearer", ["bearer"]),
        ({"subprotocols": ["chat", "bearer", token]}, "bearer", ["chat", "bearer"]),
        ({"subprotocols": [kubernetes(token), "chat"]}, "chat", ["chat"]),
        ({"subprotocols": [kubernetes(token)]}, None, []),
        ({}, None, []),
        ({"subprotocols": ["chat"]}, "chat", ["chat"]),
    ]
    async with server.run(app_of()) as served, asyncio.timeout(PATIENCE):
        for handshake, answer, offered in ways:
            if "subprotocols" in handshake:
                handshake["subprotocols"] = [Subprotocol(one) for one in handshake["subprotocols"]]
            async with connect(f"{served.url}/ws", **handshake) as client:
                if token not in str(handshake) and kubernetes(token) not in str(handshake):
                    await client.send(json.dumps({"type": "auth", "token": token}))
                assert client.subprotocol == answer
                assert json.loads(await client.recv()) == ["ada", offered]
                await client.send("hello")
                assert await client.recv() == "hello"


@pytest.mark.parametrize("server", SERVERS, ids=lambda one: one.name)
async def test_every_refusal_on_every_server(server: ServerUnderTest) -> None:
    expired = signed(exp=1000)
    async with server.run(app_of()) as served, asyncio.timeout(PATIENCE):
        for handshake in (
            {"additional_headers": {"Authorization": f"Bearer {expired}"}},
            {"subprotocols": [Subprotocol("bearer"), Subprotocol(expired)]},
        ):
            with pytest.raises(InvalidStatus) as refused:
                await connect(f"{served.url}/ws", **handshake)
            response = refused.value.response
            assert response.status_code == 401
            assert response.headers["www-authenticate"] == 'Bearer error="invalid_token"'
            assert expired not in str(response)
        for message in (expired, b"binary", "x" * 17000, json.dumps({"type": "say"})):
            async with connect(f"{served.url}/ws") as client:
                await client.send(message)
                with pytest.raises(ConnectionClosed):
                    await client.recv()
                assert (client.close_code, client.close_reason) == (3000, "Invalid token")


@pytest.mark.parametrize("which", ["ws", "undici"])
async def test_node_brings_its_token_in_every_way_it_can(which: str) -> None:
    """The package ws sets headers and is as strict about subprotocols as browsers are; Node's own is a browser's."""
    token = signed()
    async with SERVERS[0].run(app_of()) as served:
        wrapper = tools() / "ws" / "wrapper.mjs"
        command: list[str | Path] = [
            "node",
            "--experimental-websocket",
            HERE / "tokens.mjs",
            which,
            f"{served.url}/ws",
            wrapper,
        ]
        tokens = f"{token}\n{kubernetes(token)}"
        ran = await asyncio.to_thread(
            lambda: subprocess.run(command, input=tokens, capture_output=True, text=True, timeout=PATIENCE)
        )
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    if which == "ws":
        assert found.pop("header") == ["", ["ada", []]]
    assert found == {
        "bearer": ["bearer", ["ada", ["bearer"]]],
        "kubernetes": ["chat", ["ada", ["chat"]]],
        "first message": ["", ["ada", []]],
        "first message with a subprotocol": ["chat", ["ada", ["chat"]]],
    }
