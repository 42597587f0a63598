"""The WebSocket protocol for uvicorn and any ASGI app: README.md shows how a connection lives.

`uvicorn app:app --ws antiphon.server:WebSocketProtocol`
"""

from .backend import native
from .config import ServerConfig
from .engine import Engine
from .errors import ClientDisconnected
from .session import Session
from .uvicorn import HTTPProtocol, WebSocketProtocol

__all__ = ["ClientDisconnected", "Engine", "HTTPProtocol", "ServerConfig", "Session", "WebSocketProtocol", "native"]
