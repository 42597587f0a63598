"""The options of a channel's wire and its limits, each default in one place with its reason."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, field

from antiphon.connection import OnInvalid
from antiphon.connection.denials import Denials
from antiphon.heartbeat import check_heartbeat


class OnError(enum.Enum):
    """The policy for an exception of a handler that has no answer for the client.

    For example:

        @app.channel("/strict", options=ChannelOptions(on_error=OnError.CLOSE))
        async def strict(websocket: WebSocket) -> None: ...
    """

    REPLY = "reply"
    """Error `internal`, one traceback in the log, and the next message."""
    CLOSE = "close"
    """Close 1011, as any endpoint. The app's exception handlers are asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wire:
    """The names of the keys that a channel's messages have in common. Raises ValueError for names that clash.

    For example:

        app = App(channel_options=ChannelOptions(wire=Wire(tag="event", content="data")))
    """

    tag: str = "type"
    """Says which message it is."""
    ref: str = "ref"
    """Says which request it belongs to. Not `id`: that is the commonest field of all."""
    content: str | None = None
    """None: the fields of a message stand beside its tag. A name: they stand in an object (or any value) of that name,
    as do the data of an answer and the fields of an error. For messages that are no objects, and fields that clash."""

    def __post_init__(self) -> None:
        names = [self.tag, self.ref, *([] if self.content is None else [self.content])]
        if not all(isinstance(name, str) and name and name.isprintable() for name in names):
            raise ValueError(f"a wire's names are printable strings, not {names}")
        if len(set(names)) < len(names) or (self.content is None and {"code", "message", "detail"} & set(names)):
            raise ValueError(f"a wire's names are different ones, and none of code, message, detail: {names}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelOptions:
    """The limits and policies of a channel. The channel's go before the router's, those before the app's.

        app = App(channel_options=ChannelOptions(timeout=10, wire=Wire(tag="kind")))

    Raises ValueError for a number that is out of its range.
    """

    wire: Wire = field(default_factory=Wire)
    """The names of the keys."""

    concurrent: int = 1
    """Requests of one connection that a handler may work on at a time. 1: in the order in which they came, in the
    connection's own task, which is the quickest too. A handler with more leaves that line: see `Channel.on`."""

    streams: int = 16
    """Streams of one connection at a time. One more is error `busy`. A page that shows more is hardly read, and each
    is a task."""

    timeout: float | None = None
    """Seconds for each request, its dependencies included, then error `timeout`. None: any time, because only the
    author knows how long is too long."""

    on_invalid: OnInvalid = OnInvalid.REPLY
    """The policy for a message that does not fit this channel: an error, nothing, or a Close. That is 1007 for bad
    JSON, 1003 for the wrong kind of frame, 1009 for a large one, 1008 for the rest."""

    invalid_limit: int | None = 20
    """Such messages in a minute. One more closes with 1008. A person's page makes a few mistakes a minute, a program
    that makes more is broken, and each costs a validation. None: any number."""

    on_error: OnError = OnError.REPLY
    """The policy for an unexpected exception: see `OnError`."""

    max_message_size: int | None = None
    """Bytes of a message. A longer one is error `too_big`, and not parsed. None: the limit of the server, whose own
    option of this name closes with 1009."""

    denials: Denials | None = None
    """How handshakes are refused. None: as the router or the app says, else `Denials.CLOSE`. The page at the other end
    is yours, and can act on the reason that it reads."""

    heartbeat: float | None = None
    """Seconds (1 to 3600) between two events `heartbeat`, the first of which tells the interval. A page, to which
    browsers show no pings, learns within two intervals that its link is dead. 15 is enough for most. None: no event,
    and a dead link looks open until the network says otherwise."""

    auth: bool | None = None
    """Whether the client renews its identity with the message `auth`. None: where a dependency admitted it with a
    `verify`. True says so in documents too, where no dependency shows it. False: `auth` is no message."""

    auth_expiring: float | None = 60.0
    """Seconds ahead of its end that an identity's client gets the event `auth_expiring`, and at most half of its life.
    A minute is enough for a page that has to ask its user. None: no event."""

    auth_timeout: float = 10.0
    """Seconds that verifying a token may take, then error `timeout`: nothing else of this client is read meanwhile."""

    def __post_init__(self) -> None:
        if self.denials is not None and not isinstance(self.denials, Denials):
            raise ValueError(f"denials is Denials.HTTP or Denials.CLOSE, not {self.denials!r}")
        for name, kind in (("on_invalid", OnInvalid), ("on_error", OnError)):
            if not isinstance(value := getattr(self, name), kind):
                known = " or ".join(map(str, kind))
                raise ValueError(f"{name} is {known}, not {value!r}")
        for name, least in (("concurrent", 1), ("streams", 0), ("invalid_limit", 0), ("max_message_size", 1)):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < least):
                raise ValueError(f"{name} is a number of {least} or more, not {value!r}")
        check_timeout(self.timeout)
        check_heartbeat(self.heartbeat)
        if not (self.auth is None or isinstance(self.auth, bool)):
            raise ValueError(f"auth is True, False or None, not {self.auth!r}")
        check_timeout(self.auth_expiring, "auth_expiring")
        if self.auth_timeout is None:
            raise ValueError("auth_timeout is a positive number of seconds, not None")
        check_timeout(self.auth_timeout, "auth_timeout")


def check_timeout(timeout: float | None, name: str = "timeout") -> None:
    """Raises ValueError unless it is None or a positive number of seconds."""
    if timeout is not None and (not isinstance(timeout, int | float) or not 0 < timeout < math.inf):
        raise ValueError(f"{name} is a positive number of seconds or None, not {timeout!r}")
