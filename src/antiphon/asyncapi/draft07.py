"""JSON Schema in AsyncAPI's version: draft-07, with no keyword of a later one. Pure.

pydantic writes 2020-12. Keywords with another form in draft-07 are rewritten, and those without one are left out.
Keywords beside a `$ref`, which draft-07 ignores, are put around it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

Schema = dict[str, Any]

ONE: Final = frozenset(
    {"additionalItems", "additionalProperties", "contains", "else", "if", "not", "propertyNames", "then"}
)
MANY: Final = frozenset({"allOf", "anyOf", "oneOf"})
NAMED: Final = frozenset({"definitions", "patternProperties", "properties"})
PLAIN: Final = frozenset(
    {
        *("$comment", "$id", "$ref", "const", "contentEncoding", "contentMediaType", "default", "dependencies"),
        *("deprecated", "description", "enum", "examples", "exclusiveMaximum", "exclusiveMinimum", "externalDocs"),
        *("format", "maximum", "maxItems", "maxLength", "maxProperties", "minimum", "minItems", "minLength"),
        *(
            "minProperties",
            "multipleOf",
            "pattern",
            "readOnly",
            "required",
            "title",
            "type",
            "uniqueItems",
            "writeOnly",
        ),
    }
)
"""Keywords whose value is no schema. `deprecated` and `externalDocs` are AsyncAPI's own additions."""
KEYWORDS: Final = ONE | MANY | NAMED | PLAIN | {"items"}


def draft07(schema: Any) -> Any:
    """The schema, and all in it, in draft-07."""
    if not isinstance(schema, Mapping):
        return schema  # True or False
    found = {key: _value(key, value) for key, value in schema.items() if key in KEYWORDS or key.startswith("x-")}
    if "prefixItems" in schema:
        found["items"] = [draft07(one) for one in schema["prefixItems"]]
        rest = schema.get("items", False)
        found["additionalItems"] = draft07(rest)
    if "$ref" in found and len(found) > 1:
        beside = {key: value for key, value in found.items() if key != "$ref"}
        return {"allOf": [{"$ref": found["$ref"]}], **beside}
    return found


def _value(key: str, value: Any) -> Any:
    if key == "items":
        return [draft07(one) for one in value] if isinstance(value, list) else draft07(value)
    if key in ONE:
        return draft07(value)
    if key in MANY:
        return [draft07(one) for one in value]
    if key in NAMED and isinstance(value, Mapping):
        return {name: draft07(one) for name, one in value.items()}
    return value


def visit(schema: Any, see: Callable[[Mapping[str, Any]], None]) -> None:
    """Call `see` with the schema and all in it."""
    if not isinstance(schema, Mapping):
        return
    see(schema)
    for key, value in schema.items():
        if key in NAMED and isinstance(value, Mapping):
            inner: list[Any] = list(value.values())
        elif key in MANY or key == "prefixItems" or (key == "items" and isinstance(value, list)):
            inner = list(value)
        else:
            inner = [value] if key in ONE or key == "items" else []
        for one in inner:
            visit(one, see)
