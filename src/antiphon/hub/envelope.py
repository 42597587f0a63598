"""The form of a published message on its way through a backend. Pure. The hub packs and unpacks, backends look away."""

from __future__ import annotations

import json
import re
import struct
from enum import IntEnum
from typing import Any, Final, NamedTuple

from pydantic_core import PydanticSerializationError, from_json, to_json, to_jsonable_python

from antiphon.tagged import TAG, MessageSet

from .errors import HubError, UnencodableCharacters, UnencodableData

_HEADER: Final = struct.Struct(">BBHH")
_VERSION: Final = 1
_LONGEST: Final = 0xFFFF
_DIGITS: Final = 4300
"""Of an integer: Python reads no more by default. JSON knows no bound, and a subscriber would get infinity."""

_AS_ZEROS: Final = bytes(ord("0") if chr(byte).isdecimal() and byte < 128 else ord(" ") for byte in range(256))
_TOO_MANY: Final = b"0" * (_DIGITS + 1)
_STRING: Final = re.compile(rb'"(?:[^"\\]|\\.)*+"')
_encode_ascii: Final = json.JSONEncoder(separators=(",", ":"), allow_nan=False, default=to_jsonable_python).encode

MAX_DATA: Final = 8 << 20
"""Bytes of a message. The relay and Redis let four times as many wait for one process: a message that no process could
ever be given would cut all of them off, again and again."""


class PayloadForm(IntEnum):
    """The kind of the published data."""

    TEXT = 1
    BINARY = 2
    JSON = 3


class BadEnvelope(HubError, ValueError):
    """Bytes came out of the backend that no hub of this version put in."""


class Envelope(NamedTuple):
    """A message and its description for the receiving hubs."""

    form: PayloadForm
    payload: bytes
    """UTF-8 for TEXT and JSON."""
    key: str
    """For CONFLATE: a newer message with the same key replaces this one."""
    exclude: str
    """Names the one connection that does not get it. Empty: everybody gets it."""


def encode(data: object, messages: MessageSet[Any] | None = None) -> tuple[PayloadForm, bytes]:
    """The published data as it travels. `messages`: those that the topic declares.

    Raises `UnencodableData`, or `UndeclaredMessage` for one that the topic does not carry, before anything is sent.
    """
    form, payload = _encode(data) if messages is None else (PayloadForm.JSON, _encode_message(data, messages))
    if len(payload) > MAX_DATA:
        raise UnencodableData(f"{len(payload)} bytes; expected at most {MAX_DATA} in one message")
    return form, payload


def _encode(data: object) -> tuple[PayloadForm, bytes]:
    if isinstance(data, str):
        try:
            return PayloadForm.TEXT, data.encode()
        except UnicodeEncodeError as error:
            raise UnencodableCharacters(f"text that is not UTF-8: {error}") from None
    if isinstance(data, bytes):
        return PayloadForm.BINARY, data
    if isinstance(data, (bytearray, memoryview)):
        return PayloadForm.BINARY, bytes(data)
    try:
        return PayloadForm.JSON, encode_json(data)
    except UnencodableCharacters:
        return PayloadForm.JSON, _encode_escaped(data)


def _encode_message(message: object, messages: MessageSet[Any]) -> bytes:
    one = messages.find(message)
    try:
        payload = one.encode(message)
    except (PydanticSerializationError, ValueError, TypeError, RecursionError) as error:
        if "surrogates not allowed" not in str(error):
            raise UnencodableData(f"{type(message).__name__} has no JSON form: {error}") from error
        plain = one.adapter.dump_python(message, mode="json", by_alias=True)
        return _encode_escaped(plain if one.own else {TAG: one.tag, **plain})
    return payload if len(payload) <= _DIGITS else _bounded(payload, message)


def _encode_escaped(data: object) -> bytes:
    """JSON in ASCII, for values of a peer's JSON with lone surrogates in it: they go on as they came."""
    try:
        return _encode_ascii(data).encode()
    except (PydanticSerializationError, ValueError, TypeError, RecursionError) as error:
        raise UnencodableCharacters(f"{type(data).__name__} has no JSON form: {error}") from error


def encode_json(data: object) -> bytes:
    """Compact UTF-8; NaN and the infinities are null, as in a browser. Raises `UnencodableData`."""
    try:
        payload = to_json(data, inf_nan_mode="null")
    except (PydanticSerializationError, ValueError, TypeError, RecursionError) as error:
        kind = UnencodableCharacters if "surrogates not allowed" in str(error) else UnencodableData
        raise kind(f"{type(data).__name__} has no JSON form: {error}") from error
    return payload if len(payload) <= _DIGITS else _bounded(payload, data)


def _bounded(payload: bytes, data: object) -> bytes:
    """The payload, unless it holds more than a reader takes."""
    if _endless(payload) and _endless(_STRING.sub(b" ", payload)):
        raise UnencodableData(f"{type(data).__name__} holds an integer of more than {_DIGITS} digits")
    return payload


def _endless(payload: bytes) -> bool:
    """Whether there are too many digits in a row; in linear time for any text."""
    return _TOO_MANY in payload.translate(_AS_ZEROS)


def decode(form: PayloadForm, payload: bytes) -> Any:
    """The data as it was published (JSON as its plain Python equivalent)."""
    if form is PayloadForm.BINARY:
        return payload
    return payload.decode() if form is PayloadForm.TEXT else decode_json(payload)


def decode_json(payload: bytes) -> Any:
    """The value that `encode_json` wrote, also one nested deeper than pydantic reads (but writes)."""
    try:
        return from_json(payload)
    except ValueError:
        return json.loads(payload, parse_int=_whole)


def _whole(digits: str) -> int | float:
    return int(digits) if len(digits) <= _DIGITS else float(digits)


def pack(envelope: Envelope) -> bytes:
    """Raises `UnencodableData` for a key of more than 65535 bytes."""
    form, payload, key, exclude = envelope
    if not key and not exclude:
        return _HEADER.pack(_VERSION, form, 0, 0) + payload
    try:
        key_bytes, exclude_bytes = key.encode(), exclude.encode()
    except UnicodeEncodeError as error:
        raise UnencodableCharacters(f"conflation key that is not UTF-8: {error}") from None
    if len(key_bytes) > _LONGEST:
        raise UnencodableData(f"conflation key of {len(key_bytes)} bytes; expected at most {_LONGEST}")
    header = _HEADER.pack(_VERSION, form, len(key_bytes), len(exclude_bytes))
    return b"".join((header, key_bytes, exclude_bytes, payload))


def unpack(data: bytes) -> Envelope:
    """Raises `BadEnvelope`."""
    try:
        version, form, key_length, exclude_length = _HEADER.unpack_from(data)
    except struct.error as error:
        raise BadEnvelope(f"expected at least {_HEADER.size} bytes, got {len(data)}") from error
    body = _HEADER.size + key_length + exclude_length
    if version != _VERSION or form not in _FORMS or len(data) < body:
        raise BadEnvelope(
            f"expected version {_VERSION} and a known form, got {version} and {form} in {len(data)} bytes"
        )
    if body == _HEADER.size:
        return Envelope(_FORMS[form], data[body:], "", "")
    key_end = _HEADER.size + key_length
    try:
        return Envelope(_FORMS[form], data[body:], data[_HEADER.size : key_end].decode(), data[key_end:body].decode())
    except UnicodeDecodeError as error:
        raise BadEnvelope(f"expected UTF-8: {error}") from error


_FORMS: Final[dict[int, PayloadForm]] = {int(form): form for form in PayloadForm}
