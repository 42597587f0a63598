"""A route's reads from the ASGI scope: the app it runs in, and its name in errors. Nothing else.

Knows neither `App` nor Starlette's application classes: it reads both through their scope keys.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, Protocol, TypeAlias

from antiphon.dependencies.foreign import resources_in
from antiphon.dependencies.inspection import unpartial
from antiphon.types import APP_KEY as APP_KEY
from antiphon.types import LEAVING_EXTENSION, RERAISE_EXTENSION, Scope

HANDLERS_KEY: Final = "starlette.exception_handlers"
"""Starlette's key: (handlers by class, handlers by status). Shared, so its plain routes find our app's handlers."""

FAILED_KEY: Final = "antiphon.failed"
"""The `WebSocket` whose endpoint failed, set only while its exception travels to the app."""

ANSWERED_KEY: Final = "antiphon.answered"
"""Set once an unhandled exception was answered and logged, should it be raised further."""

Overrides: TypeAlias = Mapping[Callable[..., Any], Callable[..., Any]]
Resources: TypeAlias = Mapping[type, object]

NOTHING: Final[Mapping[Any, Any]] = MappingProxyType({})


class OverridesProvider(Protocol):
    """Anything with `dependency_overrides`: our `App`, and FastAPI's."""

    dependency_overrides: dict[Callable[..., Any], Callable[..., Any]]


def overrides_of(scope: Scope, provider: OverridesProvider | None) -> Overrides:
    """The dependency overrides in force: those of the route's own provider, else those of the app around it."""
    owner: Any = provider if provider is not None else scope.get("app")
    overrides: Overrides = getattr(owner, "dependency_overrides", NOTHING)
    return overrides


def resources_of(scope: Scope) -> Resources:
    """Objects that endpoints get by annotating their class: those of our app; in another app, its `app.state.hub`."""
    app: Any = scope.get(APP_KEY)
    if app is not None:
        resources: Resources = getattr(app, "resources", NOTHING)
        return resources
    return resources_in(getattr(scope.get("app"), "state", None))


def endpoint_of(scope: Scope, method: str) -> str:
    """The endpoint and its whole path, for errors: `module:qualname (GET /path/{name})`."""
    path = scope.get("root_path", "") + getattr(scope.get("route"), "path_format", "")
    return f"{name_of(scope.get('endpoint'))} ({method} {path})"


def name_of(endpoint: Any) -> str:
    """`module:qualname` of a function or class, or of an instance's class."""
    inner = unpartial(endpoint)
    owner = inner if hasattr(inner, "__qualname__") else type(inner)
    return f"{owner.__module__}:{owner.__qualname__}"


def wants_exceptions(scope: Scope) -> bool:
    """True under a test client that raises the app's exceptions."""
    return RERAISE_EXTENSION in (scope.get("extensions") or NOTHING)


def tell_leaving(scope: Scope) -> None:
    """The endpoint is over: tell the code that waits for the rest."""
    tell = (scope.get("extensions") or NOTHING).get(LEAVING_EXTENSION)
    if tell is not None:
        tell()
