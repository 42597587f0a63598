"""Look at the client's offers, choose a subprotocol, send headers of our own with the handshake.

antiphon run examples/headers_and_subprotocols.py
antiphon connect ws://localhost:8000/measure --subprotocol metric.v2 --subprotocol metric.v1 -H "X-Unit: km" -v
"""

from typing import Annotated

from antiphon import App, Header, WebSocket

app = App()
SPOKEN = ("metric.v1", "metric.v2")


@app.websocket("/measure")
async def measure(websocket: WebSocket, x_unit: Annotated[str, Header()] = "m") -> None:
    offered = websocket.scope["subprotocols"]
    chosen = next((name for name in offered if name in SPOKEN), None)
    await websocket.accept(subprotocol=chosen, headers=[(b"x-unit", x_unit.encode())])
    await websocket.send_text(f"speaking {chosen or 'nothing in particular'} in {x_unit}")
