"""Payloads: the schema of each frame, from the schema of its content. Pure.

A tag is a const and required, at any place on the wire. The fields of a message stand beside it, or, with
`Wire.content`, in an object of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from .draft07 import Schema

REF: Final[Schema] = {
    "type": ["integer", "string"],
    "maxLength": 64,
    "description": "Names the request; the answer has the same.",
}


class WireNames(NamedTuple):
    """A wire's names for the fields that all messages share."""

    tag: str = "type"
    ref: str = "ref"
    content: str | None = None


def tag_of(tags: Sequence[str]) -> Schema:
    """The schema of a tag."""
    return {"type": "string", "const": tags[0]} if len(tags) == 1 else {"type": "string", "enum": list(tags)}


def message(
    tags: Sequence[str], fields: Schema | None, names: WireNames, *, ref: bool | None = None, deprecated: bool = False
) -> Schema:
    """A message with its tag. `ref`: None for one without, else whether it has to have one. `fields`: resolved."""
    head: dict[str, Any] = {names.tag: tag_of(tags)}
    required = [names.tag]
    if ref is not None:
        head[names.ref] = REF
        required += [names.ref] if ref else []
    more: Schema = {"deprecated": True} if deprecated else {}
    if names.content is not None and fields is not None:
        head[names.content] = fields
        return _object(head, [*required, names.content]) | more
    if fields is None:
        return _object(head, required) | more
    if fields.get("type") != "object" or "$ref" in fields or {"anyOf", "allOf", "oneOf"} & fields.keys():
        return {"allOf": [_object(head, required), fields], **more}
    rest = {key: value for key, value in fields.items() if key not in ("type", "properties", "required", "examples")}
    own = {name: schema for name, schema in fields.get("properties", {}).items() if name not in head}
    demanded = [name for name in fields.get("required", ()) if name not in head]
    return {**_object(head | own, [*required, *demanded]), **rest, **more}


def envelope(tag: str, names: WireNames, *, ref: bool = True, parts: Mapping[str, Schema] | None = None) -> Schema:
    """A frame around something: `reply`, `item`, `end`, `cancel`. All of its parts are always there."""
    head: dict[str, Any] = {names.tag: tag_of([tag]), **({names.ref: REF} if ref else {}), **(parts or {})}
    return _object(head, list(head))


def error(names: WireNames, code: Schema, text: Schema, detail: Schema | None, *, demanded: bool) -> Schema:
    """An error. `detail`: its schema, if known. `demanded`: it is always there."""
    inner: dict[str, Any] = {"code": code, "message": text}
    required = ["code", "message"]
    if detail is not None:
        inner["detail"] = detail
        required += ["detail"] if demanded else []
    head: dict[str, Any] = {names.tag: tag_of(["error"]), names.ref: REF}
    if names.content is None:
        return _object(head | inner, [names.tag, *required])
    return _object({**head, names.content: _object(inner, required)}, [names.tag, names.content])


FAULTS: Final[Schema] = {
    "description": "Of an invalid message: what is wrong with it.",
    "anyOf": [
        {
            "type": "array",
            "maxItems": 5,
            "items": {
                "type": "object",
                "properties": {
                    "loc": {"type": "array", "items": {"type": ["string", "integer"]}},
                    "type": {"type": "string"},
                    "msg": {"type": "string"},
                },
                "required": ["loc", "type", "msg"],
            },
        },
        {},
    ],
}

INFOS: Final[Schema] = {
    "type": "object",
    "additionalProperties": {"type": "array", "items": {}},
    "description": "By user: what each of its connections gave as presence.",
}

PLACED: Final[dict[str, Schema]] = {
    "offset": {"type": "integer", "description": "Place in the topic's history."},
    "epoch": {"type": "string", "description": "Life of the topic's history."},
}


def presence_diff() -> Schema:
    """The event for members that came, went or changed."""
    counts = {"type": "object", "additionalProperties": {"type": "integer"}}
    properties: dict[str, Schema] = {
        "type": tag_of(["presence_diff"]),
        "topic": {"type": "string"},
        **dict.fromkeys(("joins", "leaves", "updates"), INFOS),
        "counts": {**counts, "description": "Of users with more connections than are listed: how many."},
    }
    return _object(properties, ["type", "topic", "joins", "leaves", "updates"])


def resync() -> Schema:
    """Something may have been lost."""
    return _object({"type": tag_of(["resync"]), "topic": {"type": "string"}}, ["type", "topic"])


def joined() -> Schema:
    """The first event of a topic with events."""
    properties: dict[str, Schema] = {
        "type": tag_of(["joined"]),
        "topic": {"type": "string"},
        **PLACED,
        "recovered": {"type": "boolean", "description": "What follows is exactly what was missed."},
        "heartbeat": {"type": "number", "description": "Seconds between two heartbeats."},
    }
    return _object(properties, ["type", "topic", "recovered"])


def heartbeat() -> Schema:
    """The link is alive."""
    interval = {"type": "number", "description": "Seconds within which the next one comes, where nothing else does."}
    return _object({"type": tag_of(["heartbeat"]), "interval": interval}, ["type"])


def event(data: Schema) -> Schema:
    """A message of a topic with events."""
    properties: dict[str, Schema] = {
        "type": tag_of(["message"]),
        "topic": {"type": "string"},
        **PLACED,
        "data": data,
    }
    return _object(properties, ["type", "topic", "data"])


def _object(properties: Mapping[str, Any], required: Sequence[str]) -> Schema:
    return {"type": "object", "properties": dict(properties), "required": list(required)}
