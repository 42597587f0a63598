"""Compression that remembers (context takeover) and an outbox that refuses: the two must not meet halfway."""

from __future__ import annotations

import asyncio
import contextvars
import json
import random

from antiphon import App, Overflow, WebSocket
from antiphon.connection import ConnectionOptions
from antiphon.server import ServerConfig
from antiphon.testing import Server
from antiphon.wire import DeflateConfig

REMEMBERING = DeflateConfig(server_no_context_takeover=False, client_no_context_takeover=False)


async def test_a_message_refused_by_a_full_outbox_leaves_the_compression_as_it_was() -> None:
    app = App(connection_options=ConnectionOptions(overflow=Overflow.DROP_NEWEST, outbox_bytes=3000))
    rng = random.Random(1)
    connections: list[WebSocket] = []

    @app.websocket("/")
    async def wait(websocket: WebSocket) -> None:
        await websocket.accept()
        connections.append(websocket)
        await websocket.wait_closed()

    async def feed(count: int) -> None:
        for number in range(count):
            await connections[0].send_text(json.dumps([number, *(rng.random() for _ in range(80))]))

    async with Server(app, config=ServerConfig(deflate=REMEMBERING), window=4000) as server:
        async with server.connect("/", deflate=REMEMBERING) as peer:
            peer.pause_reading()
            await asyncio.create_task(feed(100), context=contextvars.Context())
            peer.resume_reading()
            await asyncio.create_task(feed(1), context=contextvars.Context())
            numbers = [(await peer.receive_json())[0] for _ in range(101 - connections[0].dropped)]
    assert connections[0].dropped > 0
    assert numbers[:-1] == sorted(set(numbers[:-1]))
    assert numbers[-1] == 0
