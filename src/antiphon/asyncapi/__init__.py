"""AsyncAPI documents of channels, typed WebSocket routes and typed topics, from annotations. See docs/asyncapi.md."""

from .document import VERSIONS, Document, Info
from .serving import DocumentApp, LastResort, asyncapi_app, document_of

__all__ = ["VERSIONS", "Document", "DocumentApp", "Info", "LastResort", "asyncapi_app", "document_of"]
