"""The additions of generated clients to `Client`: models of events, of the details of errors and of outgoing messages.

Part of the file that is generated, below the runtime.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, TypeVar, cast, get_origin
from urllib.parse import quote, urlencode

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from .runtime import Client, Recovered

T = TypeVar("T", covariant=True)


class GeneratedModel(BaseModel):
    """A class of messages, or of their parts."""

    model_config: ClassVar[ConfigDict] = ConfigDict(populate_by_name=True, protected_namespaces=())

    def model_post_init(self, context: Any, /) -> None:
        """A constant is sent also where nobody named it: the server may tell classes apart by it."""
        for name, field in type(self).model_fields.items():
            if isinstance(field.default, str) and get_origin(field.annotation) is Literal:
                self.model_fields_set.add(name)


class TypedClient(Client[T]):
    """A client whose events and errors are models. Events that nobody declared are left out."""

    tells_recovered = True
    events: ClassVar[Mapping[str, TypeAdapter[Any]]] = {}
    """By tag."""
    details: ClassVar[Mapping[str, TypeAdapter[Any]]] = {}
    """By code."""

    def decode(self, event: Any) -> T:
        if isinstance(event, Recovered):
            return cast(T, event)
        inner = event["data"] if _is_of_topic(event, "message", "data") else event
        tag = inner.get("type") if isinstance(inner, dict) else None
        if not isinstance(tag, str) or _is_of_topic(event, "joined", "recovered"):
            raise LookupError("an event without a type")
        return cast(T, self.events[tag].validate_json(json.dumps(inner)))

    def detail(self, code: str, detail: Any) -> Any:
        if code not in self.details:
            return detail
        try:
            return self.details[code].validate_json(json.dumps(detail))
        except ValidationError:
            return detail

    def content(self, fields: Any) -> dict[str, Any]:
        if isinstance(fields, BaseModel):
            return fields.model_dump(mode="json", by_alias=True, exclude_unset=True)  # the server knows its defaults
        return super().content(fields)

    async def tell(self, type: str, fields: Any = None, *, queue: bool | None = None) -> None:
        """Sends a message that nobody answers. Raises as `send`."""
        await self.send({"type": type} | self.content(fields) | {"type": type}, queue=queue)


def _is_of_topic(event: Any, tag: str, field: str) -> bool:
    """Whether the hub sent this about a topic. An application may have events of the same type."""
    return (
        isinstance(event, dict) and event.get("type") == tag and isinstance(event.get("topic"), str) and field in event
    )


def address_of(base: str, path: str, parts: Mapping[str, object], query: Mapping[str, object]) -> str:
    """The address of a channel."""
    for name, value in parts.items():
        path = path.replace(f"{{{name}}}", quote(_text(value), safe=""))
    given = {name: value for name, value in query.items() if value is not None}
    texts = {
        name: [_text(one) for one in value] if isinstance(value, list | tuple | set) else _text(value)
        for name, value in given.items()
    }
    return f"{base.rstrip('/')}{path}" + (f"?{urlencode(texts, doseq=True)}" if texts else "")


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
