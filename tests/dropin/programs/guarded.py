# mypy: ignore-errors
# Written as users write: printing, and without return annotations.
from typing import Annotated

from fastapi import Cookie, Depends, FastAPI, Query, WebSocket, WebSocketException, status
from fastapi.security import HTTPBearer
from fastapi.security.http import HTTPAuthorizationCredentials

app = FastAPI()


async def cookie_or_token(
    websocket: WebSocket,
    session: Annotated[str | None, Cookie()] = None,
    token: Annotated[str | None, Query()] = None,
):
    if session is None and token is None:
        raise WebSocketException(code=status.WS_1008_POLICY_VIOLATION, reason="no credentials")
    return session or token


@app.websocket("/items/{item_id}/ws")
async def items(
    *, websocket: WebSocket, item_id: str, q: int | None = None, who: Annotated[str, Depends(cookie_or_token)]
):
    await websocket.accept()
    while True:
        data = await websocket.receive_text()
        await websocket.send_text(f"{who}: {data} for {item_id} (q={q})")


@app.websocket("/bearer")
async def bearer(websocket: WebSocket, credentials: Annotated[HTTPAuthorizationCredentials, Depends(HTTPBearer())]):
    await websocket.accept()
    await websocket.send_json({"token": credentials.credentials})
