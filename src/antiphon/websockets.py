"""WebSockets under FastAPI's module name; all of it lives in `connection` and `exceptions`."""

from .connection import WebSocket as WebSocket
from .connection import WebSocketState as WebSocketState
from .exceptions import WebSocketDisconnect as WebSocketDisconnect
from .exceptions import WebSocketDisconnected as WebSocketDisconnected
