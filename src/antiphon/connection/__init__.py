"""One WebSocket connection as an endpoint holds it, on any ASGI server."""

from .expired import expire_at as expire_at
from .expired import expiry_of as expiry_of
from .expired import raise_expired as raise_expired
from .options import ConnectionOptions
from .owner import current_owner as current_owner
from .raw import RawWebSocket as RawWebSocket
from .state import Closed, WebSocketState
from .typed import OnInvalid
from .websocket import WebSocket

__all__ = ["Closed", "ConnectionOptions", "OnInvalid", "WebSocket", "WebSocketState"]
