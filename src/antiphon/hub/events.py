"""The events of a hub, as frozen facts for an `Observer`. Nothing is built while nobody observes."""

from __future__ import annotations

from dataclasses import dataclass

from antiphon.events import Event
from antiphon.types import Overflow

__all__ = [
    "BackendCalled",
    "BackendLost",
    "BackendRestored",
    "Delivered",
    "Dropped",
    "OutboxHighWater",
    "Published",
    "ReceiverTooSlow",
    "Recovery",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Published(Event):
    """The backend accepted a message."""

    topic: str
    """The name it was published to or joined under."""
    size: int
    """Bytes of data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered(Event):
    """A message was handed to the local receivers of one event loop."""

    topic: str
    """The name it was published to or joined under."""
    receivers: int
    """Those that took it or hold it in their outbox."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped(Event):
    """A slow receiver lost messages."""

    topic: str
    """The name it was published to or joined under."""
    policy: Overflow
    """The topic's, by which they were lost."""
    count: int
    """Messages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiverTooSlow(Event):
    """A slow receiver was disconnected (1013)."""

    topic: str
    """The name it was published to or joined under."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxHighWater(Event):
    """A receiver's outbox is fuller than any was before in this event loop."""

    topic: str
    """The name it was published to or joined under."""
    bytes: int
    """Held in that outbox now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery(Event):
    """Somebody came back with a position: a joiner, or this process after trouble."""

    topic: str
    """The name it was published to or joined under."""
    recovered: bool
    """Everything that was missed is there."""
    messages: int
    """Missed, and delivered now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendCalled(Event):
    """One request to the backend was answered or failed."""

    operation: str
    """Which of the backend's methods."""
    seconds: float
    """Until the answer."""
    failed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendLost(Event):
    """The connection to the backend broke.

    For example:

        from antiphon.events import Event
        from antiphon.hub.events import BackendLost

        def observe(event: Event) -> None:
            if isinstance(event, BackendLost):
                print("the backend is away")

        hub = Hub("redis://localhost", observer=observe)
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendRestored(Event):
    """The backend is back. Recovery starts."""
