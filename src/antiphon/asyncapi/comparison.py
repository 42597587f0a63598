"""Two schemas of one thing, before and after: the differences that break a client of the old one. Pure.

Sent by the client: the new schema must allow everything that the old one allows. In a query or a path all is text, and
a number is a string too. Sent by the server: the old schema must cover everything that the new one allows, except for
new fields.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple

Schema = Mapping[str, Any]
Resolve = Callable[[Any], Any]


class Side(enum.Enum):
    """The sender of the messages that the schemas describe."""

    SENT_BY_CLIENT = "client"
    WRITTEN_BY_CLIENT = "text"
    """In the handshake, where all is text."""
    SENT_BY_SERVER = "server"


MINIMA: Final = ("minLength", "minItems", "minProperties")
MAXIMA: Final = ("maxLength", "maxItems", "maxProperties")
EXACT: Final = ("pattern", "uniqueItems")
ENCODED: Final = frozenset({"binary", "base64", "base64url"})
MEANINGFUL: Final = ENCODED | {"date-time", "date", "time", "duration"}
"""Formats that are other data, even for a client that only reads them."""


def differences(old: Any, new: Any, old_ref: Resolve, new_ref: Resolve, side: Side) -> Iterator[str]:
    """The breaking differences, each in a few words. `old_ref` and `new_ref` look references up."""
    yield from _Comparison(old_ref, new_ref, side).schemas(old, new, "")


class Choice(NamedTuple):
    """One of the schemas of which a value has to fit one."""

    name: str
    """The reference to it. Empty for one without a name."""
    schema: Schema


def _choices(schema: Any, resolve: Resolve, name: str = "") -> Iterator[Choice]:
    """The schemas of which a value has to fit one; of several types one each."""
    name = _named(schema) or name
    schema = _flat(resolve(schema), resolve)
    kinds = schema.get("type")
    for key in ("anyOf", "oneOf"):
        if key in schema:
            for one in schema[key]:
                yield from _choices(one, resolve)
            return
    if isinstance(kinds, list):
        yield from (Choice("", {**schema, "type": kind}) for kind in kinds)
    else:
        yield Choice(name, schema)


class _Comparison:
    def __init__(self, old_ref: Resolve, new_ref: Resolve, side: Side) -> None:
        self._old_ref = old_ref
        self._new_ref = new_ref
        self._is_input = side is not Side.SENT_BY_SERVER
        self._is_text = side is Side.WRITTEN_BY_CLIENT
        self._under_way: set[tuple[str, str]] = set()

    def schemas(self, old: Any, new: Any, where: str) -> Iterator[str]:
        """Compare at one place."""
        before, after = list(_choices(old, self._old_ref)), list(_choices(new, self._new_ref))
        if len(before) == len(after) == 1:
            yield from self._pair(before[0], after[0], where)
            return
        wide, narrow = (after, before) if self._is_input else (before, after)
        for one in narrow:
            pairs = [(one, other) if self._is_input else (other, one) for other in wide]
            found = [list(self._pair(*pair, where)) for pair in pairs]
            if found and [] not in found:
                text = "is not taken any more" if self._is_input else "is new"
                yield f"{_at(where)}{_shown(one.schema)} {text}"

    def _pair(self, old: Choice, new: Choice, where: str) -> Iterator[str]:
        """A pair of named schemas that is being compared already is not begun again: they hold themselves."""
        pair = (old.name, new.name)
        if not all(pair):
            yield from self._one(old.schema, new.schema, where)
        elif pair not in self._under_way:
            self._under_way.add(pair)
            try:
                yield from self._one(old.schema, new.schema, where)
            finally:
                self._under_way.discard(pair)

    def _one(self, old: Schema, new: Schema, where: str) -> Iterator[str]:
        if (text := self._kinds(old, new)) is not None:
            yield f"{_at(where)}{text}"
            return
        yield from (f"{_at(where)}{text}" for text in self._values(old, new))
        was, now = _format(old), _format(new)
        if self._is_input:
            yield from (f"{_at(where)}{text}" for text in _tighter(old, new))
            if "not" in new and new["not"] != old.get("not"):
                yield f"{_at(where)}less is taken"
            if now not in (None, was):
                yield f"{_at(where)}format is {now}"
        else:
            yield from (f"{_at(where)}{text}".replace(" is ", " is no longer ") for text in _tighter(new, old))
            if was != now and (was in MEANINGFUL or now in ENCODED):
                yield f"{_at(where)}the format was {was} and is {now}"
        yield from self._objects(old, new, where)
        yield from self._arrays(old, new, where)

    def _kinds(self, old: Schema, new: Schema) -> str | None:
        was, now = _kind(old), _kind(new)
        narrow, wide = (was, now) if self._is_input else (now, was)
        if wide is None or narrow == wide or (narrow == "integer" and wide == "number"):
            return None
        if self._is_text and now == "string" and was in ("integer", "number", "boolean"):
            return None
        return f"the type was {was or 'anything'} and is {now or 'anything'}"

    def _values(self, old: Schema, new: Schema) -> Iterator[str]:
        before, after = _values_of(old), _values_of(new)
        if self._is_input:
            if after is not None:
                gone = "other values" if before is None else [one for one in before if one not in after]
                if gone:
                    yield f"{_listed(gone)} not taken any more"
        elif before is not None:
            fresh = "other values" if after is None else [one for one in after if one not in before]
            if fresh:
                yield f"{_listed(fresh)} new"

    def _objects(self, old: Schema, new: Schema, where: str) -> Iterator[str]:
        before, after = old.get("properties", {}), new.get("properties", {})
        was, now = set(old.get("required", ())), set(new.get("required", ()))
        for name in sorted(set(before) | set(after) | now, key=str):
            place = f"{where}.{name}" if where else name
            if self._is_input and name in now - was:
                yield f"the field {place} is required"
            elif not self._is_input and name in was - now and name in after:
                yield f"the field {place} may be missing"
            if name in before and name in after:
                yield from self.schemas(before[name], after[name], place)
            elif name in before and (not self._is_input or new.get("additionalProperties") is False):
                yield f"the field {place} is gone"
        ours, theirs = old.get("additionalProperties", True), new.get("additionalProperties", True)
        if self._is_input and theirs is False and ours is not False:
            yield f"{_at(where)}other fields are not taken any more"
        elif isinstance(theirs, Mapping) and theirs and isinstance(ours, Mapping | bool) and ours is not False:
            yield from self.schemas({} if ours is True else ours, theirs, f"{where}[]")
        elif not self._is_input and isinstance(ours, Mapping) and ours and theirs is True and "properties" not in new:
            yield f"{_at(where)}values of any type are new"

    def _arrays(self, old: Schema, new: Schema, where: str) -> Iterator[str]:
        before, after = old.get("items", True), new.get("items", True)
        if isinstance(before, list) and isinstance(after, list):
            if len(before) != len(after):
                yield f"{_at(where)}the number of items was {len(before)} and is {len(after)}"
            for index, (one, other) in enumerate(zip(before, after, strict=False)):
                yield from self.schemas(one, other, f"{where}[{index}]")
        elif isinstance(before, list) or isinstance(after, list):
            yield f"{_at(where)}the items are of another form"
        elif before is not True or after is not True:
            yield from self.schemas({} if before is True else before, {} if after is True else after, f"{where}[]")


def _flat(schema: Any, resolve: Resolve) -> Schema:
    """The schema with its `allOf` put together."""
    if not isinstance(schema, Mapping):
        return {} if schema is not False else {"not": {}}
    if "allOf" not in schema:
        return schema
    made = {key: value for key, value in schema.items() if key != "allOf"}
    for part in schema["allOf"]:
        one = _flat(resolve(part), resolve)
        properties = {**one.get("properties", {}), **made.get("properties", {})}
        required = [*made.get("required", ()), *one.get("required", ())]
        made = {**one, **made}
        if properties:
            made["properties"] = properties
        if required:
            made["required"] = list(dict.fromkeys(required))
    return made


def _tighter(old: Schema, new: Schema) -> Iterator[str]:
    for key, sign in (("minimum", 1), ("maximum", -1)):
        least, other = _least(new, sign), _least(old, sign)
        if least is not None and (other is None or least > other):
            yield f"{'exclusive' + key.capitalize() if least.excluded else key} is {sign * least.value}"
    for key in MINIMA:
        if new.get(key, 0) > old.get(key, 0):
            yield f"{key} is {new[key]}"
    for key in MAXIMA:
        if key in new and (key not in old or new[key] < old[key]):
            yield f"{key} is {new[key]}"
    for key in EXACT:
        if key in new and new[key] != old.get(key):
            yield f"{key} is {new[key]}"
    if (step := new.get("multipleOf")) and (old.get("multipleOf") or step / 2) % step:
        yield f"multipleOf is {step}"


class RangeEnd(NamedTuple):
    """The end of a range; the larger the tighter."""

    value: float
    excluded: bool


def _least(schema: Schema, sign: int) -> RangeEnd | None:
    """The lower bound, or the upper one with the sign -1. Among integers, above 0 is from 1 on."""
    name = "Minimum" if sign == 1 else "Maximum"
    found = [
        RangeEnd(sign * schema[key], key != name.lower()) for key in (name.lower(), f"exclusive{name}") if key in schema
    ]
    if schema.get("type") == "integer":
        found = [RangeEnd(math.floor(one.value) + 1 if one.excluded else math.ceil(one.value), False) for one in found]
    return max(found, default=None)


def _format(schema: Schema) -> str | None:
    """The format; it stands in `x-antiphon` where more is taken than it says."""
    found = schema.get("contentEncoding") or schema.get("format") or schema.get("x-antiphon", {}).get("format")
    return None if found is None else str(found)


def _kind(schema: Schema) -> str | None:
    kind = schema.get("type")
    if kind is None and (values := _values_of(schema)):
        kinds = {_KINDS.get(type(value), "object") for value in values}
        return kinds.pop() if len(kinds) == 1 else None
    if kind is None and "properties" in schema:
        return "object"
    return kind


_KINDS: Final = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array", type(None): "null"}


def _values_of(schema: Schema) -> list[Any] | None:
    return [schema["const"]] if "const" in schema else schema.get("enum")


def _named(schema: Any) -> str:
    return str(schema.get("$ref", "")) if isinstance(schema, Mapping) else ""


def _at(where: str) -> str:
    return f"the field {where}: " if where else ""


def _shown(schema: Schema) -> str:
    values = _values_of(schema)
    return f"{schema.get('title') or _kind(schema) or 'anything'}{'' if values is None else f' {values}'}"


def _listed(values: Any) -> str:
    return f"{values} are" if isinstance(values, str) else f"{', '.join(map(repr, values))} is"
