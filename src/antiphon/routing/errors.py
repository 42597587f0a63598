"""Mistakes in a route or a router that registration can detect without running anything."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable
from typing import Any, Final

from starlette.convertors import CONVERTOR_TYPES
from starlette.endpoints import WebSocketEndpoint
from starlette.routing import PARAM_REGEX, compile_path

from antiphon.connection.typed import adapter_of
from antiphon.dependencies import Plan
from antiphon.dependencies.inspection import GENERATORS, CallKind, call_kind, describe, unwrapped, warn_about
from antiphon.dependencies.questions import unfilled
from antiphon.exceptions import RegistrationError

_FOREIGN_PARAMETER: Final = re.compile(r"<(?:\w+:)?(\w+)>|(?<=/):(\w+)")
"""As Flask, Django and Express write one."""


class RoutingError(RegistrationError, ValueError, AssertionError):
    """A prefix, path or inclusion that can never work.

    Also an AssertionError, which FastAPI raises for a bad prefix or inclusion, and a RuntimeError, as its
    `FastAPIError` is.
    """


def a_path(path: str) -> str:
    """The path, if it is one: a decorator without parentheses gets a function in its place. Raises RoutingError."""
    if isinstance(path, str):
        return path
    if callable(path):
        raise RoutingError(f"a route needs a path, as in @app.websocket('/path'), and got {describe(path)}")
    raise RoutingError(f"a path is a str like '/chat', got {path!r}")


def check_messages(declared: Any, endpoint: Callable[..., Any]) -> None:
    """Raise RegistrationError for a type of messages that pydantic knows nothing of."""
    if declared is not None:
        try:
            adapter_of(declared)
        except TypeError as error:
            raise RegistrationError(
                f"{describe(endpoint)}: receives= and sends= take a type of messages: {error}"
            ) from None


def check_prefix(prefix: str) -> None:
    """Raise unless `prefix` is empty or looks like `/chat`."""
    a_path(prefix)
    if prefix and not prefix.startswith("/"):
        raise RoutingError(f"A path prefix must start with '/', got {prefix!r}")
    if prefix.endswith("/"):
        raise RoutingError(f"A path prefix must not end with '/', since the paths behind it start with one: {prefix!r}")


def check_path(path: str, endpoint: Callable[..., Any]) -> None:
    """Raise unless `path` is empty (behind a prefix) or starts with a slash: no request has another path.

    Raises for a converter nobody knows and for a name that comes twice; warns of a brace that is part of no parameter.
    """
    if a_path(path) and not path.startswith("/"):
        raise RoutingError(f"A path must start with '/', got {path!r} for {describe(endpoint)}")
    try:
        compile_path(path)
    except (AssertionError, ValueError) as error:
        known = ", ".join(CONVERTOR_TYPES)
        raise RoutingError(f"{path!r} of {describe(endpoint)}: {error} (converters: {known})") from None
    if set("{}") & set(PARAM_REGEX.sub("", path)):
        text = f"{path!r} has a brace that is part of no parameter, which are {{name}} and {{name:int}}"
        warn_about(endpoint, f"{describe(endpoint)}: {text}")
    if (foreign := _FOREIGN_PARAMETER.search(path)) is not None:
        text = f"{path!r} has {foreign[0]!r}, which is no parameter: write {{{foreign[1] or foreign[2]}}}"
        warn_about(endpoint, f"{describe(endpoint)}: {text}")
    if "?" in path:
        text = f"{path!r} has a query, and no path has one: the function takes its parameters"
        warn_about(endpoint, f"{describe(endpoint)}: {text}")


def check_injectable(endpoint: Callable[..., Any]) -> None:
    """Raise for a `WebSocketEndpoint` class, which takes an ASGI scope and no dependencies."""
    if isinstance(endpoint, type) and issubclass(endpoint, WebSocketEndpoint):
        raise RegistrationError(f"{describe(endpoint)} is a class: websocket_route(path) registers it")


def check_endpoint(endpoint: Callable[..., Any]) -> None:
    """Raise for an object that cannot be a WebSocket endpoint because it cannot be called, or not be awaited.

    A function without `async` may still return something to await: a lambda, or one annotated with a return type.
    """
    if not callable(endpoint):
        given = type(endpoint).__name__
        raise RegistrationError(f"a WebSocket endpoint is a function, not a {given}: a decorator may have made it")
    kind = call_kind(endpoint)
    if kind in GENERATORS:
        raise RegistrationError(f"a WebSocket endpoint must be an `async def` without `yield`: {describe(endpoint)}")
    function = unwrapped(endpoint)
    if kind is CallKind.ASYNC or not inspect.isroutine(function) or function.__name__ == "<lambda>":
        return
    if getattr(function, "__annotations__", {}).get("return") in (None, "None"):
        raise RegistrationError(f"a WebSocket endpoint must be an `async def`, but {describe(endpoint)} is a `def`")


def warn_of_missing_path_parameters(plan: Plan, handlers: Iterable[Callable[..., Any]] = ()) -> None:
    """Warn of `Path()` parameters that the path does not have, also those that the connection reads for `handlers`.

    Not an error: an app that is mounted below `/{tenant}` may read `tenant`.
    """
    for reading, name in unfilled(plan):
        call = next((one for one in (reading, *handlers) if name in inspect.signature(one).parameters), reading)
        warn_about(
            call,
            f"{describe(call)}: parameter {name!r} is read from the path, and {plan.source.path!r} has no {{{name}}}",
        )
