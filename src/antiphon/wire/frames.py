"""Frames as bytes: opcodes, masking, building, and the content of a Close frame (RFC 6455 §5).

Owns the readable twin of the encoder; knows nothing of messages in progress, connections or compression.
"""

from __future__ import annotations

import enum
from typing import Final, TypeAlias

from antiphon.status import cut_reason, may_close_with

from .errors import ProtocolError, Violation

Buffer: TypeAlias = bytes | bytearray | memoryview

CONTINUATION: Final = 0x0
TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

FIN: Final = 0x80
RSV1: Final = 0x40
MASKED: Final = 0x80

MAX_CONTROL_PAYLOAD: Final = 125

_PIECE: Final = 1 << 12  # the size of integer at which masking costs least per byte (benchmarks/parser.py)
_ONES: Final = int.from_bytes(b"\x01\x00\x00\x00" * (_PIECE // 4), "little")


class Role(enum.Enum):
    """The side of the connection: a client masks its frames, a server never does (RFC 6455 §5.1)."""

    CLIENT = "client"
    SERVER = "server"


class Ping:
    """A ping came; answer with a pong of the same payload (RFC 6455 §5.5.2)."""

    __slots__ = ("payload",)
    __match_args__ = ("payload",)

    def __init__(self, payload: bytes = b"") -> None:
        self.payload: Final = payload

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.payload == self.payload

    def __hash__(self) -> int:
        return hash((type(self), self.payload))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.payload!r})"


class Pong(Ping):
    """A pong came, asked for or not (RFC 6455 §5.5.3)."""

    __slots__ = ()


class Close:
    """A Close frame came. `code` is None when the frame had no payload (RFC 6455 §7.1.5 calls that 1005)."""

    __slots__ = ("code", "reason")
    __match_args__ = ("code", "reason")

    def __init__(self, code: int | None = None, reason: str = "") -> None:
        self.code: Final = code
        self.reason: Final = reason

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and (other.code, other.reason) == (self.code, self.reason)

    def __hash__(self) -> int:
        return hash((self.code, self.reason))

    def __repr__(self) -> str:
        return f"Close({self.code!r}, {self.reason!r})"


Event: TypeAlias = str | bytes | Ping | Pong | Close
"""The output of a parser: `str` a text message, `bytes` a binary message, or a control frame."""


def mask(data: Buffer, key: bytes) -> bytes:
    """`data` XOR the repeated four bytes of `key`: masks and unmasks alike (RFC 6455 §5.3).

    Raises ValueError when `key` is not four bytes.
    """
    if len(key) != 4:
        raise ValueError(f"a masking key has 4 bytes, not {len(key)}")
    size = len(data)
    if size <= _PIECE:
        repeated = (key * (size // 4 + 1))[:size]
        return (int.from_bytes(data, "little") ^ int.from_bytes(repeated, "little")).to_bytes(size, "little")
    view = memoryview(data)
    whole = size - size % _PIECE
    repeated_key = int.from_bytes(key, "little") * _ONES
    pieces = [
        (int.from_bytes(view[start : start + _PIECE], "little") ^ repeated_key).to_bytes(_PIECE, "little")
        for start in range(0, whole, _PIECE)
    ]
    pieces.append(mask(view[whole:], key))
    return b"".join(pieces)


def encode_frame(
    opcode: int,
    payload: str | Buffer,
    *,
    fin: bool = True,
    rsv1: bool = False,
    mask: bytes | None = None,
) -> bytes:
    """One whole frame (RFC 6455 §5.2). A `str` payload is encoded as UTF-8. `mask` is the client's four-byte key.

    The length is encoded minimally. Raises ValueError for a control frame that is fragmented, compressed or longer than
    125 bytes, for an unknown opcode, and for a key that is not four bytes.
    """
    if isinstance(payload, str):
        payload = payload.encode()
    size = len(payload)
    if opcode >= 0x8:
        if not fin or rsv1 or size > MAX_CONTROL_PAYLOAD:
            raise ValueError("a control frame is whole, uncompressed and at most 125 bytes long (RFC 6455 §5.5)")
        if opcode > PONG:
            raise ValueError(f"opcode {opcode:#x} is reserved (RFC 6455 §5.2)")
    elif not 0 <= opcode <= BINARY:
        raise ValueError(f"opcode {opcode:#x} is reserved (RFC 6455 §5.2)")
    first = opcode | (FIN if fin else 0) | (RSV1 if rsv1 else 0)
    if mask is None:
        return b"".join((_header(first, 0, size), payload))
    return b"".join((_header(first, MASKED, size), mask, _xor(payload, mask)))


def encode_message(payload: str | bytes) -> bytes:
    """The whole frame a server sends for one message, uncompressed: text for `str`, binary for `bytes`."""
    if isinstance(payload, str):
        data = payload.encode()
        return _header(FIN | TEXT, 0, len(data)) + data
    return _header(FIN | BINARY, 0, len(payload)) + payload


def encode_close(code: int | None, reason: str = "") -> bytes:
    """The payload of a Close frame (RFC 6455 §5.5.1). None gives the empty one.

    The reason is cut to 123 bytes at a character's boundary. Raises ValueError for a code that may not go on the wire,
    and for a reason without a code.
    """
    if code is None:
        if reason:
            raise ValueError("a close reason needs a close code (RFC 6455 §5.5.1)")
        return b""
    if not may_close_with(code):
        raise ValueError(f"close code {code} may not go on the wire (RFC 6455 §7.4)")
    return code.to_bytes(2, "big") + cut_reason(reason).encode()


def decode_close(payload: bytes) -> Close:
    """The content of a Close frame. ProtocolError when its payload breaks RFC 6455 §5.5.1 or §7.4."""
    if not payload:
        return Close()
    if len(payload) == 1:
        raise ProtocolError(Violation.CLOSE_OF_ONE_BYTE)
    code = int.from_bytes(payload[:2], "big")
    if not may_close_with(code):
        raise ProtocolError(Violation.CLOSE_CODE)
    try:
        return Close(code, payload[2:].decode())
    except UnicodeDecodeError:
        raise ProtocolError(Violation.CLOSE_REASON) from None


def _header(first: int, masked: int, size: int) -> bytes:
    if size < 126:
        return bytes((first, masked | size))
    if size < 1 << 16:
        return bytes((first, masked | 126)) + size.to_bytes(2, "big")
    return bytes((first, masked | 127)) + size.to_bytes(8, "big")


_xor = mask  # `encode_frame` has a parameter of that name
