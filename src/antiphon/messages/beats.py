"""A channel's own heartbeat: a message at an announced interval, for clients whose browser shows them no pings.

The hub does the same for connections with events (`Hub(heartbeat=)`). Both together beat twice.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Final

from antiphon.connection import WebSocket
from antiphon.exceptions import RegistrationError
from antiphon.heartbeat import Hearts
from antiphon.tags import HEARTBEAT
from antiphon.types import PreparedMessage

from .options import ChannelOptions
from .outgoing import Outgoing
from .typecodec import Codec, codec_of


@dataclass(frozen=True)
class Heartbeat:
    """The link is alive."""

    interval: float
    """Seconds within which the next one comes, where nothing else does."""


class Beats:
    """The heartbeat of one channel."""

    __slots__ = ("_hearts", "_message")

    def __init__(self, interval: float, event: Outgoing) -> None:
        self._message: Final = PreparedMessage(event.frame(Heartbeat(interval)))
        self._hearts: Final = Hearts(interval, self._message)

    def begin(self, websocket: WebSocket) -> None:
        """Tell the interval, and keep to it until the connection ends. Never waits."""
        sink = websocket.sink
        sink.offer(self._message, websocket.options.outbox_bytes)
        self._hearts.add(sink)


@cache
def _codec() -> Codec:
    return codec_of(Heartbeat, HEARTBEAT)


def heartbeat_event(options: ChannelOptions, sends: Iterable[Outgoing], label: str) -> Outgoing | None:
    """The event of a channel that has one. Raises RegistrationError for a channel that sends another of its name."""
    if options.heartbeat is None:
        return None
    if any(HEARTBEAT in one.tags for one in sends):
        raise RegistrationError(
            f"{label} sends {HEARTBEAT!r} itself, as ChannelOptions(heartbeat={options.heartbeat:g}) does: give one of "
            "its own another name, or leave the option out"
        )
    return Outgoing(HEARTBEAT, (HEARTBEAT,), _codec(), options.wire, writes_tag=False)


def beats_of(options: ChannelOptions, event: Outgoing | None) -> Beats | None:
    """The heartbeat of a channel that has that event."""
    return None if event is None or options.heartbeat is None else Beats(options.heartbeat, event)
