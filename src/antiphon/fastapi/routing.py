"""FastAPI's module of this name."""

from antiphon.routing import APIRoute as APIRoute
from antiphon.routing import APIRouter as APIRouter
from antiphon.routing import APIWebSocketRoute as APIWebSocketRoute
from antiphon.routing import BaseRoute as BaseRoute
from antiphon.routing import Match as Match
from antiphon.routing import Mount as Mount
from antiphon.routing import NoMatchFound as NoMatchFound
from antiphon.routing import compile_path as compile_path
