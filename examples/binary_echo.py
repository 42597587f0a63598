"""Echo binary messages, reversed. A text message is closed with 1003, by the framework.

antiphon run examples/binary_echo.py
"""

from antiphon import App, WebSocket

app = App()


@app.websocket("/reverse")
async def reverse(websocket: WebSocket) -> None:
    await websocket.accept()
    while True:
        data = await websocket.receive_bytes()  # raises when the client leaves, which ends the endpoint quietly
        await websocket.send_bytes(data[::-1])
