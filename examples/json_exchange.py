"""Exchange JSON: each request object gets an answer object with the same id.

antiphon run examples/json_exchange.py
echo '{"id": 1, "add": [2, 3]}' | antiphon connect ws://localhost:8000/calculate
"""

from antiphon import App, WebSocket, WebSocketDisconnect

app = App()


@app.websocket("/calculate")
async def calculate(websocket: WebSocket) -> None:
    await websocket.accept()
    try:
        while True:
            request = await websocket.receive_json()
            try:
                answer = {"id": request["id"], "sum": sum(request["add"])}
            except (KeyError, TypeError):  # it is JSON, and anything else is up to the client
                answer = {"error": 'expected {"id": ..., "add": [numbers]}'}
            await websocket.send_json(answer)
    except WebSocketDisconnect:
        pass  # the client is done
