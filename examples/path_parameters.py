"""Parts of the path, validated by their types: a wrong one is denied with the list of errors.

antiphon run examples/path_parameters.py
antiphon connect ws://localhost:8000/orders/7/files/2026/invoice.pdf
"""

from typing import Annotated

from antiphon import App, Path, WebSocket

app = App()


@app.websocket("/orders/{order}/files/{name:path}")
async def file(websocket: WebSocket, order: Annotated[int, Path(ge=1)], name: str) -> None:
    await websocket.accept()
    await websocket.send_json({"order": order, "name": name})
