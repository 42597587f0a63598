"""One connection's states, its end, and the ways a message takes: what `WebSocket` stands on.

Checks every message against the tables and decides between the ways of sending: the server's own (`Carrier`), ASGI
messages for the connection's own senders, and the outbox for foreign ones. Compatibility with Starlette's habits
stops here and in `websocket.py`.

Knows nothing of routing, of how an endpoint's ending becomes a close code, or of the hub.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Final, Generic

import anyio.lowlevel
from starlette.requests import HTTPConnection, StateT

from antiphon.exceptions import NotAccepted, WebSocketDisconnect, WebSocketDisconnected
from antiphon.shown import shown
from antiphon.status import check_close_code, cut_reason
from antiphon.types import (
    CARRIER_EXTENSION,
    Carrier,
    ClosedBy,
    Message,
    Overflow,
    PreparedMessage,
    Receive,
    Scope,
    Send,
    Sink,
)

from . import codec
from .excuse import excuse_disconnects
from .inbox import Inbox
from .options import ConnectionOptions
from .outbox import Outbox, means_closed
from .state import (
    CONNECTED,
    CONNECTING,
    DENIED,
    DISCONNECTED,
    LOST,
    RECEIVES,
    SENDS,
    Closed,
    WebSocketState,
    closed_by_message,
    normalised,
    spec_version,
    unexpected,
)

logger = logging.getLogger("antiphon")

current_owner: ContextVar[object] = ContextVar("antiphon.owner", default=None)
"""The connection whose endpoint (or a task started by it) is running: the token of `_owner_token`."""

OWNER_EXTENSION: Final = "antiphon.owner"
OPTIONS_KEY: Final = "antiphon.connection_options"
"""Key in the scope under which an application may put its `ConnectionOptions`."""

SENDS_UNHEARD: Final = 4
"""Sends in a row without a receive, after which a server that never refuses a send is watched for the disconnect."""

ENDING_METHODS: Final = {"websocket.accept": "accept()", "websocket.close": "close()"}

OPEN_RECEIVES: Final = RECEIVES[CONNECTED]
OPEN_SENDS: Final = SENDS[CONNECTED]
"""Beside the tables because to hash an enum member costs as much as a coroutine (benchmarks: echo)."""

SENDS_PER_TURN: Final = 16
"""Sends in a row without a receive, after which the loop gets a turn: a server whose `send` never suspends would not
even learn that the peer is gone."""

UNHEEDED_PER_TURN: Final = 1000
"""Sends of foreign senders, all together, to a connection that is dead, after which the loop gets a turn. Far more than
a crowd of endpoints with one message each: where a loop over connections waits, they change what it goes through."""

HANDLING_SECONDS: Final = 0.05
"""After a message was read, its handling may go on this long before `send_text` and its like learn that the peer is
gone. Long enough for a loop over all connections, short enough for an endpoint that only sends from then on."""

running_loop = asyncio._get_running_loop
_handing_over = threading.Lock()


class Channel(HTTPConnection[StateT], Generic[StateT]):
    """States, raw messages and the end of one connection; `WebSocket` adds the typed methods."""

    options: ConnectionOptions = ConnectionOptions()
    """The limits: the class's, or those that the application put into the scope."""

    client_state: WebSocketState
    """What has come from the client's side. Source: Starlette."""

    application_state: WebSocketState
    """What the application has sent. Source: Starlette."""

    refused: Closed | None = None
    """What `close()` was given, where that was before accept: the peer sees a 403 only."""

    dropped: int
    """Messages of foreign senders that `Overflow.DROP_NEWEST` has dropped."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket":
            raise ValueError(f"a WebSocket needs a scope of type 'websocket', not {scope['type']!r}")
        super().__init__(scope)
        self.client_state = CONNECTING
        self.application_state = CONNECTING
        self.dropped = 0
        self.options = scope.get(OPTIONS_KEY) or self.options
        self._loop = running_loop()
        self._thread = threading.get_ident()
        self._owner = _owner_token(scope)
        current_owner.set(self._owner)
        self._clock: Callable[[], float] = time.monotonic if self._loop is None else self._loop.time
        self._read_at = -HANDLING_SECONDS
        """When the endpoint last read a message of the peer."""
        self._closed: Closed | None = None
        self._closing: Closed | None = None
        """The Close that the endpoint has given, and that may still wait for the peer to read."""
        self._close_waiters: list[Callable[[], None]] = []
        self._unheard = 0
        self._unheeded = 0
        self._pressed = False
        """A foreign message came in this turn of the loop, to an outbox that is more than half full."""
        self._awaits_room = False
        self._room_made = 0
        """How often the outbox has emptied while a foreign sender asked for room."""
        self._handed_over = 0
        self._closed_by_foreign = False
        self._server_swallows = False
        self._has_server = True
        self._served_by: Carrier | None = (scope.get("extensions") or {}).get(CARRIER_EXTENSION)
        """Our server, whether or not middleware stands between it and us."""
        self._carrier: Carrier | None = None
        """Our server, when nothing stands between: the short way."""
        if self._served_by is not None and self._is_unwrapped(self._served_by, receive, send):
            self._carrier = self._served_by
            self._receive: Receive = receive
            self._send: Send = send
        else:
            self._attach(receive, send)

    def _is_unwrapped(self, carrier: Carrier, receive: Receive, send: Send) -> bool:
        return (
            getattr(receive, "__self__", None) is carrier
            and getattr(send, "__self__", None) is carrier
            # A subclass that overrides these is to see every message too.
            and type(self).receive is Channel.receive
            and type(self).send is Channel.send
        )

    def _attach(self, receive: Receive, send: Send) -> None:
        """Set up the way over ASGI messages."""
        version = spec_version(self.scope)
        self._server_tells_reason = version >= (2, 3)
        self._server_swallows = (0,) < version < (2, 4)
        self._has_server = version > (0,)  # otherwise callables of somebody's own, who sees what they raise
        self._inbox = Inbox(receive, limit=self.options.inbox_bytes, on_disconnect=self._on_disconnect)
        self._receive = self._inbox.get
        self._outbox = Outbox(
            send,
            loop=self._loop,
            timeout=self.options.send_timeout,
            on_ended=self._on_ended,
            watch=self._watch,
        )
        self._send = self._outbox.send
        if self._loop is not None and (task := asyncio.current_task()) is not None:
            task.add_done_callback(self._stop)
        if self._served_by is not None:
            self._served_by.on_close(lambda: self._end(self.closed or LOST))

    # How it is

    @property
    def closed(self) -> Closed | None:
        """How the connection ended, or None while it is open. Known without receiving."""
        if self._closed is None or self._closed is LOST:
            carrier = self._served_by
            if carrier is not None:
                code = carrier.close_code
                if code is not None:
                    return Closed(code=code, reason=carrier.close_reason, by=carrier.closed_by or ClosedBy.NOBODY)
            else:
                self._watch()
        return self._closed

    @property
    def is_connected(self) -> bool:
        """Whether the connection is accepted and, as far as anybody can know, open. Known without receiving.

        On servers other than antiphon's the first question only starts the watch: a disconnect is seen from the next
        turn of the loop on.
        """
        return self.application_state is CONNECTED and self.client_state is CONNECTED and self.closed is None

    async def wait_closed(self) -> Closed:
        """Wait until the connection has ended: a Close was sent or came, or it was lost. May run in any event loop."""
        if (closed := self.closed) is not None:
            return closed
        loop = asyncio.get_running_loop()
        ended = loop.create_future()

        def tell() -> None:
            _hand_over(loop, lambda: None if ended.done() else ended.set_result(None))

        if self._in_loop(lambda: self._on_close(tell)):
            try:
                await ended
            finally:
                self._in_loop(lambda: self._off_close(tell))
        return self.closed or LOST

    async def flushed(self) -> None:
        """Wait until a Close that a foreign sender or a cancelled task has left is with the server, or given up."""
        if self._carrier is None:
            await self._outbox.finish()

    @property
    def sink(self) -> Sink:
        """Where the hub and others that must never wait leave messages for this connection."""
        return self._carrier if self._carrier is not None else self._outbox

    # Raw ASGI messages

    async def receive(self) -> Message:
        """The next ASGI message, checked against the state (ASGI WebSocket spec; Starlette's `receive`).

        Raises RuntimeError for a message that is not legal now and for two receives at one time,
        `WebSocketDisconnected` after the disconnect message, which itself is returned.
        """
        expected = OPEN_RECEIVES if self.client_state is CONNECTED else RECEIVES[self.client_state]
        if not expected:
            raise self._gone("receive")
        self._unheard = 0
        message = await self._receive()
        try:
            self.client_state = expected[message["type"]]
        except KeyError:
            raise RuntimeError(unexpected(expected, message["type"])) from None
        if message["type"] == "websocket.receive":
            self._read_at = self._clock()
        if self._carrier is not None:
            return message
        return normalised(message, tells_reason=self._server_tells_reason)

    async def send(self, message: Message) -> None:
        """Send an ASGI message, checked against the state (ASGI WebSocket spec; Starlette's `send`).

        A close code that may not go on the wire is a ValueError; a reason is cut to what a Close frame holds. Raises
        RuntimeError for a message that is not legal now, `WebSocketDisconnected` on a connection that has ended, and
        `WebSocketDisconnect` when it is lost meanwhile; a message sent in the first moments after one of the peer's was
        read is dropped instead, and the end told by the next receive. Data and closes of foreign senders go their own
        way.
        """
        try:
            kind = message["type"]
        except (KeyError, TypeError):
            raise TypeError(f"send() takes an ASGI message, a dict with its type, not {message!r}") from None
        if kind == "websocket.close":
            message = _checked_close(message, on_wire=self.application_state is not CONNECTING)
            if self.application_state is CONNECTING:
                self.refused = Closed(code=message["code"], reason=message["reason"], by=ClosedBy.US)
        expected = OPEN_SENDS if self.application_state is CONNECTED else SENDS[self.application_state]
        if kind in OPEN_SENDS and not self._is_own():
            await self._send_foreign(message)
            return
        if not expected:
            if kind == "websocket.close" and self._closed_by_foreign:
                return  # the endpoint could not know
            raise self._gone(ENDING_METHODS.get(kind, "send"))
        if kind not in expected:
            raise RuntimeError(unexpected(expected, kind))
        ended = self._has_ended()
        if ended and kind in ("websocket.accept", "websocket.send"):
            if kind == "websocket.send" and self._is_handling():
                return
            raise self._gone("send")
        if not message.get("more_body", False):
            self.application_state = expected[kind]
        if kind == "websocket.close":
            self._closing = Closed(code=message["code"], reason=message["reason"], by=ClosedBy.US)
        try:
            await self._send(message)
        except (OSError, RuntimeError) as exc:
            if not means_closed(exc):
                raise
            if kind == "websocket.send" and self._has_server and self._is_handling():
                self._end(LOST)
                return
            if not (ended and kind == "websocket.close"):  # closing what the peer has closed is no error
                raise self._lost() from exc
        if kind != "websocket.send":
            self._send_ended(message)
            return
        self._unheard += 1
        if self._server_swallows and self._unheard == SENDS_UNHEARD:
            self._watch()
        if self._unheard % SENDS_PER_TURN == 0:
            await anyio.lowlevel.checkpoint()

    def _send_ended(self, message: Message) -> None:
        """Note the end, if the message that was sent is one."""
        if message["type"] == "websocket.close":
            self._end(self._closing or LOST)
        elif self.application_state is DISCONNECTED:
            self._end(DENIED)

    # Foreign senders

    def _is_own(self) -> bool:
        return (current_owner.get() is self._owner and running_loop() is self._loop) or self._loop is None

    async def _send_foreign(self, message: Message) -> None:
        if self.application_state is CONNECTING:
            raise NotAccepted(f"{message['type']} from a foreign sender before the connection is accepted")
        if message["type"] == "websocket.close":
            self._in_loop(lambda: self._disconnect(message["code"], message["reason"]))
            await self._be_patient()
            return
        text, data = message.get("text"), message.get("bytes")
        if (text is None) == (data is None):
            raise ValueError("a websocket.send message holds either text or bytes")
        await self._offer_foreign(codec.check_text(text) if text is not None else codec.check_bytes(data or b""))

    async def _offer_foreign(self, payload: str | bytes) -> None:
        prepared = codec.prepare(payload)
        if running_loop() is not self._loop:
            self._offer_from_elsewhere(prepared)
            await asyncio.sleep(0)
            return
        sink = self.sink
        if self.application_state is not CONNECTED or not sink.alive:
            await self._be_patient()
        elif buffered := sink.buffered:
            limit = self.options.outbox_bytes
            if buffered + _most_bytes(payload) > limit or (buffered * 2 > limit and self._pressed):
                await self._wait_for_room(sink, _most_bytes(payload))
            elif buffered * 2 > limit:
                self._pressed = True
                sink.loop.call_soon(self._relax)
        self._offer(prepared)

    async def _wait_for_room(self, sink: Sink, size: int) -> None:
        """A turn of the loop lets a peer that reads make room; another one if others have taken what was made."""
        for _ in range(SENDS_PER_TURN):
            made = self._room_made
            if not self._awaits_room:
                self._awaits_room = True
                sink.on_writable(self._note_room)
            await asyncio.sleep(0)
            if self._room_made == made or sink.buffered + size <= self.options.outbox_bytes:
                return

    def _note_room(self) -> None:
        self._awaits_room = False
        self._room_made += 1

    def _relax(self) -> None:
        self._pressed = False
        self._unheeded = 0

    async def _be_patient(self) -> None:
        """Keep a loop that only sends to the dead from hogging the event loop.

        As seldom as will do, like the wait for room.
        """
        if not self._unheeded:
            asyncio.get_running_loop().call_soon(self._relax)
        self._unheeded += 1
        if self._unheeded % UNHEEDED_PER_TURN == 0:
            await asyncio.sleep(0)

    def _offer_from_elsewhere(self, prepared: PreparedMessage) -> None:
        """Hand over to the connection's loop. What is on its way there counts against the same bound."""
        size = len(prepared.payload)
        with _handing_over:
            fits = not self._handed_over or self._handed_over + size <= self.options.outbox_bytes
            if fits:
                self._handed_over += size

        def arrive() -> None:
            with _handing_over:
                self._handed_over -= size
            self._offer(prepared)

        self._in_loop(arrive if fits else self._overflow)

    def _offer(self, prepared: PreparedMessage) -> None:
        if self.application_state is not CONNECTED:
            return
        if not self.sink.offer(prepared, self.options.outbox_bytes):
            self._overflow()

    def _overflow(self) -> None:
        if self.options.overflow is Overflow.DROP_NEWEST:
            self.dropped += 1
        elif self.application_state is CONNECTED:
            logger.info("%s: the peer does not read; closing with 1013", shown(self.scope.get("path", "")))
            self._disconnect(1013, "too slow")

    def _disconnect(self, code: int, reason: str) -> None:
        if self.application_state is CONNECTED and not self._has_ended():
            self.application_state = DISCONNECTED
            self._closed_by_foreign = True
            self.sink.disconnect(code, reason)
            self._end(Closed(code=code, reason=reason, by=ClosedBy.US))

    def _in_loop(self, call: Callable[[], None]) -> bool:
        """Run `call` in the connection's loop: now where we are in it, soon otherwise. False: that loop is closed."""
        if self._loop is None or running_loop() is self._loop:
            call()
            return True
        return _hand_over(self._loop, call)

    # The end

    def _has_ended(self) -> bool:
        if self._closed is not None or self.client_state is DISCONNECTED:
            return True
        return self._served_by is not None and not self._served_by.alive and self.application_state is CONNECTED

    def _is_handling(self) -> bool:
        """Whether the endpoint is at work on a message that came before the peer's end.

        A send to the peer is then dropped, not an error: what the peer said last still reaches everybody, and the end
        is told in its turn, by the next receive.
        """
        if self.client_state is not CONNECTED or self._clock() - self._read_at >= HANDLING_SECONDS:
            return False
        closed = self.closed
        return closed is None or closed.by is not ClosedBy.US

    def _gone(self, method: str) -> WebSocketDisconnected:
        closed = self.closed or self._closing or LOST
        excuse_disconnects(running_loop())
        text = f"{method} on a connection that has ended ({closed.code} {closed.reason}".rstrip() + ")"
        return WebSocketDisconnected(text, code=closed.code, reason=closed.reason)

    def _lost(self) -> WebSocketDisconnect:
        """A send has failed: note it, and what to raise."""
        self.application_state = DISCONNECTED
        self._end(LOST)
        closed = self.closed or LOST
        excuse_disconnects(running_loop())
        return WebSocketDisconnect(closed.code, closed.reason)

    def _require_open(self, method: str) -> None:
        if self.client_state is DISCONNECTED or self.application_state is DISCONNECTED:
            raise self._gone(method)

    def _end(self, closed: Closed) -> None:
        if self._carrier is None:
            self._outbox.end(closed)
        self._on_ended(closed)

    def _on_ended(self, closed: Closed) -> None:
        if closed is LOST:
            self._closing = None  # it did not reach the peer
        if self._closed is None:
            self._closed = closed
            if closed.by is ClosedBy.US and self.application_state is CONNECTED:
                self.application_state = DISCONNECTED
            waiters, self._close_waiters = self._close_waiters, []
            for tell in waiters:
                tell()
        elif self._closed is LOST and closed.by is ClosedBy.PEER:
            self._closed = closed  # a failed send came first, the disconnect message knows more

    def _on_disconnect(self, message: Message) -> None:
        # A server's `send` of a Close may last until the peer has answered: the answer then comes first.
        self._end(self._closing or closed_by_message(normalised(message, tells_reason=self._server_tells_reason)))

    def _on_close(self, tell: Callable[[], None]) -> None:
        if self._served_by is not None:
            self._served_by.on_close(tell)
        elif self._closed is not None:
            tell()
        else:
            self._close_waiters.append(tell)
            self._watch()

    def _off_close(self, tell: Callable[[], None]) -> None:
        if self._served_by is not None:
            self._served_by.off_close(tell)
        elif tell in self._close_waiters:
            self._close_waiters.remove(tell)

    def _watch(self) -> None:
        if self._loop is not None and self._served_by is None and self._closed is None:
            self._in_loop(self._inbox.watch)

    def _stop(self, _task: object) -> None:
        """The connection's own task is over, and with it the connection."""
        self._end(LOST)
        self._inbox.stop()
        self._outbox.stop()


def _most_bytes(payload: str | bytes) -> int:
    return len(payload) if isinstance(payload, bytes) or payload.isascii() else 4 * len(payload)


def _owner_token(scope: Scope) -> object:
    """What marks the code of this connection: one for all `WebSocket`s of it, so it lives where scopes share."""
    shared = scope.get("extensions")
    if shared is None:
        shared = scope if "asgi" in scope else {}
    return shared.setdefault(OWNER_EXTENSION, object())


def _checked_close(message: Message, *, on_wire: bool) -> Message:
    """The close with a legal code; before accept it becomes an HTTP response, and any code is legal."""
    code = message.get("code", 1000)
    if on_wire:
        code = check_close_code(code)
    return {"type": "websocket.close", "code": code, "reason": cut_reason(message.get("reason"))}


def _hand_over(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> bool:
    try:
        loop.call_soon_threadsafe(call)
    except RuntimeError:
        return False  # the loop is closed, and its connections with it
    return True
