"""The program that the files beside this one deploy: rooms, and the two questions that an orchestrator asks.

HUB_URL=redis://localhost:6379 antiphon run main:app --workers 4
"""

import os

from antiphon import App, Hub, TopicOptions, WebSocket
from antiphon.observability.healthz import healthz_app

hub = Hub(os.environ.get("HUB_URL"), topics={"room/*": TopicOptions(history=100)})
app = App(hub=hub)
app.add_route("/livez", healthz_app())  # this process answers
app.add_route("/healthz", healthz_app(hub))  # and it reaches its backend


@app.websocket("/rooms/{room}")
async def enter(websocket: WebSocket, hub: Hub, room: str) -> None:
    await websocket.accept()
    async with hub.join(f"room/{room}", websocket, history=20):
        async for text in websocket.iter_text():
            await hub.publish(f"room/{room}", text)


@app.websocket("/whoami")
async def whoami(websocket: WebSocket) -> None:
    """The address and the scheme that the proxy tells."""
    await websocket.accept()
    client = websocket.client
    await websocket.send_json({"address": client.host if client else None, "scheme": websocket.url.scheme})
    await websocket.wait_closed()
