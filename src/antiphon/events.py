"""What happened, as frozen facts: the seam between every part and metrics or logs.

An `Observer` is called in the loop's thread, must not block and must not raise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from .types import ClosedBy


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Base of all events."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionOpened(Event):
    """A WebSocket handshake was accepted."""

    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionClosed(Event):
    """An accepted connection ended."""

    path: str
    code: int
    closed_by: ClosedBy
    duration: float
    """Seconds from accept to end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HandshakeRefused(Event):
    """A connection was turned away before accept."""

    path: str
    status: int
    reason: str


Observer: TypeAlias = Callable[[Event], None]
