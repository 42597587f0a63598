"""Messages as values of a declared type: JSON text validated on the way in, serialised on the way out, by pydantic.

Owns the adapters of types, the description of a message that does not fit, and the number of those that a connection
may send. Knows nothing of connections.
"""

from __future__ import annotations

import enum
import functools
import json
from collections import deque
from collections.abc import Hashable
from types import FunctionType
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from pydantic import BaseModel, PydanticUndefinedAnnotation, PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError

from antiphon.exceptions import InvalidJSON, InvalidMessage

from . import codec

if TYPE_CHECKING:
    from typing_extensions import TypeForm

T = TypeVar("T")

REPLY_DETAILS: Final = 5
"""Failures named in one reply: more help nobody, and an answer should not be longer than its question."""

INVALID_MESSAGES: Final = 20
INVALID_SECONDS: Final = 60.0
"""A person's page makes a few mistakes a minute. A program that makes more is broken, and each costs a validation."""


class OnInvalid(enum.Enum):
    """The policy of `iter_as` for a message that is not JSON or does not fit the type.

    For example:

        async for message in websocket.iter_as(Say, on_invalid=OnInvalid.REPLY):
            print(message.text)
    """

    CLOSE = "close"
    """Raise `InvalidMessage`, which closes with 1007 unless the endpoint catches it. The iteration is over."""
    REPLY = "reply"
    """Answer with an error message and go on with the next."""
    IGNORE = "ignore"
    """Go on with the next."""


def adapter_of(kind: TypeForm[T]) -> TypeAdapter[T]:
    """The type's validator and serializer, made once. Raises TypeError for a type that pydantic cannot validate."""
    try:
        return _cached(cast("Hashable", kind))
    except TypeError:  # a type with unhashable metadata, or none at all
        return _make(kind)


def _make(kind: Any) -> TypeAdapter[Any]:
    if isinstance(kind, str | FunctionType):  # pydantic would take both, as a forward reference and as a call
        raise TypeError(f"expected a type, as in receive_as(Message), got {kind!r}")
    try:
        return TypeAdapter(kind)
    except (PydanticUserError, PydanticUndefinedAnnotation) as exc:
        raise TypeError(f"{kind!r} is no type that pydantic can validate: {exc.message}") from exc


_cached = functools.lru_cache(maxsize=1024)(_make)


def decode(kind: TypeForm[T], data: str | bytes) -> T:
    """The value of a JSON message. Raises `InvalidMessage` for text that is not JSON, and for JSON that does not fit
    the type."""
    adapter = adapter_of(kind)
    try:
        return adapter.validate_json(data)
    except ValidationError as exc:
        found = failures(exc)
        if found[0]["type"] != "json_invalid":
            raise InvalidMessage(found) from None
    # The quick parser is the stricter one (lone surrogates, nesting): then the standard library has the last word, so
    # that the field is named.
    try:
        return adapter.validate_python(codec.decode_json(data))
    except InvalidJSON as exc:
        message = f"{exc.msg}, line {exc.lineno} column {exc.colno}"
        raise InvalidMessage([{"type": "json_invalid", "loc": (), "msg": message}]) from None
    except ValidationError as exc:
        raise InvalidMessage(failures(exc)) from None


def failures(exc: ValidationError) -> list[dict[str, Any]]:
    return [dict(error) for error in exc.errors(include_url=False, include_context=False, include_input=False)]


def encode(message: Any) -> str:
    """The message as JSON text: fields by their aliases, as validation reads them (pydantic's serializer of its class).

    Raises TypeError for a message without a JSON form.
    """
    serializer = (
        message.__pydantic_serializer__ if isinstance(message, BaseModel) else adapter_of(type(message)).serializer
    )
    try:
        return serializer.to_json(message, by_alias=True).decode()
    except PydanticSerializationError as exc:
        error = exc
    try:  # a lone surrogate, which goes back as the escape it came as
        return codec.escaped(codec.encode_json(serializer.to_python(message, mode="json", by_alias=True)))
    except (PydanticSerializationError, TypeError):
        raise TypeError(f"{type(message).__name__} is not JSON serializable: {error}") from None


def error_reply(invalid: InvalidMessage, data: str | bytes) -> str:
    """The error message that answers one that does not fit, with its `ref` where that can be read."""
    detail = [{"loc": error["loc"], "type": error["type"], "msg": error["msg"]} for error in invalid.errors()]
    reply: dict[str, Any] = {"type": "error"}
    if (ref := _ref_of(data)) is not None:
        reply["ref"] = ref
    code = "invalid_json" if detail[0]["type"] == "json_invalid" else "invalid"
    return codec.encode_json(reply | {"code": code, "message": str(invalid), "detail": detail[:REPLY_DETAILS]})


def _ref_of(data: str | bytes) -> int | str | None:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return readable_ref(value.get("ref")) if isinstance(value, dict) else None


def readable_ref(ref: Any) -> int | str | None:
    """The ref of a request, if it is one: an integer of 64 bits, or a string of at most 64 characters."""
    if type(ref) is int and abs(ref) < 1 << 63:
        return ref
    return ref if isinstance(ref, str) and len(ref) <= 64 and not _has_surrogates(ref) else None


def _has_surrogates(text: str) -> bool:
    return any("\ud800" <= sign <= "\udfff" for sign in text)


class InvalidLimit:
    """Counts messages that did not fit: at most `most` in any `INVALID_SECONDS`."""

    __slots__ = ("_times",)

    def __init__(self, most: int = INVALID_MESSAGES) -> None:
        self._times: deque[float] = deque(maxlen=most)

    def passed(self, now: float) -> bool:
        """Count one more at `now` (seconds of any clock). True when that is one too many."""
        times = self._times
        full = len(times) == times.maxlen and (not times or now - times[0] < INVALID_SECONDS)
        self._times.append(now)
        return full
