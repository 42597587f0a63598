"""One WebSocket connection behind its handshake, either side, as a table of states (RFC 6455 §5.5.1, §7).

Owns what is sent and when the closing handshake is over; the caller owns the socket and the clock. README.md shows the
table as a picture.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from antiphon.status import WS_1005_NO_STATUS_RCVD, WS_1006_ABNORMAL_CLOSURE
from antiphon.types import ClosedBy, PreparedMessage

from .backend import Parser, encode_frame
from .deflate import Deflate
from .errors import LocalError, ProtocolError
from .frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Close, Event, Ping, Role, encode_close
from .prepared import encode_compressed, prepare


class State(enum.Enum):
    """How far the connection is (RFC 6455 §7.1)."""

    OPEN = "open"
    CLOSING = "closing"
    """We sent a Close frame and wait for the peer's."""
    CLOSED = "closed"
    """Nothing is sent or understood any more; the TCP connection may still have to be closed."""


class Happening(enum.Enum):
    """What moves a connection from state to state."""

    CLOSE_SENT = "we send a Close frame"
    CLOSE_RECEIVED = "a Close frame comes"
    VIOLATION = "the peer breaks the protocol"
    EOF = "the TCP connection ends"


TRANSITIONS: Final[Mapping[State, Mapping[Happening, State]]] = MappingProxyType(
    {
        State.OPEN: {
            Happening.CLOSE_SENT: State.CLOSING,
            Happening.CLOSE_RECEIVED: State.CLOSED,  # and we answer: §5.5.1
            Happening.VIOLATION: State.CLOSED,  # and we say why: §7.1.7
            Happening.EOF: State.CLOSED,
        },
        State.CLOSING: {
            Happening.CLOSE_RECEIVED: State.CLOSED,
            Happening.VIOLATION: State.CLOSED,  # our Close is out already, nothing may follow it
            Happening.EOF: State.CLOSED,
        },
        State.CLOSED: {
            Happening.EOF: State.CLOSED,
        },
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class WireConfig:
    """Limits of one connection."""

    max_message_size: int = 1 << 20
    """Bytes of a received message's payload, inflated. A megabyte is more than any chat or JSON feed sends, and what
    thousands of hostile connections may make us hold at most, each."""


class Connection:
    """Bytes in, events out; messages in, bytes out. Raises LocalError when the state forbids what is asked.

    Pings are answered and the closing handshake is completed here; both answers wait in `data_to_send()`.
    """

    def __init__(
        self,
        role: Role,
        config: WireConfig | None = None,
        *,
        deflate: Deflate | None = None,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.role: Final = role
        self.deflate: Final = deflate
        self.state = State.OPEN
        self.error: ProtocolError | None = None
        """How the peer broke the protocol, if it did."""
        self.sent: Close | None = None
        """The Close frame we sent."""
        self.received: Close | None = None
        """The Close frame the peer sent."""
        self.close_code: int | None = None
        """None until a side has said goodbye or is gone; 1005: a Close without a code, 1006: no Close at all."""
        self.close_reason = ""
        self.closed_by: ClosedBy | None = None
        self.eof = False
        self._random = random
        self._out: list[bytes] = []
        config = config or WireConfig()
        self._parser = Parser(role=role, max_message_size=config.max_message_size, inflater=deflate)

    # ------------------------------------------------------------ receiving

    def receive_data(self, data: bytes | bytearray | memoryview) -> list[Event]:
        """Take bytes from the peer; return what they complete. Never raises for what the peer sends."""
        return list(self.events(data))

    def events(self, data: bytes | bytearray | memoryview) -> Iterator[Event]:
        """As `receive_data`, one at a time: a message can be answered before the Close behind it is.

        To be exhausted before the next call.
        """
        if self.state is State.CLOSED:
            return  # RFC 6455 §5.5.1: after a Close frame nothing counts
        for event in self._parser.feed(data):
            if type(event) is Ping:
                if self.state is State.OPEN:
                    self._send(PONG, event.payload)
            elif type(event) is Close:
                self._closed_by_peer(event)
            yield event
        if self._parser.error is not None:
            self._fail(self._parser.error)

    def receive_eof(self) -> None:
        """The peer's side of the TCP connection ended, or the connection was lost."""
        self.eof = True
        if self.state is not State.CLOSED and self.close_code is None:
            self._note(WS_1006_ABNORMAL_CLOSURE, "", ClosedBy.NOBODY)
        self._move(Happening.EOF)

    # ------------------------------------------------------------ sending

    def send_text(self, text: str) -> None:
        """Queue a text message."""
        self._send_message(text)

    def send_bytes(self, data: bytes) -> None:
        """Queue a binary message."""
        self._send_message(data)

    def send_prepared(self, message: PreparedMessage) -> None:
        """Queue a message that other connections get too; a server encodes it once for all."""
        if self.role is Role.CLIENT:  # each client frame has a mask of its own
            self._send_message(message.payload)
        else:
            self._require_open("a message")
            self._out.append(prepare(message, self.deflate))

    def send_fragments(self, fragments: Iterable[str] | Iterable[bytes]) -> None:
        """Queue one message as one frame for each fragment, uncompressed (RFC 6455 §5.4)."""
        parts: list[str | bytes] = list(fragments)
        if not parts:
            raise ValueError("a message has at least one fragment")
        self._require_open("a message")
        opcode = TEXT if isinstance(parts[0], str) else BINARY
        for number, part in enumerate(parts, 1):
            self._send(opcode, part, fin=number == len(parts))
            opcode = CONTINUATION

    def send_ping(self, payload: bytes = b"") -> None:
        """Queue a ping. Raises ValueError for more than 125 bytes."""
        self._require_open("a ping")
        self._send(PING, payload)

    def send_pong(self, payload: bytes = b"") -> None:
        """Queue a pong nobody asked for (RFC 6455 §5.5.3). Raises ValueError for more than 125 bytes."""
        self._require_open("a pong")
        self._send(PONG, payload)

    def send_close(self, code: int | None = 1000, reason: str = "") -> None:
        """Start the closing handshake. Raises ValueError for a code that may not go on the wire."""
        self._require_open("a Close frame")
        payload = encode_close(code, reason)
        self._note(WS_1005_NO_STATUS_RCVD if code is None else code, reason, ClosedBy.US)
        self._send_close(code, reason, payload)
        self._move(Happening.CLOSE_SENT)

    def data_to_send(self) -> bytes:
        """What is to be written to the socket now; each byte is returned once."""
        data = b"".join(self._out)
        self._out.clear()
        return data

    # ------------------------------------------------------------ what the caller is to do

    @property
    def clean(self) -> bool:
        """Both sides have said goodbye."""
        return self.sent is not None and self.received is not None

    @property
    def should_close_transport(self) -> bool:
        """Close the TCP connection once `data_to_send()` is written. Servers go first (RFC 6455 §7.1.1)."""
        return self.state is State.CLOSED and (self.role is Role.SERVER or self.eof or self.error is not None)

    @property
    def wants_deadline(self) -> bool:
        """The peer owes us its Close frame or, to a client, the end of the TCP connection: do not wait for ever."""
        return self.state is State.CLOSING or (self.state is State.CLOSED and not self.should_close_transport)

    # ------------------------------------------------------------ inside

    def _closed_by_peer(self, close: Close) -> None:
        self.received = close
        if self.state is State.OPEN:
            self._note(WS_1005_NO_STATUS_RCVD if close.code is None else close.code, close.reason, ClosedBy.PEER)
            self._send_close(close.code, "", encode_close(close.code))  # §5.5.1: typically the same code
        self._move(Happening.CLOSE_RECEIVED)

    def _fail(self, error: ProtocolError) -> None:
        self.error = error
        if self.state is State.OPEN:
            self._note(error.close_code, error.reason, ClosedBy.US)
            self._send_close(error.close_code, error.reason, encode_close(error.close_code, error.reason))
        self._move(Happening.VIOLATION)

    def _move(self, happening: Happening) -> None:
        self.state = TRANSITIONS[self.state][happening]

    def _note(self, code: int, reason: str, by: ClosedBy) -> None:
        self.close_code = code
        self.close_reason = reason
        self.closed_by = by

    def _require_open(self, what: str) -> None:
        if self.state is not State.OPEN:
            raise LocalError(f"{what} can be sent while the connection is open, but it is {self.state.value}")

    def _send_message(self, payload: str | bytes) -> None:
        self._require_open("a message")
        deflate = self.deflate
        if self.role is Role.CLIENT:
            self._send_masked(payload)
        elif deflate is None:
            self._send(TEXT if isinstance(payload, str) else BINARY, payload)
        else:
            self._out.append(encode_compressed(payload, deflate))

    def _send_masked(self, payload: str | bytes) -> None:
        opcode = TEXT if isinstance(payload, str) else BINARY
        data = payload.encode() if isinstance(payload, str) else payload
        compressed = None if self.deflate is None else self.deflate.compress(data)
        if compressed is None:
            self._send(opcode, data)
        else:
            self._send(opcode, compressed, rsv1=True)

    def _send_close(self, code: int | None, reason: str, payload: bytes) -> None:
        self.sent = Close(code, reason)
        self._send(CLOSE, payload)

    def _send(self, opcode: int, payload: str | bytes, *, fin: bool = True, rsv1: bool = False) -> None:
        key = self._random(4) if self.role is Role.CLIENT else None  # a fresh one for each frame: §5.3
        self._out.append(encode_frame(opcode, payload, fin=fin, rsv1=rsv1, mask=key))
