"""The well-known connection manager, as it is written for FastAPI: one process, one list of sockets.

Sending to somebody else's socket never waits and never raises here, so one dead or slow client cannot stop the
broadcast. For several processes, history and presence see rooms.py.

antiphon run examples/broadcast_chat.py
antiphon connect ws://localhost:8000/chat/ada
"""

from antiphon import App, WebSocket, WebSocketDisconnect

app = App()


class ConnectionManager:
    def __init__(self) -> None:
        self.active: list[WebSocket] = []

    async def connect(self, websocket: WebSocket) -> None:
        await websocket.accept()
        self.active.append(websocket)

    def disconnect(self, websocket: WebSocket) -> None:
        self.active.remove(websocket)

    async def broadcast(self, message: str) -> None:
        for websocket in self.active:
            await websocket.send_text(message)


manager = ConnectionManager()


@app.websocket("/chat/{name}")
async def chat(websocket: WebSocket, name: str) -> None:
    await manager.connect(websocket)
    await manager.broadcast(f"{name} joined")
    try:
        while True:
            await manager.broadcast(f"{name}: {await websocket.receive_text()}")
    except WebSocketDisconnect:
        manager.disconnect(websocket)
        await manager.broadcast(f"{name} left")
