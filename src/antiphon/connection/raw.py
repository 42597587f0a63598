"""Raw ASGI messages of one connection, checked against its states: the base of `WebSocket`.

Checks every message (`life.py`) and sends it by the way that was chosen (`ways.py`), or leaves it to `foreign.py`.
Compatibility with Starlette's habits stops here and in `websocket.py`.

Knows nothing of routing, of close codes for an endpoint's ending, or of the hub.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, Generic

import anyio.lowlevel
from starlette.requests import HTTPConnection, StateT

from antiphon.exceptions import WebSocketDisconnected
from antiphon.identity import IDENTITY_KEY, Identity
from antiphon.status import check_close_code, cut_reason
from antiphon.types import Carrier, ClosedBy, Message, Receive, Scope, Send, Sink, StopListener

from .foreign import ForeignSenders
from .life import OPEN_SENDS, Life
from .options import ConnectionOptions
from .owner import clock_of, current_owner, owner_token, run_in, run_soon, running_loop, this_thread
from .state import CONNECTED, CONNECTING, LOST, Closed, WebSocketState, unexpected
from .ways import Direct, OverAsgi, OverMiddleware, Way, carrier_of, is_unwrapped

OPTIONS_KEY: Final = "antiphon.connection_options"
"""Key in the scope under which an application may put its `ConnectionOptions`."""

SENDS_UNHEARD: Final = 4
"""Sends in a row without a receive, after which a server that never refuses a send is watched for the disconnect."""

SENDS_PER_TURN: Final = 16
"""Sends in a row without a receive, after which the loop gets a turn: a server whose `send` never suspends would not
even learn that the peer is gone."""


class RawWebSocket(HTTPConnection[StateT], Generic[StateT]):
    """States, raw messages and the end of one connection. `WebSocket` adds the typed methods."""

    options: ConnectionOptions = ConnectionOptions()
    """The limits: the class's, or those that the application put into the scope."""

    refused: Closed | None = None
    """The arguments of a `close()` before accept: the peer sees a 403, or this with `Denials.CLOSE`."""

    _intake: Any = None
    """The `Intake` of `paced.py`, which makes messages wait."""

    _unheard: int = 0
    """Own sends since the last receive."""

    _foreign_senders: ForeignSenders | None = None
    """From the first of them on."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket":
            raise ValueError(f"a WebSocket needs a scope of type 'websocket', not {scope['type']!r}")
        super().__init__(scope)
        if OPTIONS_KEY in scope:
            self.options = scope[OPTIONS_KEY] or self.options
        self._loop = running_loop()
        self._thread = this_thread()
        self._owner = owner_token(scope)
        current_owner.set(self._owner)
        self._life = Life(self._loop, clock_of(self._loop))
        self._carrier: Carrier | None = None
        """Our server, when nothing stands between: the short way."""
        self._life.way = self._choose_way(receive, send)

    def _choose_way(self, receive: Receive, send: Send) -> Way:
        carrier = carrier_of(self.scope)
        # A subclass that overrides these is to see every message too.
        overridden = type(self).receive is not RawWebSocket.receive or type(self).send is not RawWebSocket.send
        if carrier is None:
            return OverAsgi(self.scope, receive, send, loop=self._loop, options=self.options, connection=self._life)
        if overridden or not is_unwrapped(carrier, receive, send):
            return OverMiddleware(
                self.scope, receive, send, carrier=carrier, loop=self._loop, options=self.options, connection=self._life
            )
        self._carrier = carrier
        return Direct(carrier, receive, send)

    # How it is

    @property
    def client_state(self) -> WebSocketState:
        """The state of the client's side. Source: Starlette."""
        return self._life.client_state

    @client_state.setter
    def client_state(self, state: WebSocketState) -> None:
        self._life.client_state = state

    @property
    def application_state(self) -> WebSocketState:
        """The state of the application's side. Source: Starlette."""
        return self._life.application_state

    @application_state.setter
    def application_state(self, state: WebSocketState) -> None:
        self._life.application_state = state

    @property
    def closed(self) -> Closed | None:
        """How the connection ended, or None while it is open. Known without receiving."""
        return self._life.closed

    @property
    def identity(self) -> Identity | None:
        """The user at the other end, as a dependency has found out (`JWT`, `WebSocketBearer`). None: no dependency
        has."""
        identity: Identity | None = self.scope.get(IDENTITY_KEY)
        return identity

    @property
    def is_connected(self) -> bool:
        """Whether the connection is accepted and, as far as anybody can know, open. Known without receiving.

        On servers other than antiphon's the first question only starts the watch: a disconnect is seen from the next
        turn of the loop on.
        """
        life = self._life
        return life.application_state is CONNECTED and life.client_state is CONNECTED and life.closed is None

    @property
    def dropped(self) -> int:
        """Messages of foreign senders that `Overflow.DROP_NEWEST` has dropped."""
        return 0 if self._foreign_senders is None else self._foreign_senders.dropped

    @property
    def sink(self) -> Sink:
        """Where the hub and others that must never wait leave messages for this connection."""
        return self._life.way.sink

    def listen_for_stop(self, listener: StopListener | None) -> None:
        """Have the listener asked when the server stops. None: nobody. Other servers than antiphon's ask nobody."""
        carrier = carrier_of(self.scope)
        if carrier is not None:
            carrier.at_stop = listener

    async def wait_closed(self) -> Closed:
        """Wait until the connection has ended: a Close was sent or came, or it was lost. May run in any event loop."""
        if (closed := self.closed) is not None:
            return closed
        loop = asyncio.get_running_loop()
        ended = loop.create_future()

        def tell() -> None:
            run_soon(loop, lambda: None if ended.done() else ended.set_result(None))

        if run_in(self._loop, lambda: self._life.way.on_close(tell)):
            try:
                await ended
            finally:
                run_in(self._loop, lambda: self._life.way.off_close(tell))
        return self.closed or LOST

    async def flushed(self) -> None:
        """Wait until a Close that a foreign sender or a cancelled task has left is with the server, or given up."""
        if self._life.answering is not None:
            await asyncio.wait([self._life.answering])
        await self._life.way.flushed()

    @property
    def life(self) -> Life:
        """The states of the connection: for those that end it from outside."""
        return self._life

    # Raw ASGI messages

    async def receive(self) -> Message:
        """The next ASGI message, checked against the state (ASGI WebSocket spec; Starlette's `receive`).

        Raises RuntimeError for a message that is not legal now and for two receives at one time,
        `WebSocketDisconnected` after the disconnect message, which itself is returned.
        """
        life = self._life
        try:
            expected = life.expected_receives()
        except WebSocketDisconnected:
            await life.used_in_vain(self.scope)
            raise
        if self._unheard:
            self._unheard = 0
        message = await (life.way.receive() if self._intake is None else self._intake.receive(self))
        try:
            life.client_state = expected[message["type"]]
        except KeyError:
            raise RuntimeError(unexpected(expected, message["type"])) from None
        if message["type"] == "websocket.receive":
            life.read_at = life.clock()
        return life.way.plain(message)

    async def send(self, message: Message) -> None:
        """Send an ASGI message, checked against the state (ASGI WebSocket spec; Starlette's `send`).

        A close code that may not go on the wire is a ValueError. A reason is cut to the size of a Close frame. Raises
        RuntimeError for a message that is not legal now, `WebSocketDisconnected` on a connection that has ended, and
        `WebSocketDisconnect` when it is lost meanwhile. In the first moments after a message of the peer was read, a
        message to a lost peer is dropped instead, and the next receive tells the end. Data and closes of foreign
        senders go their own way.
        """
        try:
            kind = message["type"]
        except (KeyError, TypeError):
            raise TypeError(f"send() takes an ASGI message, a dict with its type, not {message!r}") from None
        life = self._life
        if kind == "websocket.close":
            message = _checked_close(message, on_wire=life.application_state is not CONNECTING)
            if life.application_state is CONNECTING:
                self.refused = Closed(code=message["code"], reason=message["reason"], by=ClosedBy.US)
        if kind in OPEN_SENDS and not self._is_own():
            await self._foreign().send(message)
            return
        try:
            expected = life.expected_sends(kind)
            had_ended = life.has_ended()
            if expected is None or (had_ended and not life.may_send_to_nobody(kind)):
                return
        except WebSocketDisconnected:
            await life.used_in_vain(self.scope, 0)
            raise
        if not message.get("more_body", False):
            life.application_state = expected[kind]
        if kind == "websocket.close":
            life.closing = Closed(code=message["code"], reason=message["reason"], by=ClosedBy.US)
        try:
            await life.way.send(message)
        except (OSError, RuntimeError) as exc:
            if not life.way.means_closed(exc):
                raise
            if kind == "websocket.send" and life.way.is_served and life.is_handling():
                life.end(LOST)
                return
            if not (had_ended and kind == "websocket.close"):  # closing after the peer has closed is no error
                raise life.lost() from exc
        if kind == "websocket.send":
            await _sent(self)
        else:
            life.sent_last(message)

    def _note_refused(self, closed: Closed) -> None:
        """The connection was opened only to be refused."""
        self.refused = closed

    # Foreign senders

    def _is_own(self) -> bool:
        return (current_owner.get() is self._owner and running_loop() is self._loop) or self._loop is None

    def _foreign(self) -> ForeignSenders:
        if self._foreign_senders is None:
            path = self.scope.get("path", "")
            self._foreign_senders = ForeignSenders(self._life, self._loop, options=self.options, path=path)
        return self._foreign_senders


async def _sent(websocket: RawWebSocket[Any]) -> None:
    """An own message is with the server: look whether anybody hears, and let the loop turn, from time to time."""
    websocket._unheard += 1
    way = websocket._life.way
    if way.forgets_sends and websocket._unheard == SENDS_UNHEARD:
        way.find_end()
    if websocket._unheard % SENDS_PER_TURN == 0:
        await anyio.lowlevel.checkpoint()


def _checked_close(message: Message, *, on_wire: bool) -> Message:
    """The close with a legal code; before accept it becomes an HTTP response, and any code is legal."""
    code = message.get("code", 1000)
    if on_wire:
        code = check_close_code(code)
    return {"type": "websocket.close", "code": code, "reason": cut_reason(message.get("reason"))}
