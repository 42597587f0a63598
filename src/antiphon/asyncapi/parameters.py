"""The parameters that a client has to give to connect: those of a plan, in AsyncAPI's form.

Those of the path are `parameters`, which are texts without a schema; query and headers are schemas in `bindings.ws`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, Final

from pydantic import TypeAdapter

from antiphon.dependencies.params import Location
from antiphon.dependencies.plan import Plan
from antiphon.dependencies.values import FieldReader, ModelReader, Reader
from antiphon.hub import Position

from .draft07 import Schema
from .schemas import Schemas

POSITION: Final[Schema] = {
    "type": "string",
    "pattern": "^[0-9]{1,18}-",
    "description": "A position in a topic, `offset-epoch`.",
}


def readers(plan: Plan) -> list[Reader]:
    """Everything that is read of the handshake."""
    return [reader for step in (*plan.steps, plan.endpoint) for reader in step.readers]


def path_names(path: str) -> list[str]:
    """The placeholders of a path without converters."""
    return re.findall(r"{(\w+)}", path)


def path_parameters(path: str, plan: Plan, schemas: Schemas) -> dict[str, Any]:
    """AsyncAPI's parameters of the address: every placeholder has one, also those that nobody reads."""
    schemas_of: dict[str, Schema] = {name: {} for name in path_names(path)}
    for reader in readers(plan):
        if reader.location is not Location.PATH or not isinstance(reader, FieldReader):
            continue
        for name in reader.keys:
            if name in schemas_of and _demands_more(schema := _schema(reader, schemas), schemas_of[name]):
                schemas_of[name] = schema
    return {name: _parameter(schema, schemas) for name, schema in schemas_of.items()}


def _demands_more(schema: Schema, known: Schema) -> bool:
    """Of two readers of one parameter. A topic takes any text."""
    return known.items() < schema.items() or known == {"type": "string"} != schema


def _parameter(schema: Schema, schemas: Schemas) -> dict[str, Any]:
    resolved = schemas.resolved(schema)
    made: dict[str, Any] = {}
    words = resolved.get("type") or resolved.get("format")
    text = str(resolved.get("description", "")) or (
        f"Of type {words}." if isinstance(words, str) and words != "string" else ""
    )
    if text:
        made["description"] = text
    if values := resolved.get("enum", [resolved["const"]] if "const" in resolved else None):
        made["enum"] = [str(value) for value in values]
    if examples := resolved.get("examples"):
        made["examples"] = [str(one) for one in examples]
    if schema:
        made["x-antiphon"] = {"schema": schema}
    return made


def binding(plan: Plan, schemas: Schemas) -> dict[str, Any]:
    """`bindings.ws`. Empty where nothing is read but the path."""
    parts = {
        "query": _properties(Location.QUERY, plan, schemas),
        "headers": _properties(Location.HEADER, plan, schemas),
    }
    cookies = _properties(Location.COOKIE, plan, schemas)
    if cookies:
        names = ", ".join(sorted(cookies[0]))
        header = {
            "type": "string",
            "description": f"With the cookies {names}.",
            "x-antiphon": {"cookies": _object(cookies)},
        }
        headers, demanded = parts["headers"] or ({}, [])
        parts["headers"] = ({**headers, "cookie": header}, [*demanded, *(["cookie"] if cookies[1] else [])])
    made = {name: _object(found) for name, found in parts.items() if found}
    return {"ws": {**made, "method": "GET", "bindingVersion": "0.1.0"}} if made else {}


def _object(found: tuple[dict[str, Schema], list[str]]) -> Schema:
    properties, required = found
    return {"type": "object", "properties": properties, **({"required": required} if required else {})}


def _properties(location: Location, plan: Plan, schemas: Schemas) -> tuple[dict[str, Schema], list[str]] | None:
    properties: dict[str, Schema] = {}
    required: list[str] = []
    for reader in readers(plan):
        if reader.location is not location or getattr(reader.info, "include_in_schema", True) is False:
            continue
        for name, schema, demanded in _keys(reader, schemas):
            if _demands_more(schema, properties.setdefault(name, schema)):
                properties[name] = schema
            if demanded and name not in required:
                required.append(name)
    return (properties, required) if properties else None


def _keys(reader: Reader, schemas: Schemas) -> Iterator[tuple[str, Schema, bool]]:
    schema = _schema(reader, schemas)
    if isinstance(reader, FieldReader):
        yield reader.keys[0], schema, reader.required
    elif isinstance(reader, ModelReader):
        yield from _fields(reader, _model(schema, schemas))


def _model(schema: Schema, schemas: Schemas) -> Schema:
    """The model's own schema, also of `Model | None`."""
    for part in schema.get("anyOf", [schema]):
        resolved = schemas.resolved(part)
        if "properties" in resolved:
            return resolved
    return {}


def _fields(reader: ModelReader, model: Schema) -> Iterator[tuple[str, Schema, bool]]:
    for field in reader.fields:
        for known, key in field.keys:
            if known in model.get("properties", {}):
                demanded = reader.required and known in model.get("required", ())
                yield key, model["properties"][known], demanded
                break


def _schema(reader: Reader, schemas: Schemas) -> Schema:
    if _is_position(reader):
        return dict(POSITION)
    info = reader.info
    schema = schemas.of(id(reader), _adapter(info), "validation")
    extra: Schema = {}
    if info.description:
        extra["description"] = info.description
    if info.examples:
        extra["examples"] = info.examples
    if info.deprecated:
        extra["deprecated"] = True
    if not info.is_required() and info.default_factory is None and isinstance(info.default, str | int | float | bool):
        extra["default"] = info.default
    if not extra:
        return schema
    return {"allOf": [schema], **extra} if "$ref" in schema else {**schema, **extra}


def _adapter(info: Any) -> TypeAdapter[Any]:
    metadata = tuple(info.metadata)
    annotated: Any = Annotated[(info.annotation, *metadata)] if metadata else info.annotation
    return TypeAdapter(annotated)


def _is_position(reader: Reader) -> bool:
    annotation = reader.info.annotation
    return annotation is Position or annotation == Position | None


def position_keys(plan: Plan) -> list[str]:
    """The query parameters that take a position."""
    return [
        reader.keys[0]
        for reader in readers(plan)
        if reader.location is Location.QUERY and isinstance(reader, FieldReader) and _is_position(reader)
    ]
