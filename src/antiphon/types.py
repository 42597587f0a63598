"""Words every part speaks: ASGI's callables, and the seam between the hub, a connection and the server.

Owns no behaviour beyond `PreparedMessage`; imports nothing of ours.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, Protocol, TypeAlias, runtime_checkable

__all__ = [
    "ASGIApp",
    "Carrier",
    "ClosedBy",
    "Message",
    "Overflow",
    "PreparedMessage",
    "Receive",
    "Scope",
    "Send",
    "Sink",
    "SupportsSink",
]

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

CARRIER_EXTENSION: Final = "antiphon.carrier"
"""Key in `scope["extensions"]` under which our server offers its `Carrier`."""

OBSERVERS_EXTENSION: Final = "antiphon.observers"
"""Key in `scope["extensions"]` under which our server names its observers, a tuple, for events that it does not see
itself."""

APP_KEY: Final = "antiphon.app"
"""Key in the scope: our own `App`, also below a mounted foreign one that has overwritten `scope["app"]`."""

RERAISE_EXTENSION: Final = "antiphon.reraise"
"""Key in `scope["extensions"]`: an endpoint's exceptions should reach the server too, once the connection is closed.

The test client sets it, so that a test meets exceptions, a `WebSocketDisconnect` included, as with Starlette's.
"""

LEAVING_EXTENSION: Final = "antiphon.leaving"
"""Key in `scope["extensions"]`: a function to call when the endpoint has returned or raised.

From then on the application is on its way out: teardown, handlers and background tasks are left. The test client sets
it, so that it waits for those, but not for an endpoint that never ends.
"""

DECLARED_EXTENSION: Final = "antiphon.declared"
"""Key in the scope of a connection that declares its messages: a frozenset of their classes. Only typed topics of these
may be joined."""

WHEN_REVOKED_KEY: Final = "antiphon.when_revoked"
"""Key in the scope: a function of it, called when a revocation ends the handshake."""

WRITE_KEY: Final = "antiphon.write"
"""Key in the scope of a connection that declares its messages: a function from a message to its JSON, with the tag."""

ANSWER_KEY: Final = "antiphon.subprotocol"
"""Key in the scope: the subprotocol that `accept()` selects where the endpoint names none that the client offers.

None: none is left. Where the key is, a token may have been among the client's offers: logs show nothing of it."""

ACCEPTED_KEY: Final = "antiphon.accepted"
"""Key in the scope of a connection that a dependency had to accept: the subprotocol it answered, or "".

The endpoint's own first `accept()` then does nothing."""


STOPPING: Final = "the server restarts"
"""Reason of the Close 1012 of a stopping server."""


class StopListener(Protocol):
    """A `Carrier` asks it when its server stops."""

    def defers_stop(self) -> bool:
        """Whether the app is at work on a message. It then closes with 1012 when that is answered, or is cancelled
        when the grace period of the stop is over."""


class Overflow(enum.Enum):
    """The policy of a full outbox for one message more.

    For example:

        hub = Hub(topics={"prices": TopicOptions(overflow=Overflow.CONFLATE, conflate_by="symbol")})
    """

    DISCONNECT = "disconnect"
    DROP_OLDEST = "drop-oldest"
    DROP_NEWEST = "drop-newest"
    CONFLATE = "conflate"


class ClosedBy(enum.Enum):
    """The side that ended a connection.

    For example:

        if (await websocket.wait_closed()).by is ClosedBy.NOBODY:
            print("the connection was lost")
    """

    PEER = "peer"
    US = "us"
    NOBODY = "nobody"
    """The connection was lost: no Close frame from either side (code 1006)."""


class PreparedMessage:
    """One message, encoded once for any number of connections.

    `payload` is a `str` (sent as a text frame) or `bytes` (a binary frame) and never changes. The other attributes are
    caches that a server fills on first need. A reader of None encodes and stores.

        from antiphon.types import PreparedMessage, SupportsSink

        def tell(receivers: list[SupportsSink]) -> None:
            news = PreparedMessage("hello")  # encoded once
            for receiver in receivers:
                receiver.sink.offer(news, 1 << 20)
    """

    __slots__ = ("deflated", "frame", "payload")

    def __init__(self, payload: str | bytes) -> None:
        self.payload: Final = payload
        self.frame: bytes | None = None
        """The whole unmasked, uncompressed frame (RFC 6455 §5.2)."""
        self.deflated: bytes | None = None
        """The whole unmasked frame compressed without context takeover (RFC 7692 §7.2.1)."""


class Sink(Protocol):
    """Where a sender that must never wait puts messages for one connection.

    All methods are called in the thread of `loop`. None of them waits or raises for the state of the peer.
    """

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop that owns the connection. Senders elsewhere hand over with `call_soon_threadsafe`."""

    @property
    def alive(self) -> bool:
        """False once a Close was sent or received or the connection was lost."""

    @property
    def buffered(self) -> int:
        """Bytes taken and not yet given to the operating system."""

    def offer(self, message: PreparedMessage, limit: int) -> bool:
        """Take the message unless `buffered` would pass `limit` bytes by it. False when it was not taken.

        An empty outbox takes any one message, of any size. A sink that is not alive takes (and drops) everything:
        True.
        """

    def disconnect(self, code: int, reason: str) -> None:
        """Start the closing handshake behind the buffered messages. Abort when `send_timeout` passes first."""

    def on_writable(self, callback: Callable[[], None]) -> None:
        """Call `callback` once, when `buffered` has fallen to half of its value or less, or the sink died."""

    def on_close(self, callback: Callable[[], None]) -> None:
        """Call `callback` once, when the sink stops being alive (at once if it is not)."""

    def off_close(self, callback: Callable[[], None]) -> None:
        """Forget a callback given to `on_close`. Unknown ones are ignored."""


@runtime_checkable
class Carrier(Sink, Protocol):
    """The short way between our server and our `WebSocket`: a `Sink` that also reads and writes for its owner.

    A `WebSocket` takes it only when the `receive` and `send` it was given are the carrier's own bound methods:
    middleware that wraps either of them keeps seeing every message.
    """

    @property
    def close_code(self) -> int | None:
        """None while the connection is open. 1005: a Close without a code, 1006: no Close at all (RFC 6455 §7.1.5)."""

    @property
    def close_reason(self) -> str:
        """Of the Close frame. Empty where there was none."""

    @property
    def closed_by(self) -> ClosedBy | None:
        """The side that ended it. None while it is open."""

    at_stop: StopListener | None
    """Set by an app that wants to finish its answers before the Close of a stopping server."""

    def asgi_receive(self) -> Awaitable[Message]:
        """The ASGI `receive` callable of this connection."""

    def asgi_send(self, message: Message) -> Awaitable[None]:
        """The ASGI `send` callable of this connection."""

    def read(self) -> Awaitable[str | bytes | None]:
        """The next message's payload: str for text, bytes for binary. None once, when the connection has ended.

        Same queue as `asgi_receive`, past the connect message. Does not suspend when a message waits.
        Raises RuntimeError on two concurrent reads.
        """

    def write(self, payload: str | bytes) -> bool:
        """Queue one message for the owner. True: go on. False: await `drain()` before the next.

        Raises OSError when the connection is not alive.
        """

    def drain(self) -> Awaitable[None]:
        """Wait until the outbox has room. Raises OSError when the connection dies first (`send_timeout` included)."""


class SupportsSink(Protocol):
    """Anything the hub can deliver to. `antiphon.WebSocket` is one."""

    @property
    def sink(self) -> Sink:
        """Where messages for it go."""
