# ruff: noqa: T201
# mypy: ignore-errors
# Written as users write: printing, and without return annotations.
from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from fastapi.responses import HTMLResponse

app = FastAPI(title="Chat")


class ConnectionManager:
    def __init__(self) -> None:
        self.active: list[WebSocket] = []

    async def connect(self, websocket: WebSocket) -> None:
        await websocket.accept()
        self.active.append(websocket)

    def disconnect(self, websocket: WebSocket) -> None:
        self.active.remove(websocket)

    async def broadcast(self, message: str) -> None:
        for connection in self.active:
            await connection.send_text(message)


manager = ConnectionManager()


@app.get("/")
async def page():
    return HTMLResponse("<!doctype html><title>Chat</title>")


@app.get("/count")
async def count():
    return {"connections": len(manager.active)}


@app.post("/announce")
async def announce(text: str):
    await manager.broadcast(text)


@app.websocket("/ws/{name}")
async def chat(websocket: WebSocket, name: str):
    await manager.connect(websocket)
    print(f"{name} connected", flush=True)
    try:
        while True:
            text = await websocket.receive_text()
            await websocket.send_text(f"You wrote: {text}")
            await manager.broadcast(f"{name} says: {text}")
    except WebSocketDisconnect as gone:
        manager.disconnect(websocket)
        print(f"{name} left with {gone.code}", flush=True)
        await manager.broadcast(f"{name} left")
