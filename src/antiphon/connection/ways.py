"""The ways of a message between a connection and its server, behind one protocol: chosen once, at the handshake.

`Direct`: our server, nothing between. `OverAsgi`: any ASGI server, whose dialect is read here, with a reader and a
writer of ours. `OverMiddleware`: our server behind middleware, where messages go over ASGI and the server itself
reports the end.

Knows nothing of states or senders: illegal messages have been refused before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from antiphon.types import CARRIER_EXTENSION, Carrier, ClosedBy, Message, Receive, Scope, Send, Sink

from .options import ConnectionOptions
from .owner import run_in
from .reader import AsgiReader
from .state import LOST, Closed, closed_by_message, normalised, spec_version
from .writer import AsgiWriter, means_closed


class EndListener(Protocol):
    """A way's reports to its connection."""

    def on_ended(self, closed: Closed) -> None:
        """The connection is over."""

    def on_disconnect(self, closed: Closed) -> None:
        """The server's disconnect message came."""


class Way(Protocol):
    """How one connection's messages go to and from its server."""

    receive: Receive
    send: Send

    @property
    def sink(self) -> Sink:
        """Where foreign senders and the hub leave messages."""

    @property
    def alive(self) -> bool:
        """False once the connection is over, as far as anybody can know without receiving."""

    @property
    def forgets_sends(self) -> bool:
        """Whether the server takes sends without an error though the peer is gone (ASGI before 2.4)."""

    @property
    def is_served(self) -> bool:
        """False for callables of a user's own: the user should see their exceptions."""

    def plain(self, message: Message) -> Message:
        """A received message without the server's dialect."""

    def find_end(self) -> Closed | None:
        """How the connection ended, where the server tells unasked. Where it does not, it is watched from now on."""

    def means_closed(self, exc: Exception) -> bool:
        """Whether an error of `send` says that the connection is over."""

    def end(self, closed: Closed) -> None:
        """Count the connection as over, and tell those who asked."""

    def on_close(self, tell: Callable[[], None]) -> None:
        """Call back once, when the connection is over; at once if it is."""

    def off_close(self, tell: Callable[[], None]) -> None:
        """Forget a callback given to `on_close`."""

    async def flushed(self) -> None:
        """Wait until a Close that was left here is with the server, or given up."""


class Direct:
    """Our server, and nothing between."""

    __slots__ = ("carrier", "receive", "send")

    forgets_sends = False
    is_served = True

    def __init__(self, carrier: Carrier, receive: Receive, send: Send) -> None:
        self.carrier: Carrier = carrier
        self.receive: Receive = receive
        self.send: Send = send

    @property
    def sink(self) -> Sink:
        """The connection's own outbox on the server."""
        return self.carrier

    @property
    def alive(self) -> bool:
        """`Way`."""
        return self.carrier.alive

    def plain(self, message: Message) -> Message:
        """`Way`: our server has no dialect."""
        return message

    def find_end(self) -> Closed | None:
        """`Way`."""
        return end_of(self.carrier)

    def means_closed(self, exc: Exception) -> bool:
        """`Way`."""
        return means_closed(exc)

    def end(self, closed: Closed) -> None:
        """`Way`: the server knows before us."""

    def on_close(self, tell: Callable[[], None]) -> None:
        """`Way`."""
        self.carrier.on_close(tell)

    def off_close(self, tell: Callable[[], None]) -> None:
        """`Way`."""
        self.carrier.off_close(tell)

    async def flushed(self) -> None:
        """`Way`: nothing to wait for, the server has taken every message."""


class OverAsgi:
    """Any ASGI server."""

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        *,
        loop: asyncio.AbstractEventLoop | None,
        options: ConnectionOptions,
        connection: EndListener,
    ) -> None:
        version = spec_version(scope)
        self._tells_reason = version >= (2, 3)
        self.forgets_sends: bool = (0,) < version < (2, 4)
        self.is_served: bool = version > (0,)
        self._loop = loop
        self._connection = connection
        self.reader: AsgiReader = AsgiReader(receive, limit=options.inbox_bytes, on_disconnect=self._on_disconnect)
        self.writer: AsgiWriter = AsgiWriter(
            send, loop=loop, timeout=options.send_timeout, on_ended=connection.on_ended, watch=self._watch
        )
        self.receive: Receive = self.reader.get
        self.send: Send = self.writer.send
        if loop is not None and (task := asyncio.current_task()) is not None:
            task.add_done_callback(self._task_over)

    @property
    def sink(self) -> Sink:
        """The queue in front of the server's `send`."""
        return self.writer

    @property
    def alive(self) -> bool:
        """`Way`."""
        return self.writer.alive

    def plain(self, message: Message) -> Message:
        """`Way`."""
        return normalised(message, tells_reason=self._tells_reason)

    def find_end(self) -> Closed | None:
        """`Way`: ASGI tells of the end in answer to a receive alone."""
        self._watch()
        return None

    def means_closed(self, exc: Exception) -> bool:
        """`Way`."""
        return means_closed(exc)

    def end(self, closed: Closed) -> None:
        """`Way`."""
        self.writer.end(closed)

    def on_close(self, tell: Callable[[], None]) -> None:
        """`Way`."""
        self.writer.on_close(tell)

    def off_close(self, tell: Callable[[], None]) -> None:
        """`Way`."""
        self.writer.off_close(tell)

    async def flushed(self) -> None:
        """`Way`."""
        await self.writer.finish()

    def _watch(self) -> None:
        if self._loop is not None and self.writer.alive:
            run_in(self._loop, self.reader.watch)

    def _on_disconnect(self, message: Message) -> None:
        self._connection.on_disconnect(closed_by_message(self.plain(message)))

    def _task_over(self, _task: object) -> None:
        """The connection's own task is over, and with it the connection."""
        self.writer.end(LOST)
        self.reader.stop()
        self.writer.stop()


class OverMiddleware(OverAsgi):
    """Our server, behind middleware that sees every message."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, *, carrier: Carrier, **more: Any) -> None:
        super().__init__(scope, receive, send, **more)
        self._carrier = carrier
        carrier.on_close(lambda: self.end(end_of(carrier) or LOST))

    @property
    def alive(self) -> bool:
        """`Way`."""
        return self._carrier.alive and self.writer.alive

    def find_end(self) -> Closed | None:
        """`Way`."""
        return end_of(self._carrier)

    def on_close(self, tell: Callable[[], None]) -> None:
        """`Way`."""
        self._carrier.on_close(tell)

    def off_close(self, tell: Callable[[], None]) -> None:
        """`Way`."""
        self._carrier.off_close(tell)

    def _watch(self) -> None:
        """The server tells."""


def end_of(carrier: Carrier) -> Closed | None:
    """How our server says that the connection ended. None while it is open."""
    code = carrier.close_code
    if code is None:
        return None
    return Closed(code=code, reason=carrier.close_reason, by=carrier.closed_by or ClosedBy.NOBODY)


def carrier_of(scope: Scope) -> Carrier | None:
    """Our server, whether or not middleware stands between it and us."""
    carrier: Carrier | None = (scope.get("extensions") or {}).get(CARRIER_EXTENSION)
    return carrier


def is_unwrapped(carrier: Carrier, receive: Receive, send: Send) -> bool:
    """Whether both callables are our server's own: no middleware wants to see the messages."""
    return getattr(receive, "__self__", None) is carrier and getattr(send, "__self__", None) is carrier
