"""Bytes in, messages out: the readable twin of the parser (RFC 6455 §5, §8.1; RFC 7692 §6.2).

Owns the bytes of the message in progress, bounded by `max_message_size`; knows nothing of states, answers or sockets.
Every decision depends only on the bytes so far, never on how they were cut into pieces.
"""

from __future__ import annotations

import codecs
from typing import Final, Protocol

from . import frames
from .errors import ProtocolError, Violation
from .frames import Buffer, Event, Ping, Pong, Role, mask

MAX_HEADER: Final = 14
_NO_LIMIT: Final = 1 << 62


class Inflater(Protocol):
    """The receiving half of permessage-deflate for one connection."""

    @property
    def more(self) -> bool:
        """The frame being inflated is not at its end."""

    def begin_frame(self, data: bytes, final: bool) -> None:
        """The payload of one frame of a message. `final` for its last."""

    def inflate_some(self, limit: int) -> bytes:
        """The next part of the frame, some hundred KiB at most. Called while there is `more`.

        Raises ProtocolError: 1009 when the message would pass `limit` bytes, 1007 when the data is corrupt or
        cut short.
        """


def compressed_limit(max_message_size: int) -> int:
    """Bytes of a compressed message on the wire, at most: incompressible data grows, but by far less than this."""
    return max_message_size + max_message_size // 4 + 64


class Parser:
    """An incremental parser for one direction of one connection. `role` is the side that reads.

    `feed` never raises for the peer's bytes: it returns the events complete before the violation and sets `error`.
    After an error or a Close frame everything fed is ignored (RFC 6455 §1.4, §7.1.7).
    """

    __slots__ = (
        "_buffer",
        "_compressed",
        "_fin",
        "_inflated",
        "_inflater",
        "_key",
        "_limit",
        "_masked",
        "_opcode",
        "_pending",
        "_remaining",
        "_tail",
        "_wire",
        "_wire_limit",
        "_work",
        "closed",
        "error",
        "frames",
        "inflating",
    )

    def __init__(self, *, role: Role, max_message_size: int, inflater: Inflater | None = None) -> None:
        if max_message_size < 1:
            raise ValueError(f"max_message_size must be positive, not {max_message_size}")
        self.frames: int = 0
        """Frames seen so far, control frames included: rate limits read it."""
        self.error: ProtocolError | None = None
        """The violation that ended parsing, if any."""
        self.closed: bool = False
        """A Close frame was parsed."""
        self.inflating: bool = False
        """A frame is whole and not inflated to its end: `feed_some` has work without a byte more."""
        self._masked: Final = frames.MASKED if role is Role.SERVER else 0
        self._limit: Final = min(max_message_size, _NO_LIMIT)
        self._inflater = inflater
        self._wire_limit: Final = compressed_limit(self._limit)
        self._pending = b""  # an unfinished header or control frame: at most 139 bytes
        self._opcode = 0  # of the message in progress; 0: none
        self._compressed = False
        self._buffer = bytearray()  # payload of the message in progress, unmasked and inflated
        self._tail = b""  # an unfinished UTF-8 sequence at the buffer's end
        self._wire = bytearray()  # a compressed frame in progress
        self._key = b""  # of the frame in progress, turned to where its payload has got to
        self._remaining = -1  # bytes of its payload to come; -1: no frame is in progress
        self._fin = 0
        self._inflated = 0  # bytes on the wire of the frame being inflated
        self._work = 0  # left of the work of `feed_some`

    @property
    def buffered(self) -> int:
        """Bytes held for an unfinished message."""
        return len(self._pending) + len(self._buffer) + len(self._wire) + self._inflated

    def feed(self, data: Buffer) -> list[Event]:
        """Take the next bytes; return the messages and control frames they complete, in order."""
        events: list[Event] = []
        data = data if isinstance(data, bytes) else bytes(data)
        self.feed_some(data, 0, len(data), _NO_LIMIT, events)
        return events

    def feed_some(self, data: bytes, start: int, stop: int, work: int, events: list[Event]) -> int:
        """As `feed`, for `data[start:stop]`, until so much work is done; append to `events`, return where to go on.

        A frame is a piece of work, and so is each KiB that is inflated. All is done when `stop` was reached and nothing
        is `inflating`.
        """
        if self.error is not None or self.closed:
            return stop
        self._work = work
        ahead = 0
        if self._pending:
            ahead = start - len(self._pending)
            data = b"".join((self._pending, data[start:stop]))
            start, stop = 0, stop - ahead
            self._pending = b""
        try:
            return ahead + self._parse(data, start, stop, events)
        except ProtocolError as error:
            self.error = error
            self._forget()
            return ahead + stop

    def _parse(self, data: bytes, position: int, size: int, events: list[Event]) -> int:
        while True:
            if self._remaining >= 0 and not self.inflating:
                position = self._continue_frame(data, position, size, events)
                if self._remaining >= 0:
                    return size
            if self.inflating:
                self._inflate(events)
            if self._work <= 0 or self.inflating:
                return position
            header = self._read_header(data, position, size)
            if header is None:
                break
            first, length, start = header
            stop = start + length
            if first & 0x08:
                if stop > size:
                    break
                events.append(self._control(first & 0x0F, self._unmask(data[start:stop])))
                if self.closed:
                    return size
                position = stop
                continue
            self._begin_frame(first)
            if stop <= size:
                position = stop
                self._end_frame(self._unmask(data[start:stop]), first & frames.FIN, events)
            else:
                self._remaining = length
                self._fin = first & frames.FIN
                position = start
        self._pending = data[position:size]
        return size

    def _read_header(self, data: bytes, position: int, size: int) -> tuple[int, int, int] | None:
        """The first byte, the payload's length and where it starts. None: the header is not complete. Keeps the key."""
        if size - position < 2:
            return None
        first = data[position]
        second = data[position + 1]
        self._check_header(first, second, first & 0x0F)
        length = second & 0x7F
        start = position + 2
        if length >= 126:
            wide = 2 if length == 126 else 8
            if size - start < wide:
                return None
            length = _extended_length(data[start : start + wide])
            start += wide
        if not first & 0x08:
            self._check_size(first, length)
        if self._masked:
            if size - start < 4:
                return None
            self._key = data[start : start + 4]
            start += 4
        return first, length, start

    def _check_header(self, first: int, second: int, opcode: int) -> None:
        """The rules that the first two bytes can break, RFC 6455 §5.1, §5.2, §5.4, §5.5."""
        if first & 0x70 and (first & 0x30 or self._inflater is None or opcode not in (frames.TEXT, frames.BINARY)):
            raise ProtocolError(Violation.RESERVED_BITS)  # RSV1 marks the first frame of a message only: RFC 7692 §6.1
        if opcode >= 0x8:
            if opcode > frames.PONG:
                raise ProtocolError(Violation.RESERVED_OPCODE)
            if not first & frames.FIN:
                raise ProtocolError(Violation.FRAGMENTED_CONTROL)
            if second & 0x7F > frames.MAX_CONTROL_PAYLOAD:
                raise ProtocolError(Violation.LONG_CONTROL)
        elif opcode > frames.BINARY:
            raise ProtocolError(Violation.RESERVED_OPCODE)
        elif opcode == frames.CONTINUATION:
            if not self._opcode:
                raise ProtocolError(Violation.STRAY_CONTINUATION)
        elif self._opcode:
            raise ProtocolError(Violation.INTERRUPTED_MESSAGE)
        if second & frames.MASKED != self._masked:
            raise ProtocolError(Violation.NOT_MASKED if self._masked else Violation.MASKED)

    def _check_size(self, first: int, length: int) -> None:
        """Refuse by the declared length, before a byte of it is buffered (RFC 6455 §10.4)."""
        if first & frames.RSV1 or (self._compressed and not first & 0x0F):
            limit = self._wire_limit  # how much it inflates to is for the inflater to watch
        else:
            limit = self._limit - len(self._buffer)
        if length > limit:
            raise ProtocolError(Violation.TOO_BIG)

    def _unmask(self, payload: bytes) -> bytes:
        return mask(payload, self._key) if self._masked else payload

    def _control(self, opcode: int, payload: bytes) -> Event:
        self.frames += 1
        self._work -= 1
        if opcode == frames.PING:
            return Ping(payload)
        if opcode == frames.PONG:
            return Pong(payload)
        close = frames.decode_close(payload)
        self.closed = True
        self._forget()
        return close

    def _begin_frame(self, first: int) -> None:
        self.frames += 1
        self._work -= 1
        opcode = first & 0x0F
        if opcode:
            self._opcode = opcode
            self._compressed = bool(first & frames.RSV1)

    def _continue_frame(self, data: bytes, position: int, size: int, events: list[Event]) -> int:
        """Take the available part of an incomplete frame's payload. Returns where it ends."""
        chunk = self._unmask(data[position : min(size, position + self._remaining)])
        size = len(chunk)
        self._remaining -= size
        turn = size & 3
        self._key = self._key[turn:] + self._key[:turn]
        if self._compressed:
            self._wire += chunk
            if self._remaining:
                return position + size
            chunk = bytes(self._wire)
            self._wire = bytearray()
        if self._remaining:
            self._collect(chunk)
        else:
            self._remaining = -1
            self._end_frame(chunk, self._fin, events)
        return position + size

    def _end_frame(self, payload: bytes, fin: int, events: list[Event]) -> None:
        """The last bytes of a frame's payload are there."""
        if self._compressed:
            assert self._inflater is not None  # RSV1 was refused without one
            self._inflater.begin_frame(payload, bool(fin))
            self._inflated = len(payload)
            self._fin = fin
            self.inflating = True
        else:
            self._end_payload(payload, fin, events)

    def _inflate(self, events: list[Event]) -> None:
        """Inflate as much of a whole frame as there is work left for."""
        inflater = self._inflater
        assert inflater is not None
        payload = b""
        while inflater.more:
            if payload:
                self._collect(payload)
                payload = b""
            if self._work <= 0:
                return
            payload = inflater.inflate_some(self._limit - len(self._buffer))
            self._work -= 1 + (len(payload) >> 10)
        self.inflating = False
        self._inflated = 0
        self._end_payload(payload, self._fin, events)

    def _end_payload(self, payload: bytes, fin: int, events: list[Event]) -> None:
        """The last bytes that a frame says are there."""
        if not fin:
            self._collect(payload)
            return
        if self._buffer:
            self._collect(payload)
            payload = bytes(self._buffer)
            self._buffer = bytearray()
        opcode = self._opcode
        self._opcode = 0
        self._compressed = False
        if opcode == frames.BINARY:
            events.append(payload)
            return
        try:
            events.append(payload.decode())
        except UnicodeDecodeError:
            raise ProtocolError(Violation.TEXT) from None

    def _collect(self, payload: bytes) -> None:
        """Keep a part of the message, having checked that it can still become UTF-8 (RFC 6455 §8.1)."""
        self._buffer += payload
        if self._opcode == frames.BINARY:
            return
        checked = self._tail + payload
        try:
            _, good = codecs.utf_8_decode(checked, "strict", False)
        except UnicodeDecodeError:
            raise ProtocolError(Violation.TEXT) from None
        tail = checked[good:]
        if tail[:1] == b"\xed" and tail[1:2] >= b"\xa0":
            raise ProtocolError(Violation.TEXT)  # CPython waits for the third byte of an encoded surrogate
        self._tail = tail

    def _forget(self) -> None:
        self._pending = b""
        self._buffer = bytearray()
        self._wire = bytearray()
        self._inflated = 0
        self.inflating = False
        self._inflater = None


def _extended_length(data: bytes) -> int:
    """RFC 6455 §5.2: two or eight bytes, the shortest form that fits, the highest bit of eight zero."""
    length = int.from_bytes(data, "big")
    if length >> 63:
        raise ProtocolError(Violation.LENGTH_TOO_LARGE)
    if length < (126 if len(data) == 2 else 1 << 16):
        raise ProtocolError(Violation.LENGTH_NOT_MINIMAL)
    return length
