"""FastAPI's module of this name."""

from antiphon.websockets import WebSocket as WebSocket
from antiphon.websockets import WebSocketDisconnect as WebSocketDisconnect
from antiphon.websockets import WebSocketState as WebSocketState
