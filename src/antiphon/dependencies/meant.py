"""Dependencies that would check nobody, and parameters that no request fills as they are meant.

A callable without `Depends`, a class in place of its object, the `self` of a method: without a word, anybody could come
in, or write the value into the query. Knows nothing of plans.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final, get_origin

from antiphon.exceptions import ParameterDeclarationError, RegistrationError
from antiphon.hub import Topic

from .foreign import is_security_scheme
from .inspection import Parameter, describe, unpartial, warn_about

_NAMES: Final = ("Depends", "Security", "Query", "Path", "Header", "Cookie", "Body", "Form", "File")

_DECORATORS: Final[tuple[Any, ...]] = (asynccontextmanager, contextmanager)
_CONTEXT_MANAGERS: Final = frozenset(decorator(describe).__code__ for decorator in _DECORATORS)
"""All functions that one of them decorates share a code."""


def check_dependency(call: Callable[..., Any]) -> None:
    """Raise RegistrationError for a dependency that says of itself that it cannot be one, for a context manager, and
    for a class whose objects are the dependencies. It would make a new object for each connection, and that object
    would check nobody."""
    if isinstance(misuse := getattr(call, "misuse_as_dependency", None), TypeError):
        raise RegistrationError(str(misuse))
    if getattr(unpartial(call), "__code__", None) in _CONTEXT_MANAGERS:
        raise RegistrationError(
            f"{describe(call)} is a context manager: a function with `yield` goes without decorator"
        )
    if isinstance(call, type) and _is_called(call):
        name = call.__name__
        raise RegistrationError(
            f"Depends({name}) makes a {name} for each connection, and never calls it, so it checks nobody: make one, "
            f"`one = {name}(...)`, and write Depends(one)"
        )


def check_meant(call: Callable[..., Any], parameter: Parameter, injected: tuple[type, ...], where: str) -> None:
    """A default that was meant to be injected: an object of these classes, one of them, a function without Depends.

    Or a function, or an object to call, in `Annotated`. Raises ParameterDeclarationError for an object as a default,
    which can only be a mistake. Also for the `self` of a method, and for a Topic that nothing gives. Warns of the
    others.
    """
    if parameter.name in ("self", "cls") and parameter.annotation is parameter.default is inspect.Parameter.empty:
        raise ParameterDeclarationError(
            f"{where} is a method's, and a decorator in the body of a class gets no object: register the method of an "
            "object, as in app.websocket(path)(object.method)"
        )
    if Topic in (parameter.annotation, get_origin(parameter.annotation)):
        raise ParameterDeclarationError(
            f"{where} is a Topic, which its Topics give: write `{parameter.name}: Topic[...] = Depends(topics)`"
        )
    for meant in getattr(parameter.annotation, "__metadata__", ()):
        if inspect.isroutine(meant) or (callable(meant) and _is_plain(type(meant)) and not isinstance(meant, type)):
            text = f"{where} has {describe(meant)} in Annotated, which no request calls: write {_remedy(meant)}"
            warn_about(call, text)
    default = parameter.default
    if isinstance(default, injected):
        name = type(default).__name__
        raise ParameterDeclarationError(f"{where} has a {name} as its default: annotate it, `{parameter.name}: {name}`")
    if isinstance(default, type) and issubclass(default, injected):
        name = default.__name__
        warn_about(call, f"{where} has the class {name} as its default: annotate it, `{parameter.name}: {name}`")
    elif inspect.isroutine(default) or _is_called(default) or is_security_scheme(default):
        text = f"{where} has {describe(default)} as its default, which no request calls: {_remedy(default)}"
        warn_about(call, text)


def _is_called(meant: object) -> bool:
    """Whether it says that its objects are called as dependencies."""
    return getattr(meant, "is_called_as_dependency", False) is True


def _remedy(meant: Any) -> str:
    """The code to write in place of a callable without `Depends`, or of a marker without parentheses."""
    name = getattr(meant, "__name__", None)
    if isinstance(meant, type) and name is not None:
        return f"Depends({name}(...))"
    if name in _NAMES and meant.__module__.startswith(("antiphon.", "fastapi.")):
        return f"{name}(function)" if name in ("Depends", "Security") else f"{name}()"
    return f"Depends({name or '...'})"


def _is_plain(cls: type) -> bool:
    """Whether objects of the class say nothing to pydantic, so that one in `Annotated` has no meaning."""
    return cls.__module__.partition(".")[0] not in ("annotated_types", "pydantic", "pydantic_core", "typing") and not (
        hasattr(cls, "__get_pydantic_core_schema__") or hasattr(cls, "__get_pydantic_json_schema__")
    )
