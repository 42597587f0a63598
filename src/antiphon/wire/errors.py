"""The ways a peer can break the protocol, and the ways a handshake can fail.

Owns the words. `connection.py` and `handshake.py` send them to the peer or raise them. Both twins of the
parser raise from the one table here, so that they agree to the letter.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence


class Violation(enum.Enum):
    """One rule of RFC 6455 or RFC 7692 that a peer can break: the close code to answer with, and the reason to give."""

    RESERVED_BITS = (1002, "reserved bits set")  # RFC 6455 §5.2
    RESERVED_OPCODE = (1002, "reserved opcode")  # RFC 6455 §5.2
    FRAGMENTED_CONTROL = (1002, "fragmented control frame")  # RFC 6455 §5.5
    LONG_CONTROL = (1002, "control frame longer than 125 bytes")  # RFC 6455 §5.5
    NOT_MASKED = (1002, "frame of a client not masked")  # RFC 6455 §5.1
    MASKED = (1002, "frame of a server masked")  # RFC 6455 §5.1
    STRAY_CONTINUATION = (1002, "continuation of no message")  # RFC 6455 §5.4
    INTERRUPTED_MESSAGE = (1002, "new message inside a fragmented one")  # RFC 6455 §5.4
    LENGTH_NOT_MINIMAL = (1002, "payload length not encoded minimally")  # RFC 6455 §5.2
    LENGTH_TOO_LARGE = (1002, "payload length has its highest bit set")  # RFC 6455 §5.2
    CLOSE_OF_ONE_BYTE = (1002, "close payload of one byte")  # RFC 6455 §5.5.1
    CLOSE_CODE = (1002, "close code not allowed on the wire")  # RFC 6455 §7.4
    CLOSE_REASON = (1007, "close reason is not UTF-8")  # RFC 6455 §5.5.1, §8.1
    TEXT = (1007, "text is not UTF-8")  # RFC 6455 §8.1
    DEFLATE = (1007, "compressed message is corrupt")  # RFC 7692 §7.2.2
    TOO_BIG = (1009, "message too big")  # RFC 6455 §7.4.1

    def __init__(self, close_code: int, reason: str) -> None:
        self.close_code = close_code
        self.reason = reason


class WireError(Exception):
    """Base of this part's exceptions."""


class ProtocolError(WireError):
    """The peer broke the protocol. The connection is to be failed (RFC 6455 §7.1.7).

    `close_code` and `reason` may be sent to the peer: they name the rule, nothing of ours.
    """

    def __init__(self, violation: Violation) -> None:
        super().__init__(violation.reason)
        self.violation = violation
        self.close_code: int = violation.close_code
        self.reason: str = violation.reason


class LocalError(WireError, RuntimeError):
    """Our own side asked for something the connection's state does not allow."""


Headers = Sequence[tuple[bytes, bytes]]


class HandshakeError(WireError):
    """The opening handshake failed.

    On the server `status`, `headers` and `reason` (as the body) answer the client. On the client `status` is the
    server's, or 0 when the response was not understood.
    """

    def __init__(self, status: int, reason: str, headers: Headers = ()) -> None:
        super().__init__(f"{status} {reason}" if status else reason)
        self.status = status
        self.reason = reason
        self.headers: tuple[tuple[bytes, bytes], ...] = tuple(headers)

    @property
    def body(self) -> bytes:
        """The text for the client, as text/plain."""
        return self.reason.encode()
