"""Every limit of the server, with its reason. No behaviour.

Four of them are uvicorn's own settings there (`--ws-max-size`, `--ws-ping-interval`, `--ws-ping-timeout`,
`--ws-per-message-deflate`), which win.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from antiphon.events import Observer
from antiphon.wire import DeflateConfig

KIB = 1 << 10
MIB = 1 << 20

ENVIRONMENT_PREFIX = "ANTIPHON_WS_"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """The limits of the WebSocket connections of one server process.

        Protocol = WebSocketProtocol.with_config(ServerConfig(outbox_bytes=64 << 10, max_connections=10_000))

    Sizes in bytes, times in seconds. None: no limit.
    """

    max_message_size: int = 16 * MIB
    """A whole received message, inflated. Beyond it 1009. uvicorn's default, which FastAPI users know."""
    inbound_bytes: int = 128 * KIB
    """Received messages the app has not read yet. Then the socket is paused. Two reads of 64 KiB keep a pipe full, and
    ten thousand apps that read nothing cost about a gigabyte at most. Never less than one message gets through."""
    unfinished_bytes: int | None = 1024 * MIB
    """Unfinished messages of all connections of this process, those beyond 128 KiB. Then the largest of the address
    that holds most is given up, with 1013. Room for sixty of the largest, and not for a thousand clients that begin
    one and stop."""
    unread_bytes: int | None = 256 * MIB
    """Whole messages that apps have not read, of all connections of this process: the part of each beyond
    `inbound_bytes`, in memory (a text with one emoji takes four bytes for each character). Then the largest inbox of
    the address that holds most is given up, with 1013. Room for sixteen of the largest messages."""
    outbox_bytes: int = 256 * KIB
    """Sent and not yet taken by the kernel. Beyond that, `send` waits. About as much as a phone receives in a
    second."""
    send_timeout: float = 20.0
    """How long a sender waits, and how long the kernel may take nothing, before the connection is aborted: as long as a
    ping may stay unanswered by default."""
    handshake_timeout: float | None = 60.0
    """From the first byte of a request to the app's `accept`. Long, because the app may ask a database or a person's
    identity provider. Short enough for nobody to hold thousands of half-made connections."""
    handshake_size: int = 64 * KIB
    """Request line and headers. Beyond it: 431. Several times the limit of nginx and Node."""
    close_timeout: float = 5.0
    """How long we wait for the peer's Close, and for our last bytes to leave."""
    ping_interval: float | None = 20.0
    """Below the 30 to 60 seconds after which proxies and mobile networks drop silent connections. None: no pings."""
    ping_timeout: float | None = 20.0
    """How long a pong may take. None: unanswered pings are not held against the peer."""
    deflate: DeflateConfig | None = field(default_factory=DeflateConfig)
    """permessage-deflate. None refuses it. Forgets each message by default: no zlib state per connection."""
    max_frames_per_second: int | None = None
    """Frames of any kind from one connection, averaged over a second. Beyond it: 1008. Off: how much is too much
    depends on the application, and a busy connection cannot take more than its turn of the event loop."""
    max_bytes_per_second: int | None = None
    """The same for bytes on the wire."""
    max_connections: int | None = None
    """WebSockets of this process. Beyond it 503 with Retry-After. Memory is the bound: count on 8 to 14 KB each."""
    max_connections_per_address: int | None = None
    """WebSockets from one client address (as the socket sees it). Beyond it 429. Off: behind a proxy all share one."""
    retry_after: int = 5
    """Seconds in the Retry-After header of 503 and 429."""
    stop_window: float = 2.0
    """On a stop, each connection is closed with 1012 at a random moment of this window, so that its clients do not all
    come back at once."""
    stop_grace: float = 5.0
    """Then endpoints have this long to end before they are cancelled and their connections aborted."""
    observers: tuple[Observer, ...] = ()
    """Called with an event object for everything that is worth counting."""

    def __post_init__(self) -> None:
        for name, kinds in _NUMBERS.items():
            if not isinstance(getattr(self, name), (*kinds, int)):
                raise TypeError(f"{name} must be a number, not {getattr(self, name)!r}")
        if self.deflate is not None and not isinstance(self.deflate, DeflateConfig):
            raise TypeError(f"deflate must be a DeflateConfig, or None to refuse compression, not {self.deflate!r}")
        for name in ("max_message_size", "inbound_bytes", "outbox_bytes", "handshake_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least one byte, not {getattr(self, name)}")
        for name in ("send_timeout", "close_timeout"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be more than no time, not {getattr(self, name)}")
        for name in ("stop_window", "stop_grace", "retry_after"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, not {getattr(self, name)}")
        for name in (
            *("handshake_timeout", "ping_interval", "ping_timeout", "unfinished_bytes", "unread_bytes"),
            *("max_frames_per_second", "max_bytes_per_second", "max_connections", "max_connections_per_address"),
        ):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be positive or None, not {value}")

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> ServerConfig:
        """The defaults, changed by `ANTIPHON_WS_<FIELD>` variables: `ANTIPHON_WS_SEND_TIMEOUT=5`, `…=none` for None.

        Raises ValueError for a variable that names no such option, or holds no number.
        """
        options: dict[str, Any] = {}
        for variable, text in environ.items():
            if variable.startswith(ENVIRONMENT_PREFIX):
                name = variable.removeprefix(ENVIRONMENT_PREFIX).lower()
                try:
                    options[name] = _parsed(name, text)
                except KeyError:
                    raise ValueError(f"{variable} names no option; there are {', '.join(sorted(_NUMBERS))}") from None
                except ValueError:
                    raise ValueError(f"{variable} must be a number, not {text!r}") from None
        return cls(**options)


def _kinds(annotation: Any) -> tuple[type, ...]:
    return typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)


_NUMBERS: dict[str, tuple[type, ...]] = {
    name: _kinds(annotation)
    for name, annotation in typing.get_type_hints(ServerConfig).items()
    if {int, float} & set(_kinds(annotation))
}
"""The options that are numbers, and of which types; NoneType among them where None is no limit."""


def _parsed(name: str, text: str) -> Any:
    kinds = _NUMBERS[name]
    if types.NoneType in kinds and text.strip().lower() in ("none", ""):
        return None
    return kinds[0](text)
