"""The WebSocket protocol for uvicorn and any ASGI app: README.md shows how a connection lives.

`uvicorn app:app --ws antiphon.server:WebSocketProtocol`
"""

from typing import TYPE_CHECKING

from antiphon.lazily import lazily

from .backend import native as native
from .config import ServerConfig
from .engine import Engine as Engine
from .errors import ClientDisconnected as ClientDisconnected
from .session import Session as Session
from .uvicorn import HTTPProtocol, WebSocketProtocol

__all__ = ["HTTPProtocol", "ServerConfig", "WebSocketProtocol"]

if not TYPE_CHECKING:  # for the advice of `antiphon.misspelt`
    __getattr__, __dir__ = lazily(__name__, {})
