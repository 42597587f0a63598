"""FastAPI's package of this name."""

from antiphon.middleware import Middleware as Middleware
