"""ASGI middleware, under FastAPI's module names. It is Starlette's."""

from starlette.middleware import Middleware as Middleware
