"""Questions about annotations: is this a single value, a sequence, a pydantic model, an optional one?

The answers decide, as in FastAPI, whether a parameter without a marker is read from the query or the body, and whether
repeated values are taken as a list.
"""

from __future__ import annotations

import dataclasses
import types
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel
from starlette.datastructures import UploadFile

_SEQUENCES = (Sequence, list, tuple, set, frozenset, deque)
_COMPLEX = (BaseModel, Mapping, UploadFile)


def is_subclass(annotation: Any, classes: type | tuple[type, ...]) -> bool:
    """`issubclass` that answers False for anything but a class, generic aliases included."""
    return isinstance(annotation, type) and get_origin(annotation) is None and issubclass(annotation, classes)


def without_alias(annotation: Any) -> Any:
    """The type behind a `type X = ...` statement (PEP 695)."""
    while type(annotation).__name__ == "TypeAliasType":
        annotation = annotation.__value__
    return annotation


def _members(annotation: Any) -> tuple[Any, ...] | None:
    """The members of a union. None for other annotations."""
    if get_origin(annotation) in (Union, types.UnionType):
        return get_args(annotation)
    return None


def _bare(annotation: Any) -> Any:
    annotation = without_alias(annotation)
    while get_origin(annotation) is Annotated:
        annotation = without_alias(get_args(annotation)[0])
    return annotation


def is_sequence(annotation: Any) -> bool:
    """True when some member takes several values. `str` and `bytes` are single values."""
    annotation = _bare(annotation)
    if (members := _members(annotation)) is not None:
        return any(map(is_sequence, members))
    return _is_sequence_class(annotation) or _is_sequence_class(get_origin(annotation))


def _is_sequence_class(cls: Any) -> bool:
    return is_subclass(cls, _SEQUENCES) and not is_subclass(cls, (str, bytes)) and not _is_read_from_text(cls)


def _is_read_from_text(cls: type) -> bool:
    """A named tuple that tells pydantic how to read it is one value. Others take one value per field, as in FastAPI."""
    return issubclass(cls, tuple) and hasattr(cls, "_fields") and hasattr(cls, "__get_pydantic_core_schema__")


def is_scalar(annotation: Any) -> bool:
    """True when one string can hold the value: no model, mapping, dataclass or sequence, in no member of a union."""
    annotation = _bare(annotation)
    if annotation is Ellipsis:
        return True
    if (members := _members(annotation)) is not None:
        return all(map(is_scalar, members))
    origin = get_origin(annotation)
    return not (
        any(is_subclass(cls, _COMPLEX) or _is_sequence_class(cls) for cls in (annotation, origin))
        or dataclasses.is_dataclass(annotation)
        or hasattr(origin, "__pydantic_core_schema__")
        or hasattr(origin, "__get_pydantic_core_schema__")
    )


def is_scalar_sequence(annotation: Any) -> bool:
    """True for a sequence of scalars, alone or in a union with scalars."""
    annotation = _bare(annotation)
    if (members := _members(annotation)) is not None:
        return is_sequence(annotation) and all(is_scalar(member) or is_scalar_sequence(member) for member in members)
    return is_sequence(annotation) and all(map(is_scalar, get_args(annotation)))


def takes_upload(annotation: Any) -> bool:
    """True for an uploaded file, alone, optional or in a sequence."""
    annotation = _bare(annotation)
    return is_subclass(annotation, UploadFile) or any(map(takes_upload, get_args(annotation)))


def class_of(annotation: Any) -> type | None:
    """The class that is annotated, without its type arguments. None when it is no class."""
    annotation = _bare(annotation)
    cls = get_origin(annotation) or annotation
    return cls if isinstance(cls, type) else None


def optional_of(annotation: Any) -> Any:
    """X of `X | None`. None for anything else."""
    members = _members(_bare(annotation))
    if members is None or len(members) != 2 or type(None) not in members:
        return None
    return _bare(next(member for member in members if member is not type(None)))


def model_of(annotation: Any) -> type[BaseModel] | None:
    """The pydantic model of `M` or `M | None`."""
    annotation = optional_of(annotation) or _bare(annotation)
    return annotation if is_subclass(annotation, BaseModel) else None
