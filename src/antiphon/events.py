"""What happened, as frozen facts: the seam between every part and metrics or logs.

An `Observer` is called in the loop's thread, must not block and must not raise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from .types import ClosedBy

__all__ = [
    "ConnectionClosed",
    "ConnectionOpened",
    "ConnectionRefused",
    "Event",
    "KeepaliveTimeout",
    "Observer",
    "ProtocolViolated",
    "SendTimeout",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Base of all events."""


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
    """1005: a Close frame without a code; 1006: no Close frame (RFC 6455 §7.1.5)."""
    closed_by: ClosedBy
    """Who said Close first, if anybody did."""
    duration: float
    """Seconds from accept to end."""
    rtt: float | None = None
    """Seconds from the last answered ping to its pong; None where none was answered, or on another server."""


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
class KeepaliveTimeout(Event):
    """A peer did not answer a ping in time; its connection was aborted."""

    path: str
    """Of the request, without its query string."""
    waited: float
    """Seconds since the ping."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SendTimeout(Event):
    """A peer took nothing of what was sent to it for `send_timeout`; its connection was aborted."""

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
    """What was wrong, in a few words."""


Observer: TypeAlias = Callable[[Event], None]
