"""Routes and routers: from a path to an endpoint, and from an endpoint's ending to a close code."""

from starlette.routing import BaseRoute as BaseRoute
from starlette.routing import Host as Host
from starlette.routing import Match as Match
from starlette.routing import Mount as Mount
from starlette.routing import NoMatchFound as NoMatchFound
from starlette.routing import Route as Route
from starlette.routing import Router as Router
from starlette.routing import compile_path as compile_path

from .errors import RoutingError as RoutingError
from .http import APIRoute as APIRoute
from .include import IncludedRouter as IncludedRouter
from .route import APIWebSocketRoute as APIWebSocketRoute
from .route import WebSocketRoute as WebSocketRoute
from .router import APIRouter as APIRouter
