"""FastAPI's module of this name."""

from pydantic.main import IncEx as IncEx

from antiphon.routing.router import Endpoint

DecoratedCallable = Endpoint
