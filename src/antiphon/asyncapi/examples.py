"""An example for each message: the author's, completed by the tag, or one made from the schema. Pure.

A made example is the shortest value that the schema allows. Where none is found (a pattern), there is no example rather
than a wrong one.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from .draft07 import Schema
from .schemas import Schemas

DEEPEST: Final = 8
"""Levels of an example that is made: deeper is recursion."""

FORMATS: Final[Mapping[str, str]] = {
    "date-time": "2025-01-31T12:00:00Z",
    "date": "2025-01-31",
    "time": "12:00:00",
    "duration": "PT1H",
    "uuid": "123e4567-e89b-12d3-a456-426614174000",
    "email": "ann@example.org",
    "uri": "https://example.org/",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
}


GUESSES: Final = ("1", "a", "A", "text", "abc-1", "0-1", "#fff", "+15550100", "2025-01-31", "/path", "", "ABC123")
"""Tried where a pattern is asked for."""


class _NoneFound(Exception):
    """Nothing was found that fits."""


def examples_of(payload: Schema, given: Sequence[Any], schemas: Schemas) -> list[Any]:
    """The author's examples with the frame's own fields, or a made one. Empty where none can be made."""
    try:
        frame = _Maker(schemas).made(payload, 0)
    except _NoneFound:
        frame = None
    if given:
        head = _head(payload)
        return [{**head, **one} if isinstance(one, Mapping) else one for one in given]
    return [] if frame is None else [frame]


def _head(payload: Schema) -> dict[str, Any]:
    """The frame's constant fields and its `ref`, which no author writes into an example of a model."""
    properties: Mapping[str, Any] = payload.get("properties", {})
    demanded = payload.get("required", ())
    return {
        name: schema.get("const", 1)
        for name, schema in properties.items()
        if name in demanded and ("const" in schema or schema.get("description", "").startswith("Names the request"))
    }


def _is_of(value: Any, schema: Schema) -> bool:
    """Whether a default has the type it is sent in: of a field with a serializer or a decoder it may be another."""
    kinds = schema.get("type")
    allowed = kinds if isinstance(kinds, list) else [kinds]
    return kinds is None or any(isinstance(value, _TYPES.get(str(kind), object)) for kind in allowed)


class _Maker:
    def __init__(self, schemas: Schemas) -> None:
        self._schemas = schemas

    def made(self, schema: Any, depth: int) -> Any:
        if depth > DEEPEST or schema is False:
            raise _NoneFound
        if schema is True:
            return "text"
        schema = self._schemas.resolved(schema)
        for key in ("examples", "enum"):
            if schema.get(key):
                return schema[key][0]
        if "const" in schema:
            return schema["const"]
        if "default" in schema and _is_of(schema["default"], schema):
            return schema["default"]
        for key in ("anyOf", "oneOf"):
            if key in schema:
                return self._first(schema[key], depth)
        if "allOf" in schema:
            return self._all(schema["allOf"], depth)
        kind = schema.get("type")
        kind = kind[0] if isinstance(kind, list) else kind
        return _KINDS.get(str(kind), _Maker._anything)(self, schema, depth)

    def _first(self, choices: Sequence[Any], depth: int) -> Any:
        for choice in choices:
            try:
                return self.made(choice, depth + 1)
            except _NoneFound:
                continue
        raise _NoneFound

    def _all(self, parts: Sequence[Any], depth: int) -> Any:
        found = [self.made(part, depth + 1) for part in parts]
        if len(found) == 1:
            return found[0]
        if not all(isinstance(one, dict) for one in found):
            raise _NoneFound
        return {name: value for one in found for name, value in one.items()}

    def _anything(self, schema: Schema, depth: int) -> Any:
        return self._object(schema, depth) if "properties" in schema else "text"

    def _object(self, schema: Schema, depth: int) -> Any:
        if schema.get("minProperties"):
            raise _NoneFound
        demanded = schema.get("required", ())
        properties = schema.get("properties", {})
        return {name: self.made(properties.get(name, True), depth + 1) for name in demanded}

    def _array(self, schema: Schema, depth: int) -> Any:
        items = schema.get("items", True)
        if isinstance(items, list):
            return [self.made(one, depth + 1) for one in items]
        least = schema.get("minItems", 0)
        if least > 1 and schema.get("uniqueItems"):
            raise _NoneFound
        try:
            return [self.made(items, depth + 1)] * max(least, 1 if schema.get("maxItems", 1) else 0)
        except _NoneFound:
            if least:
                raise
            return []

    def _text(self, schema: Schema, depth: int) -> Any:
        meant = schema.get("format") or schema.get("x-antiphon", {}).get("format")
        if meant in FORMATS:
            return FORMATS[meant]
        if "pattern" in schema or schema.get("contentEncoding"):
            return self._patterned(schema)
        text = "text"
        least, most = schema.get("minLength", 0), schema.get("maxLength", 1 << 16)
        if least > 1000:
            raise _NoneFound
        return (text * (least // 4 + 1))[: max(least, min(4, most))]

    def _patterned(self, schema: Schema) -> Any:
        if schema.get("contentEncoding") == "base64":
            return "aGk="
        least, most = schema.get("minLength", 0), schema.get("maxLength", 1 << 16)
        for guess in GUESSES:
            with contextlib.suppress(re.error):
                if least <= len(guess) <= most and re.search(schema.get("pattern", ""), guess):
                    return guess
        raise _NoneFound

    def _number(self, schema: Schema, depth: int) -> Any:
        whole = schema.get("type") == "integer" or "integer" in (schema.get("type") or ())
        step = schema.get("multipleOf", 1 if whole else None)
        low = schema.get("minimum", schema.get("exclusiveMinimum"))
        high = schema.get("maximum", schema.get("exclusiveMaximum"))
        value: float = 1
        if low is not None and value <= low:
            value = low if "minimum" in schema else low + (step or 0.5)
        if high is not None and value >= high:
            value = high if "maximum" in schema else high - (step or 0.5)
        if step:
            value = math.ceil(value / step) * step
        value = int(value) if whole else value
        below = low is not None and (value < low or (value == low and "minimum" not in schema))
        above = high is not None and (value > high or (value == high and "maximum" not in schema))
        if below or above:
            raise _NoneFound
        return value

    def _boolean(self, schema: Schema, depth: int) -> Any:
        return True

    def _null(self, schema: Schema, depth: int) -> Any:
        return None


_TYPES: Final[Mapping[str, type | tuple[type, ...]]] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
}

_KINDS: Final[Mapping[str, Any]] = {
    "object": _Maker._object,
    "array": _Maker._array,
    "string": _Maker._text,
    "integer": _Maker._number,
    "number": _Maker._number,
    "boolean": _Maker._boolean,
    "null": _Maker._null,
}
