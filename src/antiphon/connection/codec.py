"""Payloads to and from Python values: JSON, and the checks that keep a bad value from reaching the server.

Knows nothing of connections.
"""

from __future__ import annotations

import gc
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from pydantic_core import PydanticSerializationError, from_json, to_jsonable_python

from antiphon.exceptions import InvalidJSON, TooMuchJSON, UnencodableText
from antiphon.types import PreparedMessage


def _plain(value: Any) -> Any:
    try:
        return to_jsonable_python(value)
    except PydanticSerializationError:
        raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable") from None


_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, default=_plain).encode

_SURROGATE: Final = re.compile("[\ud800-\udfff]")


def encode_json(value: Any) -> str:
    """Compact JSON text, not ASCII-escaped: plain data as `json.dumps` writes it.

    pydantic models, dataclasses, datetimes, UUIDs, enums and sets are taken as pydantic writes them.
    Raises TypeError for other objects, ValueError for circular references.
    """
    return _encode(value)


def encode_json_bytes(value: Any) -> bytes:
    """The same as UTF-8."""
    text = encode_json(value)
    try:
        return text.encode()
    except UnicodeEncodeError:
        return escaped(text).encode()


def escaped(text: str) -> str:
    """JSON text with its lone surrogates as the escapes they came as: `"\\ud800"` goes back as it was sent.

    They stand inside of strings, where an escape means the same (RFC 8259 §7).
    """
    return _SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


LARGE: Final = 64 << 10
"""Characters from which on JSON is looked at before it is decoded, which takes a millisecond then."""


def decode_json(data: str | bytes, values: int | None = None) -> Any:
    """The value of UTF-8 text, as from `json.loads`. Raises InvalidJSON for every fault.

    TooMuchJSON for more than so many `values` (None: any number).
    """
    if len(data) <= LARGE:
        return _decode(data)
    check_values(data, values)
    collects = gc.isenabled()
    gc.disable()  # it would look for garbage among the new values again and again: twice the time, and more
    try:
        return _decode(data)
    finally:
        if collects:
            gc.enable()


def check_values(data: str | bytes, values: int | None) -> None:
    """Raises TooMuchJSON for more than so many `values` (None: any number)."""
    if values is not None and len(data) > max(values, LARGE) and _holds_more(data, values):
        raise TooMuchJSON(f"the message holds more than {values} JSON values", "", 0)


def _holds_more(data: str | bytes, values: int) -> bool:
    """More brackets and commas, those in strings included: quicker than to find out which are not."""
    if isinstance(data, bytes):
        data = data.decode("latin-1")
    for start in range(0, len(data), LARGE):
        part = data[start : start + LARGE]
        values -= part.count(",") + part.count("[") + part.count("{")
        if values < 0:
            return True
    return False


def _decode(data: str | bytes) -> Any:
    try:
        return from_json(data)
    except ValueError:
        # The quick parser is the stricter one (lone surrogates, nesting); the standard library has the last word.
        return _decode_slowly(data)


def _decode_slowly(data: str | bytes) -> Any:
    try:
        text = data if isinstance(data, str) else data.decode()
    except UnicodeDecodeError as exc:
        raise InvalidJSON("the message is not UTF-8", "", exc.start) from None
    try:
        return json.loads(text)
    except json.JSONDecodeError as exc:
        what = "the text begins with a byte order mark" if text.startswith("\ufeff") else exc.msg
        raise InvalidJSON(what, exc.doc, exc.pos) from None
    except RecursionError:
        raise InvalidJSON("the message is nested too deeply", text, 0) from None
    except ValueError:  # an integer with more digits than Python converts; its words are for people who run Python
        raise InvalidJSON("a number has too many digits", text, 0) from None


def check_text(data: str) -> str:
    """The text, if it can go into a text frame. Raises TypeError, or UnencodableText for lone surrogates."""
    if not isinstance(data, str):
        raise TypeError(f"a text message is a str, not {type(data).__name__}: use send_bytes() or send_json()")
    if not data.isascii():
        try:
            data.encode()
        except UnicodeEncodeError as exc:
            raise UnencodableText(*exc.args) from None
    return data


def check_bytes(data: bytes | bytearray | memoryview) -> bytes:
    """The bytes as they are now, if they are bytes-like. Raises TypeError."""
    if type(data) is bytes:
        return data
    if isinstance(data, bytes | bytearray | memoryview):
        return bytes(data)
    raise TypeError(
        f"a binary message is bytes-like, not {type(data).__name__}: send_text() and send_json() take others"
    )


def check_headers(headers: Iterable[tuple[bytes, bytes]] | None) -> list[tuple[bytes, bytes]]:
    """The headers as a list, if ASGI and HTTP can take them. Raises TypeError, or ValueError for a line break."""
    if headers is None:
        return []
    if isinstance(headers, Mapping):
        raise TypeError('headers are pairs of bytes, [(b"name", b"value")], not a mapping')
    pairs = list(headers or ())
    for pair in pairs:
        if not isinstance(pair, tuple | list) or [isinstance(part, bytes) for part in pair] != [True, True]:
            raise TypeError(f'headers are pairs of bytes, [(b"name", b"value")], and {pair!r} is none')
        if any(sign in part for part in pair for sign in (b"\r", b"\n", b"\0")):
            raise ValueError(f"a header must not contain line breaks: {pair!r}")
    return pairs


_last = PreparedMessage("")


def prepare(payload: str | bytes) -> PreparedMessage:
    """The payload ready for any number of connections.

    The last one is remembered by identity, until the next, so that a loop of sends over many connections encodes once.
    Raises UnencodableText for lone surrogates.
    """
    global _last
    prepared = _last
    if prepared.payload is not payload:
        if isinstance(payload, str):
            check_text(payload)
        prepared = _last = PreparedMessage(payload)
    return prepared


def size_of(payload: str | bytes) -> int:
    """Bytes on the wire."""
    return len(payload) if isinstance(payload, bytes) or payload.isascii() else len(payload.encode())
