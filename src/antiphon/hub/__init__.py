"""Topics across connections, processes and machines: publish, join, history, recovery, presence. See docs/hub.md."""

from typing import TYPE_CHECKING

from antiphon.lazily import lazily
from antiphon.types import Overflow

from .backend_access import OnOutage
from .errors import (
    AlreadyJoined,
    BackendUnavailable,
    HubError,
    HubNotRunning,
    InvalidTopic,
    Revoked,
    SlowSubscriber,
    UndeclaredTopic,
    UnencodableData,
    UnknownBackend,
    UnsupportedBackend,
)
from .hub import Hub, HubStats
from .membership import Membership, Subscription
from .message import History, Message, MessageKind
from .records import Position
from .topics import Framing, TopicOptions
from .typed import Topic, Topics

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
    "Membership",
    "Message",
    "MessageKind",
    "OnOutage",
    "Overflow",
    "Position",
    "Revoked",
    "SlowSubscriber",
    "Subscription",
    "Topic",
    "TopicOptions",
    "Topics",
    "UndeclaredTopic",
    "UnencodableData",
    "UnknownBackend",
    "UnsupportedBackend",
]

if not TYPE_CHECKING:  # for the advice of `antiphon.misspelt`
    __getattr__, __dir__ = lazily(__name__, {})
