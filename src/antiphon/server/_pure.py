"""The readable twin of the channel: messages in and out of one connection (`_channel.pyx` is the native one).

Owns the inbox with its reader, the outbox, and how bytes reach the socket. What is rare is left to the subclass,
through the methods that only raise NotImplementedError here; how a connection begins and ends is not known here.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from typing import Any, Final, Protocol

from antiphon.types import Message, PreparedMessage
from antiphon.wire import Close, Deflate, Parser, Ping, ProtocolError, encode_message
from antiphon.wire.prepared import encode_compressed

from .config import ServerConfig
from .errors import ClientDisconnected
from .state import State

OVERHEAD: Final = 64
"""What a message in the inbox costs beside its bytes, so that a flood of empty messages is bounded too."""


class _Last(threading.local):
    """The payload sent last, by identity, and its frames, as a loop that sends one str to a thousand connections needs
    them."""

    payload: str | bytes | None = None
    frame: bytes | None = None
    deflated: bytes | None = None


_last: Final = _Last()
_LARGEST_KEPT: Final = 1 << 16  # what is larger is not kept alive for that

SLICE: Final = 128 << 10
COMPRESSED_SLICE: Final = 16 << 10
"""So much of a chunk is parsed in one turn of the loop, and before the inbox's bound is looked at again: a chunk may be
tens of thousands of frames, and of compressed messages it holds a thousand times its bytes."""

BURST: Final = 256
"""Frames sent in one turn of the loop before their sender lets others run, however much the peer takes."""

WRITES: Final = 64
"""Channels written out in one turn of the loop: some hundred µs of system calls."""


class Flusher:
    """Writes out every channel that has put something into its outbox, `WRITES` of them per turn of the loop.

    Between two turns the loop reads: what comes for a channel before it is written to leaves in the same write.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._marked: deque[Channel] = deque()

    def mark(self, channel: Channel) -> None:
        """Flush `channel` behind those that were marked before it, at the end of this turn or a later one."""
        self._marked.append(channel)
        if len(self._marked) == 1:
            self._loop.call_soon(self._run)

    @property
    def idle(self) -> bool:
        """Nobody else waits to be written out."""
        return not self._marked

    def _run(self) -> None:
        marked = self._marked
        for _ in range(min(len(marked), WRITES)):
            channel = marked[0]
            channel.dirty = False
            try:
                channel.flush()
            except Exception as error:  # a transport's bug stays with its own connection
                self._loop.call_exception_handler({"message": "flushing a WebSocket failed", "exception": error})
            marked.popleft()
        if marked:
            self._loop.call_soon(self._run)


class Shared(Protocol):
    """What the channels of one server share; `engine.Engine` is it."""

    @property
    def config(self) -> ServerConfig: ...

    @property
    def loop(self) -> asyncio.AbstractEventLoop: ...

    @property
    def flusher(self) -> Flusher: ...


class Channel:
    """One connection's two directions; an `asyncio.Protocol` as far as data is concerned."""

    __slots__ = (
        "_inbox",
        "_out",
        "_rest",
        "_waiter",
        "busy",
        "close_code",
        "close_reason",
        "connect_taken",
        "deflate",
        "dirty",
        "fd",
        "flusher",
        "handed",
        "handed_bytes",
        "hoards",
        "inbound_limit",
        "inbox_bytes",
        "loop",
        "out_bytes",
        "outbox_limit",
        "parser",
        "rated",
        "reading_paused",
        "received",
        "state",
        "transport",
        "was_paused",
    )

    def __init__(self, engine: Shared) -> None:
        self.loop: asyncio.AbstractEventLoop = engine.loop
        self.flusher = engine.flusher
        self.inbound_limit: int = engine.config.inbound_bytes
        self.outbox_limit: int = engine.config.outbox_bytes
        self.transport: asyncio.Transport | None = None
        self.fd = -1
        """The socket, when bytes may be written to it without asking the transport; -1 otherwise."""
        self.state: int = State.HANDSHAKE
        self.parser: Parser | None = None
        self.deflate: Deflate | None = None
        self.close_code: int | None = None
        self.close_reason = ""
        self.connect_taken = False
        """`asgi_receive` has returned `websocket.connect`."""
        self.reading_paused = False
        self.was_paused = False
        """Reading was paused at some time since somebody last cleared this."""
        self.rated = False
        """Call `on_rate` for every chunk."""
        self.hoards = False
        """`on_unfinished` was told of an unfinished message that is large."""
        self.received = 0
        """Chunks received."""
        self.inbox_bytes = 0
        self.out_bytes = 0
        self.handed = False
        """The transport holds bytes: everything goes through it until it is empty."""
        self.handed_bytes = 0
        """All bytes ever given to the transport."""
        self.busy = False
        self.dirty = False
        self._inbox: deque[str | bytes] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._out: list[bytes] | None = None
        self._rest: bytes | None = None  # of a chunk, for the loop's next turn or until the app has read

    # ------------------------------------------------------------ what the subclass does

    def on_early_data(self, data: bytes) -> None:
        """Bytes came while the connection is not open."""
        raise NotImplementedError

    def on_control(self, event: Ping | Close) -> None:
        """A control frame came."""
        raise NotImplementedError

    def on_violation(self, error: ProtocolError) -> None:
        """The peer broke the protocol. The reader has been woken for what came before."""
        raise NotImplementedError

    def on_paused(self) -> None:
        """The socket is read no more until the app has read."""
        raise NotImplementedError

    def on_rate(self, size: int) -> None:
        """A chunk of `size` bytes was parsed, and rates are limited."""
        raise NotImplementedError

    def on_unfinished(self, size: int) -> None:
        """The unfinished message is `size` bytes now, more than a slice; or 0: it is finished."""
        raise NotImplementedError

    def on_handed(self) -> None:
        """The transport holds bytes that the kernel did not take."""
        raise NotImplementedError

    async def drain_slowly(self) -> None:
        """Wait for room in the outbox."""
        raise NotImplementedError

    async def breathe(self) -> None:
        """Let the loop turn once."""
        raise NotImplementedError

    async def send_rarely(self, message: Message) -> None:
        """An ASGI message that is not `websocket.send` on an open connection."""
        raise NotImplementedError

    # ------------------------------------------------------------ from the peer

    def data_received(self, data: bytes) -> None:
        """asyncio's callback: bytes came."""
        if self.state != State.OPEN and self.state != State.CLOSING_SENT:
            self.on_early_data(data)
            return
        if self.parser is None:
            return
        if self._rest is not None:  # a transport that delivers what it had when we paused it
            self._rest += data
            return
        self.busy = True
        try:
            size = SLICE if self.deflate is None else COMPRESSED_SLICE
            if len(data) <= size:
                self._parse(data)
            else:
                self._parse_in_turns(data, size)
        finally:
            self.busy = False
            if self._out is not None and not self.dirty:
                if self.flusher.idle:
                    self.flush()
                else:
                    self.dirty = True
                    self.flusher.mark(self)

    def _parse(self, data: bytes) -> None:
        parser = self.parser
        assert parser is not None
        self.received += 1
        for event in parser.feed(data):
            if isinstance(event, str | bytes):
                if self.state == State.OPEN:
                    self._keep(event)
            else:
                self.on_control(event)
        if self.rated:
            self.on_rate(len(data))
        held = parser.buffered
        if held > SLICE or self.hoards:
            self.on_unfinished(held if held > SLICE else 0)
        if self._inbox or self.close_code is not None:
            self.wake()
        if parser.error is not None and self.parser is not None:
            self.on_violation(parser.error)
        if self.inbox_bytes > self.inbound_limit and not self.reading_paused:
            self._pause_reading()

    def _parse_in_turns(self, data: bytes, size: int) -> None:
        """Parse a slice, and the others in the loop's next turns: meanwhile the socket is not read, since some loops
        read one that is full thirty times in a turn."""
        self._parse(data[:size])
        if self.parser is None or self.transport is None or self.transport.is_closing():
            return
        self._rest = data[size:]
        if not self.reading_paused:
            self.transport.pause_reading()
            self.loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        """Parse more of what was left, then read on."""
        if self.reading_paused:
            return
        rest, self._rest = self._rest, None
        if rest is not None:
            self.data_received(rest)
        if self._rest is not None or self.reading_paused:
            return
        if self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()

    def parse_rest(self) -> None:
        """Parse what was left now, unless the app has to read first: nothing will come behind it."""
        while self._rest is not None and not self.reading_paused:
            self._go_on()

    def _keep(self, payload: str | bytes) -> None:
        if self._inbox is None:
            self._inbox = deque()
        self._inbox.append(payload)
        self.inbox_bytes += _cost(payload)

    def _take(self) -> str | bytes:
        assert self._inbox is not None
        payload = self._inbox.popleft()
        if not self._inbox:
            self._inbox = None  # an idle connection holds no empty deque: they are large
        self.inbox_bytes -= _cost(payload)
        if self.reading_paused and self.inbox_bytes * 2 <= self.inbound_limit:
            self.resume_reading()
        return payload

    def _pause_reading(self) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.reading_paused = self.was_paused = True
            self.transport.pause_reading()
            self.on_paused()

    def resume_reading(self) -> None:
        """Read from the socket again, if we had paused."""
        if self.reading_paused:
            self.reading_paused = False
            if self._rest is not None:
                self.loop.call_soon(self._go_on)
            elif self.transport is not None and not self.transport.is_closing():
                self.transport.resume_reading()

    def forget_inbox(self) -> None:
        """Drop what was received and not read."""
        self._inbox = None
        self.inbox_bytes = 0

    def wake(self) -> None:
        """Let the reader that waits look again."""
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def _message(self) -> str | bytes | None:
        while self._inbox is None:
            if self.close_code is not None:
                return None
            if self._waiter is not None:
                raise RuntimeError("two tasks receive from one WebSocket at the same time")
            self._waiter = self.loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return self._take()

    async def read(self) -> str | bytes | None:
        """The next message's payload; None when the connection has ended. `types.Carrier` has the whole promise."""
        return await self._message()

    async def asgi_receive(self) -> Message:
        """ASGI's `receive`. Once it has returned `websocket.disconnect` it raises ClientDisconnected."""
        if not self.connect_taken:
            self.connect_taken = True
            return {"type": "websocket.connect"}
        payload = await self._message()
        if isinstance(payload, str):
            return {"type": "websocket.receive", "text": payload}
        if payload is not None:
            return {"type": "websocket.receive", "bytes": payload}
        return self.take_disconnect()

    def take_disconnect(self) -> dict[str, Any]:
        """The `websocket.disconnect` message, once."""
        raise NotImplementedError

    # ------------------------------------------------------------ to the peer

    @property
    def alive(self) -> bool:
        """Accepted, and neither closed nor lost."""
        return self.state == State.OPEN

    @property
    def buffered(self) -> int:
        """Bytes taken and not yet given to the operating system."""
        if self.handed and self.transport is not None:
            return self.out_bytes + self.transport.get_write_buffer_size()
        return self.out_bytes

    def write(self, payload: str | bytes) -> bool:
        """Queue one message; False: `drain()` before the next. Raises ClientDisconnected when it is not open."""
        if self.state != State.OPEN:
            raise ClientDisconnected("the WebSocket is not open")
        self.put(self._frame_of(payload))
        return self._out is not None and len(self._out) < BURST and self.buffered <= self.outbox_limit

    def _frame_of(self, payload: str | bytes) -> bytes:
        """The frame for a message of our own, or of many connections."""
        deflate = self.deflate
        if deflate is not None and not deflate.shareable:
            return encode_compressed(payload, deflate)
        if payload is not _last.payload:
            if len(payload) > _LARGEST_KEPT or type(payload) not in (str, bytes):
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
        if self.state != State.OPEN:
            return True
        if self.deflate is not None and not self.deflate.shareable:
            # Compressing changes the peer's window too: what was compressed must be sent, so ask for room first.
            if not self._takes(most_bytes(message.payload), limit):
                return False
            self.put(encode_compressed(message.payload, self.deflate))
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
        self.put(frame)
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
        if self.state == State.OPEN and message["type"] == "websocket.send":
            if not self.write(payload_of(message)):
                await self.drain()
            return
        await self.send_rarely(message)

    async def drain(self) -> None:
        """Wait until the outbox has room, and for one turn of the loop at least: a peer that takes everything, and one
        that is gone, must not hold up all others. Raises ClientDisconnected when the connection ends first."""
        if self._out is not None:
            self.flush()
        if self.state != State.OPEN:
            raise ClientDisconnected("the WebSocket is not open")
        if self.buffered > self.outbox_limit:
            await self.drain_slowly()
        else:
            await self.breathe()

    def put(self, data: bytes) -> None:
        """Append bytes to the outbox; they leave with everything else of this turn of the loop."""
        if self._out is None:
            self._out = [data]
        else:
            self._out.append(data)
        self.out_bytes += len(data)
        if not self.busy and not self.dirty:
            self.dirty = True
            self.flusher.mark(self)

    def flush(self) -> None:
        """Give the outbox to the socket, and what that does not take to the transport. Never raises for the peer."""
        out = self._out
        if out is None:
            return
        self._out = None
        self.out_bytes = 0
        transport = self.transport
        if transport is None or self.state == State.CLOSED:
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
        self.handed_bytes += len(data)
        transport.write(data)
        if not self.handed and transport.get_write_buffer_size():
            self.handed = True
            self.on_handed()


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


def _cost(payload: str | bytes) -> int:
    if isinstance(payload, str) and not payload.isascii():
        return payload.__sizeof__() + OVERHEAD
    return len(payload) + OVERHEAD
