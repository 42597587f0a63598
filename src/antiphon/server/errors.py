"""The errors for an app that uses a connection that is over."""

from __future__ import annotations

from typing import Final, NoReturn

from starlette.websockets import WebSocketDisconnect


class ClientDisconnected(ConnectionError):
    """The connection is over: there is nobody to send to, and nothing more will be received.

    An OSError, as ASGI's WebSocket spec wants it of `send`.
    """


TOLD_OF_THE_END: Final = (ClientDisconnected, WebSocketDisconnect)
"""The exceptions that leave an app that does not handle its peer's end: Starlette and FastAPI turn the first into the
second."""


async def send_to_nobody(kind: str, *, by_app: bool) -> NoReturn:
    """ASGI's `send` behind the end of the connection. `by_app`: the app has ended it, or been told."""
    if by_app:
        raise RuntimeError(f"unexpected ASGI message {kind!r}: the app has ended the connection already")
    raise ClientDisconnected(f"the WebSocket is closed: {kind!r} cannot be sent")


def nothing_more() -> ClientDisconnected:
    """For a `receive` behind the one that told of the end."""
    return ClientDisconnected("the WebSocket is closed: nothing more will be received")
