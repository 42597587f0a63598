"""The content of a generated client, read out of an AsyncAPI document. Pure: knows nothing of languages."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

Schema = Mapping[str, Any]
"""A draft-07 schema, of the closed subset that our documents have."""

FLAT: Final = {"tag": "type", "ref": "ref", "content": None}
OURS: Final = frozenset({"reply", "item", "end", "error", "cancel", "joined", "message", "heartbeat"})
"""Types of frames that the runtimes handle themselves, where no class of the application is behind them."""


class UnusableDocument(ValueError):
    """No client can be made of this document."""


class AnswerForm(Enum):
    """The kind of answer to a message."""

    NONE = "none"
    ACK = "ack"
    VALUE = "value"
    STREAM = "stream"


@dataclass(frozen=True, slots=True, kw_only=True)
class CallShape:
    """One message to the server, and its answer."""

    name: str
    tag: str
    schema_name: str
    fields: Schema | None
    """The message without its tag and ref. None: it has no fields."""
    answer: AnswerForm
    data: Schema
    """Of the reply or of an item."""
    errors: Mapping[str, Schema]
    description: str
    deprecated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class EventShape:
    """One message from the server, with its tag."""

    tag: str
    schema_name: str
    schema: Schema
    is_placed: bool
    """It comes as the data of a topic's `message`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterShape:
    """A part of the address."""

    name: str
    schema: Schema
    required: bool
    in_path: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientShape:
    """One channel."""

    name: str
    address: str
    description: str
    parameters: tuple[ParameterShape, ...]
    calls: tuple[CallShape, ...]
    events: tuple[EventShape, ...]
    resume: Mapping[str, str] = field(default_factory=dict)
    """Query parameter to topic."""
    retry: tuple[int, ...] = ()
    heartbeat: float | None = None
    token_parameter: str | None = None
    """The query parameter that a token goes into."""


def clients_of(document: Mapping[str, Any]) -> tuple[ClientShape, ...]:
    """The channels of a document. Raises `UnusableDocument`."""
    if not str(document.get("asyncapi", "")).startswith("3."):
        raise UnusableDocument("expected an AsyncAPI document of version 3")
    try:
        shapes = tuple(_client(document, name, channel) for name, channel in document.get("channels", {}).items())
    except (AttributeError, KeyError, TypeError) as error:
        raise UnusableDocument(
            f"expected a document that antiphon made: {error!r} is missing or of another kind"
        ) from None
    if not shapes:
        raise UnusableDocument("the document has no channels")
    return shapes


def schemas_of(document: Mapping[str, Any]) -> Mapping[str, Schema]:
    """The named schemas."""
    found: Mapping[str, Schema] = document.get("components", {}).get("schemas", {})
    return found


def _client(document: Mapping[str, Any], name: str, channel: Mapping[str, Any]) -> ClientShape:
    extension = channel.get("x-antiphon", {})
    if extension.get("wire", FLAT) != FLAT:
        raise UnusableDocument(f"channel {name}: clients speak the wire {FLAT}, not {extension['wire']}")
    resume = dict(extension.get("resumable", {}))
    token = _token_parameter(document)
    parameters = tuple(one for one in _parameters(channel) if one.name not in resume and one.name != token)
    operations = {
        key: operation
        for key, operation in document.get("operations", {}).items()
        if operation["channel"]["$ref"] == f"#/channels/{name}"
    }
    return ClientShape(
        name=name,
        address=channel["address"],
        description=channel.get("description") or channel.get("summary", ""),
        parameters=parameters,
        calls=tuple(call for key, one in operations.items() for call in _calls(channel, key, one)),
        events=tuple(event for one in operations.values() for event in _events(channel, one)),
        resume=resume,
        retry=tuple(extension.get("retry", ())),
        heartbeat=extension.get("heartbeat"),
        token_parameter=token,
    )


def _token_parameter(document: Mapping[str, Any]) -> str | None:
    for scheme in document.get("components", {}).get("securitySchemes", {}).values():
        if scheme.get("type") == "httpApiKey" and scheme.get("in") == "query":
            return str(scheme["name"])
    return None


def _parameters(channel: Mapping[str, Any]) -> Iterator[ParameterShape]:
    described = channel.get("parameters", {})
    for name in re.findall(r"{(\w+)}", channel["address"]):
        one = described.get(name, {})
        schema = one.get("x-antiphon", {}).get("schema") or (
            {"enum": one["enum"]} if "enum" in one else {"type": "string"}
        )
        yield ParameterShape(name=name, schema=schema, required=True, in_path=True)
    query = channel.get("bindings", {}).get("ws", {}).get("query", {})
    for name, schema in query.get("properties", {}).items():
        yield ParameterShape(name=name, schema=schema, required=name in query.get("required", ()), in_path=False)


def _messages(channel: Mapping[str, Any], references: Any) -> Iterator[Mapping[str, Any]]:
    for reference in references or ():
        yield channel["messages"][reference["$ref"].rsplit("/", 1)[1]]


def _calls(channel: Mapping[str, Any], key: str, operation: Mapping[str, Any]) -> Iterator[CallShape]:
    if operation["action"] != "receive":
        return
    answer = AnswerForm(operation.get("x-antiphon", {}).get("answer", "none"))
    messages = [one for one in _messages(channel, operation["messages"]) if _tag(one["payload"]) is not None]
    replies = list(_messages(channel, operation.get("reply", {}).get("messages")))
    data = [
        one["payload"]["properties"].get("data", {}) for one in replies if _tag(one["payload"]) in ("reply", "item")
    ]
    errors = {}
    for one in replies:
        code = one["payload"]["properties"].get("code", {}).get("const")
        if code is not None:
            errors[code] = one["payload"]["properties"].get("detail", {"type": "null"})
    for message in messages:
        tag = _tag(message["payload"])
        if tag is None or tag == "cancel":
            continue
        yield CallShape(
            name=key.rpartition(".")[2] if len(messages) == 1 else tag,
            tag=tag,
            schema_name=message.get("x-antiphon", {}).get("schema") or _pascal(tag),
            fields=_without(message["payload"], "type", "ref"),
            answer=answer,
            data=data[0] if data else {},
            errors=errors,
            description=operation.get("description") or operation.get("summary") or message.get("summary", ""),
            deprecated=bool(operation.get("deprecated") or message.get("deprecated")),
        )


def _events(channel: Mapping[str, Any], operation: Mapping[str, Any]) -> Iterator[EventShape]:
    if operation["action"] != "send":
        return
    seen: set[tuple[str, bool]] = set()
    for message in _messages(channel, operation["messages"]):
        extension = message.get("x-antiphon", {})
        schema = message["payload"]
        is_placed = extension.get("framing") == "event"
        if is_placed:
            schema = schema["properties"]["data"]
        tag = _tag(schema)
        is_ours = tag in OURS and extension.keys().isdisjoint(("schema", "topic"))
        if tag is not None and not is_ours and (tag, is_placed) not in seen:
            seen.add((tag, is_placed))
            name = extension.get("schema") or _pascal(tag)
            yield EventShape(tag=tag, schema_name=name, schema=schema, is_placed=is_placed)


def _tag(schema: Schema) -> str | None:
    tag = schema.get("properties", {}).get("type", {}).get("const")
    return tag if isinstance(tag, str) else None


def _without(schema: Schema, *names: str) -> Schema | None:
    properties = {name: one for name, one in schema["properties"].items() if name not in names}
    if not properties and not schema.get("additionalProperties"):
        return None
    required = [name for name in schema.get("required", ()) if name not in names]
    return {**schema, "properties": properties, "required": required}


def _pascal(text: str) -> str:
    return "".join(part[:1].upper() + part[1:] for part in re.split(r"\W|_", text) if part)


def untagged(schema: Schema) -> Iterator[tuple[str, Schema]]:
    """Each constant that may be an object's tag, and the schema without it."""
    properties, required = schema.get("properties", {}), schema.get("required", ())
    for key, one in properties.items():
        if key in required and isinstance(one, Mapping) and isinstance(one.get("const"), str):
            rest = {name: other for name, other in properties.items() if name != key}
            left = [name for name in required if name != key]
            bare = {name: value for name, value in schema.items() if name not in ("properties", "required")}
            yield key, {**bare, **({"properties": rest} if rest else {}), **({"required": left} if left else {})}


def class_name(text: str) -> str:
    """`chat_room` as the name of a class."""
    name = _pascal(text)
    return name if name[:1].isalpha() else f"C{name}"
