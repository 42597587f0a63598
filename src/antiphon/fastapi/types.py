"""FastAPI's module of this name."""

from collections.abc import Callable
from typing import Any, TypeVar

from pydantic.main import IncEx as IncEx

DecoratedCallable = TypeVar("DecoratedCallable", bound=Callable[..., Any])
