"""How did it end? Code and reason of the peer's close, 1005 for a close without a code, 1006 for a lost connection.

antiphon run examples/disconnect_details.py
antiphon connect ws://localhost:8000/listen       then type: /close 4000 lunch
"""

from antiphon import App, WebSocket, WebSocketDisconnect

app = App()


@app.websocket("/listen")
async def listen(websocket: WebSocket) -> None:
    await websocket.accept()
    try:
        while True:
            await websocket.receive_text()
    except WebSocketDisconnect as ended:
        print(f"client left: code={ended.code} reason={ended.reason!r}", flush=True)


@app.websocket("/feed")
async def feed(websocket: WebSocket) -> None:
    """An endpoint that only sends need not receive to see the end."""
    await websocket.accept()
    await websocket.send_text("welcome")
    ended = await websocket.wait_closed()
    print(f"feed over: code={ended.code} by={ended.by.value}", flush=True)
