"""The tag of a message: the name that says on the wire which message it is, and where it comes from.

Knows classes and their fields, and nothing of wires, channels or topics.
"""

from __future__ import annotations

import dataclasses
import enum
import re
import types
import typing
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from pydantic import BaseModel, RootModel
from typing_extensions import is_typeddict

AUTH: Final = "auth"
"""Tag of the message that brings a new token."""

AUTH_EXPIRING: Final = "auth_expiring"
"""Tag of the event that says when one is due."""

HEARTBEAT: Final = "heartbeat"
"""Tag of the event that says that the link is alive. A channel may have one of its own."""

RESERVED: Final = frozenset({"reply", "item", "end", "error", "cancel", AUTH, AUTH_EXPIRING})
"""Tags of the frames that channels read and write themselves, in either direction."""

LONGEST_TAG: Final = 100
"""Characters: a tag is a name, and it stands in every message."""

_WORD_STARTS: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def snake_case(name: str) -> str:
    """`HTTPError` as `http_error`."""
    return _WORD_STARTS.sub("_", name.strip("_")).lower()


def without_alias(annotation: Any) -> Any:
    """The type behind a `type X = ...` statement (PEP 695)."""
    while type(annotation).__name__ == "TypeAliasType":
        annotation = annotation.__value__
    return annotation


def bare(annotation: Any) -> Any:
    """The annotation without `Annotated` and without aliases."""
    annotation = without_alias(annotation)
    while get_origin(annotation) is Annotated:
        annotation = without_alias(get_args(annotation)[0])
    return annotation


def members(annotation: Any) -> tuple[Any, ...]:
    """The members of a union, of unions in it too; of anything else itself."""
    annotation = without_alias(annotation)
    inner = bare(annotation)
    if get_origin(inner) in (Union, types.UnionType):
        return tuple(dict.fromkeys(one for member in get_args(inner) for one in members(member)))
    return (annotation,)


def is_message_class(annotation: Any) -> bool:
    """Whether it is written as a JSON object with named fields: a model, a dataclass, a TypedDict."""
    kind = bare(annotation)
    cls = get_origin(kind) or kind
    return isinstance(cls, type) and (issubclass(cls, BaseModel) or dataclasses.is_dataclass(cls) or is_typeddict(cls))


def is_root_model(annotation: Any) -> bool:
    """Whether it is a class of messages that is written as its bare content, without names of fields."""
    kind = bare(annotation)
    cls = get_origin(kind) or kind
    return isinstance(cls, type) and issubclass(cls, RootModel)


def is_generic(annotation: Any) -> bool:
    """`Page[Item]`: the name of the class alone would not name its content."""
    kind = bare(annotation)
    metadata = getattr(kind, "__pydantic_generic_metadata__", None)
    return get_origin(kind) is not None or bool(metadata and (metadata["args"] or metadata["parameters"]))


class Direction(enum.Enum):
    """The reader of the message: it decides under which aliases its fields stand on the wire."""

    IN = "in"
    OUT = "out"


def fields_of(annotation: Any, direction: Direction) -> Mapping[str, Any]:
    """The annotations of a message class's fields, by their names on the wire."""
    kind = bare(annotation)
    cls = get_origin(kind) or kind
    if issubclass(cls, BaseModel) if isinstance(cls, type) else False:
        return {
            name: field.annotation
            for own, field in cls.model_fields.items()
            for name in _wire_names(own, field, direction, cls.model_config)
        }
    pydantic_fields: Mapping[str, Any] | None = getattr(cls, "__pydantic_fields__", None)
    if pydantic_fields is not None:
        return {
            name: field.annotation
            for own, field in pydantic_fields.items()
            for name in _wire_names(own, field, direction, {})
        }
    try:
        return typing.get_type_hints(cls)
    except Exception:  # evaluating a user's annotation raises anything: pydantic reports it by name
        return {}


def _wire_names(own: str, field: Any, direction: Direction, config: Mapping[str, Any]) -> list[str]:
    if direction is Direction.OUT:
        return [field.serialization_alias or field.alias or own]
    alias = field.validation_alias or field.alias
    if alias is None:
        return [own]
    choices = getattr(alias, "choices", [alias])
    names = [choice for choice in choices if isinstance(choice, str)]
    by_name = config.get("validate_by_name", config.get("populate_by_name", False))
    return [*names, own] if by_name else names


def literal_tags(annotation: Any, field: str, direction: Direction) -> tuple[str, ...] | None:
    """The values of the `Literal` field of this name on the wire. None where there is no such field.

    An empty tuple: there is one, and it is no Literal of strings.
    """
    fields = fields_of(annotation, direction)
    if field not in fields:
        return None
    kind = bare(fields[field])
    while get_origin(kind) in (typing.Required, typing.NotRequired):
        kind = bare(get_args(kind)[0])
    if get_origin(kind) is not Literal:
        return ()
    values = [value.value if isinstance(value, enum.Enum) else value for value in get_args(kind)]
    return tuple(values) if all(isinstance(value, str) for value in values) else ()


def class_tag(annotation: Any) -> str:
    """The tag that a class has by its name."""
    kind = bare(annotation)
    return snake_case((get_origin(kind) or kind).__name__)


def problem_of(tag: str) -> str | None:
    """The fault of a tag. None: it is valid."""
    if not isinstance(tag, str):
        return f"a tag is a str, not {tag!r}"
    if not tag or len(tag) > LONGEST_TAG or not tag.isprintable():
        return f"a tag has 1 to {LONGEST_TAG} printable characters, and {tag[:LONGEST_TAG]!r} has not"
    if tag in RESERVED:
        return f"{tag!r} is one of the reserved tags ({', '.join(sorted(RESERVED))})"
    return None
