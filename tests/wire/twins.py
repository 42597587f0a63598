"""Both implementations by name, whichever of them the package itself has chosen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from antiphon.wire import frames, parser
from antiphon.wire.errors import Violation
from antiphon.wire.frames import Event, Role
from antiphon.wire.parser import Inflater, Parser


@dataclass(frozen=True)
class Twin:
    """The names that both implementations have."""

    name: str
    parser: type[Parser]
    encode_frame: Callable[..., bytes]
    encode_message: Callable[[str | bytes], bytes]
    mask: Callable[..., bytes]

    def server(self, *, limit: int = 1 << 20, inflater: Inflater | None = None) -> Parser:
        return self.parser(role=Role.SERVER, max_message_size=limit, inflater=inflater)

    def client(self, *, limit: int = 1 << 20, inflater: Inflater | None = None) -> Parser:
        return self.parser(role=Role.CLIENT, max_message_size=limit, inflater=inflater)


def pure_twin() -> Twin:
    return Twin("pure", parser.Parser, frames.encode_frame, frames.encode_message, frames.mask)


def native_twin() -> Twin | None:
    try:
        from antiphon.wire import _native
    except ImportError:
        return None
    return Twin("native", _native.Parser, _native.encode_frame, _native.encode_message, _native.mask)


def drip(parser: Parser, data: bytes, step: int = 1) -> list[Event]:
    """Feed in pieces of `step` bytes."""
    events: list[Event] = []
    for start in range(0, len(data), step):
        events += parser.feed(data[start : start + step])
    return events


def violation(parser: Parser) -> Violation | None:
    return None if parser.error is None else parser.error.violation
