"""One connection's states and its end, and raw ASGI messages checked against them: what `WebSocket` stands on.

Checks every message against the tables and sends it by the way that was chosen (`ways.py`), or leaves it to
`foreign.py`. Compatibility with Starlette's habits stops here and in `websocket.py`.

Knows nothing of routing, of how an endpoint's ending becomes a close code, or of the hub.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final, Generic

import anyio.lowlevel
from starlette.requests import HTTPConnection, StateT

from antiphon.exceptions import WebSocketDisconnect, WebSocketDisconnected
from antiphon.status import check_close_code, cut_reason
from antiphon.types import Carrier, ClosedBy, Message, Receive, Scope, Send, Sink

from .excuse import excuse_disconnects
from .foreign import ForeignSenders
from .options import ConnectionOptions
from .owner import current_owner, owner_token, run_in, run_soon, running_loop
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
    unexpected,
)
from .ways import Direct, OverAsgi, OverMiddleware, Way, carrier_of, is_unwrapped

OPTIONS_KEY: Final = "antiphon.connection_options"
"""Key in the scope under which an application may put its `ConnectionOptions`."""

SENDS_UNHEARD: Final = 4
"""Sends in a row without a receive, after which a server that never refuses a send is watched for the disconnect."""

OPEN_RECEIVES: Final = RECEIVES[CONNECTED]
OPEN_SENDS: Final = SENDS[CONNECTED]
"""Beside the tables because to hash an enum member costs as much as a coroutine (benchmarks: echo-32)."""

SENDS_PER_TURN: Final = 16
"""Sends in a row without a receive, after which the loop gets a turn: a server whose `send` never suspends would not
even learn that the peer is gone."""

HANDLING_SECONDS: Final = 0.05
"""After a message was read, its handling may go on this long before `send_text` and its like learn that the peer is
gone. Long enough for a loop over all connections, short enough for an endpoint that only sends from then on."""


class Channel(HTTPConnection[StateT], Generic[StateT]):
    """States, raw messages and the end of one connection; `WebSocket` adds the typed methods."""

    options: ConnectionOptions = ConnectionOptions()
    """The limits: the class's, or those that the application put into the scope."""

    client_state: WebSocketState
    """What has come from the client's side. Source: Starlette."""

    application_state: WebSocketState
    """What the application has sent. Source: Starlette."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket":
            raise ValueError(f"a WebSocket needs a scope of type 'websocket', not {scope['type']!r}")
        super().__init__(scope)
        self.client_state = CONNECTING
        self.application_state = CONNECTING
        self.options = scope.get(OPTIONS_KEY) or self.options
        self._loop = running_loop()
        self._thread = threading.get_ident()
        self._owner = owner_token(scope)
        current_owner.set(self._owner)
        self._clock: Callable[[], float] = time.monotonic if self._loop is None else self._loop.time
        self._read_at = -HANDLING_SECONDS
        """When the endpoint last read a message of the peer."""
        self._closed: Closed | None = None
        self._closing: Closed | None = None
        """The Close that the endpoint has given, and that may still wait for the peer to read."""
        self._closed_by_foreign = False
        self._unheard = 0
        self._foreign_senders: ForeignSenders | None = None
        self._carrier: Carrier | None = None
        """Our server, when nothing stands between: the short way."""
        self._way: Way = self._choose_way(receive, send)

    def _choose_way(self, receive: Receive, send: Send) -> Way:
        carrier = carrier_of(self.scope)
        # A subclass that overrides these is to see every message too.
        overridden = type(self).receive is not Channel.receive or type(self).send is not Channel.send
        if carrier is None:
            return OverAsgi(self.scope, receive, send, loop=self._loop, options=self.options, connection=self)
        if overridden or not is_unwrapped(carrier, receive, send):
            return OverMiddleware(
                self.scope, receive, send, carrier=carrier, loop=self._loop, options=self.options, connection=self
            )
        self._carrier = carrier
        return Direct(carrier, receive, send)

    # How it is

    @property
    def closed(self) -> Closed | None:
        """How the connection ended, or None while it is open. Known without receiving."""
        if self._closed is None or self._closed is LOST:
            return self._way.find_end() or self._closed
        return self._closed

    @property
    def is_connected(self) -> bool:
        """Whether the connection is accepted and, as far as anybody can know, open. Known without receiving.

        On servers other than antiphon's the first question only starts the watch: a disconnect is seen from the next
        turn of the loop on.
        """
        return self.application_state is CONNECTED and self.client_state is CONNECTED and self.closed is None

    @property
    def dropped(self) -> int:
        """Messages of foreign senders that `Overflow.DROP_NEWEST` has dropped."""
        return 0 if self._foreign_senders is None else self._foreign_senders.dropped

    @property
    def sink(self) -> Sink:
        """Where the hub and others that must never wait leave messages for this connection."""
        return self._way.sink

    async def wait_closed(self) -> Closed:
        """Wait until the connection has ended: a Close was sent or came, or it was lost. May run in any event loop."""
        if (closed := self.closed) is not None:
            return closed
        loop = asyncio.get_running_loop()
        ended = loop.create_future()

        def tell() -> None:
            run_soon(loop, lambda: None if ended.done() else ended.set_result(None))

        if run_in(self._loop, lambda: self._way.on_close(tell)):
            try:
                await ended
            finally:
                run_in(self._loop, lambda: self._way.off_close(tell))
        return self.closed or LOST

    async def flushed(self) -> None:
        """Wait until a Close that a foreign sender or a cancelled task has left is with the server, or given up."""
        await self._way.flushed()

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
        message = await self._way.receive()
        try:
            self.client_state = expected[message["type"]]
        except KeyError:
            raise RuntimeError(unexpected(expected, message["type"])) from None
        if message["type"] == "websocket.receive":
            self._read_at = self._clock()
        return self._way.plain(message)

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
        if kind in OPEN_SENDS and not self._is_own():
            await self._foreign().send(message)
            return
        expected = self._expected_sends(kind)
        had_ended = self._has_ended()
        if expected is None or (had_ended and not self._sends_to_nobody(kind)):
            return
        if not message.get("more_body", False):
            self.application_state = expected[kind]
        if kind == "websocket.close":
            self._closing = Closed(code=message["code"], reason=message["reason"], by=ClosedBy.US)
        try:
            await self._way.send(message)
        except (OSError, RuntimeError) as exc:
            if not self._way.means_closed(exc):
                raise
            if kind == "websocket.send" and self._way.is_served and self._is_handling():
                self._end(LOST)
                return
            if not (had_ended and kind == "websocket.close"):  # closing what the peer has closed is no error
                raise self._lost() from exc
        if kind == "websocket.send":
            await self._sent()
        else:
            self._send_ended(message)

    def _expected_sends(self, kind: str) -> Mapping[str, WebSocketState] | None:
        """What the state allows, if `kind` is among it; None for a Close that the endpoint need not give any more."""
        expected = OPEN_SENDS if self.application_state is CONNECTED else SENDS[self.application_state]
        if not expected:
            if kind == "websocket.close" and self._closed_by_foreign:
                return None  # the endpoint could not know
            raise self._gone("send")
        if kind not in expected:
            raise RuntimeError(unexpected(expected, kind))
        return expected

    def _sends_to_nobody(self, kind: str) -> bool:
        """On a connection that has ended: whether the message goes to the server all the same. Raises for most."""
        if kind == "websocket.send" and self._is_handling():
            return False
        if kind in ("websocket.accept", "websocket.send"):
            raise self._gone("send")
        return True

    async def _sent(self) -> None:
        """An own message is with the server: look whether anybody hears, and let the loop turn, from time to time."""
        self._unheard += 1
        if self._way.forgets_sends and self._unheard == SENDS_UNHEARD:
            self._way.find_end()
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

    def _foreign(self) -> ForeignSenders:
        if self._foreign_senders is None:
            self._foreign_senders = ForeignSenders(self, self._loop, path=self.scope.get("path", ""))
        return self._foreign_senders

    def end_by_foreign(self, code: int, reason: str) -> None:
        """`foreign.Receiver`: close behind what is buffered, for somebody else than the endpoint."""
        if self.application_state is CONNECTED and not self._has_ended():
            self.application_state = DISCONNECTED
            self._closed_by_foreign = True
            self.sink.disconnect(code, reason)
            self._end(Closed(code=code, reason=reason, by=ClosedBy.US))

    # The end

    def _has_ended(self) -> bool:
        if self._closed is not None or self.client_state is DISCONNECTED:
            return True
        return self.application_state is CONNECTED and not self._way.alive

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
        self._way.end(closed)
        self.on_ended(closed)

    def on_ended(self, closed: Closed) -> None:
        """`ways.Ending`: note how the connection ended. Here alone."""
        if closed is LOST:
            self._closing = None  # it did not reach the peer
        if self._closed is None:
            self._closed = closed
            if closed.by is ClosedBy.US and self.application_state is CONNECTED:
                self.application_state = DISCONNECTED
        elif self._closed is LOST and closed.by is ClosedBy.PEER:
            self._closed = closed  # a failed send came first, the disconnect message knows more

    def on_disconnect(self, closed: Closed) -> None:
        """`ways.Ending`: the server's disconnect message came."""
        # A server's `send` of a Close may last until the peer has answered: the answer then comes first.
        self._end(self._closing or closed)


def _checked_close(message: Message, *, on_wire: bool) -> Message:
    """The close with a legal code; before accept it becomes an HTTP response, and any code is legal."""
    code = message.get("code", 1000)
    if on_wire:
        code = check_close_code(code)
    return {"type": "websocket.close", "code": code, "reason": cut_reason(message.get("reason"))}
