"""The life of one connection as tables: which ASGI message is legal when, and how an end is named.

Knows nothing of servers, queues or tasks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from starlette.websockets import WebSocketState

from antiphon.types import ClosedBy, Message, Scope

__all__ = ["RECEIVES", "SENDS", "Closed", "WebSocketState", "unexpected"]

CONNECTING, CONNECTED, DISCONNECTED, RESPONSE = WebSocketState

RECEIVES: Final[Mapping[WebSocketState, Mapping[str, WebSocketState]]] = {
    CONNECTING: {"websocket.connect": CONNECTED},
    CONNECTED: {"websocket.receive": CONNECTED, "websocket.disconnect": DISCONNECTED},
    DISCONNECTED: {},
    RESPONSE: {},
}
"""The messages that may come from the server, by `client_state`, and the state that follows."""

SENDS: Final[Mapping[WebSocketState, Mapping[str, WebSocketState]]] = {
    CONNECTING: {
        "websocket.accept": CONNECTED,
        "websocket.close": DISCONNECTED,
        "websocket.http.response.start": RESPONSE,
    },
    CONNECTED: {"websocket.send": CONNECTED, "websocket.close": DISCONNECTED},
    DISCONNECTED: {},
    RESPONSE: {"websocket.http.response.body": DISCONNECTED},
}
"""The messages that the application may send, by `application_state`, and the state that follows.

A body part with `more_body` stays in RESPONSE.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """How a connection ended.

    `code` is 1006 when it was lost, 1005 when a Close frame carried no code (RFC 6455 §7.1.5). `reason` is the Close
    frame's, or empty. `by` says who sent that frame first.

        closed = await websocket.wait_closed()
        print(closed.code, closed.reason, closed.by)
    """

    code: int
    reason: str
    by: ClosedBy


LOST: Final = Closed(code=1006, reason="", by=ClosedBy.NOBODY)
DENIED: Final = Closed(code=1006, reason="", by=ClosedBy.US)
"""The handshake was answered with an HTTP response: there never was a Close frame."""


MISTAKES: Final[Mapping[tuple[WebSocketState, str], str]] = {
    (CONNECTED, "websocket.accept"): "accept() was called on a connection that is accepted already; leave one out",
    (CONNECTED, "websocket.http.response.start"): (
        "send_denial_response() was called on a connection that is accepted already; close(code, reason) ends it"
    ),
    (RESPONSE, "websocket.accept"): "accept() was called on a connection that is being refused with a response",
}
"""Misuses of `WebSocket`'s methods, by `application_state` and message. Errors about raw messages name the message."""


def check_method(state: WebSocketState, message_type: str) -> None:
    """Raise RuntimeError for a method that makes no sense in this state, in words about the method."""
    if state is CONNECTING:
        return  # all methods can be meant
    mistake = MISTAKES.get((state, message_type))
    if mistake is not None:
        raise RuntimeError(f"{mistake} ({unexpected(SENDS[state], message_type)})")


def unexpected(expected: Iterable[str], message_type: object) -> str:
    """The text of the error for a message that the tables do not allow."""
    *others, last = (f'"{name}"' for name in expected)
    names = f"{', '.join(others)} or {last}" if others else last
    return f"Expected ASGI message {names}, but got {message_type!r}"


def spec_version(scope: Scope) -> tuple[int, ...]:
    """The version of the ASGI WebSocket spec that the server speaks; (0,) where no server says."""
    version = (scope.get("asgi") or {}).get("spec_version", "0")
    return tuple(int(part) for part in str(version).split(".") if part.isdigit())


def normalised(message: Message, *, tells_reason: bool) -> Message:
    """The server's receive or disconnect message without its dialect.

    A receive message keeps only the key of the frame that came. A disconnect message with 1005 and no `reason`, from a
    server that knows reasons (`tells_reason`, ASGI 2.3), means that no Close frame came: 1006.
    """
    if message["type"] == "websocket.receive":
        if "text" in message and "bytes" in message:
            empty = "text" if message["text"] is None else "bytes"
            return {key: value for key, value in message.items() if key != empty}
    elif tells_reason and message.get("code") == 1005 and "reason" not in message:
        return {**message, "code": 1006}
    return message


def closed_by_message(message: Message) -> Closed:
    """The end of the connection and its cause, as far as a disconnect message shows."""
    code = message.get("code") or 1005
    if code == 1006:
        by = ClosedBy.NOBODY
    elif code == 1012 and "reason" not in message:
        by = ClosedBy.US  # uvicorn's message to the application at its shutdown
    else:
        by = ClosedBy.PEER
    return Closed(code=int(code), reason=message.get("reason") or "", by=by)
