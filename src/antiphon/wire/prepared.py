"""A message encoded once for all its receivers: fills the caches of `PreparedMessage`.

Knows nothing of who the receivers are.
"""

from __future__ import annotations

from antiphon.types import PreparedMessage

from .backend import encode_frame, encode_message
from .deflate import Deflate
from .frames import BINARY, TEXT


def prepare(message: PreparedMessage, deflate: Deflate | None) -> bytes:
    """The whole frame a server sends on a connection that agreed on `deflate` (None: on no compression).

    Encodes at most once, and compresses at most once for all connections whose `deflate.shareable` is set. The few
    that agreed on context takeover or a smaller window get a frame of their own.
    """
    if deflate is not None:
        if not deflate.shareable:
            return encode_compressed(message.payload, deflate)
        deflated = message.deflated
        if deflated is None:
            deflated = message.deflated = encode_compressed(message.payload, deflate, message)
        return deflated
    frame = message.frame
    if frame is None:
        frame = message.frame = encode_message(message.payload)
    return frame


def encode_compressed(payload: str | bytes, deflate: Deflate, message: PreparedMessage | None = None) -> bytes:
    """The whole frame for one message on one connection; uncompressed where `Deflate.compress` says so."""
    if isinstance(payload, str):
        if len(payload) * 4 < deflate.threshold:
            return _plain(payload, message)
        opcode = TEXT
        data = payload.encode()
    else:
        opcode = BINARY
        data = payload
    compressed = deflate.compress(data)
    if compressed is None:
        return _plain(payload, message)
    return encode_frame(opcode, compressed, rsv1=True)


def _plain(payload: str | bytes, message: PreparedMessage | None) -> bytes:
    return encode_message(payload) if message is None else prepare(message, None)
