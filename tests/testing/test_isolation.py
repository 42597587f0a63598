"""The state of a module's hub does not reach the next test, with any client, and wherever the app is mounted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import Mount

from antiphon import App, Hub, TopicOptions, WebSocket
from antiphon.testclient import TestClient
from antiphon.testing import Server


def live() -> App:
    app = App(hub=Hub(topics={"*": TopicOptions(history=10)}))

    @app.websocket("/live")
    async def enter(websocket: WebSocket, hub: Hub) -> None:
        await websocket.accept()
        async with hub.join("room", websocket, history=10):
            async for text in websocket.iter_text():
                await hub.publish("room", text)

    return app


def in_fastapi() -> Any:
    app = FastAPI()
    app.mount("/ws", live())
    return app


def in_ours() -> Any:
    app = App()
    app.mount("/ws", live())
    return app


def two_deep() -> Any:
    return Starlette(routes=[Mount("/", app=in_fastapi())])


HOSTS = [(live, "/live"), (in_fastapi, "/ws/live"), (in_ours, "/ws/live"), (two_deep, "/ws/live")]


@pytest.mark.parametrize(("host", "path"), HOSTS)
def test_the_test_client_leaves_nothing(host: Callable[[], Any], path: str) -> None:
    app = host()
    for number in range(3):
        with TestClient(app) as client, client.websocket_connect(path) as session:
            session.receive_nothing(0.01)
            session.send_text(f"hello {number}")
            assert session.receive_text() == f"hello {number}"


@pytest.mark.parametrize(("host", "path"), HOSTS)
async def test_the_server_in_memory_leaves_nothing(host: Callable[[], Any], path: str) -> None:
    app = host()
    for number in range(3):
        async with Server(app) as server, server.connect(path) as peer:
            await peer.receive_nothing(0.01)
            await peer.send(f"hello {number}")
            assert await peer.receive() == f"hello {number}"
