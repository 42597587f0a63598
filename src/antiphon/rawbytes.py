"""Bytes in outgoing JSON, which has none: pydantic writes them as UTF-8, and raises for all others.

Found in the type, so that the error comes when the type is registered, and not with the first byte that is no text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from pydantic import TypeAdapter

from .exceptions import RegistrationError

_INNER: Final = (
    *("schema", "items_schema", "values_schema", "keys_schema", "extras_schema", "return_schema", "json_schema"),
    *("lax_schema", "fields", "choices", "steps", "computed_fields"),
)
"""Where pydantic's core schemas hold others, or lists or dicts of others."""
_OWN_CONFIG: Final = frozenset({"model", "dataclass"})
_WRITES_ITSELF: Final = frozenset({"function-plain", "to-string", "format"})


def bytes_in(adapter: TypeAdapter[Any]) -> str | None:
    """The place of plain bytes: class and field, or "it" where it is the type itself. None for none."""
    return next(_Search().found(adapter.core_schema, "it", "utf8"), None)


def check_no_bytes(adapter: TypeAdapter[Any], where: str) -> None:
    """Raise RegistrationError, which begins with `where`, for a type with plain bytes."""
    if (found := bytes_in(adapter)) is not None:
        raise RegistrationError(
            f"{where}: {found} is bytes, and JSON has none: give the class "
            '`model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")`, or send a binary message'
        )


class _Search:
    def __init__(self) -> None:
        self._named: dict[str, Any] = {}
        self._seen: set[str] = set()

    def found(self, schema: Any, where: str, way: str) -> Iterator[str]:
        """`way` is how the class around writes bytes."""
        if isinstance(schema, list | tuple):
            for one in schema:
                yield from self.found(one, where, way)
        if not isinstance(schema, Mapping) or schema.get("serialization_exclude") is True:
            return
        if schema.get("serialization", {}).get("type") in _WRITES_ITSELF:
            return
        kind = schema.get("type")
        if kind == "bytes" and way == "utf8":
            yield where
        elif kind == "definitions":
            self._named |= {one["ref"]: one for one in schema["definitions"]}
            yield from self.found(schema["schema"], where, way)
        elif kind == "definition-ref" and schema["schema_ref"] not in self._seen:
            self._seen.add(schema["schema_ref"])
            yield from self.found(self._named.get(schema["schema_ref"]), where, way)
        elif kind not in ("bytes", "definition-ref"):
            yield from self._inside(schema, where, way)

    def _inside(self, schema: Mapping[str, Any], where: str, way: str) -> Iterator[str]:
        config = schema.get("config", {} if schema.get("type") in _OWN_CONFIG else {"ser_json_bytes": way})
        way = config.get("ser_json_bytes", "utf8")
        where = getattr(schema.get("cls"), "__qualname__", where)
        if (name := schema.get("name", schema.get("property_name"))) is not None:  # of a dataclass's field, or computed
            where = f"{where}.{name}"
        for key in _INNER:
            inner = schema.get(key)
            if isinstance(inner, Mapping) and key in ("fields", "choices"):
                for name, one in inner.items():
                    yield from self.found(one, f"{where}.{name}" if key == "fields" else where, way)
            elif isinstance(inner, Mapping | list):
                yield from self.found(inner, where, way)
