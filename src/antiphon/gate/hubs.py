"""The hub of the app that a connection belongs to, and its part in letting somebody in."""

from __future__ import annotations

from typing import Any

from starlette.requests import HTTPConnection
from starlette.websockets import WebSocket as StarletteWebSocket
from starlette.websockets import WebSocketState

from antiphon.connection import RawWebSocket
from antiphon.connection.ways import carrier_of
from antiphon.dependencies.foreign import resources_in
from antiphon.events import Refusal
from antiphon.hub import BackendUnavailable, Hub, Revoked
from antiphon.identity import Identity
from antiphon.types import APP_KEY, Carrier, Scope, Sink

from .challenge import InvalidToken, refusal
from .refusals import note_refusal


def hub_of(scope: Scope) -> Hub | None:
    """The hub of our app, or in another framework's app its `app.state.hub`. None where there is none."""
    app: Any = scope.get(APP_KEY)
    resources = app.resources if app is not None else resources_in(getattr(scope.get("app"), "state", None))
    hub = resources.get(Hub)
    return hub if isinstance(hub, Hub) else None


class _Theirs:
    """A `WebSocket` of Starlette's or FastAPI's on our server, whose own end of the connection the hub takes."""

    __slots__ = ("_websocket", "sink")

    def __init__(self, websocket: StarletteWebSocket, carrier: Carrier) -> None:
        self._websocket = websocket
        self.sink: Sink = carrier

    @property
    def application_state(self) -> WebSocketState:
        return self._websocket.application_state

    @property
    def scope(self) -> Scope:
        return self._websocket.scope


def with_sink(connection: HTTPConnection) -> HTTPConnection | _Theirs:
    """An object that the hub can send to and close: ours, and on our server any. Elsewhere the connection as it is."""
    if isinstance(connection, RawWebSocket) or not isinstance(connection, StarletteWebSocket):
        return connection
    carrier = carrier_of(connection.scope)
    return connection if carrier is None else _Theirs(connection, carrier)


async def register(connection: HTTPConnection, identity: Identity) -> None:
    """The hub knows the connection by its user from now on.

    Raises `InvalidToken` for an identity that was revoked, on an open connection WebSocketException 3000; and
    `BackendUnavailable` where nobody can know that, which is 503 or Close 1013.
    """
    hub = hub_of(connection.scope)
    if hub is None:
        return
    try:
        await hub.admit(with_sink(connection), identity)
    except Revoked as error:
        note_refusal(connection.scope, Refusal.REVOKED)
        revoked = InvalidToken(str(error), detail="revoked", reason=Refusal.REVOKED)
        revoked.is_counted = True
        raise refusal(connection, revoked) if _is_accepted(connection) else revoked from None
    except BackendUnavailable:
        note_refusal(connection.scope, Refusal.UNAVAILABLE)
        raise


def _is_accepted(connection: HTTPConnection) -> bool:
    state = getattr(connection, "application_state", None)
    return connection.scope["type"] == "websocket" and state is not WebSocketState.CONNECTING
