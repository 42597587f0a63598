"""Topics across connections, processes and machines: publish, join, history, recovery, presence. See docs/hub.md."""

from antiphon.types import Overflow

from .errors import (
    AlreadyJoined,
    BackendUnavailable,
    HubError,
    HubNotRunning,
    InvalidTopic,
    SlowSubscriber,
    UnencodableData,
    UnknownBackend,
)
from .hub import Hub, HubStats
from .link import Trouble
from .membership import Membership, Subscription
from .message import History, Kind, Message
from .records import Position
from .topics import Framing, TopicOptions

__all__ = [
    "AlreadyJoined",
    "BackendUnavailable",
    "Framing",
    "History",
    "Hub",
    "HubError",
    "HubNotRunning",
    "HubStats",
    "InvalidTopic",
    "Kind",
    "Membership",
    "Message",
    "Overflow",
    "Position",
    "SlowSubscriber",
    "Subscription",
    "TopicOptions",
    "Trouble",
    "UnencodableData",
    "UnknownBackend",
]
