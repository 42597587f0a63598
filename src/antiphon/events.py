"""What happened, as frozen facts: the seam between every part and metrics or logs.

An `Observer` is called in the loop's thread, must not block and must not raise.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from .types import ClosedBy

__all__ = [
    "AccessRefused",
    "ConnectionClosed",
    "ConnectionOpened",
    "ConnectionRefused",
    "Event",
    "KeepaliveTimeout",
    "Observer",
    "Observers",
    "ProtocolViolated",
    "Refusal",
    "SendTimeout",
]


class Refusal(enum.Enum):
    """Why the gate refused somebody. The values are labels of a metric: few, fixed, and nobody's name.

    For example:

        from antiphon.events import AccessRefused, Event, Refusal

        def observe(event: Event) -> None:
            if isinstance(event, AccessRefused) and event.reason is Refusal.RATE:
                print("too fast:", event.path)
    """

    ORIGIN = "origin"
    """A page of a site that may not connect."""
    TOKEN_MISSING = "token_missing"
    """No credentials where some are needed."""
    TOKEN_INVALID = "token_invalid"
    """Credentials that are no good: forged, malformed, of another audience, a ticket that was used."""
    TOKEN_EXPIRED = "token_expired"
    """Credentials that were good, at the door or over an open connection."""
    TOKEN_LATE = "token_late"
    """The first message, which should have brought the credentials, did not come in time."""
    SCOPE = "scope"
    """Good credentials that do not suffice."""
    OTHER_USER = "other_user"
    """A connection was to be renewed with somebody else's credentials."""
    REVOKED = "revoked"
    """The user, the session or all tokens of before were revoked."""
    QUOTA = "quota"
    """More connections than the user's share."""
    RATE = "rate"
    """More messages, bytes or handshakes than the rate."""
    UNAVAILABLE = "unavailable"
    """The server of keys, or the backend, is away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Base of all events.

    For example:

        from antiphon.events import ConnectionClosed, Event

        def observe(event: Event) -> None:
            if isinstance(event, ConnectionClosed):
                print(event.path, event.code, event.duration)

        config = ServerConfig(observers=(observe,))
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionOpened(Event):
    """A WebSocket handshake was accepted."""

    path: str
    """Of the request, without its query string."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionClosed(Event):
    """An accepted connection ended."""

    path: str
    """Of the request, without its query string."""
    code: int
    """1005: a Close frame without a code. 1006: no Close frame (RFC 6455 §7.1.5)."""
    closed_by: ClosedBy
    """The side that said Close first, if one did."""
    duration: float
    """Seconds from accept to end."""
    rtt: float | None = None
    """Seconds from the last answered ping to its pong. None where none was answered, or on another server."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionRefused(Event):
    """A connection was turned away before accept."""

    path: str
    """Of the request, without its query string."""
    status: int
    """Of the HTTP response."""
    reason: str
    """Why, in a few words, for a log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessRefused(Event):
    """The gate refused somebody: a handshake, a renewal, or a message too many.

    For a handshake that the server answers with HTTP there is a `ConnectionRefused` beside it.
    """

    path: str
    """Of the request, without its query string."""
    reason: Refusal
    """Why, in one of a few words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepaliveTimeout(Event):
    """A peer did not answer a ping in time. Its connection was aborted."""

    path: str
    """Of the request, without its query string."""
    waited: float
    """Seconds since the ping."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SendTimeout(Event):
    """A peer took none of the bytes sent to it for `send_timeout`. Its connection was aborted."""

    path: str
    """Of the request, without its query string."""
    buffered: int
    """Bytes that were dropped with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProtocolViolated(Event):
    """A peer broke the protocol or a limit, and was closed with `code`."""

    path: str
    """Of the request, without its query string."""
    code: int
    reason: str
    """The fault, in a few words."""


Observer: TypeAlias = Callable[[Event], None]


class Observers:
    """Several observers as one: each gets every event, in order, and only once where it is named twice.

    For example:

        from antiphon.events import Observers

        hub = Hub(observer=Observers(print, logging.info))
    """

    def __init__(self, *observers: Observer) -> None:
        self._each: tuple[Observer, ...] = tuple(dict.fromkeys(one for given in observers for one in each_of(given)))

    def __iter__(self) -> Iterator[Observer]:
        return iter(self._each)

    def __call__(self, event: Event) -> None:
        for observer in self._each:
            observer(event)


def each_of(observer: Observer) -> tuple[Observer, ...]:
    """The observers of which this one is made up."""
    return tuple(observer) if isinstance(observer, Observers) else (observer,)
