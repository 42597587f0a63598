"""Likely mistakes in a registered WebSocket route: a `RegistrationWarning`, where its author can read it.

A warning that is wrong costs more than one that is missing: each of these is given only where no other reading is left.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from starlette.convertors import (
    Convertor,
    FloatConvertor,
    IntegerConvertor,
    PathConvertor,
    StringConvertor,
    UUIDConvertor,
)
from starlette.requests import HTTPConnection
from starlette.routing import BaseRoute, Match, Mount
from starlette.routing import WebSocketRoute as StarletteWebSocketRoute
from starlette.websockets import WebSocket as StarletteWebSocket

from antiphon.dependencies import Plan
from antiphon.dependencies.declaration import EMPTY
from antiphon.dependencies.foreign import is_security_scheme
from antiphon.dependencies.inspection import describe, parameters, unwrapped, warn_about
from antiphon.dependencies.params import Location
from antiphon.dependencies.plan import CONNECTION_NAMES, Step
from antiphon.dependencies.questions import unfilled
from antiphon.dependencies.values import FieldReader

from .include import flatten, is_static
from .route import APIWebSocketRoute

_SAMPLES: Final[dict[type[Convertor[Any]], str]] = {
    StringConvertor: "x~x",
    PathConvertor: "x~/~x",
    IntegerConvertor: "7",
    FloatConvertor: "7.5",
    UUIDConvertor: "00000000-0000-4000-8000-000000000000",
}
"""A value of each converter that no other one of those before it takes."""

_WAYS_TO_THE_PATH: Final = frozenset({"path_params", "scope", "url", "path"})
_NOT_FOLLOWED: Final = frozenset({"antiphon", "starlette", "fastapi", "pydantic", "anyio", "asyncio"})
_FOLLOWED: Final = 300


def warn_of_suspects(route: APIWebSocketRoute, earlier: Iterable[BaseRoute]) -> None:
    """All that can be told of a route as an app serves it, behind the `earlier` ones."""
    warn_of_unreachable(route, earlier)
    warn_of_no_websocket(route.plan)
    warn_of_unread_path(route)


def warn_of_no_websocket(plan: Plan) -> None:
    """Warn of an endpoint that gets no WebSocket, and whose dependencies get none: nobody can accept.

    Dependencies without one may be there to refuse; only security schemes are known to do nothing else.
    """
    if any(_takes_connection(step) for step in (*plan.steps, plan.endpoint)):
        return
    call = plan.endpoint.call
    named = next((parameter for parameter in parameters(call) if parameter.name in CONNECTION_NAMES), None)
    if named is None:
        if not all(is_security_scheme(unwrapped(step.call)) for step in plan.steps):
            return
        why = "no parameter is annotated with WebSocket"
        if _hides_parameters(call):
            why += ", and `@functools.wraps` on the wrapper of a decorator shows those of what it wraps"
    elif named.annotation is EMPTY:
        return  # told already
    else:
        why = f"parameter {named.name!r} is read from the query: annotate it with WebSocket"
    warn_about(call, f"{describe(call)} can accept no connection, so each is refused with 403: {why}")


def _hides_parameters(call: Callable[..., Any]) -> bool:
    """Whether it takes everything and names nothing, as a decorator's wrapper does."""
    kinds = {parameter.kind for parameter in inspect.signature(call).parameters.values()}
    return kinds == {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}


def _takes_connection(step: Step) -> bool:
    """A security scheme reads headers, and accepts nothing."""
    return not is_security_scheme(unwrapped(step.call)) and any(
        injection.annotation is HTTPConnection or issubclass(injection.annotation, StarletteWebSocket)
        for injection in step.injections
    )


def warn_of_unread_path(route: APIWebSocketRoute) -> None:
    """Warn of a parameter in the route's own path that nobody takes, nor can read from the connection."""
    plan = route.plan
    if any(unfilled(plan)):
        return  # one that the path does not have was meant, and is warned of
    steps = (*plan.steps, plan.endpoint)
    readers = [reader for step in steps for reader in step.readers if isinstance(reader, FieldReader)]
    read = {key for reader in readers if reader.location is Location.PATH for key in reader.keys}
    unread = [
        name
        for name, convertor in route.param_convertors.items()
        if f"{{{name}" in route.own_path
        and name not in read
        and not name.startswith("_")
        # a path parameter is often there only to catch the rest
        and not isinstance(convertor, PathConvertor)
    ]
    if not unread or any(_may_read(step.call) for step in steps):
        return
    call = plan.endpoint.call
    queried = [key for reader in readers if reader.location is Location.QUERY for key in reader.keys]
    for name in unread:
        meant = difflib.get_close_matches(name, queried, n=1)
        hint = f"{meant[0]!r}, which is read from the query, may be meant" if meant else f"add `{name}: str`"
        text = f"{describe(call)}: nobody takes {{{name}}} of {route.path!r}: {hint}, or call it {{_{name}}}"
        warn_about(call, text)


def warn_of_unreachable(route: APIWebSocketRoute, earlier: Iterable[BaseRoute]) -> None:
    """Warn of a route that another one, or a mount, before it leaves nothing for: the first match wins."""
    path = _sample(route)
    if path is None:
        return
    for first in flatten(list(earlier)):
        if not isinstance(first, Mount | StarletteWebSocketRoute) or is_static(first):
            continue
        scope = {"type": "websocket", "path": path, "root_path": "", "headers": []}
        if first.matches(scope)[0] is not Match.FULL:
            continue
        taken = f"the mount at {first.path or '/'!r}" if isinstance(first, Mount) else describe(first.endpoint)
        remedy = "" if first.path == route.path else f" at {first.path!r}; register this one first"
        if isinstance(first, Mount):
            remedy = "; register this one first"
        text = f"{describe(route.endpoint)} is never reached: {route.path!r} is served by {taken}{remedy}"
        warn_about(route.endpoint, text)
        return


def _sample(route: APIWebSocketRoute) -> str | None:
    """A path that the route serves. None where a converter is not Starlette's."""
    kinds = {name: type(convertor) for name, convertor in route.param_convertors.items()}
    if not set(kinds.values()) <= _SAMPLES.keys():
        return None
    path = route.path_format
    for name, kind in kinds.items():
        path = path.replace(f"{{{name}}}", _SAMPLES[kind])
    return path


# Whether some code could read the path from the connection it is given


def _may_read(call: Callable[..., Any]) -> bool:
    """True unless all code that can be followed from `call` mentions no way to the connection's path."""
    waiting: list[Any] = [call]
    seen: set[int] = set()
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if len(seen) > _FOLLOWED:
            return True
        for function in _functions(one):
            if any(_WAYS_TO_THE_PATH & _words(code) for code in _codes(function.__code__)):
                return True
            waiting += _called(function)
    return False


def _functions(value: Any) -> list[types.FunctionType]:
    """The functions of a function, a method, a class or an instance; none of libraries that are known."""
    if isinstance(value, functools.partial):
        return [one for part in (value.func, *value.args, *value.keywords.values()) for one in _functions(part)]
    value = unwrapped(value) if inspect.isroutine(value) else value
    value = getattr(value, "__func__", value)
    if isinstance(value, types.FunctionType):
        return [] if _is_known(value) else [value]
    if isinstance(value, types.ModuleType | str | bytes | int | float | tuple | list | dict | set | types.NoneType):
        return []
    owner = value if isinstance(value, type) else type(value)
    if _is_known(owner) or owner.__module__ == "builtins":
        return []
    members = [getattr(member, "__func__", member) for kind in owner.__mro__ for member in vars(kind).values()]
    members += [member.fget for member in members if isinstance(member, property)]
    return [member for member in members if isinstance(member, types.FunctionType) and not _is_known(member)]


def _is_known(value: Any) -> bool:
    return str(value.__module__).partition(".")[0] in _NOT_FOLLOWED


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def _words(code: types.CodeType) -> set[str]:
    return {*code.co_names, *(constant for constant in code.co_consts if isinstance(constant, str))}


def _called(function: types.FunctionType) -> Iterator[Any]:
    """The objects that the function may call: globals, values it closes over, and attributes of modules."""
    words = {word for code in _codes(function.__code__) for word in code.co_names}
    near = [function.__globals__[word] for word in words if word in function.__globals__]
    near += inspect.getclosurevars(function).nonlocals.values()
    for value in near:
        yield value
        if isinstance(value, types.ModuleType):
            yield from (vars(value)[word] for word in words if word in vars(value))
