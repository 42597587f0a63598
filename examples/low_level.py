"""The ASGI messages themselves: `receive()` and `send()`, for when text and binary mix.

antiphon run examples/low_level.py
antiphon connect ws://localhost:8000/raw
"""

from antiphon import App, WebSocket

app = App()


@app.websocket("/raw")
async def raw(websocket: WebSocket) -> None:
    await websocket.accept()
    while True:
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            print(f"gone with {message['code']}", flush=True)
            return
        if "text" in message:  # only the key of the frame that came is there
            await websocket.send({"type": "websocket.send", "text": f"{len(message['text'])} characters"})
        else:
            await websocket.send({"type": "websocket.send", "text": f"{len(message['bytes'])} bytes"})
