"""One WebSocket connection as an endpoint holds it, on any ASGI server."""

from .channel import current_owner
from .options import ConnectionOptions
from .state import Closed, WebSocketState
from .typed import OnInvalid
from .websocket import WebSocket

__all__ = ["Closed", "ConnectionOptions", "OnInvalid", "WebSocket", "WebSocketState", "current_owner"]
