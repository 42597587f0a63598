"""The state of one connection, and its end: the states, the calls they allow, and the errors for the rest.

The one place where an end is noted. Knows nothing of payloads, or of senders.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Final

import anyio

from antiphon.exceptions import WebSocketDisconnect, WebSocketDisconnected
from antiphon.shown import shown
from antiphon.types import ClosedBy, Message, Scope, Sink

from .denials import closes
from .owner import running_loop
from .refusing import begin, refuse_readably
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
from .unretrieved import excuse_disconnects
from .ways import Way

OPEN_RECEIVES: Final = RECEIVES[CONNECTED]
OPEN_SENDS: Final = SENDS[CONNECTED]
"""Beside the tables because to hash an enum member costs as much as a coroutine (benchmarks: echo-32)."""

ENDING_METHODS: Final = {"websocket.accept": "accept()", "websocket.close": "close()"}

HANDLING_SECONDS: Final = 0.05
"""After a message was read, its handling may go on this long before `send_text` and its like learn that the peer is
gone. Long enough for a loop over all connections, short enough for an endpoint that only sends from then on."""

LONG_AGO: Final = -HANDLING_SECONDS

USES_IN_VAIN: Final = 100
"""Uses of a connection that has ended, after which a further one waits. A loop that catches every exception awaits
nothing else: it would hold up all connections of the process, and its stop."""

VAIN_SECONDS: Final = 1.0
"""Of a use that waits for something of the peer's. A send waits for a turn of the event loop alone: it may be one of
many to a list of connections, from which nobody takes those that have ended."""

logger: Final = logging.getLogger("antiphon")


class Life:
    """The states of one connection, and its end. `way` is set before anything is asked."""

    __slots__ = (
        "answering", "application_state", "client_state", "clock", "closing", "ended", "ended_by_foreign", "in_vain",
        "loop", "on_over", "read_at", "way",
    )  # fmt: skip

    way: Way

    def __init__(self, loop: asyncio.AbstractEventLoop | None, clock: Callable[[], float]) -> None:
        self.loop: asyncio.AbstractEventLoop | None = loop
        """The connection's. None where it runs on trio."""
        self.client_state: WebSocketState = CONNECTING
        self.application_state: WebSocketState = CONNECTING
        self.clock: Callable[[], float] = clock
        self.read_at: float = LONG_AGO
        """When the endpoint last read a message of the peer."""
        self.ended: Closed | None = None
        """How the connection ended, as far as a message told. `closed` knows more."""
        self.closing: Closed | None = None
        """The Close that the endpoint has given, and that may still wait for the peer to read."""
        self.ended_by_foreign: bool = False
        self.in_vain: int = 0
        """Uses behind the end."""
        self.answering: asyncio.Task[None] | None = None
        """Somebody else than the endpoint answers the handshake."""
        self.on_over: Callable[[], None] | None = None
        """Called when the connection is over, by those ways that tell unasked."""

    # State

    @property
    def closed(self) -> Closed | None:
        """How the connection ended, or None while it is open."""
        if self.ended is None or self.ended is LOST:
            return self.way.find_end() or self.ended
        return self.ended

    @property
    def sink(self) -> Sink:
        """`foreign.Receiver`: the bounded outbox."""
        return self.way.sink

    def has_ended(self) -> bool:
        """Whether anybody knows of an end, without asking for it."""
        if self.ended is not None or self.client_state is DISCONNECTED:
            return True
        return self.application_state is CONNECTED and not self.way.alive

    def is_handling(self) -> bool:
        """Whether the endpoint is at work on a message that came before the peer's end.

        A send to the peer is then dropped, not an error: the peer's last words still reach everybody, and the next
        receive reports the end.
        """
        if self.client_state is not CONNECTED or self.clock() - self.read_at >= HANDLING_SECONDS:
            return False
        closed = self.closed
        return closed is None or closed.by is not ClosedBy.US

    # Allowed calls

    def expected_receives(self) -> Mapping[str, WebSocketState]:
        """The messages that may come now, and the next states. Raises WebSocketDisconnected after a disconnect."""
        expected = OPEN_RECEIVES if self.client_state is CONNECTED else RECEIVES[self.client_state]
        if not expected:
            raise self.gone("receive")
        return expected

    def expected_sends(self, kind: str) -> Mapping[str, WebSocketState] | None:
        """The allowed sends, if `kind` is among them. None for a Close that the endpoint need not give any more."""
        expected = OPEN_SENDS if self.application_state is CONNECTED else SENDS[self.application_state]
        if not expected:
            if kind == "websocket.close" and self.ended_by_foreign:
                return None  # the endpoint could not know
            raise self.gone(ENDING_METHODS.get(kind, "send"))
        if kind not in expected:
            raise RuntimeError(unexpected(expected, kind))
        return expected

    def may_send_to_nobody(self, kind: str) -> bool:
        """On a connection that has ended: whether the message still goes to the server.

        False for a message that is dropped because the endpoint is at work on the peer's last words. Raises if the
        endpoint has to learn of the end now.
        """
        if kind == "websocket.send" and self.is_handling():
            return False
        if kind in ("websocket.accept", "websocket.send"):
            raise self.gone("send")
        return True

    def require_open(self, method: str) -> None:
        """Raises WebSocketDisconnected when either side is done."""
        if self.client_state is DISCONNECTED or self.application_state is DISCONNECTED:
            raise self.gone(method)

    # The end

    def end(self, closed: Closed) -> None:
        """The connection is over: tell those that wait, and note it."""
        self.way.end(closed)
        self.on_ended(closed)

    def end_by_foreign(self, code: int, reason: str) -> None:
        """`foreign.Receiver`: close behind the buffer, for another than the endpoint."""
        if self.application_state is CONNECTED and not self.has_ended():
            self.application_state = DISCONNECTED
            self.ended_by_foreign = True
            self.way.sink.disconnect(code, reason)
            self.end(Closed(code=code, reason=reason, by=ClosedBy.US))

    def refuse_by_foreign(self, code: int, reason: str) -> bool:
        """Refuse the handshake, for other code than the endpoint. False where it was answered before.

        The caller sends the answer, in the task `answering`.
        """
        if self.application_state is not CONNECTING or self.has_ended():
            return False
        self.application_state = DISCONNECTED
        self.ended_by_foreign = True
        self.end(Closed(code=code, reason=reason, by=ClosedBy.US))
        return True

    def refuse_handshake(self, scope: Scope, code: int, reason: str) -> bool:
        """Refuse it for other code than the endpoint, where denials are closes that a page can read.

        False: they are not, or the handshake has been answered. In the connection's loop.
        """
        if not closes(scope) or not self.refuse_by_foreign(code, reason):
            return False
        self.answering = begin(refuse_readably(scope, self.way.send, code, reason))
        return True

    def sent_last(self, message: Message) -> None:
        """A message other than data is with the server: note the end, if it is one."""
        if message["type"] == "websocket.close":
            self.end(self.closing or LOST)
        elif self.application_state is DISCONNECTED:
            self.end(DENIED)

    def on_ended(self, closed: Closed) -> None:
        """`ways.EndListener`."""
        if self.on_over is not None:
            self.on_over()
        if closed is LOST:
            self.closing = None  # it did not reach the peer
        if self.ended is None:
            self.ended = closed
            if closed.by is ClosedBy.US and self.application_state is CONNECTED:
                self.application_state = DISCONNECTED
        elif self.ended is LOST and closed.by is ClosedBy.PEER:
            self.ended = closed  # a failed send came first, the disconnect message knows more

    def on_disconnect(self, closed: Closed) -> None:
        """`ways.EndListener`."""
        # A server's `send` of a Close may last until the peer has answered: the answer then comes first.
        self.end(self.closing or closed)

    def gone(self, method: str) -> WebSocketDisconnected:
        """The error for a use of a connection that has ended."""
        closed = self.closed or self.closing or LOST
        excuse_disconnects(running_loop())
        text = f"{method} on a connection that has ended ({closed.code} {closed.reason}".rstrip() + ")"
        return WebSocketDisconnected(text, code=closed.code, reason=closed.reason)

    async def used_in_vain(self, scope: Scope, seconds: float = VAIN_SECONDS) -> None:
        """The connection was used behind its end. A loop that does so for ever has to wait, and is told of once."""
        self.in_vain += 1
        if self.in_vain < USES_IN_VAIN:
            return
        if self.in_vain == USES_IN_VAIN:
            logger.warning(
                "%s: a connection that has ended was used %d times since: end the loop with `except "
                "WebSocketDisconnect`, ahead of an `except Exception`, or take the connection out of your list",
                shown(scope.get("path", "")),
                USES_IN_VAIN,
            )
        await anyio.sleep(seconds)

    def lost(self) -> WebSocketDisconnect:
        """A send has failed: note it. Returns the exception to raise."""
        self.application_state = DISCONNECTED
        self.end(LOST)
        closed = self.closed or LOST
        excuse_disconnects(running_loop())
        return WebSocketDisconnect(closed.code, closed.reason)
