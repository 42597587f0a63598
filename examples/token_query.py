"""A token in the query string, as browsers can send it: without a good one the handshake is denied.

antiphon run examples/token_query.py
antiphon connect "ws://localhost:8000/private?token=sesame"
"""

from secrets import compare_digest
from typing import Annotated

from antiphon import App, Denials, Depends, Query, WebSocket, WebSocketException, status

app = App()


async def checked_token(token: Annotated[str | None, Query()] = None) -> str:
    if token is None or not compare_digest(token.encode(), b"sesame"):
        raise WebSocketException(code=status.WS_1008_POLICY_VIOLATION, reason="a good token, please")
    return token


@app.websocket("/private")
async def private(websocket: WebSocket, token: Annotated[str, Depends(checked_token)]) -> None:
    await websocket.accept()
    await websocket.send_text("come in")


@app.websocket("/polite", denials=Denials.CLOSE)
async def polite(websocket: WebSocket, token: Annotated[str, Depends(checked_token)]) -> None:
    """A browser cannot read a denied handshake's status. This way its page sees the code 1008, and the reason."""
    await websocket.accept()
    await websocket.send_text("come in")
