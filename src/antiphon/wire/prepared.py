"""A message as the one frame that goes out, compressed where that was agreed. Knows nothing of the receivers."""

from __future__ import annotations

from .backend import encode_frame, encode_message
from .deflate import Deflate
from .frames import BINARY, TEXT


def encode_compressed(payload: str | bytes, deflate: Deflate) -> bytes:
    """The whole frame for one message on one connection; uncompressed where `Deflate.compress` says so."""
    if isinstance(payload, str):
        if len(payload) * 4 < deflate.threshold:
            return encode_message(payload)
        opcode = TEXT
        data = payload.encode()
    else:
        opcode = BINARY
        data = payload
    compressed = deflate.compress(data)
    return encode_message(payload) if compressed is None else encode_frame(opcode, compressed, rsv1=True)
