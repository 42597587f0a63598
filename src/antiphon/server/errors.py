"""What the app meets when it uses a connection that is over."""

from __future__ import annotations


class ClientDisconnected(ConnectionError):
    """The connection is over: there is nobody to send to, and nothing more will be received.

    An OSError, as ASGI's WebSocket spec wants it of `send`.
    """
