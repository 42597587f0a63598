"""Routes and routers: from a path to an endpoint, and from an endpoint's ending to a close code."""

from starlette.routing import BaseRoute, Host, Match, Mount, NoMatchFound, Route, Router, compile_path

from .errors import RoutingError
from .http import APIRoute
from .include import IncludedRouter
from .route import APIWebSocketRoute, WebSocketRoute
from .router import APIRouter

__all__ = [
    "APIRoute",
    "APIRouter",
    "APIWebSocketRoute",
    "BaseRoute",
    "Host",
    "IncludedRouter",
    "Match",
    "Mount",
    "NoMatchFound",
    "Route",
    "Router",
    "RoutingError",
    "WebSocketRoute",
    "compile_path",
]
