"""The closing handshake of either side as one pure table (RFC 6455 §5.5.1, §7). README.md shows it as a picture.

Owns the order of steps: the Close frame that goes out, the end of the connection, the fate of TCP. Knows nothing of
sockets, frames' masks or clocks. The owner of a connection keeps its phase and carries out each `ClosingStep`.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from antiphon.status import WS_1005_NO_STATUS_RCVD, WS_1006_ABNORMAL_CLOSURE
from antiphon.types import ClosedBy

from .errors import LocalError
from .frames import Close, encode_close


class Phase(enum.IntEnum):
    """How far a connection is behind its opening handshake (RFC 6455 §7.1). An int, so that it compares quickly."""

    OPEN = 0
    CLOSING = 1
    """We sent a Close frame and wait for the peer's. Frames before that are still read."""
    CLOSED = 2
    """Nothing is sent or understood any more. The TCP connection may still have to end."""
    GONE = 3
    """The TCP connection has ended, too."""


PHASES: Final = tuple(Phase)
"""By their numbers: a look costs a tenth of calling the enum (connect)."""


class Happening(enum.StrEnum):
    """The events that move a connection from phase to phase. A str, so that the table finds it quickly (connect)."""

    CLOSE_SENT = "we send a Close frame"
    CLOSE_RECEIVED = "a Close frame comes"
    FAILURE = "the peer breaks the protocol, or a limit"
    EOF = "the TCP connection ends"


class Answer(enum.Enum):
    """The Close frame that goes out."""

    NONE = "none: ours has gone out already, or nobody is there to read it"
    OURS = "ours, with our code and reason"
    ECHO = "the peer's own code and reason (§5.5.1), which a browser shows its page"


class Tcp(enum.Enum):
    """The fate of the TCP connection."""

    KEEP = "it stays: the peer has something to say yet"
    END = "both have said goodbye: the server closes it, the client waits until it has (§7.1.1)"
    FAIL = "it ends behind what we sent; a server half-closes first, lest a reset overtake its Close (§7.1.7)"
    ENDED = "it has ended"


class Move(NamedTuple):
    """One entry of the table."""

    phase: Phase
    answer: Answer
    tcp: Tcp


TRANSITIONS: Final[Mapping[Phase, Mapping[Happening, Move]]] = MappingProxyType(
    {
        Phase.OPEN: {
            Happening.CLOSE_SENT: Move(Phase.CLOSING, Answer.OURS, Tcp.KEEP),
            Happening.CLOSE_RECEIVED: Move(Phase.CLOSED, Answer.ECHO, Tcp.END),
            Happening.FAILURE: Move(Phase.CLOSED, Answer.OURS, Tcp.FAIL),
            Happening.EOF: Move(Phase.GONE, Answer.NONE, Tcp.ENDED),
        },
        Phase.CLOSING: {
            Happening.CLOSE_RECEIVED: Move(Phase.CLOSED, Answer.NONE, Tcp.END),
            Happening.FAILURE: Move(Phase.CLOSED, Answer.NONE, Tcp.FAIL),
            Happening.EOF: Move(Phase.GONE, Answer.NONE, Tcp.ENDED),
        },
        Phase.CLOSED: {
            Happening.EOF: Move(Phase.GONE, Answer.NONE, Tcp.ENDED),
        },
        Phase.GONE: {
            Happening.EOF: Move(Phase.GONE, Answer.NONE, Tcp.ENDED),
        },
    }
)
"""Steps that are not here cannot happen: behind a Close frame nothing is parsed, and nothing of ours is sent."""


class End(NamedTuple):
    """How a connection ended, as its first end decides."""

    code: int
    """1005: a Close without a code; 1006: no Close at all (RFC 6455 §7.1.5)."""
    reason: str
    by: ClosedBy


class ClosingStep(NamedTuple):
    """The next step: enter `phase`, send a Close frame with `payload`, note `end`, treat TCP as `tcp` says."""

    phase: Phase
    payload: bytes | None
    """Of the Close frame to send. None for none."""
    end: End | None
    """None where the connection had ended before: the first end counts."""
    tcp: Tcp


def close(phase: Phase, code: int | None, reason: str) -> ClosingStep:
    """We begin the closing handshake. None is a Close frame without a code.

    Raises LocalError unless the connection is open, ValueError for a code that may not go on the wire (RFC 6455 §7.4).
    """
    if phase is not Phase.OPEN:
        raise LocalError(f"a Close frame can be sent while the connection is open, but it is {phase.name.lower()}")
    payload = encode_close(code, reason)
    return _step(phase, Happening.CLOSE_SENT, payload, End(_noted(code), reason, ClosedBy.US))


def closed_by_peer(phase: Phase, received: Close) -> ClosingStep:
    """The peer's Close frame came."""
    payload = encode_close(received.code, received.reason)
    return _step(phase, Happening.CLOSE_RECEIVED, payload, End(_noted(received.code), received.reason, ClosedBy.PEER))


def failed(phase: Phase, code: int, reason: str) -> ClosingStep:
    """Fail the connection for a fault of the peer (RFC 6455 §7.1.7)."""
    return _step(phase, Happening.FAILURE, encode_close(code, reason), End(code, reason, ClosedBy.US))


def eof(phase: Phase) -> ClosingStep:
    """The peer's side of TCP has ended, or the connection is lost."""
    return _step(phase, Happening.EOF, b"", End(WS_1006_ABNORMAL_CLOSURE, "", ClosedBy.NOBODY))


def _step(phase: Phase, happening: Happening, payload: bytes, end: End) -> ClosingStep:
    move = TRANSITIONS[phase][happening]
    return ClosingStep(
        move.phase,
        None if move.answer is Answer.NONE else payload,
        end if phase is Phase.OPEN else None,
        move.tcp,
    )


def _noted(code: int | None) -> int:
    return WS_1005_NO_STATUS_RCVD if code is None else code
