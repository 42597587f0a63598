"""The grammar of Sec-WebSocket-Extensions and of lists of tokens (RFC 6455 §9.1, RFC 9110 §5.6).

Knows no extension in particular.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from .errors import HandshakeError

_TOKEN: Final = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_PIECE: Final = re.compile(
    rf"[ \t]*;[ \t]*(?P<name>{_TOKEN})"
    rf"(?:[ \t]*=[ \t]*(?:(?P<token>{_TOKEN})|\"(?P<quoted>(?:[^\"\\]|\\.)*)\"))?"
)
_HEAD: Final = re.compile(rf"[ \t]*({_TOKEN})")
_WHOLE_TOKEN: Final = re.compile(_TOKEN)
_COMMA: Final = re.compile(r"[ \t]*(?:,|\Z)")


@dataclass(frozen=True, slots=True)
class Extension:
    """One offer or answer: a name and its parameters in order, None where a parameter has no value."""

    name: str
    parameters: tuple[tuple[str, str | None], ...] = ()


def parse_extensions(header_values: Iterable[bytes]) -> list[Extension]:
    """All extensions in the header's lines, in order. HandshakeError 400 for a violation of RFC 6455 §9.1."""
    extensions: list[Extension] = []
    for value in header_values:
        extensions += _parse_line(value)
    return extensions


def _parse_line(value: bytes) -> list[Extension]:
    text = value.decode("latin-1")
    extensions = []
    position = 0
    while position < len(text):
        comma = _COMMA.match(text, position)
        if comma is not None:  # empty list elements are to be ignored: RFC 9110 §5.6.1
            position = comma.end()
            continue
        head = _HEAD.match(text, position)
        if head is None:
            raise _malformed()
        position = head.end()
        parameters = []
        while piece := _PIECE.match(text, position):
            parameters.append((piece["name"], _parameter_value(piece)))
            position = piece.end()
        comma = _COMMA.match(text, position)
        if comma is None:
            raise _malformed()
        position = comma.end()
        extensions.append(Extension(head[1], tuple(parameters)))
    return extensions


def _parameter_value(piece: re.Match[str]) -> str | None:
    quoted = piece["quoted"]
    if quoted is None:
        return piece["token"]
    value = re.sub(r"\\(.)", r"\1", quoted)
    if not _WHOLE_TOKEN.fullmatch(value):  # RFC 6455 §9.1: quoted or not, the value is a token
        raise _malformed()
    return value


def _malformed() -> HandshakeError:
    return HandshakeError(400, "malformed Sec-WebSocket-Extensions header")


def parse_tokens(header_values: Iterable[bytes]) -> list[str] | None:
    """A comma-separated list of tokens over all lines of a header. None when an element is not a token."""
    tokens = []
    for value in header_values:
        for element in value.decode("latin-1").split(","):
            element = element.strip(" \t")
            if not element:
                continue
            if not _WHOLE_TOKEN.fullmatch(element):
                return None
            tokens.append(element)
    return tokens


def is_token(text: str) -> bool:
    """Whether `text` is a token of RFC 9110 §5.6.2."""
    return _WHOLE_TOKEN.fullmatch(text) is not None
