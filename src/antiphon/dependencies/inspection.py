"""Python's view of a callable: its parameters with evaluated annotations, and the way to call it.

Knows nothing of markers or connections.
"""

from __future__ import annotations

import asyncio.coroutines
import enum
import functools
import inspect
import sys
import types
import typing
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from antiphon.exceptions import RegistrationError, RegistrationWarning


class CallKind(enum.Enum):
    """How a dependency is run."""

    ASYNC = "async"
    SYNC = "sync"
    ASYNC_GENERATOR = "async generator"
    SYNC_GENERATOR = "sync generator"
    IN_LINE = "in line"
    """Sync, and says of itself that it never waits: it needs no thread."""


# The mark that decorators of async functions set before `inspect.markcoroutinefunction` existed.
_LEGACY_MARKER = getattr(asyncio.coroutines, "_is_coroutine", None)

GENERATORS = frozenset({CallKind.ASYNC_GENERATOR, CallKind.SYNC_GENERATOR})


@dataclass(frozen=True, slots=True)
class Unresolved:
    """An annotation that names something which does not exist where it is evaluated."""

    text: str
    error: Exception


@dataclass(frozen=True, slots=True)
class Parameter:
    name: str
    annotation: Any
    """`inspect.Parameter.empty`, `Unresolved`, or the annotation itself."""
    default: Any
    """`inspect.Parameter.empty` when there is none."""


def describe(call: Callable[..., Any]) -> str:
    """The name that errors use: module and qualified name of a function or class, or of an instance's class."""
    inner = unpartial(call)
    named = inner if hasattr(inner, "__qualname__") else type(inner)
    return f"{named.__module__}.{named.__qualname__}"


def check_place(annotation: type | None, where: str) -> None:
    """Raise RegistrationError for a class that is injected in channels alone, where there is no channel. Its
    `injected_elsewhere` has the remedy."""
    remedy = getattr(annotation, "injected_elsewhere", None)
    if isinstance(remedy, str):
        raise RegistrationError(f"{where} is a {annotation.__name__}, which only channels have: {remedy}")  # type: ignore[union-attr]


def warn_about(call: Callable[..., Any], text: str) -> None:
    """A `RegistrationWarning` that names the callable's own file and line; shown once, as warnings are."""
    function = unwrapped(call)
    code = getattr(function, "__code__", None)
    if code is None:
        warnings.warn(text, RegistrationWarning, stacklevel=2)
        return
    registry = function.__globals__.setdefault("__warningregistry__", {})
    warnings.warn_explicit(
        text, RegistrationWarning, code.co_filename, code.co_firstlineno, function.__module__, registry
    )


def unpartial(call: Any) -> Any:
    """The callable below all `functools.partial`."""
    while isinstance(call, functools.partial):
        call = call.func
    return call


def unwrapped(call: Any) -> Any:
    """The callable below all `functools.partial` and `functools.wraps`."""
    while True:
        inner = inspect.unwrap(unpartial(call))
        if inner is call:
            return inner
        call = inner


def call_kind(call: Callable[..., Any]) -> CallKind:
    """Looks at the callable itself, at the one it wraps, and at the `__call__` of an instance. A bare class is SYNC."""
    candidates = [unpartial(call), unwrapped(call)]
    if not inspect.isclass(candidates[-1]):
        for outer in list(candidates):
            if not inspect.isroutine(outer) and not inspect.isclass(outer):
                candidates += [unpartial(outer.__call__), unwrapped(outer.__call__)]
    for recognise, kind in (
        (inspect.isasyncgenfunction, CallKind.ASYNC_GENERATOR),
        (inspect.isgeneratorfunction, CallKind.SYNC_GENERATOR),
        (_is_coroutine_function, CallKind.ASYNC),
    ):
        if any(recognise(candidate) for candidate in candidates):
            return kind
    if getattr(call, "in_line", False) is True:
        return CallKind.IN_LINE
    return CallKind.SYNC


def _is_coroutine_function(call: Any) -> bool:
    return inspect.iscoroutinefunction(call) or (
        _LEGACY_MARKER is not None and getattr(call, "_is_coroutine", None) is _LEGACY_MARKER
    )


def parameters(call: Callable[..., Any]) -> list[Parameter]:
    """The parameters that can be given by name, annotations evaluated.

    `*args` and `**kwargs` take nothing. Raises RegistrationError for a callable without a signature and for a
    positional-only parameter without a default.
    """
    try:
        signature = _signature(call)
    except (ValueError, TypeError) as error:
        raise RegistrationError(f"{describe(call)} has no signature that could be read: {error}") from error
    global_names, local_names = _namespaces(call)
    found = []
    for parameter in signature.parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if parameter.kind is parameter.POSITIONAL_ONLY:
            if parameter.default is parameter.empty:
                raise RegistrationError(
                    f"{describe(call)}: parameter {parameter.name!r} is positional-only, but values are given by name"
                )
            continue
        annotation = _evaluated(parameter.annotation, global_names, local_names)
        found.append(Parameter(parameter.name, annotation, parameter.default))
    return found


def returned(call: Callable[..., Any]) -> Any:
    """The return annotation, evaluated: `inspect.Parameter.empty`, `Unresolved`, or the annotation itself."""
    function = unwrapped(call)
    if not inspect.isroutine(function) and not inspect.isclass(function):
        function = unwrapped(type(function).__call__)
    function = getattr(function, "__func__", function)
    try:
        annotation = _signature(function).return_annotation
    except (ValueError, TypeError):
        return inspect.Parameter.empty
    if annotation is inspect.Signature.empty:
        return inspect.Parameter.empty
    return _evaluated(annotation, *_namespaces(call))


def _signature(call: Callable[..., Any]) -> inspect.Signature:
    if sys.version_info >= (3, 14):
        from annotationlib import Format

        return inspect.signature(call, annotation_format=Format.FORWARDREF)
    return inspect.signature(call)


def _evaluated(annotation: Any, global_names: dict[str, Any], local_names: dict[str, Any]) -> Any:
    """The annotation with its strings evaluated, also those deep inside (`list["Item"]`)."""
    if annotation is inspect.Parameter.empty:
        return annotation
    holder = types.SimpleNamespace(__annotations__={"it": annotation})
    try:
        return typing.get_type_hints(holder, global_names, local_names, include_extras=True)["it"]
    except Exception as error:  # evaluating a user's annotation raises anything
        text = annotation if isinstance(annotation, str) else repr(annotation)
        return Unresolved(text, error)


def _namespaces(call: Callable[..., Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Globals and locals in which the callable's string annotations were written."""
    function = unwrapped(call)
    if inspect.isclass(function):
        module = vars(sys.modules[function.__module__]) if function.__module__ in sys.modules else {}
        init = unwrapped(getattr(function, "__init__", None))
        global_names = getattr(init, "__globals__", module)
        return global_names, {**module, **_type_parameters(function)}
    if not inspect.isroutine(function):
        function = unwrapped(type(function).__call__)
    function = getattr(function, "__func__", function)
    return getattr(function, "__globals__", {}), {**_closure(function), **_type_parameters(function)}


def _closure(function: Any) -> dict[str, Any]:
    names = getattr(getattr(function, "__code__", None), "co_freevars", ())
    found = {}
    for name, cell in zip(names, getattr(function, "__closure__", None) or (), strict=False):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    return found


def _type_parameters(owner: Any) -> dict[str, Any]:
    return {parameter.__name__: parameter for parameter in getattr(owner, "__type_params__", ())}
