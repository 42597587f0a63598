"""Iterate over messages: a JSON list of files first, then their bytes.

antiphon run examples/iterate.py
"""

from antiphon import App, WebSocket

app = App()


@app.websocket("/upload")
async def upload(websocket: WebSocket) -> None:
    await websocket.accept()
    expected: dict[str, int] = {}
    async for entry in websocket.iter_json():
        if entry == "go":
            break
        expected[entry["name"]] = entry["size"]
    await websocket.send_json({"waiting_for": sorted(expected)})

    received = 0
    async for chunk in websocket.iter_bytes():
        received += len(chunk)
        await websocket.send_json({"received": received, "of": sum(expected.values())})
        if received >= sum(expected.values()):
            break  # returning closes with 1000
