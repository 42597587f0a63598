"""The readable twin of the pipe: messages in and out of one connection (`_pipe.pyx` is the native one).

`_reading.py` has the way in. Here is the way out: the outbox, and how bytes reach the socket. A pipe is the
`Carrier` of its connection. Its owner and its watch know how that begins and ends, and its deadlines.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Final

from antiphon.types import ClosedBy, Message, PreparedMessage
from antiphon.wire import Phase, encode_message
from antiphon.wire.prepared import encode_compressed

from ._reading import Reading
from ._turns import Flusher, Turns
from .bounds import BURST, LARGEST_KEPT
from .errors import ClientDisconnected, send_to_nobody

__all__ = ["Flusher", "Pipe", "Turns"]


class _Last(threading.local):
    """The payload sent last, by identity, and its frames, as a loop that sends one str to a thousand connections needs
    them."""

    payload: str | bytes | None = None
    frame: bytes | None = None
    deflated: bytes | None = None


_last: Final = _Last()


class Pipe(Reading):
    """One connection's two directions."""

    __slots__ = ()

    # As `Reading` declares them, for type checkers that look at assignments here.
    answers: bool
    out_bytes: int
    handed_bytes: int

    # ------------------------------------------------------------ to the peer

    @property
    def alive(self) -> bool:
        """Accepted, and neither closed nor lost."""
        return self.state == Phase.OPEN

    @property
    def buffered(self) -> int:
        """Bytes taken and not yet given to the operating system."""
        if self.handed and self.transport is not None:
            return self.out_bytes + self.transport.get_write_buffer_size()
        return self.out_bytes

    def write(self, payload: str | bytes) -> bool:
        """Queue one message. False: `drain()` before the next. Raises ClientDisconnected when it is not open."""
        if self.state != Phase.OPEN:
            raise ClientDisconnected("the WebSocket is not open")
        self.put(self._frame_of(payload))
        return self._out is not None and len(self._out) < BURST and self.buffered <= self.outbox_limit

    def _frame_of(self, payload: str | bytes) -> bytes:
        """The frame for a message of our own, or of many connections."""
        deflate = self.deflate
        if deflate is not None and not deflate.shareable:
            return encode_compressed(payload, deflate)
        if payload is not _last.payload:
            if len(payload) > LARGEST_KEPT or type(payload) not in (str, bytes):
                return encode_message(payload) if deflate is None else encode_compressed(payload, deflate)
            _last.payload = payload
            _last.frame = _last.deflated = None
        if deflate is None:
            if _last.frame is None:
                _last.frame = encode_message(payload)
            return _last.frame
        if _last.deflated is None:
            _last.deflated = encode_compressed(payload, deflate)
        return _last.deflated

    def offer(self, message: PreparedMessage, limit: int) -> bool:
        """Take the message unless the outbox would pass `limit` by it (`types.Sink`)."""
        if self.state != Phase.OPEN:
            return True
        if self.deflate is not None and not self.deflate.shareable:
            # Compressing changes the peer's window too, and compressed data has to be sent: ask for room first.
            if not self._takes(most_bytes(message.payload), limit):
                return False
            self._append(encode_compressed(message.payload, self.deflate))
            return True
        frame = message.frame if self.deflate is None else message.deflated
        if frame is None:
            frame = self._frame_of(message.payload)
            if self.deflate is None:
                message.frame = frame
            else:
                message.deflated = frame
        if not self._takes(len(frame), limit):
            return False
        self._append(frame)
        return True

    def _takes(self, size: int, limit: int) -> bool:
        """Whether the outbox is empty or would stay within `limit` with `size` bytes more."""
        buffered = self.buffered
        if buffered and buffered + size > limit:
            self.flush()
            buffered = self.buffered
        return not buffered or buffered + size <= limit

    async def asgi_send(self, message: Message) -> None:
        """ASGI's `send`."""
        if self.state == Phase.OPEN and message["type"] == "websocket.send":
            if not self.write(payload_of(message)):
                await self.drain()
            return
        if self.close_code is not None:
            await send_to_nobody(message["type"], by_app=self.told and self.closed_by is ClosedBy.US)
        await self.owner.send_other(message)

    async def drain(self) -> None:
        """Wait until the outbox has room, and for one turn of the loop at least: a peer that takes everything, and one
        that is gone, must not hold up all others. Raises ClientDisconnected when the connection ends first."""
        if self._out is not None:
            self.flush()
        if self.state != Phase.OPEN:
            raise ClientDisconnected("the WebSocket is not open")
        if self.buffered > self.outbox_limit:
            await self.watch.drain_slowly()
        else:
            await self.watch.yield_to_loop()

    def put(self, data: bytes) -> None:
        """Append bytes to the outbox. They leave with everything else of this turn of the loop."""
        self.answers = True
        self._append(data)

    def _append(self, data: bytes) -> None:
        if self._out is None:
            self._out = [data]
        else:
            self._out.append(data)
        self.out_bytes += len(data)
        self.flusher.owed += len(data)
        if not self.busy and not self.dirty:
            self.dirty = True
            self.flusher.mark(self)

    def flush(self) -> None:
        """Give the outbox to the socket, and the rest to the transport. Never raises for the peer."""
        out = self._out
        if out is None:
            return
        self._out = None
        self.answers = False
        self.flusher.owed -= self.out_bytes
        self.out_bytes = 0
        transport = self.transport
        if transport is None or self.state == Phase.GONE:
            return
        data = out[0] if len(out) == 1 else b"".join(out)
        if self.fd >= 0 and not self.handed:
            try:
                sent = os.write(self.fd, data)
            except OSError:  # full, or lost: the transport finds out which
                sent = 0
            if sent == len(data):
                return
            data = data[sent:]
        if self.finished and not transport.can_write_eof():
            return  # TLS has no half of a connection: it closes with the peer's end
        self.handed_bytes += len(data)
        transport.write(data)
        if not self.handed and transport.get_write_buffer_size():
            self.handed = True
            self.watch.on_handed()

    # ------------------------------------------------------------ who waits: behind the end nobody is asked

    def disconnect(self, code: int, reason: str) -> None:
        """`types.Sink`: close for a reason of ours; abort when `send_timeout` passes first."""
        if self.close_code is None:
            self.owner.disconnect(code, reason)

    def on_writable(self, callback: Callable[[], None]) -> None:
        """`types.Sink`: call back once, when the outbox has drained or the connection is over."""
        self.flush()
        if self.close_code is None and self.handed:
            self.watch.on_writable(callback)
        else:
            self.loop.call_soon(callback)

    def on_close(self, callback: Callable[[], None]) -> None:
        """`types.Sink`: call back once, when the connection is over; at once if it is."""
        if self.close_code is None:
            self.watch.on_close(callback)
        else:
            callback()

    def off_close(self, callback: Callable[[], None]) -> None:
        """`types.Sink`: forget a callback given to `on_close`."""
        if self.close_code is None:
            self.watch.off_close(callback)

    def let_go(self) -> None:
        """The connection and its app are over: forget both, which refer to this pipe."""
        del self.owner, self.watch


def most_bytes(payload: str | bytes) -> int:
    """The size of the payload's frame at most, without encoding it (RFC 6455 §5.2; UTF-8 has four bytes at most)."""
    return 10 + (len(payload) if isinstance(payload, bytes) or payload.isascii() else 4 * len(payload))


def payload_of(message: Message) -> str | bytes:
    """The payload of a `websocket.send` message (ASGI WebSocket spec 2.5: at least one of the two is not None)."""
    text = message.get("text")
    if text is not None:
        if not isinstance(text, str):
            raise TypeError(f"'text' of a websocket.send message must be str, not {type(text).__name__}")
        return text
    data = message.get("bytes")
    if data is None:
        raise ValueError("a websocket.send message needs 'text' or 'bytes'")
    return data if isinstance(data, bytes) else bytes(memoryview(data))
