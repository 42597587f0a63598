"""A router with a prefix and dependencies of its own, included in the app under one more prefix.

antiphon run examples/router_prefix.py
antiphon connect ws://localhost:8000/v1/sensors/7 -H "X-Key: open"
"""

from typing import Annotated

from antiphon import APIRouter, App, Depends, Header, WebSocket, WebSocketException, status


async def require_key(x_key: Annotated[str, Header()] = "") -> None:
    if x_key != "open":
        raise WebSocketException(status.WS_1008_POLICY_VIOLATION, "X-Key is missing")


router = APIRouter(prefix="/sensors", dependencies=[Depends(require_key)])


@router.websocket("/{number}")
async def sensor(websocket: WebSocket, number: int) -> None:
    await websocket.accept()
    await websocket.send_json({"sensor": number})


app = App()
app.include_router(router, prefix="/v1")
