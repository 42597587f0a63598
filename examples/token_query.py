"""A token in the query string, as browsers can send it: without a good one the handshake is denied.

antiphon run examples/token_query.py
antiphon connect "ws://localhost:8000/private?token=sesame"
"""

from secrets import compare_digest
from typing import Annotated

from antiphon import App, Depends, Query, WebSocket, WebSocketException, status

app = App()


async def checked_token(token: Annotated[str | None, Query()] = None) -> str:
    if token is None or not compare_digest(token.encode(), b"sesame"):
        raise WebSocketException(code=status.WS_1008_POLICY_VIOLATION, reason="a good token, please")
    return token


@app.websocket("/private")
async def private(websocket: WebSocket, token: Annotated[str, Depends(checked_token)]) -> None:
    await websocket.accept()
    await websocket.send_text("come in")


@app.websocket("/polite")
async def polite(websocket: WebSocket, token: str | None = None) -> None:
    """A browser cannot read a denied handshake's status. Accepting first lets its page see the code 1008."""
    await websocket.accept()
    if token != "sesame":
        await websocket.close(status.WS_1008_POLICY_VIOLATION, "a good token, please")
        return
    await websocket.send_text("come in")
