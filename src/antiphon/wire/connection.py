"""One WebSocket connection behind its handshake, either side, as bytes in and bytes out (RFC 6455).

Owns the bytes to send, and the phase of the closing handshake, whose table is `closing.py`. The caller owns the socket
and the clock.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from antiphon.types import ClosedBy

from . import closing
from .backend import Parser, encode_frame
from .closing import ClosingStep, Phase, Tcp
from .deflate import Deflate
from .errors import LocalError, ProtocolError
from .frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Close, Event, Ping, Role
from .prepared import encode_compressed


@dataclass(frozen=True, slots=True, kw_only=True)
class WireConfig:
    """Limits of one connection."""

    max_message_size: int = 1 << 20
    """Bytes of a received message's payload, inflated. A megabyte is more than any chat or JSON feed sends, and a
    bearable amount for each of thousands of hostile connections."""


class WireConnection:
    """Bytes in, events out; messages in, bytes out. Raises LocalError when the state forbids a call.

    Pings are answered and the closing handshake is completed here. Both answers wait in `data_to_send()`.
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
        self.phase: Phase = Phase.OPEN
        self.error: ProtocolError | None = None
        """How the peer broke the protocol, if it did."""
        self.close_code: int | None = None
        """None until a side has said goodbye or is gone; 1005: a Close without a code, 1006: no Close at all."""
        self.close_reason: str = ""
        self.closed_by: ClosedBy | None = None
        self._tcp = Tcp.KEEP
        self._random = random
        self._out: list[bytes] = []
        config = config or WireConfig()
        self._parser = Parser(role=role, max_message_size=config.max_message_size, inflater=deflate)

    # ------------------------------------------------------------ receiving

    def receive_data(self, data: bytes | bytearray | memoryview) -> list[Event]:
        """Take bytes from the peer. Returns the events that they complete. Never raises for the peer's bytes."""
        return list(self.events(data))

    def events(self, data: bytes | bytearray | memoryview) -> Iterator[Event]:
        """As `receive_data`, one at a time: a message can be answered before the Close behind it is.

        To be exhausted before the next call.
        """
        if self.phase >= Phase.CLOSED:
            return  # RFC 6455 §5.5.1: after a Close frame nothing counts
        for event in self._parser.feed(data):
            if type(event) is Ping:
                if self.phase is Phase.OPEN:
                    self._send(PONG, event.payload)
            elif type(event) is Close:
                self._take(closing.closed_by_peer(self.phase, event))
            yield event
        error = self._parser.error
        if error is not None:
            self.error = error
            self._take(closing.failed(self.phase, error.close_code, error.reason))

    def receive_eof(self) -> None:
        """The peer's side of the TCP connection ended, or the connection was lost."""
        self._take(closing.eof(self.phase))

    # ------------------------------------------------------------ sending

    def send_text(self, text: str) -> None:
        """Queue a text message."""
        self._send_message(text)

    def send_bytes(self, data: bytes) -> None:
        """Queue a binary message."""
        self._send_message(data)

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
        """Begin the closing handshake. Raises LocalError unless open, ValueError for a code that may not be sent."""
        self._take(closing.close(self.phase, code, reason))

    def data_to_send(self) -> bytes:
        """The bytes to write to the socket now. Each is returned once."""
        data = b"".join(self._out)
        self._out.clear()
        return data

    # ------------------------------------------------------------ duties of the caller

    @property
    def should_close_transport(self) -> bool:
        """Close the TCP connection once `data_to_send()` is written. Servers go first (RFC 6455 §7.1.1)."""
        return self._tcp in (Tcp.FAIL, Tcp.ENDED) or (self._tcp is Tcp.END and self.role is Role.SERVER)

    @property
    def wants_deadline(self) -> bool:
        """The peer owes us its Close frame or, to a client, the end of the TCP connection: do not wait for ever."""
        return self.phase is not Phase.OPEN and not self.should_close_transport

    # ------------------------------------------------------------ inside

    def _take(self, step: ClosingStep) -> None:
        self.phase = step.phase
        self._tcp = step.tcp
        if step.end is not None:
            self.close_code, self.close_reason, self.closed_by = step.end
        if step.payload is not None:
            self._send(CLOSE, step.payload)

    def _require_open(self, what: str) -> None:
        if self.phase is not Phase.OPEN:
            raise LocalError(f"{what} can be sent while the connection is open, but it is {self.phase.name.lower()}")

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

    def _send(self, opcode: int, payload: str | bytes, *, fin: bool = True, rsv1: bool = False) -> None:
        key = self._random(4) if self.role is Role.CLIENT else None  # a fresh one for each frame: §5.3
        self._out.append(encode_frame(opcode, payload, fin=fin, rsv1=rsv1, mask=key))
