"""The same echo with `receive_json` and `send_json`, which check nothing."""

from antiphon import App, WebSocket, WebSocketDisconnect

app = App()


@app.websocket("/typed")
async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    try:
        while True:
            await websocket.send_json(await websocket.receive_json())
    except WebSocketDisconnect:
        pass
