"""ASGI middleware, under FastAPI's module names; it is Starlette's."""

from starlette.middleware import Middleware as Middleware
