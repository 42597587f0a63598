"""The WebSocket protocol as pure functions of bytes (RFC 6455, RFC 7692): no I/O, no asyncio, no clock.

README.md in this folder holds the state tables and the rules with their sections.
"""

from .backend import NATIVE, Parser, encode_frame, encode_message, mask
from .closing import Phase
from .connection import WireConfig, WireConnection
from .deflate import Deflate, DeflateConfig, negotiate
from .errors import HandshakeError, LocalError, ProtocolError, Violation, WireError
from .frames import Close, Event, Ping, Pong, Role, encode_close
from .parser import Inflater

__all__ = [
    "NATIVE",
    "Close",
    "Deflate",
    "DeflateConfig",
    "Event",
    "HandshakeError",
    "Inflater",
    "LocalError",
    "Parser",
    "Phase",
    "Ping",
    "Pong",
    "ProtocolError",
    "Role",
    "Violation",
    "WireConfig",
    "WireConnection",
    "WireError",
    "encode_close",
    "encode_frame",
    "encode_message",
    "mask",
    "negotiate",
]
