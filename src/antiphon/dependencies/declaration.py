"""The declaration of one parameter: its annotation, its marker and its default, brought together and checked.

Knows FastAPI's rules for combining them, and nothing of steps or connections.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Final, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from antiphon import tags
from antiphon.exceptions import ParameterDeclarationError, RegistrationError
from antiphon.hub import Topic, Topics
from antiphon.identity import Identity
from antiphon.tagged import name_of

from . import foreign, hints
from .inspection import Parameter, Unresolved, warn_about
from .params import Depends, Location

EMPTY: Final = inspect.Parameter.empty


@dataclass(frozen=True, slots=True)
class Declared:
    """The annotation and the default of a parameter, combined."""

    type: Any
    """The annotation without `Annotated`; Any without annotation."""
    full: Any
    depends: Depends | None
    marker: FieldInfo | None
    location: Location | None
    default: Any
    """The plain default. `EMPTY` when it is a marker or missing."""
    in_annotation: bool

    @classmethod
    def read(cls, where: str, annotation: Any, default: Any) -> Declared:
        full = Any if annotation is EMPTY or isinstance(annotation, Unresolved) else annotation
        bare = full
        metadata: tuple[Any, ...] = ()
        if get_origin(full) is Annotated:
            bare, *extra = get_args(full)
            metadata = tuple(extra)
        markers = [item for item in metadata if foreign.as_depends(item) or foreign.location_of(item)]
        if foreign.as_depends(default) or isinstance(default, FieldInfo):
            if markers:
                raise ParameterDeclarationError(
                    f"{where} is marked twice: {markers[-1]!r} in Annotated, {default!r} as default"
                )
            return cls._of(default, bare, full, EMPTY, in_annotation=False)
        return cls._of(markers[-1] if markers else None, bare, full, default, in_annotation=True)

    @classmethod
    def _of(cls, marker: Any, bare: Any, full: Any, default: Any, *, in_annotation: bool) -> Declared:
        depends = foreign.as_depends(marker) if marker is not None else None
        info = marker if isinstance(marker, FieldInfo) else None
        location = foreign.location_of(info) if info is not None else None
        return cls(bare, full, depends, info, location, default, in_annotation)


def unknown_annotation(where: str, annotation: Unresolved) -> RegistrationError:
    return RegistrationError(f"{where} has the unknown annotation {annotation.text!r}: {annotation.error}")


def completed(found: Declared, where: str) -> Depends:
    """The `Depends` with its callable, which is the annotation when none was given."""
    depends = found.depends
    assert depends is not None
    target = depends.dependency
    if target is None:
        target = found.type
    if target is Identity:
        raise ParameterDeclarationError(
            f"{where}: Depends would read the Identity from the query, so every client could be any user: "
            "annotate Identity alone, behind a dependency that identifies the user"
        )
    if target is Any:
        raise ParameterDeclarationError(
            f"{where}: Depends() calls the annotation, and the parameter has none: write Depends(function)"
        )
    if not callable(target):
        raise ParameterDeclarationError(
            f"{where}: Depends takes a function or class, not the value it returns, and got {target!r}"
        )
    return depends.calling(target)


def field_info(found: Declared, parameter: Parameter, where: str, *, is_path: bool) -> tuple[FieldInfo, Location]:
    location = found.location or _inferred(found.type, is_path=is_path)
    if is_path and location is not Location.PATH:
        raise ParameterDeclarationError(f"{where} is in the path and cannot be read with {found.marker!r}")
    try:
        if found.marker is not None and not found.in_annotation:
            info = FieldInfo.from_annotated_attribute(found.full, found.marker)
        else:
            info = FieldInfo.from_annotation(found.full)
    except TypeError as error:
        raise ParameterDeclarationError(f"{where}: {error}") from error
    if not found.in_annotation:
        return info, location
    return _with_default(info, found, where, location), location


def _with_default(info: FieldInfo, found: Declared, where: str, location: Location) -> FieldInfo:
    """In `Annotated` style the default stands behind `=`, never inside the marker."""
    if found.marker is not None and found.marker.default is not PydanticUndefined:
        raise ParameterDeclarationError(
            f"{where}: write the default behind '=', not as {found.marker!r} inside Annotated"
        )
    default = found.default
    info = copy.copy(info)
    if location is Location.PATH:
        if found.marker is not None and default is not EMPTY:
            raise ParameterDeclarationError(f"{where} is a path parameter and cannot have a default")
        info.default = PydanticUndefined
        info.default_factory = None
        return info
    if default is EMPTY or default is ...:
        info.default = PydanticUndefined
    elif info.default_factory is not None:
        raise ParameterDeclarationError(f"{where} has both a default and a default_factory")
    else:
        info.default = default
    return info


def _inferred(annotation: Any, *, is_path: bool) -> Location:
    if is_path:
        return Location.PATH
    if hints.is_scalar(annotation):
        return Location.QUERY
    return Location.FORM if hints.takes_upload(annotation) else Location.BODY


def check_type(location: Location, annotation: Any, where: str) -> None:
    if location is Location.PATH and not hints.is_scalar(annotation):
        raise ParameterDeclarationError(f"{where} is read from the path and cannot be a {annotation!r}")
    if location is Location.QUERY and not (
        hints.is_scalar(annotation) or hints.is_scalar_sequence(annotation) or hints.model_of(annotation) is not None
    ):
        raise ParameterDeclarationError(f"{where} is read from the query and cannot be a {annotation!r}")


def check_topic(call: Callable[..., Any], annotation: Any, dependency: object, where: str) -> None:
    """The type of a `Topic` that its `Topics` do not bear out. Within `Annotated`, type checkers do not see it."""
    if get_origin(annotation) is not Topic or not isinstance(dependency, Topics):
        return
    declared = {tags.bare(one.kind) for one in dependency.messages.types}
    for kind in filter(tags.is_message_class, map(tags.bare, tags.members(get_args(annotation)[0]))):
        if kind not in declared:
            text = f"{where} is a Topic of {name_of(kind)}, which {dependency!r} does not declare"
            warn_about(call, text)
