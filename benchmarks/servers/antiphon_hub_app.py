"""The same chat on the hub: one room for `/chat`, many for `/rooms/{room}`."""

import os
import socket

from antiphon import App, Hub, WebSocket

app = App(hub=Hub(os.environ.get("BENCH_HUB", "memory://")))


async def talk(websocket: WebSocket, hub: Hub, topic: str) -> None:
    await websocket.accept()
    if "stalled" in websocket.query_params:
        # Megabytes would fit into the kernel's buffer: the hub would never meet a receiver that does not read.
        websocket.sink.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    async with hub.join(topic, websocket):
        async for text in websocket.iter_text():
            await hub.publish(topic, text)


@app.websocket("/chat")
async def chat(websocket: WebSocket, hub: Hub) -> None:
    await talk(websocket, hub, "chat")


@app.websocket("/rooms/{room}")
async def rooms(websocket: WebSocket, hub: Hub, room: str) -> None:
    await talk(websocket, hub, f"room:{room}")
