"""permessage-deflate: its negotiation on both sides, and compressing whole messages (RFC 7692).

Owns every zlib object of this part. By default no connection holds one: both sides reset their window after each
message, so that an idle connection costs nothing and one compressed message serves any number of receivers.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from .errors import HandshakeError, ProtocolError, Violation
from .extensions import Extension, parse_extensions
from .frames import Role

if TYPE_CHECKING:
    from zlib import _Compress, _Decompress

NAME: Final = "permessage-deflate"
SERVER_NO_TAKEOVER: Final = "server_no_context_takeover"
CLIENT_NO_TAKEOVER: Final = "client_no_context_takeover"
SERVER_BITS: Final = "server_max_window_bits"
CLIENT_BITS: Final = "client_max_window_bits"

MIN_BITS: Final = 8
MAX_BITS: Final = 15

_SYNC: Final = b"\x00\x00\xff\xff"  # ends every flush; left out on the wire (RFC 7692 §7.2.1)
_END: Final = b"\x01\x00\x00\xff\xff"  # an empty final block: zlib reports its end only when it began where a block may
_WINDOW: Final = 1 << MAX_BITS
_MAX_FINAL_BLOCKS: Final = 64  # each costs a new zlib state; nobody has a use for more in one message
STEP: Final = 128 << 10
"""Bytes inflated in one call at most: a third of a millisecond, however few bytes they were on the wire."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeflateConfig:
    """Our options for permessage-deflate. The same object serves as a server's policy and a client's offer."""

    server_no_context_takeover: bool = True
    """A server that forgets each message keeps no zlib state (over 250 KB) and compresses once for all receivers."""
    client_no_context_takeover: bool = True
    """The same for the 40 KB of window that the reader of a remembering client has to keep."""
    server_max_window_bits: int = MAX_BITS
    """A smaller window compresses less, and is of use only to a reader short of memory. Only the full one is shared."""
    client_max_window_bits: int = MAX_BITS
    level: int = 3
    """Measured on JSON: up to 1 KiB all levels take about the same and differ by 4 % in size; of 16 KiB level 6 makes a
    tenth less, for two thirds more time."""
    memory_level: int = 8
    """zlib's default: 9 gains next to nothing on messages."""
    threshold: int = 128
    """Bytes below which a message goes uncompressed. JSON of 128 bytes shrinks by an eighth, of 256 by a third. Shorter
    messages hardly shrink at all."""

    def __post_init__(self) -> None:
        for name in (SERVER_BITS, CLIENT_BITS):
            bits = getattr(self, name)
            if not MIN_BITS <= bits <= MAX_BITS:
                raise ValueError(f"{name} must be between 8 and 15 (RFC 7692 §7.1.2), not {bits}")
        if not 0 <= self.level <= 9:
            raise ValueError(f"level must be between 0 and 9, not {self.level}")
        if not 1 <= self.memory_level <= 9:
            raise ValueError(f"memory_level must be between 1 and 9, not {self.memory_level}")
        if self.threshold < 0:
            raise ValueError(f"threshold must not be negative, not {self.threshold}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """The four parameters both sides agreed on (RFC 7692 §7.1)."""

    server_no_context_takeover: bool
    client_no_context_takeover: bool
    server_max_window_bits: int = MAX_BITS
    client_max_window_bits: int = MAX_BITS


class Deflate:
    """permessage-deflate as agreed for one connection: compresses outgoing messages, inflates incoming ones.

    Costs nothing while idle unless context takeover was agreed. Not safe for concurrent use by two threads.
    """

    __slots__ = (
        "_at",
        "_blocks",
        "_compressor",
        "_decompressor",
        "_final",
        "_input",
        "_inside",
        "_recent",
        "agreement",
        "level",
        "memory_level",
        "more",
        "read_bits",
        "read_takeover",
        "shareable",
        "threshold",
        "write_bits",
        "write_takeover",
    )

    def __init__(self, agreement: Agreement, role: Role, config: DeflateConfig) -> None:
        ours, theirs = (
            (agreement.server_no_context_takeover, agreement.server_max_window_bits),
            (agreement.client_no_context_takeover, agreement.client_max_window_bits),
        )
        if role is Role.CLIENT:
            ours, theirs = theirs, ours
        self.agreement: Final = agreement
        self.write_takeover: Final = not ours[0]
        self.read_takeover: Final = not theirs[0]
        # zlib cannot deflate with 8 bits. With 9 it never points back further than 2**9 - 262 = 250 bytes, which a
        # reader with a window of 8 bits understands.
        self.write_bits: Final = max(9, ours[1])
        self.read_bits: Final = theirs[1]
        self.level: Final = config.level
        self.memory_level: Final = config.memory_level
        self.threshold: Final = config.threshold
        self.shareable: Final = not self.write_takeover and self.write_bits == MAX_BITS
        """A message compressed for this connection is right for every other one that is shareable."""
        self._compressor: _Compress | None = None
        self._decompressor: _Decompress | None = None
        self._inside = False  # bytes of the message being inflated have come
        self._input = b""  # of the frame being inflated,
        self._at = 0  # and how far zlib has read it
        self._final = False  # it is the last of its message
        self._recent = b""  # its last inflated part, for the window
        self._blocks = 0  # blocks with BFINAL set in it
        self.more: bool = False
        """The frame being inflated is not at its end."""

    def compress(self, payload: bytes) -> bytes | None:
        """A whole message as it goes on the wire with RSV1 set. None: send it as it is.

        None for a message that is shorter than the threshold or does not shrink. With context takeover the second never
        happens: the peer's window must see the same data as ours.
        """
        if len(payload) < self.threshold:
            return None
        if self.write_takeover:
            if self._compressor is None:
                self._compressor = zlib.compressobj(self.level, zlib.DEFLATED, -self.write_bits, self.memory_level)
            return _flush(self._compressor, payload, zlib.Z_SYNC_FLUSH)
        data = compress(payload, level=self.level, bits=self.write_bits, memory_level=self.memory_level)
        return data if len(data) < len(payload) else None

    def inflate(self, data: bytes, final: bool, limit: int) -> bytes:
        """Inflate one frame of a message. `final` for its last. Raises as `inflate_some`."""
        self.begin_frame(data, final)
        parts = []
        while self.more:
            parts.append(self.inflate_some(limit))
            limit -= len(parts[-1])
        return b"".join(parts)

    def begin_frame(self, data: bytes, final: bool) -> None:
        """`Inflater`: the payload of one frame of a message. `final` for its last."""
        if not data and not self._inside:  # not RFC 7692 §7.2.3.6, but some send the empty message so
            return
        self._inside = not final
        self._final = final
        self._at = self._blocks = 0
        self._recent = b""
        self._input = data if not final else data + _SYNC if self.read_takeover else data + _SYNC + _END
        if self._decompressor is None:
            self._decompressor = zlib.decompressobj(-self.read_bits)
        self.more = True

    def inflate_some(self, limit: int) -> bytes:
        """`Inflater`: the next part of the frame, `STEP` bytes at most. Called while there is `more`.

        Raises ProtocolError: 1009 when the message would pass `limit` bytes, 1007 when the data is corrupt or
        cut short.
        """
        try:
            payload = self._step(limit)
        except zlib.error:
            raise ProtocolError(Violation.DEFLATE) from None
        if len(payload) > limit:
            raise ProtocolError(Violation.TOO_BIG)
        return payload

    def _step(self, limit: int) -> bytes:
        decompressor = self._decompressor
        assert decompressor is not None
        most = min(limit + 1, STEP)
        piece = self._input[self._at : self._at + STEP]  # zlib copies unread input
        payload = decompressor.decompress(piece, most)
        unread = decompressor.unused_data if decompressor.eof else decompressor.unconsumed_tail
        self._at += len(piece) - len(unread)
        left = self._at < len(self._input)
        if not decompressor.eof:
            if left or len(payload) == most:  # in the second case zlib may hold more output
                self._recent = payload
                return payload
            if self._final and not self.read_takeover:
                raise ProtocolError(Violation.DEFLATE)  # cut short
        elif left or not self._final or self.read_takeover:
            self._begin_anew(payload)
            if left:
                return payload
        self._end_frame()
        return payload

    def _begin_anew(self, payload: bytes) -> None:
        """Go on behind a block with BFINAL set (RFC 7692 §7.2.3.4): zlib ends there, the message need not.

        Of the window only this frame's part is kept. That is more than any writer uses who ends a stream to start
        another.
        """
        self._blocks += 1
        if self._blocks > _MAX_FINAL_BLOCKS:
            raise ProtocolError(Violation.DEFLATE)
        window = self._recent = (self._recent[-_WINDOW:] + payload)[-_WINDOW:]
        bits = self.read_bits
        self._decompressor = zlib.decompressobj(-bits, zdict=window) if window else zlib.decompressobj(-bits)

    def _end_frame(self) -> None:
        self.more = False
        self._input = self._recent = b""
        if not self._final:
            return
        if self.read_takeover:
            self._check_end()
        else:
            self._decompressor = None

    def _check_end(self) -> None:
        """With context takeover: the message ended where a block may begin (RFC 7692 §7.2.2)."""
        assert self._decompressor is not None
        probe = self._decompressor.copy()
        if probe.decompress(_END, 1) or not probe.eof:
            raise ProtocolError(Violation.DEFLATE)


def compress(payload: bytes, *, level: int, bits: int, memory_level: int) -> bytes:
    """Compress a message independently of all others (RFC 7692 §7.2.1, no context takeover).

    One compressor per thread and setting serves all connections: a full flush makes it forget earlier data, which costs
    a tenth of making a new one.
    """
    try:
        compressors = _shared.compressors
    except AttributeError:
        compressors = _shared.compressors = {}
    key = (level, bits, memory_level)
    # Taken out while in use: were it left half-way through a message, the next one would hold a part of it.
    compressor = compressors.pop(key, None)
    if compressor is None:
        compressor = zlib.compressobj(level, zlib.DEFLATED, -bits, memory_level)
    data = _flush(compressor, payload, zlib.Z_FULL_FLUSH)
    compressors[key] = compressor
    return data


class _Shared(threading.local):
    compressors: dict[tuple[int, int, int], _Compress]


_shared: Final = _Shared()


def _flush(compressor: _Compress, payload: bytes, mode: int) -> bytes:
    if not payload:
        return b"\x00"  # RFC 7692 §7.2.3.6; zlib would not repeat a flush with nothing between
    head = compressor.compress(payload)
    tail = compressor.flush(mode)
    return head + tail[:-4] if head else tail[:-4]


# ---------------------------------------------------------------- negotiation, server


def negotiate(header_values: Iterable[bytes], config: DeflateConfig | None) -> tuple[Deflate | None, bytes | None]:
    """Answer a client's Sec-WebSocket-Extensions: the extension as agreed, and the value of our response header.

    The first offer we can meet is taken. One with unknown, repeated or invalid parameters is declined (RFC 7692 §5.1,
    §7.1). (None, None): no compression. Raises HandshakeError 400 for a header that breaks the grammar (RFC 6455 §9.1).
    """
    offers = parse_extensions(header_values)
    if config is None:
        return None, None
    for offer in offers:
        if offer.name != NAME:
            continue
        answer = _answer(offer, config)
        if answer is not None:
            agreement, names = answer
            return Deflate(agreement, Role.SERVER, config), "; ".join([NAME, *names]).encode()
    return None, None


def _answer(offer: Extension, config: DeflateConfig) -> tuple[Agreement, list[str]] | None:
    parameters = _parameters(offer, client_bits_may_be_bare=True)
    if parameters is None:
        return None
    names: list[str] = []
    server_forgets = SERVER_NO_TAKEOVER in parameters or config.server_no_context_takeover
    if server_forgets:
        names.append(SERVER_NO_TAKEOVER)
    client_forgets = CLIENT_NO_TAKEOVER in parameters or config.client_no_context_takeover
    if client_forgets:
        names.append(CLIENT_NO_TAKEOVER)
    server_bits = min(parameters.get(SERVER_BITS) or MAX_BITS, config.server_max_window_bits)
    if SERVER_BITS in parameters or server_bits < MAX_BITS:
        names.append(f"{SERVER_BITS}={server_bits}")
    client_bits = MAX_BITS
    if CLIENT_BITS in parameters:  # only a client that says it can may be told a size: RFC 7692 §7.1.2.2
        client_bits = min(parameters[CLIENT_BITS] or MAX_BITS, config.client_max_window_bits)
        if client_bits < MAX_BITS:
            names.append(f"{CLIENT_BITS}={client_bits}")
    return (
        Agreement(
            server_no_context_takeover=server_forgets,
            client_no_context_takeover=client_forgets,
            server_max_window_bits=server_bits,
            client_max_window_bits=client_bits,
        ),
        names,
    )


# ---------------------------------------------------------------- negotiation, client


def offer(config: DeflateConfig) -> bytes:
    """The value of a client's Sec-WebSocket-Extensions header."""
    names = [NAME]
    if config.server_no_context_takeover:
        names.append(SERVER_NO_TAKEOVER)
    if config.client_no_context_takeover:
        names.append(CLIENT_NO_TAKEOVER)
    if config.server_max_window_bits < MAX_BITS:
        names.append(f"{SERVER_BITS}={config.server_max_window_bits}")
    if config.client_max_window_bits < MAX_BITS:
        names.append(f"{CLIENT_BITS}={config.client_max_window_bits}")
    else:
        names.append(CLIENT_BITS)
    return "; ".join(names).encode()


def accept(header_values: Iterable[bytes], config: DeflateConfig | None) -> Deflate | None:
    """The server's answer to our `offer`. None when it declined.

    Raises HandshakeError when the answer was not offered (RFC 6455 §4.1, RFC 7692 §7.1).
    """
    answers = parse_extensions(header_values)
    if not answers:
        return None
    if config is None:
        raise HandshakeError(0, f"the server chose extension {answers[0].name}, which was not offered")
    if len(answers) > 1 or answers[0].name != NAME:
        raise HandshakeError(0, f"the server chose {', '.join(a.name for a in answers)} where {NAME} was offered")
    parameters = _parameters(answers[0], client_bits_may_be_bare=False)
    if parameters is None:
        raise HandshakeError(0, f"the server answered {NAME} with invalid parameters")
    if config.server_no_context_takeover and SERVER_NO_TAKEOVER not in parameters:
        raise HandshakeError(0, f"the server did not agree to {SERVER_NO_TAKEOVER}")  # RFC 7692 §7.1.1.1
    server_bits = parameters.get(SERVER_BITS) or MAX_BITS
    if server_bits > config.server_max_window_bits:
        raise HandshakeError(0, f"the server did not agree to {SERVER_BITS}={config.server_max_window_bits}")
    client_bits = parameters.get(CLIENT_BITS) or MAX_BITS
    return Deflate(
        Agreement(
            server_no_context_takeover=SERVER_NO_TAKEOVER in parameters,
            client_no_context_takeover=CLIENT_NO_TAKEOVER in parameters or config.client_no_context_takeover,
            server_max_window_bits=server_bits,
            client_max_window_bits=min(client_bits, config.client_max_window_bits),
        ),
        Role.CLIENT,
        config,
    )


def _parameters(extension: Extension, *, client_bits_may_be_bare: bool) -> dict[str, int | None] | None:
    """The four parameters of RFC 7692 §7.1 with the window sizes as numbers. None when any is not valid."""
    parameters: dict[str, int | None] = {}
    for name, value in extension.parameters:
        if name in parameters:
            return None
        if name in (SERVER_NO_TAKEOVER, CLIENT_NO_TAKEOVER):
            if value is not None:
                return None
            parameters[name] = None
        elif name in (SERVER_BITS, CLIENT_BITS):
            if value is None:
                if name == SERVER_BITS or not client_bits_may_be_bare:
                    return None
                parameters[name] = None
            else:
                if value not in _BITS:
                    return None
                parameters[name] = _BITS[value]
        else:
            return None
    return parameters


_BITS: Final = {str(bits): bits for bits in range(MIN_BITS, MAX_BITS + 1)}  # no leading zeros: RFC 7692 §7.1.2.1
