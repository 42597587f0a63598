"""Echo text until the client says "bye", then close politely.

antiphon run examples/text_echo.py
antiphon connect ws://localhost:8000/echo
"""

from antiphon import App, WebSocket

app = App()


@app.websocket("/echo")
async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    async for text in websocket.iter_text():  # ends by itself when the client leaves
        if text == "bye":
            await websocket.close(1000, "see you")
            return
        await websocket.send_text(f"you said: {text}")
