"""The limits of one connection, each in one place with its reason."""

from __future__ import annotations

from dataclasses import dataclass

from antiphon.types import Overflow


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionOptions:
    """Limits of a `WebSocket`: the bytes that it keeps for its peer, and the seconds that it waits for it.

    `App(connection_options=...)` sets them. Without an `App`, `scope["antiphon.connection_options"]` does, and a
    subclass of `WebSocket` with its attribute `options`. On antiphon's own server `ServerConfig` decides about
    `send_timeout`.

        app = App(connection_options=ConnectionOptions(send_timeout=5, overflow=Overflow.DROP_NEWEST))
    """

    send_timeout: float = 20.0
    """Seconds a send may wait for a peer that does not read. As long as the keepalive of common servers gives a peer
    to answer a ping: a peer that has read nothing for longer is gone or as good as gone."""

    outbox_bytes: int = 1 << 20
    """Bytes that foreign senders may have waiting. Some seconds of a busy chat, and still only a gigabyte for a
    thousand stalled peers."""

    inbox_bytes: int = 64 << 10
    """Bytes read ahead to notice a disconnect while the application does not receive. Beyond them the peer's data
    waits in the server and in TCP, as without reading ahead."""

    json_values: int | None = 100_000
    """Values (counted by their brackets and commas) of one message that `receive_json` decodes. More is `TooMuchJSON`,
    Close 1009. Decoding holds up everybody, for some 5 ms with so many. 16 MiB can be five million and take seconds.
    None: any number."""

    overflow: Overflow = Overflow.DISCONNECT
    """The policy of a full outbox for a foreign sender's message: DISCONNECT (Close 1013) or DROP_NEWEST (counted in
    `WebSocket.dropped`). The other policies need to know messages apart: they belong to the hub's topics."""

    def __post_init__(self) -> None:
        if self.overflow not in (Overflow.DISCONNECT, Overflow.DROP_NEWEST):
            named = getattr(self.overflow, "name", repr(self.overflow))
            raise ValueError(f"a connection's overflow is Overflow.DISCONNECT or Overflow.DROP_NEWEST, not {named}")
        for name in ("outbox_bytes", "inbox_bytes"):
            if not _is_positive(value := getattr(self, name)):
                raise ValueError(f"{name} is a positive number of bytes, not {value!r}")
        if self.json_values is not None and not _is_positive(self.json_values):
            raise ValueError(f"json_values is a positive number or None, not {self.json_values!r}")
        if not _is_positive(self.send_timeout):
            raise ValueError(f"send_timeout is a positive number of seconds, not {self.send_timeout!r}")


def _is_positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0
