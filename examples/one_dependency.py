"""One dependency for HTTP and WebSocket routes alike: it takes an `HTTPConnection`.

antiphon run examples/one_dependency.py
curl "localhost:8000/whoami?client=7"
antiphon connect "ws://localhost:8000/whoami?client=7"
"""

from typing import Annotated

from antiphon import App, Depends, HTTPConnection, HTTPException, WebSocket

app = App()


def client_name(connection: HTTPConnection) -> str:
    client = connection.query_params.get("client")
    if client is None:
        raise HTTPException(400, "who are you?")
    return f"client {client} by {connection.scope['type']}"


ClientName = Annotated[str, Depends(client_name)]


@app.get("/whoami")
def whoami(name: ClientName) -> dict[str, str]:
    return {"you": name}


@app.websocket("/whoami")
async def whoami_live(websocket: WebSocket, name: ClientName) -> None:
    await websocket.accept()
    await websocket.send_json({"you": name})
