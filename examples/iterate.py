"""Iterate over messages: a JSON list of files first, then their bytes.

antiphon run examples/iterate.py
"""

from antiphon import App, WebSocket, WebSocketException

app = App()


@app.websocket("/upload")
async def upload(websocket: WebSocket) -> None:
    await websocket.accept()
    expected: dict[str, int] = {}
    async for entry in websocket.iter_json():
        if entry == "go":
            break
        try:
            expected[entry["name"]] = int(entry["size"])
        except (KeyError, TypeError, ValueError):  # it is JSON, and anything else is up to the client
            raise WebSocketException(1008, "expected a name and a size") from None
    await websocket.send_json({"waiting_for": sorted(expected)})

    received = 0
    async for chunk in websocket.iter_bytes():
        received += len(chunk)
        await websocket.send_json({"received": received, "of": sum(expected.values())})
        if received >= sum(expected.values()):
            break  # returning closes with 1000
