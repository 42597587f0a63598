"""AsyncAPI documents of channels, typed WebSocket routes and typed topics, from annotations. See docs/asyncapi.md."""

from .document import VERSIONS, Document, Info
from .serving import DocumentApp, asyncapi_app

__all__ = ["VERSIONS", "Document", "DocumentApp", "Info", "asyncapi_app"]
