"""What the app meets when it uses a connection that is over."""

from __future__ import annotations

from typing import Final

from starlette.websockets import WebSocketDisconnect


class ClientDisconnected(ConnectionError):
    """The connection is over: there is nobody to send to, and nothing more will be received.

    An OSError, as ASGI's WebSocket spec wants it of `send`.
    """


TOLD_OF_THE_END: Final = (ClientDisconnected, WebSocketDisconnect)
"""What leaves an app whose peer is gone and that does not mind: Starlette and FastAPI make the second of the first."""
