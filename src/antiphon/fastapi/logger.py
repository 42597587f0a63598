"""FastAPI's module of this name."""

from antiphon.routing.endpoint import logger as logger
