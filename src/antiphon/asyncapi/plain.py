"""A plain WebSocket route as a section of a document: the types of `receives=` and `sends=`, as pydantic describes
them."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from antiphon import tags
from antiphon.connection.typed import adapter_of
from antiphon.dependencies import topics_of
from antiphon.routing.route import APIWebSocketRoute

from .draft07 import Schema
from .schemas import Mode, qualified
from .section import Section
from .topics import author_examples, doc_of, events_of

TAG = "type"


def describe(section: Section, route: APIWebSocketRoute) -> None:
    """Add the route's messages and operations."""
    topics = topics_of(route.plan)
    received = [_message(section, kind, "validation") for kind in _members(route.receives)]
    sent = [_message(section, kind, "serialization") for kind in _members(route.sends)]
    sent += events_of(section, topics)
    if received:
        section.operation("receive", "receive", received, extension={"answer": "none"})
    if sent:
        section.operation("send", "send", sent)


def is_described(route: APIWebSocketRoute) -> bool:
    """Whether a route declares its messages."""
    return route.receives is not None or route.sends is not None or bool(topics_of(route.plan))


def _members(declared: Any) -> list[Any]:
    return [] if declared is None else list(dict.fromkeys(map(tags.bare, tags.members(declared))))


def _message(section: Section, kind: Any, mode: Mode) -> str:
    adapter: TypeAdapter[Any] = adapter_of(kind)
    schema = section.schemas.of(kind, adapter, mode)
    direction = tags.Direction.IN if mode == "validation" else tags.Direction.OUT
    own = tags.literal_tags(kind, TAG, direction) if tags.is_message_class(kind) else None
    name = own[0] if own else qualified(str(getattr(kind, "__name__", "message")))
    payload = _tag_demanded(section.schemas.resolved(schema), own, mode)
    named = section.schemas.name(schema)
    key = f"{name}.received" if mode == "validation" else name
    return section.message(
        key,
        payload,
        name=name,
        description=doc_of(kind),
        examples=author_examples(kind, adapter, mode),
        extension=None if named is None else {"schema": named},
    )


def _tag_demanded(schema: Schema, own: tuple[str, ...] | None, mode: Mode) -> Schema:
    """A tag with a default may be left out for pydantic. In a document it tells the messages apart."""
    if not own or TAG not in schema.get("properties", {}):
        return schema
    properties = {TAG: {key: value for key, value in schema["properties"][TAG].items() if key != "default"}}
    properties |= {name: one for name, one in schema["properties"].items() if name != TAG}
    required = [TAG, *(name for name in schema.get("required", ()) if name != TAG)]
    return {**schema, "properties": properties, "required": required}
