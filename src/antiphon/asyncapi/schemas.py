"""Schemas of all types of one document, made together, so that each has one name.

A document is described twice: the first time only to learn which types there are, the second time with their schemas.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Hashable, Mapping
from typing import Any, Final, Literal

from pydantic import TypeAdapter
from pydantic.errors import PydanticInvalidForJsonSchema
from pydantic.json_schema import DefsRef, GenerateJsonSchema, JsonSchemaMode

from .draft07 import Schema, draft07, visit

Mode = Literal["validation", "serialization"]

PLACE: Final = "#/components/schemas/"


class Draft07(GenerateJsonSchema):
    """pydantic's schemas as they stand on a wire: fields that are always sent are required, and have no titles."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def field_is_required(self, field: Any, total: bool) -> bool:
        """In our messages a field with a default is there, too, unless the class says that it may be left out."""
        required = super().field_is_required(field, total)
        if self.mode != "serialization" or field["type"] == "typed-dict-field":
            return required
        return required or "serialization_exclude_if" not in field

    def datetime_schema(self, schema: Any) -> Any:
        """JSON Schema's format demands an offset, which only an aware one has."""
        made = super().datetime_schema(schema)
        return made if schema.get("tz_constraint") == "aware" else _loose(made)

    def time_schema(self, schema: Any) -> Any:
        made = super().time_schema(schema)
        return made if schema.get("tz_constraint") == "aware" else _loose(made)

    def decimal_schema(self, schema: Any) -> Any:
        """A string or a number, which Python reads back exactly: through a float it would lose digits."""
        return {**super().decimal_schema(schema), "x-antiphon": {"format": "decimal"}}

    def bytes_schema(self, schema: Any) -> Any:
        """Text, in base64 where the model's configuration says so."""
        made = super().bytes_schema(schema)
        if made.get("format") == "base64url":
            made = {key: value for key, value in made.items() if key != "format"} | {"contentEncoding": "base64"}
        return made

    def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> Any:
        """A type that JSON Schema cannot express may be anything."""
        return {}

    def encode_default(self, dft: Any) -> Any:
        try:
            return super().encode_default(dft)
        except (PydanticInvalidForJsonSchema, TypeError, ValueError):
            return None

    def get_defs_ref(self, core_mode_ref: tuple[Any, JsonSchemaMode]) -> DefsRef:
        """The class's qualified name. Where two have the same, their modules tell them apart."""
        made = super().get_defs_ref(core_mode_ref)
        choices = self._prioritized_defsref_choices[made]
        core_ref, mode = core_mode_ref
        name = DefsRef(re.sub("_{2,}", "_", self.normalize_name(qualified(str(core_ref)))))
        title = "Input" if mode == "validation" else "Output"
        choices[:2] = [name, DefsRef(f"{name}-{title}")]
        if len(made) > LONGEST_NAME and "[" in core_ref:  # two unions may begin alike
            whole = hashlib.sha256(re.sub(r":\d+", "", core_ref).encode()).hexdigest()[:6]
            choices[2:2] = [DefsRef(f"{name}{whole}"), DefsRef(f"{name}{whole}-{title}")]
        return made


def _loose(schema: Schema) -> Schema:
    """A format that is meant, and that not every value keeps to the letter."""
    return {
        **{key: value for key, value in schema.items() if key != "format"},
        "x-antiphon": {"format": schema["format"]},
    }


LONGEST_NAME: Final = 60
"""Of pydantic's name where a short one has two owners: a digest is shorter."""
MEMBERS_SHOWN: Final = 3
"""Of a union inside a generic class's name."""


def qualified(text: str) -> str:
    """`package.module.Outer.Inner:123[...]` as `Outer.Inner[...]`, a union as `A | B`, and nothing of `Annotated`."""
    head, bracket, rest = text.partition("[")
    if not bracket or head.startswith(("'", '"')):
        return _without_module(text.rsplit(":", 1)[0])
    kind = _without_module(head.rsplit(":", 1)[0])
    inner = [qualified(one) for one in _arguments(rest.rpartition("]")[0])]
    if kind in ("Annotated", "Union", "Optional"):
        members = inner[:1] if kind == "Annotated" else inner
        more = len(members) - MEMBERS_SHOWN
        return " | ".join([*members[:MEMBERS_SHOWN], *([f"{more} more"] if more > 0 else [])])
    return f"{kind}[{', '.join(inner)}]"


def _arguments(text: str) -> list[str]:
    """The parts between commas, except commas in brackets or quotes."""
    found, depth = [""], 0
    for part in re.findall(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|.""", text, re.DOTALL):
        depth += (part in "[({") - (part in "])}")
        if part == "," and depth == 0:
            found.append("")
        else:
            found[-1] += part
    return [one.strip() for one in found]


def _without_module(name: str) -> str:
    words = name.split(".")
    for count in range(len(words) - 1, 0, -1):
        if ".".join(words[:count]) in sys.modules:
            return ".".join(words[count:]).rpartition("<locals>.")[2]
    return words[-1]


def _mend(schema: Schema, named: Mapping[str, Any]) -> None:
    """Mend gaps in pydantic's schemas, and differences from its validation."""
    if isinstance(schema.get("discriminator"), Mapping):
        _demand_tags(schema, named)
    if "$ref" in schema.get("propertyNames", ()):
        keys = named.get(schema["propertyNames"]["$ref"][len(PLACE) :], {})
        values = keys.get("enum", [keys["const"]] if "const" in keys else [])
        if any(not isinstance(value, str) for value in values):  # names in JSON are text
            schema["propertyNames"] = {"enum": [json.dumps(value).strip('"') for value in values]}


def _demand_tags(union: Schema, named: Mapping[str, Any]) -> None:
    """The field that tells a union's members apart is required in each of them: pydantic takes none without it."""
    key = union["discriminator"]["propertyName"]
    for choice in union.get("oneOf", ()):
        member = named.get(choice["$ref"][len(PLACE) :], {}) if "$ref" in choice else choice
        required = member.get("required", [])
        if key in member.get("properties", {}) and key not in required:
            member["required"] = [name for name in member["properties"] if name in (key, *required)]


def _same_both_ways(named: Mapping[str, Any]) -> dict[str, str]:
    """New names for classes that `_mend` has made the same in both directions: one class, one name."""
    stems = {name.removesuffix("-Input") for name in named if name.endswith("-Input")}
    stems = {stem for stem in stems if f"{stem}-Output" in named and stem not in named}
    while True:  # they may refer to each other: all are taken for the same until one is not
        same = {f"{stem}-{way}": stem for stem in stems for way in ("Input", "Output")}
        left = {
            stem for stem in stems if _renamed(named[f"{stem}-Input"], same) == _renamed(named[f"{stem}-Output"], same)
        }
        if left == stems:
            return same
        stems = left


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    """The same with references to other names."""
    if isinstance(value, list):
        return [_renamed(one, names) for one in value]
    if not isinstance(value, dict):
        return value
    ref = value.get("$ref")
    if isinstance(ref, str) and ref[len(PLACE) :] in names:
        value = {**value, "$ref": PLACE + names[ref[len(PLACE) :]]}
    return {key: _renamed(one, names) for key, one in value.items()}


def _titled(schema: Schema) -> Schema:
    """A generic class's title as its author would write it."""
    title = schema.get("title", "")
    return {**schema, "title": qualified(title)} if "[" in title else schema


class Schemas:
    """The schemas of one document."""

    def __init__(self) -> None:
        self._wanted: dict[tuple[Hashable, Mode], TypeAdapter[Any]] = {}
        self._made: dict[tuple[Hashable, Mode], Schema] | None = None
        self._named: dict[str, Schema] = {}

    def of(self, key: Hashable, adapter: TypeAdapter[Any], mode: Mode) -> Schema:
        """The schema of a type, or a reference to it. The mode for incoming types is "validation", for outgoing ones
        "serialization".

        `key` names the type: the same both times. Empty until `make` was called.
        """
        if self._made is None:
            self._wanted[key, mode] = adapter
            return {}
        return self._made[key, mode]

    def make(self) -> None:
        """All that were asked for."""
        keys = list(self._wanted)
        inputs: list[tuple[int, JsonSchemaMode, TypeAdapter[Any]]] = [
            (index, key[1], self._wanted[key]) for index, key in enumerate(keys)
        ]
        found, rest = TypeAdapter.json_schemas(inputs, schema_generator=Draft07, ref_template=PLACE + "{model}")
        named = rest.get("$defs", {})
        parts: list[Any] = []
        for schema in (*found.values(), *named.values()):
            visit(schema, parts.append)
        for one in parts:
            _mend(one, named)
        same = _same_both_ways(named)
        self._made = {key: _renamed(draft07(found[index, key[1]]), same) for index, key in enumerate(keys)}
        self._named = {same.get(name, name): _renamed(_titled(draft07(schema)), same) for name, schema in named.items()}

    def resolved(self, schema: Schema) -> Schema:
        """The schema itself where this is a reference to one."""
        ref = schema.get("$ref", "")
        return self.resolved(self._named[ref[len(PLACE) :]]) if ref.startswith(PLACE) else schema

    def name(self, schema: Schema) -> str | None:
        """The name of the schema that is referred to."""
        ref = schema.get("$ref", "")
        return ref[len(PLACE) :] if ref.startswith(PLACE) else None

    def used_in(self, document: Any) -> dict[str, Schema]:
        """Those that are referred to, and those that these refer to, by name."""
        found: dict[str, Schema] = {}
        waiting = [document]
        while waiting:
            for name in _references(waiting.pop()):
                if name not in found and name in self._named:
                    found[name] = self._named[name]
                    waiting.append(self._named[name])
        return dict(sorted(found.items()))


def _references(value: Any) -> list[str]:
    if isinstance(value, dict):
        ref = value.get("$ref")
        own = [ref[len(PLACE) :]] if isinstance(ref, str) and ref.startswith(PLACE) else []
        return own + [name for one in value.values() for name in _references(one)]
    if isinstance(value, list):
        return [name for one in value for name in _references(one)]
    return []
