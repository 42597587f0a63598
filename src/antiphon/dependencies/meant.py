"""Callables in the place of their injection: a default or a part of `Annotated` that no request calls.

Their parameter would be read from the query, where anybody writes anything. Knows nothing of plans.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Final

from antiphon.exceptions import ParameterDeclarationError

from .inspection import Parameter, describe, warn_about

_NAMES: Final = ("Depends", "Security", "Query", "Path", "Header", "Cookie", "Body", "Form", "File")


def check_meant(call: Callable[..., Any], parameter: Parameter, injected: tuple[type, ...], where: str) -> None:
    """A default that was meant to be injected: an object of these classes, one of them, a function without Depends.

    Or a function, or an object to call, in `Annotated`. Raises ParameterDeclarationError for an object as a default,
    which can only be a mistake. Warns of the others.
    """
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
    elif inspect.isroutine(default):
        text = f"{where} has {describe(default)} as its default, which no request calls: {_remedy(default)}"
        warn_about(call, text)


def _remedy(meant: Any) -> str:
    """The code to write in place of a callable without `Depends`, or of a marker without parentheses."""
    name = getattr(meant, "__name__", None)
    if name in _NAMES and meant.__module__.startswith(("antiphon.", "fastapi.")):
        return f"{name}(function)" if name in ("Depends", "Security") else f"{name}()"
    return f"Depends({name or '...'})"


def _is_plain(cls: type) -> bool:
    """Whether objects of the class say nothing to pydantic, so that one in `Annotated` has no meaning."""
    return cls.__module__.partition(".")[0] not in ("annotated_types", "pydantic", "pydantic_core", "typing") and not (
        hasattr(cls, "__get_pydantic_core_schema__") or hasattr(cls, "__get_pydantic_json_schema__")
    )
