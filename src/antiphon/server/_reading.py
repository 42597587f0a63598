"""The readable twin of the pipe's first half: from the peer to the app (`_pipe.pyx` is native, and has both).

Owns the received bytes that are not parsed yet, the inbox with its reader, and whether the socket is read.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from antiphon.types import ClosedBy, Message, StopListener
from antiphon.wire import Deflate, Parser, Phase, Ping
from antiphon.wire.frames import Event

from ._turns import Flusher, Turns
from .asked import PipeOwner, PipeWatch, Shared
from .bounds import HELD, LARGE, OVERHEAD, PINGS, READS, SHORT, SLICE, SMALL, WORK
from .errors import nothing_more
from .state import Opening


class Reading:
    """The receiving half of one connection."""

    __slots__ = (
        "_at",
        "_chunk",
        "_inbox",
        "_out",
        "_reading_since",
        "_reads",
        "_waiter",
        "answers",
        "at_stop",
        "busy",
        "close_code",
        "close_reason",
        "closed_by",
        "connect_taken",
        "deflate",
        "dirty",
        "disconnect_taken",
        "fd",
        "finished",
        "flusher",
        "handed",
        "handed_bytes",
        "hoards",
        "inbound_limit",
        "inbox_bytes",
        "loop",
        "out_bytes",
        "outbox_limit",
        "overfull",
        "owner",
        "parser",
        "queued",
        "rated",
        "reading_paused",
        "received",
        "state",
        "stopped",
        "told",
        "transport",
        "turns",
        "was_paused",
        "watch",
    )

    owner: PipeOwner
    watch: PipeWatch

    def __init__(self, engine: Shared, owner: PipeOwner) -> None:
        self.owner = owner
        self.loop: asyncio.AbstractEventLoop = engine.loop
        self.flusher: Flusher = engine.flusher
        self.turns: Turns = engine.turns
        self.inbound_limit: int = engine.config.inbound_bytes
        self.outbox_limit: int = engine.config.outbox_bytes
        self.transport: asyncio.Transport | None = None
        self.fd: int = -1
        """The socket, when bytes may be written to it without asking the transport; -1 otherwise."""
        self.state: int = Opening.HANDSHAKE
        self.parser: Parser | None = None
        self.deflate: Deflate | None = None
        self.close_code: int | None = None
        """How the connection ended. None while it is not over."""
        self.close_reason: str = ""
        self.closed_by: ClosedBy | None = None
        self.connect_taken: bool = False
        """`asgi_receive` has returned `websocket.connect`."""
        self.disconnect_taken: bool = False
        """It has returned `websocket.disconnect`."""
        self.told: bool = False
        """The app knows of the end: by that message, or since it was the one to end the connection."""
        self.at_stop: StopListener | None = None
        """Asked when the server stops: whether the app is at work on a message, and ends the connection itself."""
        self.reading_paused: bool = False
        """Until the app has read."""
        self.stopped: bool = False
        """The socket is not read: for that reason, or until the bytes read so far have been parsed."""
        self.was_paused: bool = False
        """It was stopped at some time since this was last cleared."""
        self.finished: bool = False
        """The peer has finished (FIN), and its bytes before that wait to be parsed."""
        self.queued: bool = False
        """Waits for its turn."""
        self.rated: bool = False
        """Call `on_rate` for every chunk."""
        self.hoards: bool = False
        """`on_unfinished` knows of a large unfinished message."""
        self.overfull: bool = False
        """`on_unread` knows of an inbox beyond its bound."""
        self.received: int = 0
        """Chunks received."""
        self.inbox_bytes: int = 0
        self.out_bytes: int = 0
        self.handed: bool = False
        """The transport holds bytes: everything goes through it until it is empty."""
        self.handed_bytes: int = 0
        """All bytes ever given to the transport."""
        self.busy: bool = False
        self.dirty: bool = False
        self.answers: bool = False
        self._inbox: deque[str | bytes] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._out: list[bytes] | None = None
        self._chunk: bytes | None = None  # for a later turn, or until the app has read;
        self._at = 0  # bytes before it have been parsed
        self._reads = 0  # without waiting,
        self._reading_since = 0.0

    def flush(self) -> None:
        """Write out the outbox: `pipe.py` has the way out."""
        raise NotImplementedError

    # ------------------------------------------------------------ from the peer

    def data_received(self, data: bytes) -> None:
        """asyncio's callback: bytes came."""
        if self.state != Phase.OPEN and self.state != Phase.CLOSING:
            if self.close_code is None:
                self.owner.on_early_data(data)
            return
        if self.parser is None:
            return
        turns = self.turns
        if self._chunk is not None or self.queued:
            self._put_by(data)
        elif turns.spent or (self.flusher.behind and len(data) > SMALL):
            self._put_by(data)
            self.queued = True
            turns.enter(self, late=True)
        else:
            size = len(data)
            began = turns.begin(size)
            self._work_at(data if type(data) is bytes else bytes(data), 0)
            turns.end(began, size)

    def _put_by(self, data: bytes) -> None:
        """Keep a chunk for this connection's turn."""
        self._chunk = bytes(data) if self._chunk is None else self._chunk[self._at :] + data
        self._at = 0
        if len(self._chunk) > HELD:
            self._stop_reading()

    def _work_at(self, data: bytes, start: int) -> None:
        """Parse one turn's work of a chunk, let the app have it, send its answers."""
        self.busy = True
        try:
            self._parse(data, start)
        finally:
            self.busy = False
            if self._out is not None and not self.dirty:
                if self.flusher.idle:
                    self.flush()
                else:
                    self.dirty = True
                    self.flusher.mark(self)

    def _parse(self, data: bytes, start: int) -> None:
        parser = self.parser
        assert parser is not None
        self.received += 1
        events: list[Event] = []
        at = parser.feed_some(data, start, min(len(data), start + SLICE), WORK, events)
        self._sort(events)
        if self.rated:
            self.owner.on_rate(at - start)
        held = parser.buffered
        if held > SLICE or self.hoards:
            self.owner.on_unfinished(held if held > SLICE else 0)
        if self._waiter is not None and not self.queued and (self._inbox or self.close_code is not None):
            self.wake()
            if len(events) > SHORT:
                self.turns.owe()
        if parser.error is not None and self.parser is not None:
            self.owner.on_violation(parser.error)
        if self.inbox_bytes > self.inbound_limit:
            self._note_overfull()
        if self.parser is not None and (at < len(data) or parser.inflating):
            self._chunk = data
            self._at = at
            self._stop_reading()
            if not self.reading_paused:
                self._wait()

    def _sort(self, events: list[Event]) -> None:
        """Messages into the inbox, the rest to where it is handled."""
        pings = 0
        last: Ping | None = None  # that came when enough had been answered
        for event in events:
            if isinstance(event, str | bytes):
                if self.state == Phase.OPEN:
                    self._keep(event)
                continue
            if type(event) is Ping:
                pings += 1
                if pings > PINGS:
                    last = event
                    continue
            elif last is not None:
                self.owner.on_control(last)
                last = None
            self.owner.on_control(event)
        if last is not None:
            self.owner.on_control(last)

    def _wait(self) -> None:
        if not self.queued:
            self.queued = True
            self.turns.enter(self)

    @property
    def swollen(self) -> bool:
        """`Turns`: its work is to inflate more of a message that is large already."""
        parser = self.parser
        if parser is None or not parser.inflating or parser.buffered < LARGE:
            return False
        return self._waiter is None or self._inbox is None  # else its reader's turn comes first

    def take_turn(self) -> None:
        """`Turns`: it is the turn of its reader, if that has given way, else of unparsed bytes."""
        self.queued = False
        gave_way = self._waiter is not None and self._inbox is not None
        # a small chunk need not wait for the bytes that are owed to others
        much = gave_way or (self._chunk is not None and len(self._chunk) - self._at > SMALL)
        if much and self.parser is not None and self.flusher.holds_up():
            self._wait()
            return
        if gave_way:
            self.wake()
            self.turns.owe()
        elif self.parser is None or self.state not in (Phase.OPEN, Phase.CLOSING):
            self._chunk = None
        elif self._chunk is not None and not self.reading_paused:
            chunk, self._chunk = self._chunk, None
            if self.turns.crowded and self.owner.drop_if_gone():
                return
            self._work_at(chunk, self._at)
        self._go_on()

    def _go_on(self) -> None:
        """Wait for the next turn, or read on."""
        if self.parser is None:
            self._chunk = None
        if self.finished:
            self._end_or_wait()
        elif self._chunk is None:
            if self.stopped and not self.reading_paused and self.transport is not None:
                self.stopped = False
                if not self.transport.is_closing():
                    self.transport.resume_reading()
        elif not self.reading_paused:
            self._wait()

    def finish_later(self) -> bool:
        """The peer has finished. True: its earlier bytes are parsed first, in turns, then `on_finished` is called."""
        if self._chunk is not None and self.parser is not None and self.state in (Phase.OPEN, Phase.CLOSING):
            self.finished = self.stopped = self.was_paused = True
        return self.finished

    def _end_or_wait(self) -> None:
        """Where the transport is over, too, nobody waits for an app that has to read first."""
        full = self.reading_paused or self.overfull
        if full and (self.transport is None or self.transport.is_closing()):
            self._chunk = None
        if self._chunk is not None:
            if not self.reading_paused:
                self._wait()
        elif not self.busy:  # else this turn is not over
            self.finished = False
            self.owner.on_finished()

    def _note_overfull(self) -> None:
        """The app has to read before the socket is."""
        if not self.reading_paused and self.transport is not None and not self.transport.is_closing():
            self.reading_paused = True
            self._stop_reading()
            self.watch.on_paused()
        self.overfull = True
        self.owner.on_unread(self.inbox_bytes - self.inbound_limit)

    def _stop_reading(self) -> None:
        if not self.stopped and self.transport is not None and not self.transport.is_closing():
            self.stopped = self.was_paused = True
            self.transport.pause_reading()

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
        if self.overfull and self.inbox_bytes <= self.inbound_limit:
            self.overfull = False
            self.owner.on_unread(0)
        if self.reading_paused and self.inbox_bytes * 2 <= self.inbound_limit:
            self.resume_reading()
        return payload

    def resume_reading(self) -> None:
        """Read from the socket again, if we had stopped."""
        self.reading_paused = False
        self._go_on()

    def forget_inbox(self) -> None:
        """Drop messages that were received and not read."""
        self._inbox = None
        self.inbox_bytes = 0
        if self.overfull:
            self.overfull = False
            self.owner.on_unread(0)

    def wake(self) -> None:
        """Let the reader that waits look again."""
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def _message(self) -> str | bytes | None:
        gives_way = self._inbox is not None and self._has_read_enough(self._inbox[0])
        while self._inbox is None or gives_way:
            if self.close_code is not None and self._inbox is None:
                return None
            if self._waiter is not None:
                raise RuntimeError("two tasks receive from one WebSocket at the same time")
            self._reads = 0
            self._waiter = self.loop.create_future()
            try:
                if gives_way:
                    gives_way = False
                    self._wait()
                await self._waiter
            finally:
                self._waiter = None
        return self._take()

    def _has_read_enough(self, payload: str | bytes) -> bool:
        """A message is read without waiting: is it the turn of others?"""
        if not self._reads:
            self._reading_since = self.turns.now()
        elif self.flusher.behind:
            return True
        self._reads += 1 + (len(payload) >> 10)
        return self._reads > READS or self.turns.is_over(self._reading_since)

    async def read(self) -> str | bytes | None:
        """The next message's payload. None when the connection has ended. `types.Carrier` has the whole promise."""
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
        return self._take_disconnect()

    def _take_disconnect(self) -> dict[str, Any]:
        """`websocket.disconnect` (ASGI WebSocket spec 2.5), once: an app that goes on receiving must not spin."""
        if self.disconnect_taken:
            raise nothing_more()
        self.disconnect_taken = self.told = True
        return {"type": "websocket.disconnect", "code": self.close_code, "reason": self.close_reason}


def _cost(payload: str | bytes) -> int:
    if isinstance(payload, str) and not payload.isascii():
        return payload.__sizeof__() + OVERHEAD
    return len(payload) + OVERHEAD
