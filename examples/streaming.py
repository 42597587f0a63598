"""Stream with pauses; stop at once when the client leaves.

antiphon run examples/streaming.py
antiphon connect "ws://localhost:8000/count?to=3&pause=0.5"
"""

import asyncio

from antiphon import App, WebSocket

app = App()


@app.websocket("/count")
async def count(websocket: WebSocket, to: int = 10, pause: float = 1.0) -> None:
    await websocket.accept()
    for number in range(1, to + 1):
        await websocket.send_json({"number": number, "of": to})  # raises when the client is gone: the stream ends
        await asyncio.sleep(pause)
