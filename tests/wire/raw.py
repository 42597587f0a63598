"""Frames built by hand, right or wrong, with none of the code under test."""

from __future__ import annotations

KEY = b"\x37\xfa\x21\x3d"


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    masked: bool = True,
    length_bytes: int | None = None,
    declared: int | None = None,
) -> bytes:
    """`length_bytes` (0, 2 or 8) forces a form of the length. `declared` says another length than the payload has."""
    size = len(payload) if declared is None else declared
    if length_bytes is None:
        length_bytes = 0 if size < 126 else 2 if size < 65536 else 8
    marker = {0: size, 2: 126, 8: 127}[length_bytes]
    head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode, (0x80 if masked else 0) | marker])
    head += size.to_bytes(length_bytes, "big") if length_bytes else b""
    if not masked:
        return head + payload
    return head + KEY + bytes(byte ^ KEY[i % 4] for i, byte in enumerate(payload))


def text(payload: str, **options: bool) -> bytes:
    return frame(0x1, payload.encode(), **options)
