"""`jsonable_encoder`: any value as plain JSON types, through pydantic."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

CustomEncoder: TypeAlias = Mapping[Any, Callable[[Any], Any]]


def jsonable_encoder(
    obj: Any,
    include: Any = None,
    exclude: Any = None,
    by_alias: bool = True,
    exclude_unset: bool = False,
    exclude_defaults: bool = False,
    exclude_none: bool = False,
    custom_encoder: CustomEncoder | None = None,
    sqlalchemy_safe: bool = True,
) -> Any:
    """`obj` in a form that `json.dumps` takes (FastAPI's function of this name).

    Models, dataclasses, dates, UUIDs, enums and containers are written as pydantic does. Other objects by their
    attributes. `custom_encoder` maps types to functions that go first. `sqlalchemy_safe` leaves out keys beginning with
    `_sa`. Raises ValueError for an object with neither.
    """

    def encode(value: Any, include: Any = None, exclude: Any = None) -> Any:
        for kind, encoder in (custom_encoder or {}).items():
            if isinstance(value, kind):
                return encoder(value)
        if isinstance(value, BaseModel):
            dumped = value.model_dump(
                include=include,
                exclude=exclude,
                by_alias=by_alias,
                exclude_unset=exclude_unset,
                exclude_defaults=exclude_defaults,
                exclude_none=exclude_none,
                mode="python" if custom_encoder else "json",
            )
            return encode(dumped)
        if isinstance(value, Mapping):
            wanted = {key: item for key, item in value.items() if _wanted(key, item, include, exclude)}
            return {to_jsonable_python(key, fallback=str): encode(item) for key, item in wanted.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [encode(item) for item in value]
        return to_jsonable_python(value, by_alias=by_alias, fallback=lambda other: encode(attributes_of(other)))

    def _wanted(key: Any, item: Any, include: Any, exclude: Any) -> bool:
        if sqlalchemy_safe and isinstance(key, str) and key.startswith("_sa"):
            return False
        if item is None and exclude_none:
            return False
        return (include is None or key in include) and (exclude is None or key not in exclude)

    return encode(obj, include, exclude)


def attributes_of(value: Any) -> dict[str, Any]:
    """The items of a mapping-like object, else its attributes. Raises ValueError for an object with neither."""
    try:
        items: dict[str, Any] = dict(value)
        return items
    except (TypeError, ValueError):
        pass
    try:
        attributes: dict[str, Any] = vars(value)
        return attributes
    except TypeError:
        raise ValueError(f"{type(value).__qualname__} has no JSON form, and neither items nor attributes") from None
